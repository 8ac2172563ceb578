/* Where a thread is: its Python calls, followed as they happen, and the node of the graph that autograd evaluates.
 *
 * A stack is a number, a node of a tree: it leads to the stack that called it. So a call costs a look into a table, an
 * event is told where it was by one number, and nothing grows with the number of calls: only with that of places.
 *
 * Python is asked for nothing where memory is allocated, since the GIL is not held there. What is read is where the
 * innermost frame of the calling thread is, which that thread alone changes. */
#define _GNU_SOURCE
#include "watch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { CODE, BUILT_IN, GRAPH_NODE, PLACE };

struct node {
    const void *what;   /* CODE: the code object; BUILT_IN and GRAPH_NODE: a name; PLACE: nothing */
    int32_t parent, at; /* the stack that called it, and where that was then: an offset in its code */
    int32_t kind;
};
static struct node *nodes;
static int32_t *slots; /* numbers of nodes by what they are; 0: nothing is here */
static int32_t num_nodes = 1, num_slots;
/* Beyond two million places (64 MiB) new ones are told by no stack, so that no program costs more. */
#define MOST_SLOTS (1 << 22)

/* What Python exports; what it lacks is found out once, by `stacks_install`. */
static struct {
    void *(*PyFrame_GetCode)(void *frame);
    void *(*PyFrame_GetBack)(void *frame);
    int (*PyFrame_GetLasti)(void *frame);
    void *(*PyEval_GetFrame)(void);
    void (*PyEval_SetProfile)(int (*)(void *, void *, int, void *), void *);
    void *(*PyCFunction_GetFunction)(void *);
    void *(*PyCFunction_GetSelf)(void *);
    void *(*PyObject_Type)(void *);
    int (*PyType_IsSubtype)(void *, void *);
    void *(*PyObject_GetAttrString)(void *, const char *);
    const char *(*PyUnicode_AsUTF8AndSize)(void *, ptrdiff_t *);
    void (*PyErr_Clear)(void);
    void (*Py_IncRef)(void *);
    void (*Py_DecRef)(void *);
    void *PyCFunction_Type, *PyModule_Type, *PyType_Type;
} py;

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

/* The stack that `what` is in, called by `parent`; 0 where there is no memory for it. Under the lock. */
static int32_t child(int32_t parent, int32_t at, const void *what, enum kind kind, int *is_new) {
    struct node wanted = {what, parent, at, kind};
    if (num_nodes >= num_slots / 2 && !grow()) return 0;
    uint32_t slot = find(&wanted);
    *is_new = slots[slot] == 0;
    if (*is_new) nodes[num_nodes] = wanted, slots[slot] = num_nodes++;
    return slots[slot];
}

/* The name of a node's class: of a C++ object with virtual functions, by what stands before these. */
static const char *class_of(const void *object) {
    const void *const *functions = *(const void *const *const *)object;
    const void *const *type_info = functions[-1];
    return type_info[1];
}

/* What autograd evaluates on this thread; within a node it may begin to evaluate others. */
static __thread const struct evaluation *evaluated;

void evaluation_began(struct evaluation *evaluation, const void *graph_node) {
    *evaluation = (struct evaluation){class_of(graph_node), evaluated};
    evaluated = evaluation;
}

void evaluation_ended(const struct evaluation *evaluation) {
    if (evaluation->name != NULL) evaluated = evaluation->outer;
}

/* The calls of the thread that is traced, outermost first. */
struct call {
    void *frame; /* NULL: a built-in function */
    const struct evaluation *evaluation; /* what autograd was evaluating when it began */
    int32_t stack;
};
static struct call *calls;
static size_t num_calls, most_calls;
static int is_tracing;            /* whether a thread is */
static __thread int is_traced;    /* whether it is this one */

static int offset(void *frame) { return py.PyFrame_GetLasti(frame); }

static void push(void *frame, int32_t stack) {
    if (num_calls == most_calls) {
        size_t more = most_calls ? 2 * most_calls : 256;
        struct call *larger = realloc(calls, more * sizeof *calls);
        if (larger == NULL) return;
        calls = larger, most_calls = more;
    }
    /* Held until it returns, and no longer: what it holds lives as long as it would. */
    if (frame != NULL) py.Py_IncRef(frame);
    calls[num_calls++] = (struct call){frame, evaluated, stack};
}

