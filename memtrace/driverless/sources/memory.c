/* The memory of the devices: addresses and capacity. What lies in it is in data.c.
 *
 * Device addresses lie in one range of this process that is set aside and cannot be touched, as those of a real device.
 * Its pages have 2 MiB, as those of the driver; physical memory does not fragment, addresses are plenty.
 */
#define _GNU_SOURCE
#include "driverless.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE (2 * MIB)
#define ZONE ((uint64_t)1 << 40) /* addresses of one device, for cudaMalloc */
#define RESERVED ((uint64_t)1 << 45) /* addresses for virtual memory, of all devices */
#define WHOLE (MOST_DEVICES * ZONE + RESERVED)
#define PREFERRED ((void *)0x100000000000) /* the same addresses in every run, where they are free */

struct range {
    uint64_t start, bytes;
    int device;
};

struct ranges {
    struct range *items;
    size_t count, room;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t base;
static uint64_t used[MOST_DEVICES];
static struct ranges allocations[MOST_DEVICES], reservations, mappings, pinned;

static void set_aside(void) {
    void *found = mmap(PREFERRED, WHOLE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) {
        fprintf(stderr, "memtrace: no address space for the memory of a device: is there a `ulimit -v`?\n");
        abort();
    }
    base = (uint64_t)found;
}

static uint64_t start(void) {
    pthread_once(&once, set_aside);
    return base;
}

/* ---- Sorted ranges ---- */

/* The first range that starts after an address. */
static size_t after(const struct ranges *all, uint64_t address) {
    size_t low = 0, high = all->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (all->items[middle].start <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

static struct range *holding(const struct ranges *all, uint64_t address) {
    size_t next = after(all, address);
    if (!next) return NULL;
    struct range *one = &all->items[next - 1];
    return address < one->start + one->bytes ? one : NULL;
}

static void insert(struct ranges *all, struct range one) {
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 256;
        all->items = realloc(all->items, all->room * sizeof one);
        if (!all->items) abort();
    }
    size_t at = after(all, one.start);
    memmove(all->items + at + 1, all->items + at, (all->count - at) * sizeof one);
    all->items[at] = one;
    all->count++;
}

static int take_out(struct ranges *all, uint64_t address, struct range *one) {
    struct range *found = holding(all, address);
    if (!found || found->start != address) return 0;
    *one = *found;
    size_t at = (size_t)(found - all->items);
    all->count--;
    memmove(found, found + 1, (all->count - at) * sizeof *found);
    return 1;
}

/* The lowest gap of a size between `low` and `high`; 0 if there is none. */
static uint64_t gap(const struct ranges *all, uint64_t low, uint64_t high, uint64_t bytes, uint64_t alignment) {
    uint64_t at = low;
    for (size_t one = 0; one < all->count; one++) {
        if (at + bytes <= all->items[one].start) return at;
        at = all->items[one].start + all->items[one].bytes;
        at = (at + alignment - 1) / alignment * alignment;
    }
    return at + bytes <= high ? at : 0;
}

/* ---- Capacity ---- */

static uint64_t taken(int device) {
    return used[device] + (dl_is_active(device) ? dl_gpu()->context : 0);
}

int dl_take(int device, uint64_t bytes) {
    dl_activate(device);
    pthread_mutex_lock(&lock);
    int fits = bytes <= dl_gpu()->memory && taken(device) + bytes <= dl_gpu()->memory;
    if (fits) used[device] += bytes;
    pthread_mutex_unlock(&lock);
    return fits ? OK : OUT_OF_MEMORY;
}

void dl_give(int device, uint64_t bytes) {
    pthread_mutex_lock(&lock);
    used[device] -= bytes;
    pthread_mutex_unlock(&lock);
}

uint64_t dl_used(int device) {
    return taken(device);
}

void dl_device_memory(int device, uint64_t *free_bytes, uint64_t *total_bytes) {
    uint64_t now = taken(device);
    *total_bytes = dl_gpu()->memory;
    *free_bytes = now < *total_bytes ? *total_bytes - now : 0;
}

/* ---- Allocations and addresses ---- */

int dl_allocate(int device, uint64_t bytes, uint64_t *address) {
    uint64_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    if (rounded < bytes) return OUT_OF_MEMORY;
    int error = dl_take(device, rounded);
    if (error) return error;
    uint64_t low = start() + (uint64_t)device * ZONE;
    pthread_mutex_lock(&lock);
    uint64_t found = gap(&allocations[device], low, low + ZONE, rounded, PAGE);
    if (found) insert(&allocations[device], (struct range){found, rounded, device});
    pthread_mutex_unlock(&lock);
    if (!found) {
        dl_give(device, rounded);
        return OUT_OF_MEMORY;
    }
    *address = found;
    return OK;
}

int dl_release(uint64_t address, int *device) {
    uint64_t at = address - start();
    if (at >= MOST_DEVICES * ZONE) return INVALID_VALUE;
    struct range one;
    *device = (int)(at / ZONE);
    pthread_mutex_lock(&lock);
    int found = take_out(&allocations[*device], address, &one);
    pthread_mutex_unlock(&lock);
    if (!found) return INVALID_VALUE;
    dl_forget(one.start, one.bytes);
    dl_give(*device, one.bytes);
    return OK;
}

int dl_is_device(const void *pointer) {
    return (uint64_t)pointer - start() < WHOLE;
}

int dl_find(uint64_t address, int *device, uint64_t *first, uint64_t *bytes) {
    uint64_t at = address - start();
    if (at >= WHOLE) return INVALID_VALUE;
    struct ranges *all = at < MOST_DEVICES * ZONE ? &allocations[at / ZONE] : &mappings;
    pthread_mutex_lock(&lock);
    struct range *one = holding(all, address);
    if (one) {
        *device = one->device;
        *first = one->start;
        *bytes = one->bytes;
    }
    pthread_mutex_unlock(&lock);
    return one ? OK : INVALID_VALUE;
}

int dl_reserve(uint64_t bytes, uint64_t alignment, uint64_t *address) {
    uint64_t low = start() + MOST_DEVICES * ZONE, step = alignment > PAGE ? alignment : PAGE;
    uint64_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    low = (low + step - 1) / step * step;
    pthread_mutex_lock(&lock);
    uint64_t found = gap(&reservations, low, start() + WHOLE, rounded, step);
    if (found) insert(&reservations, (struct range){found, rounded, -1});
    pthread_mutex_unlock(&lock);
    *address = found;
    return found ? OK : OUT_OF_MEMORY;
}

int dl_unreserve(uint64_t address) {
    struct range one;
    pthread_mutex_lock(&lock);
    int found = take_out(&reservations, address, &one);
    pthread_mutex_unlock(&lock);
    if (!found) return INVALID_VALUE;
    dl_forget(one.start, one.bytes);
    return OK;
}

/* Notes which device is mapped at a range of reserved addresses; -1 notes that none is any more. */
void dl_mapped_device(uint64_t address, uint64_t bytes, int device) {
    struct range one;
    pthread_mutex_lock(&lock);
    if (device < 0) take_out(&mappings, address, &one);
    else insert(&mappings, (struct range){address, bytes, device});
    pthread_mutex_unlock(&lock);
    if (device < 0) dl_forget(address, bytes);
}

/* ---- Pinned memory of the host: plain memory, and a list of it ---- */

int dl_host_allocate(void **pointer, uint64_t bytes) {
    void *found = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return OUT_OF_MEMORY;
    *pointer = found;
    return dl_host_register(found, bytes ? bytes : 1);
}

int dl_host_register(void *pointer, uint64_t bytes) {
    pthread_mutex_lock(&lock);
    insert(&pinned, (struct range){(uint64_t)pointer, bytes, -1});
    pthread_mutex_unlock(&lock);
    return OK;
}

int dl_host_forget(void *pointer, int was_allocated) {
    struct range one;
    pthread_mutex_lock(&lock);
    int found = take_out(&pinned, (uint64_t)pointer, &one);
    pthread_mutex_unlock(&lock);
    if (!found) return INVALID_VALUE;
    if (was_allocated) munmap(pointer, one.bytes);
    return OK;
}

int dl_is_pinned(const void *pointer) {
    pthread_mutex_lock(&lock);
    int found = holding(&pinned, (uint64_t)pointer) != NULL;
    pthread_mutex_unlock(&lock);
    return found;
}
