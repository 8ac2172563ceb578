/* Python, found in the process, and what a thread of it does now.
 *
 * Where memory is allocated, no lock of Python's is held, and none may be asked for. That a profile hook is still in
 * place, and which frame runs, is read from the state of the calling thread, which nobody else changes while it
 * allocates. Where these stand there is no promise of Python's: so they are looked for, and without them nothing is
 * followed. */
#define _GNU_SOURCE
#include "python.h"

#include <dlfcn.h>

struct python py;

/* The places of a thread's state, counted in pointers: how it leads to what runs, then the hook and its owner. */
static size_t hook_place;
enum { MOST_PLACES = 32, OWNER_AFTER_HOOK = 2, FRAME_IN_OBJECT = 3 };

/* What the thread runs: a frame as the interpreter has it, without an object of Python's. */
static const void *running(void *const *state) {
    void *const *found = state[hook_place - 1];
    unsigned version = (unsigned)(*py.Py_Version >> 16);
    if (version >= 0x030d) return found;
    return found == NULL ? NULL : found[version == 0x030b ? 1 : 0];
}

static int find_places(void *const *state, profile_hook *hook, void *owner) {
    for (hook_place = 1; hook_place < MOST_PLACES; hook_place++)
        if (state[hook_place] == (void *)hook) break;
    if (hook_place == MOST_PLACES || state[hook_place + OWNER_AFTER_HOOK] != owner) hook_place = 0;
    return hook_place != 0;
}

int python_has_hook(profile_hook *hook) {
    void *const *state = hook_place ? py.PyGILState_GetThisThreadState() : NULL;
    return state != NULL && state[hook_place] == (void *)hook;
}

int python_runs(const void *frame) {
    void *const *state = hook_place ? py.PyGILState_GetThisThreadState() : NULL;
    return state != NULL && running(state) == ((void *const *)frame)[FRAME_IN_OBJECT];
}

void *python_hook_owner(void) {
    void *const *state = hook_place ? py.PyGILState_GetThisThreadState() : NULL;
    return state == NULL ? NULL : state[hook_place + OWNER_AFTER_HOOK];
}

int python_hook(profile_hook *hook, void *owner) {
    void *state = py.PyGILState_GetThisThreadState();
    py.PyEval_SetProfile(hook, owner);
    /* Who watches what a program does may have forbidden it. */
    return state != NULL && (hook_place || find_places(state, hook, owner)) && python_has_hook(hook) &&
           python_runs(py.PyEval_GetFrame());
}

/* Find what Python exports; return whether calls can be followed. */
int python_install(void) {
#define FIND(name) ((py.name = (__typeof__(py.name))dlsym(RTLD_DEFAULT, #name)) != NULL)
    return FIND(PyFrame_GetCode) && FIND(PyFrame_GetBack) && FIND(PyFrame_GetLasti) && FIND(PyEval_GetFrame) &&
           FIND(PyEval_SetProfile) && FIND(PyGILState_GetThisThreadState) && FIND(PyCFunction_NewEx) &&
           FIND(PyCapsule_New) && FIND(PyCapsule_GetPointer) && FIND(PyObject_Type) && FIND(PyType_IsSubtype) &&
           FIND(PyErr_Clear) && FIND(Py_IncRef) && FIND(Py_DecRef) && FIND(PyCFunction_Type) &&
           FIND(PyModule_Type) && FIND(PyType_Type) && FIND(PyCapsule_Type) && FIND(_Py_NoneStruct) &&
           FIND(Py_Version) && *py.Py_Version >> 16 >= 0x030b && *py.Py_Version >> 16 <= 0x030e;
}
