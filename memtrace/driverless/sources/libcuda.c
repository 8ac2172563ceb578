/* The driver: contexts, virtual memory for expandable segments, modules and launches that launch nothing. */
#define _GNU_SOURCE
#include "driverless.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT(device) ((void *)(uintptr_t)(0x1000 + (device)))

/* ---- Errors, devices, contexts: the primary context of a device is the only one ---- */

int cuInit(unsigned flags) {
    (void)flags;
    return dl_usable();
}

int cuDriverGetVersion(int *version) {
    *version = dl_gpu()->driver_version;
    return OK;
}

int cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == NOT_SUPPORTED ? "operation not supported" : "error";
    return OK;
}

int cuGetErrorName(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return OK;
}

int cuDeviceGetCount(int *count) {
    *count = dl_visible_devices();
    return OK;
}

int cuDeviceGet(int *device, int number) {
    if (dl_physical(number) < 0) return INVALID_DEVICE;
    *device = number;
    return OK;
}

int cuDeviceGetName(char *name, int room, int device) {
    (void)device;
    strncpy(name, dl_gpu()->name, (size_t)room);
    name[room - 1] = 0;
    return OK;
}

int cuDeviceTotalMem(size_t *bytes, int device) {
    (void)device;
    *bytes = dl_gpu()->memory;
    return OK;
}

int cuDeviceGetUuid(unsigned char *sixteen, int device) {
    dl_uuid(dl_physical(device), sixteen);
    return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (dl_physical(device) < 0) return INVALID_DEVICE;
    *value = dl_attribute(attribute, device);
    return OK;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (dl_physical(device) < 0) return INVALID_DEVICE;
    *flags = 0;
    *active = dl_is_active(device);
    return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    if (dl_physical(device) < 0) return INVALID_DEVICE;
    dl_activate(device);
    *context = CONTEXT(device);
    return OK;
}

int cuDevicePrimaryCtxRelease(int device) {
    return dl_physical(device) < 0 ? INVALID_DEVICE : OK;
}

int cuCtxGetCurrent(void **context) {
    *context = dl_is_active(dl_current()) ? CONTEXT(dl_current()) : NULL;
    return OK;
}

int cuCtxSetCurrent(void *context) {
    return context ? dl_set_current((int)((uintptr_t)context - (uintptr_t)CONTEXT(0))) : OK;
}

int cuCtxGetDevice(int *device) {
    *device = dl_current();
    return OK;
}

int cuCtxSynchronize(void) {
    return OK;
}

/* ---- Physical memory, and where it is mapped ---- */

struct physical {
    uint64_t bytes;
    int device, references;
};

struct mapping {
    uint64_t address, bytes;
    struct physical *physical;
    struct mapping *next;
};

struct memory_properties {
    int kind, handle_types, location_kind, device;
    void *unused;
    unsigned char flags[8];
};

#define BUCKETS 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings[BUCKETS];

static struct mapping **bucket(uint64_t address) {
    return &mappings[address / (2 * MIB) % BUCKETS];
}

static void let_go(struct physical *one) {
    if (--one->references) return;
    dl_give(one->device, one->bytes);
    free(one);
}

int cuMemGetAllocationGranularity(size_t *bytes, const struct memory_properties *properties, int kind) {
    (void)properties, (void)kind;
    *bytes = 2 * MIB;
    return OK;
}

int cuMemCreate(struct physical **handle, size_t bytes, const struct memory_properties *properties,
                unsigned long long flags) {
    (void)flags;
    if (bytes % (2 * MIB) || !bytes || dl_physical(properties->device) < 0) return INVALID_VALUE;
    int error = dl_take(properties->device, bytes);
    if (error) return error;
    *handle = malloc(sizeof **handle);
    **handle = (struct physical){bytes, properties->device, 1};
    return OK;
}

int cuMemRelease(struct physical *handle) {
    pthread_mutex_lock(&lock);
    let_go(handle);
    pthread_mutex_unlock(&lock);
    return OK;
}

int cuMemRetainAllocationHandle(struct physical **handle, void *pointer) {
    int device;
    uint64_t base, bytes;
    *handle = NULL;
    if (dl_find((uint64_t)pointer, &device, &base, &bytes)) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct mapping *one = *bucket(base); one; one = one->next)
        if (one->address == base) *handle = one->physical;
    if (*handle) (*handle)->references++;
    pthread_mutex_unlock(&lock);
    return *handle ? OK : INVALID_VALUE;
}

