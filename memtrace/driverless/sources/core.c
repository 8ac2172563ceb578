/* The devices: read from the environment once, and what is asked of them by number. */
#define _GNU_SOURCE
#include "driverless.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct gpu gpu;
static int visible[MOST_DEVICES], num_visible;
static int active[MOST_DEVICES], is_initialised, is_forked_child;
static __thread int current;

/* ---- The description: `key=value` separated by `;` ---- */

static const char *value_of(const char *key, char *into, size_t room) {
    const char *text = getenv("MEMTRACE_DRIVERLESS");
    size_t length = strlen(key);
    while (text && *text) {
        const char *end = strchrnul(text, ';');
        if (!strncmp(text, key, length) && text[length] == '=') {
            size_t size = (size_t)(end - text) - length - 1;
            if (size >= room) size = room - 1;
            memcpy(into, text + length + 1, size);
            into[size] = 0;
            return into;
        }
        text = *end ? end + 1 : end;
    }
    return NULL;
}

static uint64_t number_of(const char *key) {
    char text[32];
    return value_of(key, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

void dl_uuid(int physical, unsigned char *sixteen) {
    memset(sixteen, 0, 16);
    memcpy(sixteen, "memtrace", 8);
    sixteen[15] = (unsigned char)physical;
}

static int named_device(const char *text) {
    if (strncmp(text, "GPU-", 4)) {
        char *end;
        long number = strtol(text, &end, 10);
        return end == text || number < 0 || number >= gpu.devices ? -1 : (int)number;
    }
    for (int one = 0; one < gpu.devices; one++) {
        unsigned char bytes[16];
        char full[48] = "GPU-";
        dl_uuid(one, bytes);
        for (int at = 0, to = 4; at < 16; at++) {
            if (at == 4 || at == 6 || at == 8 || at == 10) full[to++] = '-';
            to += sprintf(full + to, "%02x", bytes[at]);
        }
        if (!strncmp(full, text, strlen(text))) return one;
    }
    return -1;
}

/* As the driver reads CUDA_VISIBLE_DEVICES: devices count up to the first that is none. */
static void read_visible(void) {
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    if (!text) {
        for (num_visible = 0; num_visible < gpu.devices; num_visible++) visible[num_visible] = num_visible;
        return;
    }
    char copy[512], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, ", ", &rest); one; one = strtok_r(NULL, ", ", &rest)) {
        int device = named_device(one);
        if (device < 0 || num_visible == MOST_DEVICES) break;
        visible[num_visible++] = device;
    }
}

static void in_forked_child(void) {
    is_forked_child = is_initialised;
}

static void read_environment(void) {
    value_of("name", gpu.name, sizeof gpu.name);
    gpu.memory = number_of("memory");
    gpu.context = number_of("context");
    gpu.devices = (int)number_of("devices");
    if (gpu.devices > MOST_DEVICES) gpu.devices = MOST_DEVICES;
    gpu.major = (int)number_of("major");
    gpu.minor = (int)number_of("minor");
    gpu.multiprocessors = (int)number_of("multiprocessors");
    gpu.threads_per_multiprocessor = (int)number_of("threads_per_multiprocessor");
    gpu.blocks_per_multiprocessor = (int)number_of("blocks_per_multiprocessor");
    gpu.shared_per_block = (int)number_of("shared_per_block");
    gpu.shared_per_block_optin = (int)number_of("shared_per_block_optin");
    gpu.shared_per_multiprocessor = (int)number_of("shared_per_multiprocessor");
    gpu.l2_bytes = (int)number_of("l2_bytes");
    gpu.bus_bits = (int)number_of("bus_bits");
    gpu.clock_khz = (int)number_of("clock_khz");
    gpu.memory_clock_khz = (int)number_of("memory_clock_khz");
    gpu.driver_version = (int)number_of("driver_version");
    gpu.peer = (int)number_of("peer");
    gpu.keep_copy = number_of("keep_copy");
    gpu.keep_all = number_of("keep_all");
    read_visible();
    pthread_atfork(NULL, NULL, in_forked_child);
}

const struct gpu *dl_gpu(void) {
    pthread_once(&once, read_environment);
    return &gpu;
}

int dl_visible_devices(void) {
    dl_gpu();
    return num_visible;
}

int dl_physical(int device) {
    return device >= 0 && device < dl_visible_devices() ? visible[device] : -1;
}

/* ---- The thread's device, and initialisation ---- */

int dl_current(void) {
    return current;
}

int dl_usable(void) {
    if (dl_visible_devices() == 0) return NO_DEVICE;
    is_initialised = 1;
    return is_forked_child ? INITIALIZATION_ERROR : OK;
}

void dl_activate(int device) {
    active[device] = 1;
}

int dl_is_active(int device) {
    return device >= 0 && device < MOST_DEVICES && active[device];
}

