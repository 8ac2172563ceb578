/* Where a thread is: the frames of Python that it runs, and the nodes of the graph that autograd evaluates.
 *
 * A stack is a number, a node of a tree: it leads to the stack that called it. So an event is told where it was by one
 * number, and what is held grows with the number of places alone.
 *
 * Where memory is allocated, the GIL is not held, so that Python can be asked for nothing. What is read are the frames
 * of the calling thread, which that thread alone changes, and which stand still while it is here: their code, and where
 * they are in it. Nothing is counted, and nothing kept alive. How Python lays its frames out is no promise of its, so
 * that it is found out by `frames.c` before, and proved. */
#include "watch.h"

#include <stdlib.h>

enum kind { CODE, GRAPH_NODE };

struct node {
    const void *what; /* CODE: the code object, which may be gone by now; GRAPH_NODE: the name of its class */
    uintptr_t check;  /* CODE: what tells another code that has come to lie there */
    int32_t parent;   /* the stack that called it */
    int32_t at;       /* CODE: where it was, an offset in bytes */
    int32_t kind;
    int32_t line;            /* CODE: that of `at` */
    const struct code *code; /* CODE: what it is called, copied while it was there */
};
static struct node *nodes;
static int32_t *slots; /* numbers of nodes by what they are; 0: nothing is here */
static int32_t num_nodes = 1, num_slots;
/* Beyond half a million places (28 MiB, and seconds to name them) new ones are told by no stack, so that no program
 * costs more. */
#define MOST_SLOTS (1 << 20)
/* Of a recursion, the innermost frames: nobody reads more, and each event would take as long as it is deep. */
#define MOST_FRAMES 256
/* Within 60 autograd goes on in another thread. */
#define MOST_EVALUATIONS 64

static uint32_t slot_of(const struct node *node) {
    uint64_t mixed = (uint64_t)(uintptr_t)node->what >> 3;
    mixed = (mixed ^ (uint64_t)(uint32_t)node->parent) * 11400714819323198485ull;
    mixed = (mixed ^ mixed >> 32 ^ (uint64_t)(uint32_t)node->at ^ node->check) * 11400714819323198485ull;
    return (uint32_t)(mixed >> 32) & (uint32_t)(num_slots - 1);
}

static uint32_t find(const struct node *wanted) {
    uint32_t at = slot_of(wanted);
    for (; slots[at] != 0; at = (at + 1) & (uint32_t)(num_slots - 1)) {
        const struct node *node = &nodes[slots[at]];
        if (node->what == wanted->what && node->parent == wanted->parent && node->at == wanted->at &&
            node->check == wanted->check && node->kind == wanted->kind)
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

/* What codes are called, by address and check. */
struct named {
    const void *code;
    uintptr_t check;
    struct code said;
    struct named *next;
};
static struct named *named[4096];

/* What a code is called, that runs now. Under the lock. */
static const struct code *name_of(const void *code, uintptr_t check) {
    struct named **first = &named[((uintptr_t)code >> 4 ^ check >> 8) % (sizeof named / sizeof *named)];
    struct named *found = *first;
    while (found != NULL && (found->code != code || found->check != check)) found = found->next;
    if (found == NULL && (found = malloc(sizeof *found)) != NULL) {
        *found = (struct named){code, check, {{NULL, 0, 1}, {NULL, 0, 1}}, *first};
        code_described(code, &found->said);
        *first = found;
    }
    return found == NULL ? NULL : &found->said;
}

/* The stack that a node is; 0 where there is no room for it. Under the lock. */
static int32_t number_of(const struct node *wanted) {
    if (num_nodes >= num_slots / 2 && !grow()) return 0;
    uint32_t slot = find(wanted);
    if (slots[slot] != 0) return slots[slot];
    struct node *node = &nodes[num_nodes];
    *node = *wanted;
    if (node->kind == CODE) node->line = line_of(node->what, node->at), node->code = name_of(node->what, node->check);
    return slots[slot] = num_nodes++;
}

/* What autograd evaluates on this thread; within a node it may begin to evaluate others. It does not lie on the stack
 * of the thread, which a program may have switched within a node (greenlets). */
struct evaluation {
    const char *name;  /* its class */
    const void *frame; /* the frame of Python that has begun it, if one has */
};
static __thread struct evaluation evaluations[MOST_EVALUATIONS];
static __thread int num_evaluations;
static int has_frames; /* whether stacks hold frames of Python */

/* The name of a node's class: of a C++ object with virtual functions, by what stands before these. */
static const char *class_of(const void *object) {
    const void *const *functions = *(const void *const *const *)object;
    const void *const *type_info = functions[-1];
    return type_info[1];
}

int evaluation_began(const void *graph_node) {
    int before = num_evaluations++;
    if (before < MOST_EVALUATIONS)
        evaluations[before] = (struct evaluation){class_of(graph_node), has_frames ? current_frame() : NULL};
    return before;
}

void evaluation_ended(const int *began) {
    if (*began >= 0 && num_evaluations > *began) num_evaluations = *began;
}

/* What the thread was asked last, from the outermost frame on: most of it is the same at the next event. */
static __thread struct {
    uintptr_t code, at, check;
    int32_t above, stack; /* the stack that called it, and its own */
} last[MOST_FRAMES];

static int32_t frame_in(int32_t parent, size_t depth, const struct frame *frame) {
    if (last[depth].stack == 0 || last[depth].above != parent || last[depth].code != (uintptr_t)frame->code ||
        last[depth].at != (uintptr_t)frame->at || last[depth].check != frame->check) {
        struct node wanted = {frame->code, frame->check, parent, frame->at, CODE, 0, NULL};
        last[depth].code = (uintptr_t)frame->code, last[depth].at = (uintptr_t)frame->at;
        last[depth].check = frame->check, last[depth].above = parent;
        last[depth].stack = number_of(&wanted);
    }
    return last[depth].stack;
}

static int32_t evaluation_in(int32_t parent, const struct evaluation *evaluation) {
    struct node wanted = {evaluation->name, 0, parent, -1, GRAPH_NODE, 0, NULL};
    return number_of(&wanted);
}

int32_t stack_now(void) {
    static __thread struct frame frames[MOST_FRAMES];
    size_t num_frames = has_frames ? frames_now(frames, MOST_FRAMES) : 0;
    int32_t stack = 0;
    int next = 0, num = num_evaluations < MOST_EVALUATIONS ? num_evaluations : MOST_EVALUATIONS;
    for (size_t i = num_frames; i-- > 0;) {
        stack = frame_in(stack, num_frames - 1 - i, &frames[i]);
        /* What a frame has begun to evaluate stands between it and the frames that this called. */
        while (next < num && evaluations[next].frame == frames[i].self)
            stack = evaluation_in(stack, &evaluations[next++]);
    }
    /* Begun by no frame that is here: on a thread of autograd's own, or deeper than is looked. */
    return num_frames == 0 && num > 0 ? evaluation_in(stack, &evaluations[num - 1]) : stack;
}

/* Let stacks hold frames of Python from now on, or none. */
void stacks_with_frames(int on) { has_frames = on; }

/* How many numbers of stacks there are. */
int32_t stacks_num(void) {
    pthread_mutex_lock(&lock);
    int32_t num = num_nodes;
    pthread_mutex_unlock(&lock);
    return num;
}

/* What a stack's number stands for, which never changes. */
void stacks_node(int32_t number, struct node *result) {
    pthread_mutex_lock(&lock);
    *result = nodes[number];
    pthread_mutex_unlock(&lock);
}
