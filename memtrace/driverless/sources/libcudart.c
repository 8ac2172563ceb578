/* The CUDA runtime: devices, memory, streams, events, captures, pools, and launches that launch nothing. */
#define _GNU_SOURCE
#include "driverless.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dim3 {
    unsigned x, y, z;
};

struct properties {
    char name[256];
    unsigned char uuid[16];
    char luid[8];
    unsigned luid_mask;
    size_t total_memory, shared_per_block;
    int registers_per_block, warp;
    size_t pitch;
    int threads_per_block, block[3], grid[3];
#if CUDA_MAJOR < 13
    int clock_khz;
#endif
    size_t constant_memory;
    int major, minor;
    size_t texture_alignment, texture_pitch_alignment;
#if CUDA_MAJOR < 13
    int overlap;
#endif
    int multiprocessors;
#if CUDA_MAJOR < 13
    int timeout;
#endif
    int integrated, can_map_host;
#if CUDA_MAJOR < 13
    int compute_mode;
    int textures[40];
#else
    int textures[39];
#endif
    size_t surface_alignment;
    int concurrent_kernels, ecc, bus, device, domain, tcc, copy_engines, unified;
#if CUDA_MAJOR < 13
    int memory_clock_khz;
#endif
    int bus_bits, l2_bytes, persisting_l2, threads_per_multiprocessor, stream_priorities, l1_global, l1_local;
    size_t shared_per_multiprocessor;
    int registers_per_multiprocessor, managed, multi_board, board_group, host_atomics;
#if CUDA_MAJOR < 13
    int double_ratio;
#endif
    int pageable, concurrent_managed, preemption, registered_pointers, cooperative;
#if CUDA_MAJOR < 13
    int cooperative_multi;
#endif
    size_t shared_per_block_optin;
    int host_page_tables, direct_managed, blocks_per_multiprocessor, policy_window;
    size_t reserved_shared;
    int host_register, sparse_arrays, read_only_register, timeline_semaphores, pools, rdma;
    unsigned rdma_flush;
    int rdma_ordering;
    unsigned pool_handles;
    int deferred_arrays, ipc_events, clusters, unified_functions;
    int reserved[63];
};

struct pointer_attributes {
    int kind, device;
    void *device_pointer, *host_pointer;
#if CUDA_MAJOR >= 13
    long reserved[8];
#endif
};

struct function_attributes {
    size_t shared, constant, local;
    int threads, registers, ptx, binary, cache, dynamic_shared, carveout, cluster[4], policy, non_portable, reserved[16];
};

struct ipc_handle {
    uint64_t magic, address, bytes, unused[5];
};

static __thread int last_error;

static int done(int error) {
    if (error) last_error = error;
    return error;
}

/* What starts a call that needs the context of the current device. */
static int enter(void) {
    int error = dl_usable();
    if (!error) dl_activate(dl_current());
    return error;
}

/* ---- Versions, errors ---- */

int cudaDriverGetVersion(int *version) {
    *version = dl_gpu()->driver_version;
    return OK;
}

int cudaRuntimeGetVersion(int *version) {
    *version = CUDA_VERSION;
    return OK;
}

int cudaGetLastError(void) {
    int error = last_error;
    last_error = OK;
    return error;
}

int cudaPeekAtLastError(void) {
    return last_error;
}