int dl_set_current(int device) {
    if (device < 0 || device >= dl_visible_devices()) return INVALID_DEVICE;
    current = device;
    return OK;
}

/* ---- Attributes: the numbers are those of cudaDeviceAttr and CUdevice_attribute, which agree ---- */

int dl_attribute(int attribute, int device) {
    const struct gpu *one = dl_gpu();
    switch (attribute) {
    case 1: case 2: case 3: return 1024; /* threads of a block, x, y */
    case 4: return 64;
    case 5: return 2147483647; /* blocks of a grid, x */
    case 6: case 7: return 65535;
    case 8: return one->shared_per_block;
    case 9: return 65536; /* constant memory */
    case 10: return 32; /* warp */
    case 11: return 2147483647; /* pitch */
    case 12: case 82: return 65536; /* registers of a block, of a multiprocessor */
    case 13: return one->clock_khz;
    case 14: return 512; /* texture alignment */
    case 15: case 19: case 31: case 41: case 78: case 79: case 80: case 83: return 1; /* as every card of today */
    case 16: return one->multiprocessors;
    case 33: return dl_physical(device) + 1; /* PCI bus */
    case 36: return one->memory_clock_khz;
    case 37: return one->bus_bits;
    case 38: return one->l2_bytes;
    case 39: return one->threads_per_multiprocessor;
    case 40: return 3; /* copy engines */
    case 51: return 32; /* texture pitch alignment */
    case 75: return one->major;
    case 76: return one->minor;
    case 81: return one->shared_per_multiprocessor;
    case 89: case 90: case 91: case 95: case 96: return 1; /* managed access, preemption, cooperative launches */
    case 97: return one->shared_per_block_optin;
    case 98: case 99: return 1; /* flushed remote writes; host memory can be registered */
    case 102: case 103: return 1; /* virtual memory; handles as file descriptors */
    case 106: return one->blocks_per_multiprocessor;
    case 108: case 109: return one->major >= 8 ? one->l2_bytes / 4 * 3 : 0; /* persisting L2 */
    case 111: return one->major >= 8 ? 1024 : 0; /* shared memory that a block cannot use */
    case 115: return 1; /* memory pools */
    case 119: return 1; /* their handles are file descriptors */
    case 120: return one->major >= 9; /* clusters */
    case 121: case 125: return 1; /* events across processes */
    case 126: return one->major >= 9 ? 4 : 1; /* domains of memory synchronisation */
    default: return 0; /* textures, surfaces and what cards of today lack: nothing in torch asks */
    }
}

/* ---- What nobody thought of ---- */

struct counted {
    const char *name;
    uint64_t calls;
    int is_refused;
};

static struct counted counted[4096];
static int num_counted;

static uint64_t count(const char *name, uint64_t amount, int is_refused) {
    uint64_t before = 0;
    pthread_mutex_lock(&lock);
    int at = 0;
    while (at < num_counted && counted[at].name != name && strcmp(counted[at].name, name)) at++;
    if (at < (int)(sizeof counted / sizeof *counted)) {
        if (at == num_counted) counted[num_counted++] = (struct counted){name, 0, is_refused};
        before = counted[at].calls;
        counted[at].calls += amount;
    }
    pthread_mutex_unlock(&lock);
    return before;
}

long dl_refuse(const char *name, long error) {
    if (count(name, 1, 1) == 0)
        fprintf(stderr, "memtrace: CUDA without a driver has no answer to %s, and refuses it\n", name);
    return error;
}

void dl_count(const char *what, uint64_t amount) {
    count(what, amount, 0);
}

/* One line a name, appended to the file that the environment names when the process ends. */
__attribute__((destructor)) static void write_counts(void) {
    char path[1024];
    if (!num_counted || !value_of("log", path, sizeof path)) return;
    FILE *file = fopen(path, "a");
    if (!file) return;
    for (int at = 0; at < num_counted; at++)
        fprintf(file, "%d %s %llu %s\n", (int)getpid(), counted[at].is_refused ? "refused" : "counted",
                (unsigned long long)counted[at].calls, counted[at].name);
    fclose(file);
}

/* ---- Handles of libraries, told from anything else that a call by rule has first ---- */

#define HANDLE_MAGIC 0x6d656d7472616365ull

struct handle *dl_handle_new(void) {
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle) abort();
    handle->magic = HANDLE_MAGIC;
    handle->device = dl_current();
    return handle;
}

void dl_handle_delete(struct handle *handle) {
    if (handle && handle->magic == HANDLE_MAGIC) {
        handle->magic = 0;
        free(handle);
    }
}

void dl_library_work(void *handle) {
    struct handle *one = handle;
    /* Numbers, which some libraries have for handles, are no addresses; those of a device cannot be looked at. */
    if ((uintptr_t)one > 4096 && !dl_is_device(one) && one->magic == HANDLE_MAGIC) dl_work(one->stream);
}
