/* Where a thread is: its Python calls, followed as they happen, and the node of the graph that autograd evaluates.
 *
 * Python is asked for nothing where memory is allocated, since the GIL is not held there. What is read is where the
 * innermost frame of the calling thread is, which that thread alone changes. A stack is told only while the hook is
 * in place and the frame that runs is the one that was followed last: a program may have put another hook, switched
 * to another stack of calls (greenlets), or run what Python tells no hook of. */
#include "python.h"
#include "watch.h"

#include <stdlib.h>

/* The calls of the thread that is followed, outermost first. */
struct call {
    void *frame; /* of a built-in function: that which called it */
    int32_t stack;
    int num_evaluated; /* how many nodes of the graph were evaluated when it began */
    int is_built_in;
};
static struct call *calls;
static size_t num_calls, most_calls;
static uintptr_t followed, num_followed; /* the number of what is followed, 0: nothing; and how often something was */
static __thread uintptr_t own;           /* the number that this thread was followed by last */

/* The classes of the nodes of the graph that autograd evaluates on this thread: within one it may begin another. */
enum { MOST_EVALUATED = 64 };
static __thread struct {
    int num;
    const char *names[MOST_EVALUATED];
} evaluated;

/* The name of a class: of a C++ object with virtual functions, by what stands before these. */
static const char *class_of(const void *object) {
    const void *const *functions = *(const void *const *const *)object;
    const void *const *type_info = functions[-1];
    return type_info[1];
}

int evaluation_began(const void *graph_node) {
    int before = evaluated.num++;
    if (before < MOST_EVALUATED) evaluated.names[before] = class_of(graph_node);
    return before;
}

/* The one that began at that number, and any that a thread of another stack of calls (a greenlet) left within. */
void evaluation_ended(const int *began) {
    if (*began >= 0) evaluated.num = *began;
}

/* A stack, or that of the node of the graph that was begun to be evaluated where it was `num_before`. */
static int32_t with_graph_node(int32_t stack, int num_before) {
    int is_new, num = evaluated.num;
    if (num <= num_before || num > MOST_EVALUATED) return stack;
    return stack_child(stack, -1, evaluated.names[num - 1], GRAPH_NODE, &is_new);
}

static int offset(void *frame) { return py.PyFrame_GetLasti(frame); }

static void push(void *frame, int32_t stack, int is_built_in) {
    if (num_calls == most_calls) {
        size_t more = most_calls ? 2 * most_calls : 256;
        struct call *larger = realloc(calls, more * sizeof *calls);
        if (larger == NULL) return;
        calls = larger, most_calls = more;
    }
    /* Held until it returns, and no longer: what it holds lives as long as it would. */
    py.Py_IncRef(frame);
    calls[num_calls++] = (struct call){frame, stack, evaluated.num, is_built_in};
}

/* Leave the last call. What a frame holds that has ended may be freed by it, which may call anything. */
static void pop(void) {
    void *frame = NULL;
    pthread_mutex_lock(&lock);
    if (num_calls > 0) frame = calls[--num_calls].frame;
    pthread_mutex_unlock(&lock);
    if (frame != NULL) py.Py_DecRef(frame);
}

/* Leave what was called by a frame, and has ended; return whether the frame is among the calls. */
static int unwind_to(const void *frame) {
    size_t found = num_calls;
    while (found > 0 && (calls[found - 1].frame != frame || calls[found - 1].is_built_in)) found--;
    if (found == 0) return 0;
    while (num_calls > found) pop();
    /* What was freed may have begun anew. */
    return num_calls == found && calls[found - 1].frame == frame && !calls[found - 1].is_built_in;
}

/* Where the next call is called from: a graph's node is between only if it began since the last call. */
static int32_t called_from(int is_anew) {
    if (num_calls == 0) return is_anew ? NO_STACK : with_graph_node(NO_STACK, 0);
    const struct call *last = &calls[num_calls - 1];
    return with_graph_node(last->stack, last->num_evaluated);
}

static void enter(void *frame, void *caller, int is_anew) {
    void *code = py.PyFrame_GetCode(frame);
    int is_new;
    pthread_mutex_lock(&lock);
    int32_t parent = called_from(is_anew);
    int is_called_by_frame =
        caller != NULL && num_calls && calls[num_calls - 1].frame == caller && !calls[num_calls - 1].is_built_in;
    push(frame, stack_child(parent, is_called_by_frame ? offset(caller) : -1, code, CODE, &is_new), 0);
    pthread_mutex_unlock(&lock);
    /* The code that a stack names stays, or another might come to lie there. */
    if (!is_new) py.Py_DecRef(code);
}

/* Begin anew with a frame and those that called it: as at the start, or where a library has switched stacks. */
static void enter_all(void *frame) {
    void **chain = NULL;
    size_t num = 0, most = 0;
    if (frame != NULL) py.Py_IncRef(frame);
    for (; frame != NULL; frame = py.PyFrame_GetBack(frame)) {
        if (num == most) {
            void **larger = realloc(chain, (most ? 2 * most : 256) * sizeof *chain);
            if (larger == NULL) break;
            chain = larger, most = most ? 2 * most : 256;
        }
        chain[num++] = frame;
    }
    /* Only now: a frame is an object, at whose making the program's garbage may be collected, and anything be called. */
    while (num_calls > 0) pop();
    if (frame != NULL)
        /* There was no memory for all callers: without them it would be told to be elsewhere. */
        py.Py_DecRef(frame);
    else
        for (size_t i = num; i-- > 0;) enter(chain[i], i + 1 < num ? chain[i + 1] : NULL, 1);
    while (num > 0) py.Py_DecRef(chain[--num]);
    free(chain);
}