int cuMemGetAllocationPropertiesFromHandle(struct memory_properties *properties, struct physical *handle) {
    memset(properties, 0, sizeof *properties);
    properties->kind = properties->location_kind = 1; /* pinned, on a device */
    properties->device = handle->device;
    return OK;
}

int cuMemAddressReserve(uint64_t *address, size_t bytes, size_t alignment, uint64_t wish, unsigned long long flags) {
    (void)wish, (void)flags;
    return dl_reserve(bytes, alignment, address);
}

int cuMemAddressFree(uint64_t address, size_t bytes) {
    (void)bytes;
    return dl_unreserve(address);
}

int cuMemMap(uint64_t address, size_t bytes, size_t offset, struct physical *handle, unsigned long long flags) {
    (void)offset, (void)flags;
    struct mapping *one = malloc(sizeof *one);
    pthread_mutex_lock(&lock);
    *one = (struct mapping){address, bytes, handle, *bucket(address)};
    *bucket(address) = one;
    handle->references++;
    pthread_mutex_unlock(&lock);
    dl_mapped_device(address, bytes, handle->device);
    return OK;
}

static struct mapping *unlink_mapping(uint64_t address) {
    struct mapping **at = bucket(address);
    while (*at && (*at)->address != address) at = &(*at)->next;
    struct mapping *one = *at;
    if (one) *at = one->next;
    return one;
}

/* A range may hold several mappings, one after the other. */
int cuMemUnmap(uint64_t address, size_t bytes) {
    for (uint64_t at = address; at < address + bytes;) {
        pthread_mutex_lock(&lock);
        struct mapping *one = unlink_mapping(at);
        if (one) let_go(one->physical);
        pthread_mutex_unlock(&lock);
        if (!one) return INVALID_VALUE;
        dl_mapped_device(at, one->bytes, -1);
        at += one->bytes;
        free(one);
    }
    return OK;
}

int cuMemSetAccess(uint64_t address, size_t bytes, const void *access, size_t count) {
    (void)address, (void)bytes, (void)access, (void)count;
    return OK;
}

int cuMemGetAddressRange(uint64_t *base, size_t *bytes, uint64_t address) {
    int device;
    uint64_t first, length;
    int error = dl_find(address, &device, &first, &length);
    if (error) return error;
    if (base) *base = first;
    if (bytes) *bytes = length;
    return OK;
}

int cuMemGetAddressRange_v2(uint64_t *base, size_t *bytes, uint64_t address) {
    return cuMemGetAddressRange(base, bytes, address);
}

int cuMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    dl_device_memory(dl_current(), (uint64_t *)free_bytes, (uint64_t *)total_bytes);
    return OK;
}

int cuPointerGetAttribute(void *data, int attribute, uint64_t address) {
    int device;
    uint64_t base, bytes;
    if (dl_find(address, &device, &base, &bytes)) return INVALID_VALUE;
    switch (attribute) {
    case 1: *(void **)data = CONTEXT(device); return OK;
    case 2: *(unsigned *)data = 2; return OK; /* device memory */
    case 3: *(uint64_t *)data = address; return OK;
    case 6: case 8: *(unsigned *)data = 0; return OK;
    case 7: *(uint64_t *)data = base; return OK; /* a number of its own */
    case 9: *(int *)data = device; return OK;
    case 11: *(uint64_t *)data = base; return OK;
    case 12: *(size_t *)data = bytes; return OK;
    case 13: *(char *)data = 1; return OK;
    default: return (int)dl_refuse("cuPointerGetAttribute (an attribute)", NOT_SUPPORTED);
    }
}

int cuPointerGetAttributes(unsigned count, int *attributes, void **data, uint64_t address) {
    /* Of what is no memory of a device, the real one answers with zeros, and no error. */
    for (unsigned i = 0; i < count; i++)
        if (cuPointerGetAttribute(data[i], attributes[i], address)) memset(data[i], 0, 4);
    return OK;
}

/* What a printing kernel may write, and its kind: nothing is ever printed. */
int cuCtxGetLimit(size_t *bytes, int limit) {
    (void)limit;
    *bytes = MIB;
    return OK;
}

int cuCtxSetLimit(int limit, size_t bytes) {
    (void)limit, (void)bytes;
    return OK;
}

