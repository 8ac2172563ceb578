/* cuFFT: scratch as large as the data that is transformed, as for sizes that need a pass of their own. */
#include "driverless.h"

int cufftCreate(int *plan) {
    static int plans;
    *plan = __atomic_add_fetch(&plans, 1, __ATOMIC_RELAXED);
    return OK;
}

int cufftDestroy(int plan) {
    (void)plan;
    return OK;
}

int cufftSetAutoAllocation(int plan, int allocate) {
    (void)plan, (void)allocate;
    return OK;
}

/* Numbers of cudaDataType: 1 and 5 are double precision, 2 and 6 half; a complex number has two. */
static size_t complex_bytes(int kind) {
    return kind == 1 || kind == 5 ? 16 : kind == 2 || kind == 6 ? 4 : 8;
}

int cufftXtMakePlanMany(int plan, int rank, const long long *sizes, const long long *inside, long long stride,
                        long long distance, int kind, const long long *outside, long long out_stride,
                        long long out_distance, int out_kind, long long batch, size_t *bytes, int computed) {
    (void)plan, (void)inside, (void)stride, (void)distance, (void)outside, (void)out_stride, (void)out_distance;
    (void)out_kind, (void)computed;
    *bytes = (size_t)batch * complex_bytes(kind);
    for (int one = 0; one < rank; one++) *bytes *= (size_t)sizes[one];
    return OK;
}
