/* What is asked of Python, without its headers: the library is compiled once, for whichever Python loads it. */
#pragma once

#include <stddef.h>

typedef int profile_hook(void *owner, void *frame, int what, void *argument);

/* How a function of C is described, and the object that is one. */
struct method {
    const char *name;
    void *function;
    int flags;
    const char *text;
};
struct c_function {
    void *object[2];
    struct method *method;
    void *self;
};
enum { METH_VARARGS = 1 };

/* What Python exports; what it lacks is found out once. */
struct python {
    void *(*PyFrame_GetCode)(void *frame);
    void *(*PyFrame_GetBack)(void *frame);
    int (*PyFrame_GetLasti)(void *frame);
    void *(*PyEval_GetFrame)(void);
    void (*PyEval_SetProfile)(profile_hook *, void *);
    void *(*PyGILState_GetThisThreadState)(void);
    void *(*PyCFunction_NewEx)(struct method *, void *self, void *module);
    void *(*PyCapsule_New)(void *pointer, const char *name, void (*destroy)(void *));
    void *(*PyCapsule_GetPointer)(void *capsule, const char *name);
    void *(*PyObject_Type)(void *);
    int (*PyType_IsSubtype)(void *, void *);
    void (*PyErr_Clear)(void);
    void (*Py_IncRef)(void *);
    void (*Py_DecRef)(void *);
    void *PyCFunction_Type, *PyModule_Type, *PyType_Type, *PyCapsule_Type, *_Py_NoneStruct;
    const unsigned long *Py_Version;
};
extern struct python py;

/* Put a profile hook in place for this thread; return whether it is, and its frames can be told. */
int python_hook(profile_hook *hook, void *owner);
/* Whether this thread has that hook. Asks for no lock. */
int python_has_hook(profile_hook *hook);
/* Whether a frame is the one that this thread runs. Asks for no lock. */
int python_runs(const void *frame);
/* The owner of this thread's hook, or NULL. */
void *python_hook_owner(void);