int cuMemsetD32Async(uint64_t address, unsigned value, size_t count, struct stream *stream) {
    if (!dl_work(stream) && !value) dl_set((void *)address, 0, 4 * count);
    return OK;
}

int cuStreamWriteValue32(struct stream *stream, uint64_t address, unsigned value, unsigned flags) {
    (void)flags;
    if (!dl_work(stream)) dl_copy((void *)address, &value, sizeof value);
    return OK;
}

/* ---- Modules: one handle stands for the module and all its functions ---- */

static int module(void **to) {
    if (!dl_usable()) dl_activate(dl_current());
    *to = malloc(1);
    return dl_usable();
}

int cuModuleLoad(void **to, const char *file) {
    (void)file;
    return module(to);
}

int cuModuleLoadData(void **to, const void *image) {
    (void)image;
    return module(to);
}

int cuModuleLoadDataEx(void **to, const void *image, unsigned count, int *options, void **values) {
    (void)image, (void)count, (void)options, (void)values;
    return module(to);
}

int cuModuleUnload(void *one) {
    free(one);
    return OK;
}

int cuModuleGetFunction(void **function, void *from, const char *name) {
    (void)name;
    *function = from;
    return OK;
}

int cuLinkCreate_v2(unsigned count, int *options, void **values, void **link) {
    (void)count, (void)options, (void)values;
    return module(link);
}

int cuLinkAddData_v2(void *link, int kind, void *data, size_t bytes, const char *name, unsigned count, int *options,
                     void **values) {
    (void)link, (void)kind, (void)data, (void)bytes, (void)name, (void)count, (void)options, (void)values;
    return OK;
}

int cuLinkComplete(void *link, void **image, size_t *bytes) {
    *image = link;
    *bytes = 1;
    return OK;
}

int cuFuncGetAttribute(int *value, int attribute, void *function) {
    (void)function;
    const struct gpu *gpu = dl_gpu();
    switch (attribute) {
    case 0: *value = 1024; return OK; /* threads of a block */
    case 4: *value = 32; return OK; /* registers */
    case 5: case 6: *value = 10 * gpu->major + gpu->minor; return OK;
    case 8: *value = gpu->shared_per_block_optin; return OK;
    default: *value = 0; return OK; /* shared, constant and local memory: none */
    }
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    (void)function, (void)attribute, (void)value;
    return OK;
}

int cuFuncSetCacheConfig(void *function, int config) {
    (void)function, (void)config;
    return OK;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    (void)function;
    const struct gpu *gpu = dl_gpu();
    if (threads < 1) return INVALID_VALUE;
    int fit = gpu->threads_per_multiprocessor / ((threads + 31) / 32 * 32);
    if (shared && (size_t)gpu->shared_per_multiprocessor / shared < (size_t)fit)
        fit = (int)((size_t)gpu->shared_per_multiprocessor / shared);
    *blocks = fit < gpu->blocks_per_multiprocessor ? fit : gpu->blocks_per_multiprocessor;
    return OK;
}

int cuOccupancyMaxActiveClusters(int *clusters, void *function, const void *config) {
    (void)function, (void)config;
    *clusters = dl_gpu()->major >= 9 ? dl_gpu()->multiprocessors / 2 : 0;
    return OK;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, struct stream *stream, void **arguments,
                   void **extra) {
    (void)function, (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z;
    (void)shared, (void)extra;
    dl_handed_arguments(arguments);
    dl_work(stream);
    return OK;
}

int cuLaunchCooperativeKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                              unsigned block_y, unsigned block_z, unsigned shared, struct stream *stream,
                              void **arguments) {
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, arguments, NULL);
}

struct launch_config {
    unsigned grid[3], block[3], shared;
    struct stream *stream;
};

int cuLaunchKernelEx(const struct launch_config *config, void *function, void **arguments, void **extra) {
    (void)function, (void)extra;
    dl_handed_arguments(arguments);
    dl_work(config->stream);
    return OK;
}

int cuTensorMapEncodeTiled(void *map, int kind, unsigned rank, void *address, const uint64_t *sizes,
                           const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave,
                           int swizzle, int promotion, int fill) {
    (void)kind, (void)rank, (void)address, (void)sizes, (void)strides, (void)box, (void)steps;
    (void)interleave, (void)swizzle, (void)promotion, (void)fill;
    memset(map, 0, 128);
    return OK;
}

int cuTensorMapEncodeIm2col(void *map) {
    memset(map, 0, 128);
    return OK;
}
