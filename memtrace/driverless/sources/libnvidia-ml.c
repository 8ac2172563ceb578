/* NVML: which devices there are, and what this process takes of them. CUDA_VISIBLE_DEVICES does not hold here. */
#define _GNU_SOURCE
#include "driverless.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NVML_NOT_SUPPORTED = 3, NVML_INVALID_ARGUMENT = 2, NVML_SMALL = 7, NVML_NOT_FOUND = 6 };

#define DEVICE(number) ((void *)(uintptr_t)((number) + 1))
#define NUMBER(device) ((int)(uintptr_t)(device)-1)

int nvmlInit(void) {
    return OK;
}

int nvmlInit_v2(void) {
    return OK;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return OK;
}

int nvmlShutdown(void) {
    return OK;
}

const char *nvmlErrorString(int error) {
    return error ? "Not Supported" : "Success";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)dl_gpu()->devices;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **device) {
    if ((int)number >= dl_gpu()->devices) return NVML_INVALID_ARGUMENT;
    *device = DEVICE(number);
    return OK;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *text, void **device) {
    unsigned domain, bus;
    if (sscanf(text, "%x:%x", &domain, &bus) != 2 || !bus || (int)bus > dl_gpu()->devices) return NVML_NOT_FOUND;
    *device = DEVICE(bus - 1);
    return OK;
}

static void uuid_text(int number, char *text) {
    unsigned char bytes[16];
    dl_uuid(number, bytes);
    text += sprintf(text, "GPU-");
    for (int at = 0; at < 16; at++) {
        if (at == 4 || at == 6 || at == 8 || at == 10) *text++ = '-';
        text += sprintf(text, "%02x", bytes[at]);
    }
}

int nvmlDeviceGetHandleByUUID(const char *text, void **device) {
    char own[48];
    for (int one = 0; one < dl_gpu()->devices; one++) {
        uuid_text(one, own);
        if (strcmp(own, text)) continue;
        *device = DEVICE(one);
        return OK;
    }
    return NVML_NOT_FOUND;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned room) {
    char own[48];
    uuid_text(NUMBER(device), own);
    if (room <= strlen(own)) return NVML_SMALL;
    strcpy(text, own);
    return OK;
}

int nvmlDeviceGetIndex(void *device, unsigned *number) {
    *number = (unsigned)NUMBER(device);
    return OK;
}

int nvmlDeviceGetName(void *device, char *name, unsigned room) {
    (void)device;
    snprintf(name, room, "%s", dl_gpu()->name);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    (void)device;
    *major = dl_gpu()->major;
    *minor = dl_gpu()->minor;
    return OK;
}

int nvmlSystemGetDriverVersion(char *text, unsigned room) {
    snprintf(text, room, "580.65.06");
    return OK;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    *version = dl_gpu()->driver_version;
    return OK;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return nvmlSystemGetCudaDriverVersion(version);
}

/* What this process takes of a device: -1 if it does not see it. */
static int own_device(void *device) {
    for (int one = 0; one < dl_visible_devices(); one++)
        if (dl_physical(one) == NUMBER(device)) return one;
    return -1;
}

struct memory {
    unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    int own = own_device(device);
    uint64_t free_bytes = dl_gpu()->memory, total = dl_gpu()->memory;
    if (own >= 0) dl_device_memory(own, &free_bytes, &total);
    *memory = (struct memory){total, free_bytes, total - free_bytes};
    return OK;
}

/* Processes of NVML's versions 1 and 3 differ in what follows process and bytes. */
struct process_1 {
    unsigned process;
    unsigned long long bytes;
};

struct process_3 {
    unsigned process;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

static int is_in_use(void *device) {
    int own = own_device(device);
    return own >= 0 && dl_is_active(own);
}

int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, struct process_1 *processes) {
    unsigned room = *count;
    *count = (unsigned)is_in_use(device);
    if (!*count) return OK;
    if (!room) return NVML_SMALL;
    processes[0] = (struct process_1){(unsigned)getpid(), dl_used(own_device(device))};
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process_3 *processes) {
    unsigned room = *count;
    *count = (unsigned)is_in_use(device);
    if (!*count) return OK;
    if (!room) return NVML_SMALL;
    processes[0] = (struct process_3){(unsigned)getpid(), dl_used(own_device(device)), ~0u, ~0u};
    return OK;
}

/* No fabric: the state says that there is none, as on a machine whose GPUs are not joined beyond it. */
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) {
    (void)device, (void)info;
    return OK;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *kind) {
    (void)device, (void)link, (void)kind;
    return NVML_NOT_SUPPORTED;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, void *info) {
    (void)device, (void)link, (void)info;
    return NVML_NOT_SUPPORTED;
}
