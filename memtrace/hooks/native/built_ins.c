/* Names of functions of C: "Tensor.pow" for a method, "ones" for a function of a module or a type.
 *
 * They are told apart by their names alone: nothing of the program's is held, and what makes its types and functions
 * anew at each step adds nothing here. */
#include "python.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>

struct name {
    struct name *next;
    size_t owner_length; /* up to the dot; 0: there is no owner */
    char text[];
};
static struct name *names[4096];
static size_t num_names;
/* A program that makes up names without end is followed without those. */
#define MOST_NAMES (1 << 16)

/* How a type begins, in every CPython with a GIL. */
struct type {
    void *object[3];
    const char *name;
};

static struct name *named(const char *owner, const char *function) {
    uint32_t hash = 2166136261u;
    for (const char *at = owner; *at; at++) hash = (hash ^ (unsigned char)*at) * 16777619u;
    for (const char *at = function; *at; at++) hash = (hash ^ (unsigned char)*at) * 16777619u;
    size_t owner_length = strlen(owner);
    struct name **first = &names[(hash ^ hash >> 15) % (sizeof names / sizeof *names)];
    for (struct name *found = *first; found != NULL; found = found->next)
        if (found->owner_length == owner_length && memcmp(found->text, owner, owner_length) == 0 &&
            strcmp(found->text + owner_length + (owner_length > 0), function) == 0)
            return found;
    struct name *made = num_names < MOST_NAMES ? malloc(sizeof *made + owner_length + strlen(function) + 2) : NULL;
    if (made == NULL) return NULL;
    made->owner_length = owner_length;
    strcpy(made->text, owner);
    if (owner_length) made->text[owner_length++] = '.';
    strcpy(made->text + owner_length, function);
    made->next = *first, *first = made, num_names++;
    return made;
}

/* Whose method a function is; "" for nobody's: pybind11 has its own description of each function in place of one. */
static const char *owner_of(const void *type) {
    int is_description = type == py.PyCapsule_Type || strstr(((const struct type *)type)->name, "pybind11_") != NULL;
    return is_description || type == py.PyModule_Type || type == py.PyType_Type ? "" : ((const struct type *)type)->name;
}

const char *built_in_name(void *callable) {
    const struct c_function *function = callable;
    void *type = py.PyObject_Type(callable);
    int is_known = py.PyType_IsSubtype(type, py.PyCFunction_Type);
    py.Py_DecRef(type);
    if (!is_known || function->method->name[0] == 0) return NULL;
    void *of = function->self == NULL ? NULL : py.PyObject_Type(function->self);
    struct name *found = named(of == NULL ? "" : owner_of(of), function->method->name);
    if (of != NULL) py.Py_DecRef(of);
    return found == NULL ? NULL : found->text;
}