static const struct {
    int number;
    const char *name, *text;
} errors[] = {
    {OK, "cudaSuccess", "no error"},
    {INVALID_VALUE, "cudaErrorInvalidValue", "invalid argument"},
    {OUT_OF_MEMORY, "cudaErrorMemoryAllocation", "out of memory"},
    {INITIALIZATION_ERROR, "cudaErrorInitializationError", "initialization error"},
    {NO_DEVICE, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {INVALID_HANDLE, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {NOT_FOUND, "cudaErrorSymbolNotFound", "named symbol not found"},
    {NOT_READY, "cudaErrorNotReady", "device not ready"},
    {PEER_ALREADY_ENABLED, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {NOT_SUPPORTED, "cudaErrorNotSupported", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {CAPTURED_EVENT, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
};

const char *cudaGetErrorName(int error) {
    for (size_t one = 0; one < sizeof errors / sizeof *errors; one++)
        if (errors[one].number == error) return errors[one].name;
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(int error) {
    for (size_t one = 0; one < sizeof errors / sizeof *errors; one++)
        if (errors[one].number == error) return errors[one].text;
    return "unknown error";
}

/* ---- Devices ---- */

int cudaGetDeviceCount(int *count) {
    *count = dl_visible_devices();
    return done(dl_usable());
}

int cudaGetDevice(int *device) {
    *device = dl_current();
    return done(dl_usable());
}

int cudaSetDevice(int device) {
    int error = dl_usable();
    if (!error) error = dl_set_current(device);
    if (!error) dl_activate(device); /* since CUDA 12 */
    return done(error);
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    int error = dl_usable();
    if (!error && dl_physical(device) < 0) error = INVALID_DEVICE;
    if (!error) *value = dl_attribute(attribute, device);
    return done(error);
}

static void fill(struct properties *to, int device) {
    const struct gpu *gpu = dl_gpu();
    memset(to, 0, sizeof *to);
    snprintf(to->name, sizeof to->name, "%s", gpu->name);
    dl_uuid(dl_physical(device), to->uuid);
    to->total_memory = gpu->memory;
    to->shared_per_block = (size_t)gpu->shared_per_block;
    to->registers_per_block = to->registers_per_multiprocessor = 65536;
    to->warp = 32;
    to->pitch = 2147483647;
    to->threads_per_block = to->block[0] = to->block[1] = 1024;
    to->block[2] = 64;
    to->grid[0] = 2147483647;
    to->grid[1] = to->grid[2] = 65535;
    to->constant_memory = 65536;
    to->major = gpu->major;
    to->minor = gpu->minor;
    to->texture_alignment = to->surface_alignment = 512;
    to->texture_pitch_alignment = 32;
    to->multiprocessors = gpu->multiprocessors;
    to->can_map_host = to->concurrent_kernels = to->unified = to->managed = to->stream_priorities = 1;
    to->l1_global = to->l1_local = to->concurrent_managed = to->preemption = to->cooperative = to->host_register = 1;
    to->pools = to->ipc_events = to->registered_pointers = 1;
    to->bus = dl_physical(device) + 1;
    to->copy_engines = 3;
    to->bus_bits = gpu->bus_bits;
    to->l2_bytes = gpu->l2_bytes;
    to->persisting_l2 = to->policy_window = dl_attribute(108, device);
    to->threads_per_multiprocessor = gpu->threads_per_multiprocessor;
    to->shared_per_multiprocessor = (size_t)gpu->shared_per_multiprocessor;
    to->shared_per_block_optin = (size_t)gpu->shared_per_block_optin;
    to->blocks_per_multiprocessor = gpu->blocks_per_multiprocessor;
    to->reserved_shared = (size_t)dl_attribute(111, device);
    to->pool_handles = 1;
    to->clusters = dl_attribute(120, device);
#if CUDA_MAJOR < 13
    to->clock_khz = gpu->clock_khz;
    to->memory_clock_khz = gpu->memory_clock_khz;
    to->overlap = 1;
#endif
}

int cudaGetDeviceProperties(struct properties *properties, int device) {
    int error = dl_usable();
    if (!error && dl_physical(device) < 0) error = INVALID_DEVICE;
    if (!error) fill(properties, device);
    return done(error);
}

int cudaGetDeviceProperties_v2(struct properties *properties, int device) {
    return cudaGetDeviceProperties(properties, device);
}

int cudaDeviceGetPCIBusId(char *text, int room, int device) {
    if (dl_physical(device) < 0) return done(INVALID_DEVICE);
    snprintf(text, (size_t)room, "0000:%02x:00.0", dl_physical(device) + 1);
    return OK;
}

int cudaDeviceGetByPCIBusId(int *device, const char *text) {
    unsigned domain, bus;
    if (sscanf(text, "%x:%x", &domain, &bus) == 2)
        for (int one = 0; one < dl_visible_devices(); one++)
            if (dl_physical(one) + 1 == (int)bus) {
                *device = one;
                return OK;
            }
    return done(INVALID_VALUE);
}

int cudaDeviceCanAccessPeer(int *can, int device, int other) {
    *can = device != other && dl_gpu()->peer;
    return OK;
}

int cudaDeviceEnablePeerAccess(int other, unsigned flags) {
    static char enabled[MOST_DEVICES][MOST_DEVICES];
    (void)flags;
    if (dl_physical(other) < 0) return done(INVALID_DEVICE);
    if (enabled[dl_current()][other]) return done(PEER_ALREADY_ENABLED);
    enabled[dl_current()][other] = 1;
    return done(enter());
}

int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return done(enter());
}

int cudaDeviceSynchronize(void) {
    int error = enter();
    return done(error ? error : dl_unsafe());
}

int cudaDeviceReset(void) {
    return done(dl_refuse("cudaDeviceReset", NOT_SUPPORTED));
}

int cudaProfilerStart(void) {
    return OK;
}

int cudaProfilerStop(void) {
    return OK;
}

/* ---- Memory ---- */

int cudaMalloc(void **pointer, size_t bytes) {
    int error = enter();
    if (!error) error = dl_unsafe();
    uint64_t address = 0;
    if (!error && bytes) error = dl_allocate(dl_current(), bytes, &address);
    *pointer = (void *)address;
    return done(error);
}

int cudaFree(void *pointer) {
    int error = enter(), device;
    if (!error && pointer) error = dl_unsafe();
    if (!error && pointer) error = dl_release((uint64_t)pointer, &device);
    return done(error);
}

int cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    int error = enter();
    if (!error) dl_device_memory(dl_current(), (uint64_t *)free_bytes, (uint64_t *)total_bytes);
    return done(error);
}

int cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    (void)flags;
    int error = enter();
    return done(error ? error : dl_host_allocate(pointer, bytes));
}

int cudaMallocHost(void **pointer, size_t bytes) {
    return cudaHostAlloc(pointer, bytes, 0);
}

int cudaFreeHost(void *pointer) {
    return done(pointer ? dl_host_forget(pointer, 1) : OK);
}

int cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
    (void)flags;
    int error = enter();
    return done(error ? error : dl_host_register(pointer, bytes));
}

int cudaHostUnregister(void *pointer) {
    return done(dl_host_forget(pointer, 0));
}

int cudaHostGetDevicePointer(void **device_pointer, void *pointer, unsigned flags) {
    (void)flags;
    *device_pointer = pointer;
    return OK;
}

int cudaPointerGetAttributes(struct pointer_attributes *to, const void *pointer) {
    memset(to, 0, sizeof *to);
    uint64_t base, bytes;
    int error = dl_usable();
    if (error) return done(error);
    if (!dl_find((uint64_t)pointer, &to->device, &base, &bytes)) {
        to->kind = 2; /* device */
        to->device_pointer = (void *)pointer;
    } else if (dl_is_pinned(pointer)) {
        to->kind = 1; /* host */
        to->device = dl_current();
        to->device_pointer = to->host_pointer = (void *)pointer;
    } else {
        to->device = -2; /* not registered */
        to->host_pointer = (void *)pointer;
    }
    return OK;
}

static int copy(void *to, const void *from, size_t bytes, struct stream *stream) {
    int error = enter();
    if (!error && !dl_work(stream)) dl_copy(to, from, bytes);
    return done(error);
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    (void)kind;
    int error = dl_unsafe();
    return error ? done(error) : copy(to, from, bytes, NULL);
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, struct stream *stream) {
    (void)kind;
    return copy(to, from, bytes, stream);
}

int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, struct stream *stream) {
    (void)to_device;
    (void)from_device;
    return copy(to, from, bytes, stream);
}

int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                      int kind, struct stream *stream) {
    (void)kind;
    int error = enter();
    if (!error && !dl_work(stream))
        for (size_t row = 0; row < height; row++)
            dl_copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return done(error);
}

