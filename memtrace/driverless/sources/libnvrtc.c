/* NVRTC: programs compile to nothing, since nothing is run; kernels keep the names that were asked for. */
#include "driverless.h"

#include <stdlib.h>
#include <string.h>

int nvrtcVersion(int *major, int *minor) {
    *major = CUDA_MAJOR;
    *minor = CUDA_VERSION % 1000 / 10;
    return OK;
}

int nvrtcGetNumSupportedArchs(int *count) {
    *count = 1;
    return OK;
}

int nvrtcGetSupportedArchs(int *archs) {
    *archs = 10 * dl_gpu()->major + dl_gpu()->minor;
    return OK;
}

int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
    (void)source, (void)name, (void)headers, (void)texts, (void)names;
    *program = malloc(1);
    return OK;
}

int nvrtcDestroyProgram(void **program) {
    free(*program);
    *program = NULL;
    return OK;
}

int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    (void)program, (void)count, (void)options;
    return OK;
}

int nvrtcAddNameExpression(void *program, const char *name) {
    (void)program, (void)name;
    return OK;
}

int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
    (void)program;
    *lowered = name;
    return OK;
}

static int empty_size(size_t *bytes) {
    *bytes = 1;
    return OK;
}

static int empty(char *text) {
    *text = 0;
    return OK;
}

int nvrtcGetPTXSize(void *program, size_t *bytes) {
    (void)program;
    return empty_size(bytes);
}

int nvrtcGetPTX(void *program, char *text) {
    (void)program;
    return empty(text);
}

int nvrtcGetCUBINSize(void *program, size_t *bytes) {
    (void)program;
    return empty_size(bytes);
}

int nvrtcGetCUBIN(void *program, char *text) {
    (void)program;
    return empty(text);
}

int nvrtcGetProgramLogSize(void *program, size_t *bytes) {
    (void)program;
    return empty_size(bytes);
}

int nvrtcGetProgramLog(void *program, char *text) {
    (void)program;
    return empty(text);
}

const char *nvrtcGetErrorString(int error) {
    return error ? "NVRTC_ERROR_INTERNAL_ERROR" : "NVRTC_SUCCESS";
}
