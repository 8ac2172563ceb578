/* What the files of this folder share: torch's CPU allocator watched from inside its process.
 *
 * A function here is called by torch's allocator, on any thread and with no lock of Python's held, or by memtrace
 * through ctypes with Python's lock (the GIL) held. Nothing here asks for the GIL, and `lock` is held around nothing
 * that might: so neither can wait for the other. */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* watch.c */
extern pthread_mutex_t lock;

/* blocks.c: how large each living block is. Under the lock. */
int64_t block_put(uintptr_t address, int64_t size); /* the size that was there; 0: none, or no room for this one */
int64_t block_take(uintptr_t address);              /* the size that was there; 0: none */
void blocks_forget(void);

/* stacks.c: stacks as numbers. Under the lock. */
enum kind { CODE, BUILT_IN, GRAPH_NODE, PLACE };
enum { NO_STACK = 0, LOST = -1 }; /* of what nothing is called by; of what there was no room for */
int32_t stack_child(int32_t parent, int32_t at, const void *what, enum kind kind, int *is_new);

/* calls.c: where the calling thread is, as the number of a stack; 0 is no stack. Under the lock. */
int32_t stack_now(void);
void calls_in_child(void);
/* It begins to evaluate a node of autograd's graph, a C++ object. What is returned tells its end. */
int evaluation_began(const void *graph_node);
void evaluation_ended(const int *began);

/* built_ins.c */
const char *built_in_name(void *callable); /* NULL: it has none, or there are too many */