int cudaMemset(void *to, int value, size_t bytes) {
    int error = enter();
    if (!error) dl_set(to, value, bytes);
    return done(error);
}

int cudaMemsetAsync(void *to, int value, size_t bytes, struct stream *stream) {
    int error = enter();
    if (!error && !dl_work(stream)) dl_set(to, value, bytes);
    return done(error);
}

/* ---- Variables of the device: addresses beside its memory, 64 KiB apart ---- */

static pthread_mutex_t symbols_lock = PTHREAD_MUTEX_INITIALIZER;
static const void *symbols[4096];
static int num_symbols;
static uint64_t symbols_at;

int cudaGetSymbolAddress(void **address, const void *symbol) {
    int one = 0, error = enter();
    if (error) return done(error);
    pthread_mutex_lock(&symbols_lock);
    if (!symbols_at) error = dl_reserve((uint64_t)4096 << 16, 0, &symbols_at);
    while (one < num_symbols && symbols[one] != symbol) one++;
    if (one == num_symbols && num_symbols < 4096) symbols[num_symbols++] = symbol;
    pthread_mutex_unlock(&symbols_lock);
    if (one == 4096) error = OUT_OF_MEMORY;
    *address = (void *)(symbols_at + ((uint64_t)one << 16));
    return done(error);
}

int cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset, int kind) {
    void *address;
    int error = cudaGetSymbolAddress(&address, symbol);
    return error ? error : cudaMemcpy((char *)address + offset, from, bytes, kind);
}

/* ---- Across processes: the opener gets addresses; the exporter's process counts the memory ---- */

#define IPC_MAGIC 0x637069656d656dull

int cudaIpcGetMemHandle(struct ipc_handle *handle, void *pointer) {
    int device;
    memset(handle, 0, sizeof *handle);
    handle->magic = IPC_MAGIC;
    return done(dl_find((uint64_t)pointer, &device, &handle->address, &handle->bytes));
}

int cudaIpcOpenMemHandle(void **pointer, struct ipc_handle handle, unsigned flags) {
    (void)flags;
    uint64_t address;
    int error = enter();
    if (!error && handle.magic != IPC_MAGIC) error = INVALID_VALUE;
    if (!error) error = dl_reserve(handle.bytes, 0, &address);
    if (error) return done(error);
    dl_mapped_device(address, handle.bytes, dl_current());
    dl_count("bytes of another process opened, whose data is not shared", handle.bytes);
    *pointer = (void *)address;
    return OK;
}

int cudaIpcCloseMemHandle(void *pointer) {
    dl_mapped_device((uint64_t)pointer, 0, -1);
    return done(dl_unreserve((uint64_t)pointer));
}

int cudaIpcGetEventHandle(struct ipc_handle *handle, struct event *event) {
    (void)event;
    memset(handle, 0, sizeof *handle);
    handle->magic = IPC_MAGIC;
    return OK;
}

int cudaIpcOpenEventHandle(struct event **event, struct ipc_handle handle) {
    if (handle.magic != IPC_MAGIC) return done(INVALID_VALUE);
    *event = dl_event_new();
    return OK;
}

/* ---- Pools of cudaMallocAsync: taken from the device in pieces of 32 MiB, given back by trimming alone ---- */

struct pool {
    uint64_t threshold, reserved, reserved_high, used, used_high;
};

#define POOL_PIECE (32 * MIB)

static struct pool pools[MOST_DEVICES];
static pthread_mutex_t pools_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t pool_rounded(uint64_t bytes) {
    return (bytes + POOL_PIECE - 1) / POOL_PIECE * POOL_PIECE;
}

int cudaDeviceGetDefaultMemPool(struct pool **pool, int device) {
    if (dl_physical(device) < 0) return done(INVALID_DEVICE);
    *pool = &pools[device];
    return OK;
}

int cudaDeviceGetMemPool(struct pool **pool, int device) {
    return cudaDeviceGetDefaultMemPool(pool, device);
}

static int pool_grow(int device, uint64_t bytes) {
    struct pool *pool = &pools[device];
    uint64_t wanted = pool_rounded(pool->used + bytes);
    if (wanted > pool->reserved) {
        int error = dl_take(device, wanted - pool->reserved);
        if (error) return error;
        pool->reserved = wanted;
        if (wanted > pool->reserved_high) pool->reserved_high = wanted;
    }
    pool->used += bytes;
    if (pool->used > pool->used_high) pool->used_high = pool->used;
    return OK;
}

int cudaMallocAsync(void **pointer, size_t bytes, struct stream *stream) {
    (void)stream;
    uint64_t address = 0, rounded = (bytes + 511) / 512 * 512;
    int device = dl_current(), error = enter();
    if (error) return done(error);
    pthread_mutex_lock(&pools_lock);
    error = pool_grow(device, rounded);
    if (!error) error = dl_reserve(rounded, 0, &address);
    pthread_mutex_unlock(&pools_lock);
    if (!error) dl_mapped_device(address, rounded, device);
    *pointer = (void *)address;
    return done(error);
}

int cudaFreeAsync(void *pointer, struct stream *stream) {
    (void)stream;
    int device;
    uint64_t base, bytes;
    int error = dl_find((uint64_t)pointer, &device, &base, &bytes);
    if (error) return done(error);
    dl_mapped_device(base, 0, -1);
    error = dl_unreserve(base);
    pthread_mutex_lock(&pools_lock);
    pools[device].used -= bytes;
    pthread_mutex_unlock(&pools_lock);
    return done(error);
}

