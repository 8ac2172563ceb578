/* Sizes of living blocks by address: a table of open addressing, with the holes closed at each removal. */
#include "watch.h"

#include <stdlib.h>

struct block {
    uintptr_t address; /* 0: nothing is here */
    int64_t size;
};

static struct block *table;
static size_t num_slots, num_blocks;

static size_t home(uintptr_t address) {
    /* Blocks lie at multiples of 64 bytes: the low bits say nothing. Fibonacci hashing spreads the others. */
    return (size_t)(((uint64_t)address >> 6) * 11400714819323198485ull >> 20) & (num_slots - 1);
}

static size_t find(uintptr_t address) {
    size_t at = home(address);
    while (table[at].address != 0 && table[at].address != address) at = (at + 1) & (num_slots - 1);
    return at;
}

static int grow(void) {
    struct block *old = table;
    size_t old_slots = num_slots;
    size_t slots = old_slots ? 2 * old_slots : 1 << 12;
    struct block *larger = calloc(slots, sizeof *larger);
    if (larger == NULL) return 0;
    table = larger, num_slots = slots;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i].address != 0) table[find(old[i].address)] = old[i];
    free(old);
    return 1;
}

int64_t block_put(uintptr_t address, int64_t size) {
    if (2 * num_blocks >= num_slots && !grow() && num_blocks + 1 >= num_slots) return 0;
    size_t at = find(address);
    int64_t before = table[at].address ? table[at].size : 0;
    if (table[at].address == 0) num_blocks++;
    table[at] = (struct block){address, size};
    return before;
}

int64_t block_take(uintptr_t address) {
    if (num_blocks == 0) return 0;
    size_t at = find(address);
    if (table[at].address == 0) return 0;
    int64_t size = table[at].size;
    /* Whoever was pushed past this slot moves back, or a search for it would end at the hole. */
    for (size_t next = (at + 1) & (num_slots - 1); table[next].address; next = (next + 1) & (num_slots - 1)) {
        size_t distance = (next - home(table[next].address)) & (num_slots - 1);
        if (distance >= ((next - at) & (num_slots - 1))) table[at] = table[next], at = next;
    }
    table[at].address = 0;
    num_blocks--;
    return size;
}

size_t blocks_num(void) { return num_blocks; }

void blocks_list(int64_t *addresses, int64_t *sizes) {
    size_t num = 0;
    for (size_t i = 0; i < num_slots; i++)
        if (table[i].address != 0) addresses[num] = (int64_t)table[i].address, sizes[num++] = table[i].size;
}

void blocks_forget(void) {
    free(table);
    table = NULL, num_slots = num_blocks = 0;
}