static void enter_built_in(void *frame, void *callable) {
    int is_new;
    const char *name = built_in_name(callable);
    if (name == NULL) return;
    pthread_mutex_lock(&lock);
    push(frame, stack_child(calls[num_calls - 1].stack, offset(frame), name, BUILT_IN, &is_new), 1);
    pthread_mutex_unlock(&lock);
}

/* Follow the call of a frame. What called it is the last call, or a built-in function that this called. */
static void enter_called(void *frame) {
    void *caller = py.PyFrame_GetBack(frame);
    if (caller == NULL)
        while (num_calls > 0) pop();
    else if (!(num_calls && calls[num_calls - 1].frame == caller) && !unwind_to(caller))
        enter_all(caller);
    enter(frame, caller, 0);
    if (caller != NULL) py.Py_DecRef(caller);
}

/* Leave a frame that returns. One that was not followed has a caller that is not either, or not any more. */
static void leave(void *frame) {
    if (unwind_to(frame)) {
        pop();
        return;
    }
    void *caller = py.PyFrame_GetBack(frame);
    if (caller == NULL || !unwind_to(caller)) enter_all(caller);
    if (caller != NULL) py.Py_DecRef(caller);
}

/* What PyEval_SetProfile takes: called at each call and return of Python's, with the GIL. */
static int on_call(void *owner, void *frame, int what, void *argument) {
    enum { CALL = 0, RETURN = 3, C_CALL = 4, C_EXCEPTION = 5, C_RETURN = 6 };
    (void)owner;
    if (own == 0 || own != followed) {
        /* Whoever ended it was another thread, which cannot take the hook away. */
        own = 0;
        py.PyEval_SetProfile(NULL, NULL);
        return 0;
    }
    switch (what) {
    case CALL:
        enter_called(frame);
        break;
    case RETURN:
        leave(frame);
        break;
    case C_CALL:
    case C_RETURN:
    case C_EXCEPTION:
        if (!unwind_to(frame)) enter_all(frame);
        if (what == C_CALL && num_calls) enter_built_in(frame, argument);
        break;
    }
    return 0;
}

int32_t stack_now(void) {
    int is_new;
    int32_t stack;
    const struct call *last = num_calls ? &calls[num_calls - 1] : NULL;
    if (own == 0 || own != followed || last == NULL || !python_has_hook(on_call) || !python_runs(last->frame))
        stack = with_graph_node(NO_STACK, 0);
    else if (last->is_built_in)
        stack = with_graph_node(last->stack, last->num_evaluated);
    else {
        stack = stack_child(last->stack, offset(last->frame), NULL, PLACE, &is_new);
        stack = with_graph_node(stack, last->num_evaluated);
    }
    return stack == LOST ? NO_STACK : stack;
}

void calls_in_child(void) { followed = 0; }

/* Follow what has that number no longer. With the GIL, on any thread. */
static void leave_all(uintptr_t number) {
    if (followed != number) return;
    followed = 0;
    while (num_calls > 0) pop();
}

/* The owner of the hook, which Python lets go of as soon as another is put in its place. `sys.getprofile` returns it,
 * so that a program may keep it, call it and put it back: it does nothing then, and what is followed is at an end. */
static const char OWNER[] = "memtrace";

static void owner_ends(void *capsule) { leave_all((uintptr_t)py.PyCapsule_GetPointer(capsule, OWNER)); }

static void *owner_call(void *self, void *arguments) {
    (void)self, (void)arguments;
    py.Py_IncRef(py._Py_NoneStruct);
    return py._Py_NoneStruct;
}

static struct method owner_method = {OWNER, (void *)owner_call, METH_VARARGS, NULL};

static void *new_owner(uintptr_t number) {
    void *capsule = py.PyCapsule_New((void *)number, OWNER, owner_ends), *owner = NULL;
    if (capsule != NULL) owner = py.PyCFunction_NewEx(&owner_method, capsule, NULL);
    if (capsule != NULL) py.Py_DecRef(capsule);
    if (owner == NULL) py.PyErr_Clear();
    return owner;
}

/* Whether a hook, as `sys.getprofile` returns it, is ours: one that is in place, or was put back. */
int calls_is_ours(void *hook) {
    void *type = py.PyObject_Type(hook);
    py.Py_DecRef(type);
    return type == py.PyCFunction_Type && ((struct c_function *)hook)->method == &owner_method;
}

int calls_are_followed(void) { return followed != 0; }

/* Follow no calls any more, and take the hook away from this thread, if it is ours still. */
void calls_stop(void) {
    void *owner = python_hook_owner();
    leave_all(followed);
    if (owner != NULL && calls_is_ours(owner)) py.PyEval_SetProfile(NULL, NULL);
}

/* Follow the calls of this thread; return whether that can be done. */
int calls_start(void) {
    leave_all(followed);
    void *owner = new_owner(++num_followed);
    if (owner == NULL) return 0;
    int is_hooked = python_hook(on_call, owner);
    own = followed = num_followed;
    if (is_hooked)
        enter_all(py.PyEval_GetFrame());
    else {
        py.PyEval_SetProfile(NULL, NULL);
        followed = 0;
    }
    py.Py_DecRef(owner);
    return is_hooked;
}