static void pop(void) {
    void *frame;
    pthread_mutex_lock(&lock);
    frame = calls[--num_calls].frame;
    pthread_mutex_unlock(&lock);
    if (frame != NULL) py.Py_DecRef(frame);
}

/* The stack of what the last call runs now: of a node of the graph, where autograd has begun one since. */
static int32_t with_graph_node(int32_t stack) {
    int is_new;
    const struct evaluation *before = num_calls ? calls[num_calls - 1].evaluation : NULL;
    return evaluated == NULL || evaluated == before ? stack : child(stack, -1, evaluated->name, GRAPH_NODE, &is_new);
}

/* Leave what was called by a frame, and has ended; return whether the frame is among the calls. */
static int unwind_to(const void *frame) {
    size_t found = num_calls;
    while (found > 0 && calls[found - 1].frame != frame) found--;
    if (found == 0) return 0;
    while (num_calls > found) pop();
    return 1;
}

static void enter(void *frame, void *caller) {
    void *code = py.PyFrame_GetCode(frame);
    int is_new = 0;
    pthread_mutex_lock(&lock);
    int32_t parent = with_graph_node(num_calls ? calls[num_calls - 1].stack : 0);
    int is_called_by_frame = caller != NULL && num_calls && calls[num_calls - 1].frame == caller;
    push(frame, child(parent, is_called_by_frame ? offset(caller) : -1, code, CODE, &is_new));
    pthread_mutex_unlock(&lock);
    /* The code that a stack names stays, or another might come to lie there. */
    if (!is_new) py.Py_DecRef(code);
}

/* Begin anew with a frame and those that called it: as at the start, or where a library has switched stacks. */
static void enter_all(void *frame) {
    void *chain[4096];
    size_t num = 0;
    while (num_calls > 0) pop();
    py.Py_IncRef(frame);
    for (void *next = frame; next != NULL && num < sizeof chain / sizeof *chain; next = py.PyFrame_GetBack(next))
        chain[num++] = next;
    for (size_t i = num; i-- > 0;) enter(chain[i], i + 1 < num ? chain[i + 1] : NULL);
    while (num > 0) py.Py_DecRef(chain[--num]);
}

/* Names of built-in functions: a function of C is one for each type that it is a method of. */
struct built_in {
    void *function, *type;
    const char *name;
    struct built_in *next;
};
static struct built_in *built_ins[1024];

/* How a type begins, in every CPython with a GIL. */
struct type {
    void *object[3];
    const char *name;
};

static const char *text_of(void *object, const char *attribute, char *room, size_t size) {
    void *text = py.PyObject_GetAttrString(object, attribute);
    const char *found = text == NULL ? NULL : py.PyUnicode_AsUTF8AndSize(text, NULL);
    room[0] = 0;
    if (found != NULL) strncat(room, found, size - 1);
    if (found == NULL) py.PyErr_Clear();
    if (text != NULL) py.Py_DecRef(text);
    return room;
}

/* "Tensor.pow" for a method, "ones" for a function of a module or a type. */
static const char *name_of(void *callable) {
    char owner[256], name[256], full[512];
    struct built_in key = {NULL, NULL, NULL, NULL};
    void *type = py.PyObject_Type(callable), *self = NULL;
    if (type != NULL && py.PyType_IsSubtype(type, py.PyCFunction_Type)) {
        key.function = py.PyCFunction_GetFunction(callable);
        self = py.PyCFunction_GetSelf(callable);
        key.type = self == NULL ? NULL : py.PyObject_Type(self);
    } else
        key.function = type;
    struct built_in **first = &built_ins[((uintptr_t)key.function >> 4 ^ (uintptr_t)key.type >> 6) % 1024];
    struct built_in *found = *first;
    while (found != NULL && (found->function != key.function || found->type != key.type)) found = found->next;
    if (found == NULL && (found = malloc(sizeof *found)) != NULL) {
        text_of(callable, "__name__", name, sizeof name);
        owner[0] = 0;
        if (key.type != NULL && key.type != py.PyModule_Type && key.type != py.PyType_Type)
            snprintf(owner, sizeof owner, "%s.", ((struct type *)key.type)->name);
        snprintf(full, sizeof full, "%s%s", owner, name);
        key.name = strdup(full), key.next = *first;
        *found = key, *first = found;
        /* The type stays, or another might come to lie there. */
        if (key.type != NULL) py.Py_IncRef(key.type);
    }
    if (type != NULL) py.Py_DecRef(type);
    if (key.type != NULL) py.Py_DecRef(key.type);
    return found == NULL || found->name == NULL ? "" : found->name;
}

