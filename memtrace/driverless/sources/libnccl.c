/* NCCL: communicators know their size and rank; a collective leaves what this rank knows, since others are not heard. */
#define _GNU_SOURCE
#include "driverless.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct id {
    char bytes[128];
};

struct communicator {
    int ranks, rank, device;
};

/* What one takes of its device: 32 channels, 4 MiB in each direction. */
#define COMMUNICATOR_BYTES (256 * MIB)
#define NCCL_CUDA_ERROR 1

int ncclGetVersion(int *version) {
    *version = NCCL_VERSION;
    return OK;
}

const char *ncclGetErrorString(int error) {
    return error == NCCL_CUDA_ERROR ? "unhandled cuda error" : error ? "invalid usage" : "no error";
}

const char *ncclGetLastError(void *communicator) {
    (void)communicator;
    return "";
}

int ncclGetUniqueId(struct id *id) {
    return getrandom(id, sizeof *id, 0) < 0;
}

static int make(struct communicator **to, int ranks, int rank, int device) {
    if (dl_take(device, COMMUNICATOR_BYTES)) return NCCL_CUDA_ERROR;
    *to = calloc(1, sizeof **to);
    **to = (struct communicator){ranks, rank, device};
    return OK;
}

int ncclCommInitRank(struct communicator **to, int ranks, struct id id, int rank) {
    (void)id;
    return make(to, ranks, rank, dl_current());
}

int ncclCommInitRankConfig(struct communicator **to, int ranks, struct id id, int rank, void *config) {
    (void)config;
    return ncclCommInitRank(to, ranks, id, rank);
}

int ncclCommInitRankScalable(struct communicator **to, int ranks, int rank, int count, struct id *ids, void *config) {
    (void)count, (void)ids, (void)config;
    return make(to, ranks, rank, dl_current());
}

int ncclCommInitAll(struct communicator **to, int count, const int *devices) {
    int error = OK;
    for (int one = 0; one < count && !error; one++) error = make(&to[one], count, one, devices ? devices[one] : one);
    return error;
}

/* How many others have the same colour is not heard of: as many as there were. */
int ncclCommSplit(struct communicator *from, int color, int key, struct communicator **to, void *config) {
    (void)key, (void)config;
    *to = NULL;
    if (color < 0) return OK;
    dl_count("communicators split as if all ranks stayed", 1);
    return make(to, from->ranks, from->rank, from->device);
}

static int end(struct communicator *one) {
    dl_give(one->device, COMMUNICATOR_BYTES);
    free(one);
    return OK;
}

int ncclCommDestroy(struct communicator *one) {
    return end(one);
}

int ncclCommAbort(struct communicator *one) {
    return end(one);
}

int ncclCommFinalize(struct communicator *one) {
    (void)one;
    return OK;
}

int ncclCommGetAsyncError(struct communicator *one, int *error) {
    (void)one;
    *error = OK;
    return OK;
}

int ncclCommCount(struct communicator *one, int *count) {
    *count = one->ranks;
    return OK;
}

int ncclCommUserRank(struct communicator *one, int *rank) {
    *rank = one->rank;
    return OK;
}

int ncclCommCuDevice(struct communicator *one, int *device) {
    *device = one->device;
    return OK;
}

int ncclCommRegister(struct communicator *one, void *buffer, size_t bytes, void **handle) {
    (void)one, (void)bytes;
    *handle = buffer;
    return OK;
}

int ncclCommDeregister(struct communicator *one, void *handle) {
    (void)one, (void)handle;
    return OK;
}

int ncclMemAlloc(void **pointer, size_t bytes) {
    return dl_allocate(dl_current(), bytes, (uint64_t *)pointer) ? NCCL_CUDA_ERROR : OK;
}

int ncclMemFree(void *pointer) {
    int device;
    return dl_release((uint64_t)pointer, &device) ? NCCL_CUDA_ERROR : OK;
}

int ncclRedOpCreatePreMulSum(int *operation, void *scalar, int kind, int residence, struct communicator *one) {
    (void)scalar, (void)kind, (void)residence, (void)one;
    *operation = 5; /* the first that is not built in */
    return OK;
}

/* ---- Collectives ---- */

static size_t bytes_of(size_t count, int kind) {
    static const char sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return count * (kind >= 0 && kind < 12 ? (size_t)sizes[kind] : 1);
}

static void move(void *to, const void *from, size_t bytes, struct stream *stream) {
    if (!dl_work(stream) && to != from) dl_copy(to, from, bytes);
}

/* Every rank holds what this one holds: a sum is not formed. */
int ncclAllReduce(const void *from, void *to, size_t count, int kind, int operation, struct communicator *one,
                  struct stream *stream) {
    (void)operation, (void)one;
    move(to, from, bytes_of(count, kind), stream);
    return OK;
}

int ncclReduce(const void *from, void *to, size_t count, int kind, int operation, int root, struct communicator *one,
               struct stream *stream) {
    (void)operation;
    if (one->rank == root) move(to, from, bytes_of(count, kind), stream);
    else dl_work(stream);
    return OK;
}

int ncclSend(const void *from, size_t count, int kind, int to, struct communicator *one, struct stream *stream) {
    (void)from, (void)count, (void)kind, (void)to, (void)one;
    dl_work(stream);
    return OK;
}

/* What was sent is not heard: zeros. */
int ncclRecv(void *to, size_t count, int kind, int from, struct communicator *one, struct stream *stream) {
    (void)from, (void)one;
    if (!dl_work(stream)) dl_set(to, 0, bytes_of(count, kind));
    return OK;
}

int ncclBroadcast(const void *from, void *to, size_t count, int kind, int root, struct communicator *one,
                  struct stream *stream) {
    if (one->rank == root) move(to, from, bytes_of(count, kind), stream);
    else dl_work(stream);
    return OK;
}

int ncclBcast(void *buffer, size_t count, int kind, int root, struct communicator *one, struct stream *stream) {
    return ncclBroadcast(buffer, buffer, count, kind, root, one, stream);
}

int ncclAllGather(const void *from, void *to, size_t count, int kind, struct communicator *one, struct stream *stream) {
    size_t bytes = bytes_of(count, kind);
    for (int rank = 0; rank < one->ranks; rank++) move((char *)to + (size_t)rank * bytes, from, bytes, stream);
    return OK;
}

int ncclReduceScatter(const void *from, void *to, size_t count, int kind, int operation, struct communicator *one,
                      struct stream *stream) {
    (void)operation;
    size_t bytes = bytes_of(count, kind);
    move(to, (const char *)from + (size_t)one->rank * bytes, bytes, stream);
    return OK;
}

int ncclAlltoAll(const void *from, void *to, size_t count, int kind, struct communicator *one, struct stream *stream) {
    move(to, from, (size_t)one->ranks * bytes_of(count, kind), stream);
    return OK;
}