int cudaMemPoolTrimTo(struct pool *pool, size_t keep) {
    pthread_mutex_lock(&pools_lock);
    uint64_t needed = pool_rounded(pool->used), wanted = pool_rounded(keep);
    uint64_t left = wanted > needed ? wanted : needed;
    if (left < pool->reserved) {
        dl_give((int)(pool - pools), pool->reserved - left);
        pool->reserved = left;
    }
    pthread_mutex_unlock(&pools_lock);
    return OK;
}

int cudaMemPoolSetAccess(struct pool *pool, const void *access, size_t count) {
    (void)pool;
    (void)access;
    (void)count;
    return OK;
}

static uint64_t *pool_field(struct pool *pool, int attribute) {
    switch (attribute) {
    case 4: return &pool->threshold;
    case 5: return &pool->reserved;
    case 6: return &pool->reserved_high;
    case 7: return &pool->used;
    case 8: return &pool->used_high;
    default: return NULL;
    }
}

int cudaMemPoolGetAttribute(struct pool *pool, int attribute, void *value) {
    uint64_t *field = pool_field(pool, attribute);
    if (field) *(uint64_t *)value = *field;
    else *(int *)value = 1; /* the three ways to reuse are on */
    return OK;
}

int cudaMemPoolSetAttribute(struct pool *pool, int attribute, void *value) {
    if (attribute == 4) pool->threshold = *(uint64_t *)value;
    if (attribute == 6) pool->reserved_high = pool->reserved;
    if (attribute == 8) pool->used_high = pool->used;
    return OK;
}

/* ---- Streams ---- */

int cudaStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority) {
    (void)flags;
    int error = enter();
    if (!error) *stream = dl_stream_new(dl_current(), priority);
    return done(error);
}

int cudaStreamCreateWithFlags(struct stream **stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

int cudaStreamCreate(struct stream **stream) {
    return cudaStreamCreateWithPriority(stream, 0, 0);
}

int cudaStreamDestroy(struct stream *stream) {
    dl_stream_delete(stream);
    return OK;
}

int cudaStreamGetPriority(struct stream *stream, int *priority) {
    *priority = dl_stream_priority(stream);
    return OK;
}

int cudaStreamQuery(struct stream *stream) {
    return done(dl_wait(stream));
}

int cudaStreamSynchronize(struct stream *stream) {
    int error = enter();
    return done(error ? error : dl_wait(stream));
}

int cudaStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags) {
    (void)flags;
    return done(dl_stream_wait(stream, event));
}

int cudaLaunchHostFunc(struct stream *stream, void (*function)(void *), void *data) {
    if (!dl_work(stream)) function(data);
    return OK;
}

int cudaStreamAddCallback(struct stream *stream, void (*function)(struct stream *, int, void *), void *data,
                          unsigned flags) {
    (void)flags;
    int error = dl_wait(stream);
    if (!error) function(stream, OK, data);
    return done(error);
}

/* ---- Captures and graphs ---- */

int cudaStreamBeginCapture(struct stream *stream, int mode) {
    return done(dl_capture_begin(stream, mode, NULL));
}

int cudaStreamEndCapture(struct stream *stream, struct graph **graph) {
    return done(dl_capture_end(stream, graph));
}

static int capture_status(struct stream *stream) {
    struct capture *capture = dl_capture_of(stream);
    return !capture ? 0 : capture->invalidated ? 2 : 1;
}

int cudaStreamIsCapturing(struct stream *stream, int *status) {
    *status = capture_status(stream);
    return OK;
}

static int capture_info(struct stream *stream, int *status, unsigned long long *id, struct graph **graph,
                        const void ***nodes, const void **edges, size_t *count) {
    static const void *no_nodes[1];
    struct capture *capture = dl_capture_of(stream);
    *status = capture_status(stream);
    if (id) *id = capture ? capture->id : 0;
    if (graph) *graph = capture ? capture->graph : NULL;
    if (nodes) *nodes = no_nodes;
    if (edges) *edges = NULL;
    if (count) *count = 0;
    return OK;
}

int cudaStreamGetCaptureInfo_v2(struct stream *stream, int *status, unsigned long long *id, struct graph **graph,
                                const void ***nodes, size_t *count) {
    return capture_info(stream, status, id, graph, nodes, NULL, count);
}

