/* cuBLASLt: one algorithm for every product, which needs no scratch of what torch offers. */
#include "driverless.h"

#include <string.h>

struct result {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, struct result *results, int *found) {
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted > 0;
    if (*found) memset(results, 0, sizeof *results);
    return OK;
}

int cublasLtMatmul(void *handle, void *operation, const void *alpha, const void *a, void *layout_a, const void *b,
                   void *layout_b, const void *beta, const void *c, void *layout_c, void *d, void *layout_d,
                   const void *algorithm, void *workspace, size_t bytes, struct stream *stream) {
    (void)handle, (void)operation, (void)alpha, (void)a, (void)layout_a, (void)b, (void)layout_b, (void)beta, (void)c;
    (void)layout_c, (void)d, (void)layout_d, (void)algorithm, (void)workspace, (void)bytes;
    dl_handed((uint64_t)d);
    dl_work(stream);
    return OK;
}

size_t cublasLtGetVersion(void) {
    return CUDA_MAJOR * 10000;
}
