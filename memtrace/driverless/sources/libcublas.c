/* cuBLAS: what a handle is told, it says again. Products are answered by rules. */
#include "driverless.h"

int cublasSetStream_v2(struct handle *handle, struct stream *stream) {
    handle->stream = stream;
    return OK;
}

int cublasGetStream_v2(struct handle *handle, struct stream **stream) {
    *stream = handle->stream;
    return OK;
}

int cublasSetPointerMode_v2(struct handle *handle, int mode) {
    handle->pointer_mode = mode;
    return OK;
}

int cublasGetPointerMode_v2(struct handle *handle, int *mode) {
    *mode = handle->pointer_mode;
    return OK;
}

int cublasSetMathMode(struct handle *handle, int mode) {
    handle->math_mode = mode;
    return OK;
}

int cublasGetMathMode(struct handle *handle, int *mode) {
    *mode = handle->math_mode;
    return OK;
}

int cublasGetVersion_v2(struct handle *handle, int *version) {
    (void)handle;
    *version = CUDA_MAJOR * 10000;
    return OK;
}

const char *cublasGetStatusString(int status) {
    return status ? "the operation is not supported" : "success";
}
