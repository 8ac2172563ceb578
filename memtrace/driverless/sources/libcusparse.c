/* cuSPARSE: what an error is called. */
#include "driverless.h"

const char *cusparseGetErrorString(int status) {
    return status ? "the operation is not supported" : "success";
}

const char *cusparseGetErrorName(int status) {
    return status ? "CUSPARSE_STATUS_NOT_SUPPORTED" : "CUSPARSE_STATUS_SUCCESS";
}