int cudaStreamGetCaptureInfo_v3(struct stream *stream, int *status, unsigned long long *id, struct graph **graph,
                                const void ***nodes, const void **edges, size_t *count) {
    return capture_info(stream, status, id, graph, nodes, edges, count);
}

#if CUDA_MAJOR < 13
int cudaStreamGetCaptureInfo(struct stream *stream, int *status, unsigned long long *id) {
    return capture_info(stream, status, id, NULL, NULL, NULL, NULL);
}
#else
int cudaStreamGetCaptureInfo(struct stream *stream, int *status, unsigned long long *id, struct graph **graph,
                             const void ***nodes, const void **edges, size_t *count) {
    return capture_info(stream, status, id, graph, nodes, edges, count);
}
#endif

int cudaThreadExchangeStreamCaptureMode(int *mode) {
    return dl_capture_mode(mode);
}

int cudaGraphCreate(struct graph **graph, unsigned flags) {
    (void)flags;
    *graph = calloc(1, sizeof **graph);
    return OK;
}

int cudaGraphGetNodes(struct graph *graph, void **nodes, size_t *count) {
    if (nodes) memset(nodes, 0, *count * sizeof *nodes);
    *count = graph->nodes;
    return OK;
}

/* An executable graph is only its name: replaying it runs nothing, and asks the allocator for nothing. */
int cudaGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags) {
    (void)flags;
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    return done(enter());
}

#if CUDA_MAJOR < 12
#error "torch is supported with CUDA 12 and 13"
#endif

int cudaGraphInstantiate(struct graph **executable, struct graph *graph, unsigned long long flags) {
    return cudaGraphInstantiateWithFlags(executable, graph, flags);
}

int cudaGraphLaunch(struct graph *executable, struct stream *stream) {
    (void)executable;
    int error = enter();
    dl_work(stream);
    return done(error);
}

int cudaGraphDestroy(struct graph *graph) {
    free(graph);
    return OK;
}

int cudaGraphExecDestroy(struct graph *executable) {
    free(executable);
    return OK;
}

/* ---- Events ---- */

int cudaEventCreateWithFlags(struct event **event, unsigned flags) {
    (void)flags;
    int error = enter();
    if (!error) *event = dl_event_new();
    return done(error);
}

int cudaEventCreate(struct event **event) {
    return cudaEventCreateWithFlags(event, 0);
}

int cudaEventDestroy(struct event *event) {
    dl_event_delete(event);
    return OK;
}

int cudaEventRecord(struct event *event, struct stream *stream) {
    return done(dl_event_record(event, stream));
}

int cudaEventRecordWithFlags(struct event *event, struct stream *stream, unsigned flags) {
    (void)flags;
    return done(dl_event_record(event, stream));
}

int cudaEventQuery(struct event *event) {
    return done(dl_event_done(event));
}

int cudaEventSynchronize(struct event *event) {
    return done(dl_event_done(event));
}

int cudaEventElapsedTime(float *milliseconds, struct event *from, struct event *to) {
    return done(dl_elapsed(from, to, milliseconds));
}

/* ---- Kernels: registered, looked up, launched, and never run ---- */

struct call {
    struct dim3 grid, block;
    size_t shared;
    void *stream;
};

static __thread struct call calls[16];
static __thread int num_calls;

void **__cudaRegisterFatBinary(void *binary) {
    (void)binary;
    static void *registered;
    return &registered;
}

void __cudaRegisterFatBinaryEnd(void **binary) {
    (void)binary;
}

void __cudaUnregisterFatBinary(void **binary) {
    (void)binary;
}

void __cudaRegisterFunction(void **binary, const void *function, char *name, const char *device_name, int threads,
                            void *thread, void *block, void *block_size, void *grid_size, int *warp) {
    (void)binary, (void)function, (void)name, (void)device_name, (void)threads;
    (void)thread, (void)block, (void)block_size, (void)grid_size, (void)warp;
}

void __cudaRegisterVar(void **binary, char *variable, char *address, const char *name, int external, size_t bytes,
                       int constant, int global) {
    (void)binary, (void)variable, (void)address, (void)name, (void)external, (void)bytes, (void)constant, (void)global;
}

char __cudaInitModule(void **binary) {
    (void)binary;
    return 1;
}

unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, void *stream) {
    if (num_calls == sizeof calls / sizeof *calls) return 1;
    calls[num_calls++] = (struct call){grid, block, shared, stream};
    return 0;
}

int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared, void *stream) {
    if (!num_calls) return done(INVALID_VALUE);
    struct call *call = &calls[--num_calls];
    *grid = call->grid;
    *block = call->block;
    *shared = call->shared;
    *(void **)stream = call->stream;
    return OK;
}

static int launch(void **arguments, struct stream *stream) {
    int error = enter();
    dl_handed_arguments(arguments);
    dl_work(stream);
    return done(error);
}

int cudaLaunchKernel(const void *function, struct dim3 grid, struct dim3 block, void **arguments, size_t shared,
                     struct stream *stream) {
    (void)function, (void)grid, (void)block, (void)shared;
    return launch(arguments, stream);
}

int cudaLaunchCooperativeKernel(const void *function, struct dim3 grid, struct dim3 block, void **arguments,
                                size_t shared, struct stream *stream) {
    (void)function, (void)grid, (void)block, (void)shared;
    return launch(arguments, stream);
}

struct launch_config {
    struct dim3 grid, block;
    size_t shared;
    struct stream *stream;
};

int cudaLaunchKernelExC(const struct launch_config *config, const void *function, void **arguments) {
    (void)function;
    return launch(arguments, config->stream);
}

int __cudaGetKernel(void **kernel, const void *function) {
    *kernel = (void *)function;
    return OK;
}

int __cudaLaunchKernel(void *kernel, struct dim3 grid, struct dim3 block, void **arguments, size_t shared,
                       struct stream *stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

/* A kernel that needs 32 registers, no shared memory, and may have blocks of 1,024 threads. */
int cudaFuncGetAttributes(struct function_attributes *to, const void *function) {
    (void)function;
    const struct gpu *gpu = dl_gpu();
    memset(to, 0, sizeof *to);
    to->threads = 1024;
    to->registers = 32;
    to->ptx = to->binary = 10 * gpu->major + gpu->minor;
    to->dynamic_shared = gpu->shared_per_block_optin;
    return done(enter());
}

int cudaFuncSetAttribute(const void *function, int attribute, int value) {
    (void)function, (void)attribute, (void)value;
    return done(enter());
}

int cudaFuncSetCacheConfig(const void *function, int config) {
    (void)function, (void)config;
    return done(enter());
}

/* As many blocks as threads allow, and shared memory where the kernel asks for it. */
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                           size_t shared, unsigned flags) {
    (void)function, (void)flags;
    const struct gpu *gpu = dl_gpu();
    if (threads < 1) return done(INVALID_VALUE);
    int fit = gpu->threads_per_multiprocessor / ((threads + 31) / 32 * 32);
    if (fit > gpu->blocks_per_multiprocessor) fit = gpu->blocks_per_multiprocessor;
    if (shared && (size_t)gpu->shared_per_multiprocessor / shared < (size_t)fit)
        fit = (int)((size_t)gpu->shared_per_multiprocessor / shared);
    *blocks = fit;
    return done(enter());
}

int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

/* ---- Kernels that a library brings as code ---- */

int cudaLibraryLoadData(void **library, const void *code, int *options, void **values, unsigned count, int *more,
                        void **more_values, unsigned more_count) {
    (void)options, (void)values, (void)count, (void)more, (void)more_values, (void)more_count;
    *library = (void *)code;
    return done(enter());
}

int cudaLibraryUnload(void *library) {
    (void)library;
    return OK;
}

int cudaLibraryGetKernel(void **kernel, void *library, const char *name) {
    (void)name;
    *kernel = library;
    return OK;
}

int cudaKernelSetAttributeForDevice(void *kernel, int attribute, int value, int device) {
    (void)kernel, (void)attribute, (void)value, (void)device;
    return OK;
}

/* ---- The driver's functions by name ---- */

static void *driver_function(const char *name) {
    static void *driver;
    if (!driver) driver = dlopen("libcuda.so.1", RTLD_NOW);
    return driver ? dlsym(driver, name) : NULL;
}

int cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags, int *result) {
    (void)flags;
    *function = driver_function(name);
    if (result) *result = *function ? 0 : 1;
    if (!*function) dl_count(strdup(name), 1);
    return OK;
}

int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                     int *result) {
    (void)version;
    return cudaGetDriverEntryPoint(name, function, flags, result);
}
