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

/* stacks.c: where the calling thread is, as the number of a stack; 0 is no stack. Under the lock. */
int32_t stack_now(void);
void stacks_in_child(void);

/* A node of autograd's graph while it is evaluated; it lies on the stack of the thread that does. */
struct evaluation {
    const char *name; /* its class; NULL: none is told of */
    const struct evaluation *outer;
};
void evaluation_began(struct evaluation *evaluation, const void *graph_node);
void evaluation_ended(const struct evaluation *evaluation);
