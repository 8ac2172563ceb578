/* What lies in the memory of a device: zeros, and what was copied there, until a kernel may have overwritten it.
 *
 * No kernel runs, so what one would have written is not known and reads as zeros. A copy from the host is kept, within a
 * budget, and read back exactly, as long as no kernel and no library call has been handed an address in it: torch gives
 * the place of a freed tensor to the next, and old bytes must not be taken for a result. Only a read that lies wholly in
 * one copy finds it.
 */
#define _GNU_SOURCE
#include "driverless.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kept {
    uint64_t start, bytes;
    unsigned char *data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept *all;
static size_t count, room;
static uint64_t total;

/* The first copy that ends after an address. */
static size_t find(uint64_t address) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (all[middle].start + all[middle].bytes <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

static struct kept *around(uint64_t address, uint64_t bytes) {
    size_t at = find(address);
    if (at == count || all[at].start > address || address + bytes > all[at].start + all[at].bytes) return NULL;
    return &all[at];
}

static void forget(uint64_t address, uint64_t bytes) {
    size_t first = find(address), last = first;
    for (; last < count && all[last].start < address + bytes; last++) {
        total -= all[last].bytes;
        free(all[last].data);
    }
    memmove(all + first, all + last, (count - last) * sizeof *all);
    count -= last - first;
}

/* Room for a copy at an address: part of one that is there, or a new one; none if the budget is spent. */
static unsigned char *place(uint64_t address, uint64_t bytes) {
    const struct gpu *gpu = dl_gpu();
    struct kept *there = around(address, bytes);
    if (there) return there->data + (address - there->start);
    forget(address, bytes);
    if (bytes > gpu->keep_copy || total + bytes > gpu->keep_all) return NULL;
    if (count == room) {
        room = room ? 2 * room : 256;
        all = realloc(all, room * sizeof *all);
        if (!all) abort();
    }
    size_t at = find(address);
    unsigned char *data = calloc(1, bytes);
    if (!data) abort();
    memmove(all + at + 1, all + at, (count - at) * sizeof *all);
    all[at] = (struct kept){address, bytes, data};
    count++;
    total += bytes;
    return data;
}

void dl_forget(uint64_t address, uint64_t bytes) {
    if (!count) return;
    pthread_mutex_lock(&lock);
    forget(address, bytes);
    pthread_mutex_unlock(&lock);
}

static void to_host(unsigned char *to, uint64_t from, uint64_t bytes) {
    struct kept *there = around(from, bytes);
    if (there) memcpy(to, there->data + (from - there->start), bytes);
    else memset(to, 0, bytes);
}

/* Returns whether the bytes are kept. */
static int to_device(uint64_t to, const unsigned char *from, uint64_t bytes) {
    unsigned char *data = place(to, bytes);
    if (data) memcpy(data, from, bytes);
    return data != NULL;
}

static int on_device(uint64_t to, uint64_t from, uint64_t bytes) {
    struct kept *there = around(from, bytes);
    if (!there) {
        forget(to, bytes);
        return 1;
    }
    unsigned char *copy = malloc(bytes); /* making room may move or end what is read */
    if (!copy) abort();
    memcpy(copy, there->data + (from - there->start), bytes);
    int is_kept = to_device(to, copy, bytes);
    free(copy);
    return is_kept;
}

void dl_copy(void *to, const void *from, uint64_t bytes) {
    if (!bytes || to == from) return;
    int is_to = dl_is_device(to), is_from = dl_is_device(from), is_kept = 1;
    if (!is_to && !is_from) {
        memmove(to, from, bytes);
        return;
    }
    pthread_mutex_lock(&lock);
    if (!is_to) to_host(to, (uint64_t)from, bytes);
    else if (!is_from) is_kept = to_device((uint64_t)to, from, bytes);
    else is_kept = on_device((uint64_t)to, (uint64_t)from, bytes);
    pthread_mutex_unlock(&lock);
    if (!is_kept) dl_count("bytes copied to a device and not kept", bytes);
}

void dl_set(void *to, int value, uint64_t bytes) {
    if (!bytes) return;
    if (!dl_is_device(to)) {
        memset(to, value, bytes);
        return;
    }
    pthread_mutex_lock(&lock);
    /* Zeros need no room, except in the midst of a copy. */
    unsigned char *data = value || around((uint64_t)to, bytes) ? place((uint64_t)to, bytes) : NULL;
    if (data) memset(data, value, bytes);
    else forget((uint64_t)to, bytes);
    pthread_mutex_unlock(&lock);
    if (value && !data) dl_count("bytes set on a device and not kept", bytes);
}

int dl_known(void *to, uint64_t from, uint64_t bytes) {
    pthread_mutex_lock(&lock);
    struct kept *there = around(from, bytes);
    if (there) memcpy(to, there->data + (from - there->start), bytes);
    pthread_mutex_unlock(&lock);
    return there != NULL;
}

/* ---- What kernels are handed ---- */

void dl_handed(uint64_t address) {
    if (count && dl_is_device((void *)address)) dl_forget(address, 1);
}

/* Where arguments of a launch can lie: on the stack of the thread that launches, near the call. */
#define NEAR 16384
/* What the last argument may take: its size is not told. At most, a copy is forgotten that the kernel would have read. */
#define LAST 4096

static uintptr_t stack_end(void) {
    static __thread uintptr_t end;
    if (end) return end;
    pthread_attr_t attributes;
    void *low;
    size_t bytes;
    if (pthread_getattr_np(pthread_self(), &attributes)) return 0;
    pthread_attr_getstack(&attributes, &low, &bytes);
    pthread_attr_destroy(&attributes);
    return end = (uintptr_t)low + bytes;
}

/* How many arguments there are is not told either: as long as their addresses lie near. */
void dl_handed_arguments(void **arguments) {
    if (!count || !arguments) return;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), end = stack_end(), first = here + NEAR, last = 0;
    if (!end) return;
    for (; (uintptr_t)(arguments + 1) <= end || (uintptr_t)arguments < here; arguments++) {
        uintptr_t one = (uintptr_t)*arguments;
        if (one < here || one >= here + NEAR || one >= end) break;
        if (one < first) first = one;
        if (one > last) last = one;
    }
    if (!last) return;
    if (last + LAST < end) end = last + LAST;
    for (uintptr_t at = first & ~(uintptr_t)7; at + 8 <= end && count; at += 8) dl_handed(*(uint64_t *)at);
}
