/* Stacks as numbers, nodes of a tree: each leads to the stack that called it.
 *
 * So a call costs a look into a table, an event is told where it was by one number, and nothing grows with the number
 * of calls: only with that of places. */
#include "watch.h"

#include <stdlib.h>

struct node {
    const void *what;   /* CODE: the code object; BUILT_IN and GRAPH_NODE: a name; PLACE: nothing */
    int32_t parent, at; /* the stack that called it, and where that was then: an offset in its code */
    int32_t kind;
};
static struct node *nodes;
static int32_t *slots; /* numbers of nodes by what they are; 0: nothing is here */
static int32_t num_nodes = 1, num_slots;
/* Beyond half a million places (16 MiB, and a second to name them) new ones are told by no stack, so that no program
 * costs more. */
#define MOST_SLOTS (1 << 20)

static uint32_t slot_of(const struct node *node) {
    uint64_t mixed = (uint64_t)(uintptr_t)node->what >> 3;
    mixed = (mixed ^ (uint64_t)(uint32_t)node->parent) * 11400714819323198485ull;
    mixed = (mixed ^ mixed >> 32 ^ (uint64_t)(uint32_t)node->at ^ (uint64_t)node->kind << 24) * 11400714819323198485ull;
    return (uint32_t)(mixed >> 32) & (uint32_t)(num_slots - 1);
}

static uint32_t find(const struct node *wanted) {
    uint32_t at = slot_of(wanted);
    for (; slots[at] != 0; at = (at + 1) & (uint32_t)(num_slots - 1)) {
        const struct node *node = &nodes[slots[at]];
        if (node->what == wanted->what && node->parent == wanted->parent && node->at == wanted->at &&
            node->kind == wanted->kind)
            break;
    }
    return at;
}

static int grow(void) {
    int32_t larger = num_slots ? 2 * num_slots : 1 << 12;
    if (larger > MOST_SLOTS) return 0;
    struct node *more_nodes = realloc(nodes, (size_t)larger / 2 * sizeof *nodes);
    if (more_nodes == NULL) return 0;
    nodes = more_nodes;
    int32_t *more_slots = calloc((size_t)larger, sizeof *slots);
    if (more_slots == NULL) return 0;
    free(slots);
    slots = more_slots, num_slots = larger;
    for (int32_t i = 1; i < num_nodes; i++) slots[find(&nodes[i])] = i;
    return 1;
}

/* The stack that `what` is in, called by `parent`. One that there is no room for is `LOST`, with all that it calls. */
int32_t stack_child(int32_t parent, int32_t at, const void *what, enum kind kind, int *is_new) {
    struct node wanted = {what, parent, at, kind};
    *is_new = 0;
    if (parent == LOST || (num_slots == 0 && !grow())) return LOST;
    uint32_t slot = find(&wanted);
    if (slots[slot] != 0) return slots[slot];
    if (num_nodes >= num_slots / 2) {
        if (!grow()) return LOST;
        slot = find(&wanted);
    }
    *is_new = 1;
    nodes[num_nodes] = wanted, slots[slot] = num_nodes;
    return num_nodes++;
}

/* How many numbers of stacks there are. */
int32_t stacks_num(void) {
    pthread_mutex_lock(&lock);
    int32_t num = num_nodes;
    pthread_mutex_unlock(&lock);
    return num;
}

/* What the numbers of stacks from the first on stand for, which never changes. */
void stacks_nodes(int32_t first, int32_t end, struct node *result) {
    pthread_mutex_lock(&lock);
    for (int32_t number = first; number < end; number++)
        *result++ = number == NO_STACK ? (struct node){NULL, 0, 0, 0} : nodes[number];
    pthread_mutex_unlock(&lock);
}
