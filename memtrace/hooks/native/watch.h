/* What the files of this folder share: torch's CPU allocator watched from inside its process.
 *
 * A function here is called by torch's allocator, on any thread and with no lock of Python's held, or by memtrace
 * through ctypes with Python's lock (the GIL) held. Nothing here asks for the GIL, and `lock` is held around nothing
 * that might: so neither can wait for the other. */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Find a function that Python exports, by the name of its place in a table; whether it is there. */
#define FIND(table, name) ((table.name = (__typeof__(table.name))dlsym(RTLD_DEFAULT, #name)) != NULL)

/* watch.c */
extern pthread_mutex_t lock;

/* blocks.c: how large each living block is. Under the lock. */
int64_t block_put(uintptr_t address, int64_t size); /* the size that was there; 0: none, or no room for this one */
int64_t block_take(uintptr_t address);              /* the size that was there; 0: none */
void blocks_forget(void);
size_t blocks_num(void);
void blocks_list(int64_t *addresses, int64_t *sizes); /* all of them, in no order */

/* frames.c: the frames of Python that the calling thread runs. */
struct frame {
    const void *self, *code;
    uintptr_t check; /* tells the code from another that may come to lie there */
    int32_t at;      /* the instruction that it executes, as an offset in bytes */
};
const void *current_frame(void);
size_t frames_now(struct frame *frames, size_t most); /* innermost first */

/* A text as Python holds it, copied: bytes and how many a character has. */
struct text {
    const void *characters;
    int32_t num_bytes, width;
};
struct code {
    struct text file, name;
};
/* Of a code that runs, so that it stays meanwhile. */
void code_described(const void *code, struct code *result);
int32_t line_of(const void *code, int32_t at);

/* stacks.c: where the calling thread is, as the number of a stack; 0 is no stack. Under the lock. */
int32_t stack_now(void);

/* A node of autograd's graph, a C++ object, begins to be evaluated. What is returned tells its end. */
int evaluation_began(const void *graph_node);
void evaluation_ended(const int *began);