static void enter_built_in(void *frame, void *callable) {
    int is_new;
    const char *name = name_of(callable);
    pthread_mutex_lock(&lock);
    push(NULL, child(calls[num_calls - 1].stack, offset(frame), name, BUILT_IN, &is_new));
    pthread_mutex_unlock(&lock);
}

/* What PyEval_SetProfile takes: called at each call and return of Python's, with the GIL. */
static int on_call(void *self, void *frame, int what, void *argument) {
    enum { CALL = 0, RETURN = 3, C_CALL = 4, C_EXCEPTION = 5, C_RETURN = 6 };
    void *caller;
    (void)self;
    if (!is_tracing || !is_traced) return 0;
    switch (what) {
    case CALL:
        caller = py.PyFrame_GetBack(frame);
        /* What called it is the last call, or a built-in function that this called. */
        if (caller == NULL) while (num_calls > 0) pop();
        else if (!(num_calls && (calls[num_calls - 1].frame == caller ||
                                 (num_calls > 1 && !calls[num_calls - 1].frame && calls[num_calls - 2].frame == caller))) &&
                 !unwind_to(caller))
            enter_all(caller);
        enter(frame, caller);
        if (caller != NULL) py.Py_DecRef(caller);
        break;
    case RETURN:
        if (unwind_to(frame)) pop();
        break;
    case C_CALL:
        if (!unwind_to(frame)) enter_all(frame);
        if (num_calls) enter_built_in(frame, argument);
        break;
    case C_RETURN:
    case C_EXCEPTION:
        unwind_to(frame);
        break;
    }
    return 0;
}

int32_t stack_now(void) {
    int is_new;
    const struct call *last = num_calls ? &calls[num_calls - 1] : NULL;
    if (!is_tracing || !is_traced || last == NULL)
        return evaluated == NULL ? 0 : child(0, -1, evaluated->name, GRAPH_NODE, &is_new);
    return with_graph_node(last->frame == NULL ? last->stack
                                               : child(last->stack, offset(last->frame), NULL, PLACE, &is_new));
}

void stacks_in_child(void) { is_tracing = 0; }

/* Find what Python exports; return whether calls can be followed. */
int stacks_install(void) {
#define FIND(name) ((py.name = (__typeof__(py.name))dlsym(RTLD_DEFAULT, #name)) != NULL)
    return FIND(PyFrame_GetCode) && FIND(PyFrame_GetBack) && FIND(PyFrame_GetLasti) && FIND(PyEval_GetFrame) &&
           FIND(PyEval_SetProfile) && FIND(PyCFunction_GetFunction) && FIND(PyCFunction_GetSelf) &&
           FIND(PyObject_Type) && FIND(PyType_IsSubtype) && FIND(PyObject_GetAttrString) &&
           FIND(PyUnicode_AsUTF8AndSize) && FIND(PyErr_Clear) && FIND(Py_IncRef) && FIND(Py_DecRef) &&
           FIND(PyCFunction_Type) && FIND(PyModule_Type) && FIND(PyType_Type);
}

/* Follow the calls of this thread; `owner` is what Python says of its profile hook. */
void stacks_start(void *owner) {
    is_tracing = is_traced = 1;
    enter_all(py.PyEval_GetFrame());
    py.PyEval_SetProfile(on_call, owner);
}

/* Follow them no longer; the hook is taken away only where it is ours still. By the thread that started. */
void stacks_stop(int is_ours) {
    if (is_ours) py.PyEval_SetProfile(NULL, NULL);
    is_tracing = is_traced = 0;
    while (num_calls > 0) pop();
}

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
