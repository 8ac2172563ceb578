/* What all stub libraries share: the devices that are not there, their memory, streams, and the calls nobody thought of.
 *
 * No header of NVIDIA's is needed: what their libraries pass around is declared here, as far as it is looked at.
 * CUDA_MAJOR is given by the build: layouts and signatures differ between CUDA 12 and 13.
 */
#ifndef DRIVERLESS_H
#define DRIVERLESS_H

#include <stddef.h>
#include <stdint.h>

#define MIB ((uint64_t)1 << 20)
#define MOST_DEVICES 16

/* Error numbers of the runtime; the driver's are the same where both have them. */
enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INITIALIZATION_ERROR = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    PEER_ALREADY_ENABLED = 704,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNJOINED = 904,
    CAPTURED_EVENT = 907
};

/* ---- core.c: the device as the environment describes it ---- */

/* Facts of one GPU; every device of a process is of the same kind. From the variable MEMTRACE_DRIVERLESS. */
struct gpu {
    char name[128];
    uint64_t memory, context;
    int devices, major, minor, multiprocessors, threads_per_multiprocessor, blocks_per_multiprocessor;
    int shared_per_block, shared_per_block_optin, shared_per_multiprocessor;
    int l2_bytes, bus_bits, clock_khz, memory_clock_khz, driver_version, peer;
    uint64_t keep_copy, keep_all;
};

const struct gpu *dl_gpu(void);
int dl_visible_devices(void);
int dl_physical(int device);
int dl_attribute(int attribute, int device);
void dl_uuid(int physical, unsigned char *sixteen);

/* The device of the calling thread, and whether CUDA can be used: not in a child forked after it was initialised. */
int dl_current(void);
int dl_set_current(int device);
int dl_usable(void);
void dl_activate(int device);
int dl_is_active(int device);

/* A call without an answer is named once on standard error, counted, and refused with `error`. */
long dl_refuse(const char *name, long error);
/* What a rule answered, counted by what it could not know; `what` has static storage. */
void dl_count(const char *what, uint64_t amount);

/* ---- memory.c ---- */

int dl_allocate(int device, uint64_t bytes, uint64_t *address);
int dl_release(uint64_t address, int *device);
void dl_device_memory(int device, uint64_t *free_bytes, uint64_t *total_bytes);
uint64_t dl_used(int device);
int dl_take(int device, uint64_t bytes);
void dl_give(int device, uint64_t bytes);
int dl_is_device(const void *pointer);
int dl_find(uint64_t address, int *device, uint64_t *base, uint64_t *bytes);
int dl_reserve(uint64_t bytes, uint64_t alignment, uint64_t *address);
int dl_unreserve(uint64_t address);
void dl_mapped_device(uint64_t address, uint64_t bytes, int device);
int dl_host_allocate(void **pointer, uint64_t bytes);
int dl_host_register(void *pointer, uint64_t bytes);
int dl_host_forget(void *pointer, int was_allocated);
int dl_is_pinned(const void *pointer);

/* ---- data.c: what was copied to a device, until a kernel may have overwritten it ---- */

void dl_copy(void *to, const void *from, uint64_t bytes);
void dl_set(void *to, int value, uint64_t bytes);
void dl_forget(uint64_t address, uint64_t bytes);
/* Copies what is known to lie there; returns 0 where nobody knows. For a prediction, which tells values from zeros. */
int dl_known(void *to, uint64_t from, uint64_t bytes);
/* A kernel or library call was handed this address, or arguments that hold addresses. */
void dl_handed(uint64_t address);
void dl_handed_arguments(void **arguments);

/* ---- streams.c: nothing runs, so everything has ended when it is asked; captures follow the stream rules ---- */

struct capture {
    unsigned long long id;
    int invalidated, mode, ended;
    uint64_t thread;
    struct graph *graph;
};

struct graph {
    uint64_t nodes;
};

struct stream;
struct event;

struct stream *dl_stream_new(int device, int priority);
void dl_stream_delete(struct stream *stream);
int dl_stream_priority(struct stream *stream);
struct capture *dl_capture_of(struct stream *stream);
int dl_capture_begin(struct stream *stream, int mode, struct graph *into);
int dl_capture_end(struct stream *stream, struct graph **graph);
void dl_capture_join(struct stream *stream, struct capture *capture);
/* Counts a node if the stream is being captured, and says so. */
int dl_work(struct stream *stream);
/* Refuses what may not happen while the stream, or under a strict mode any, is captured. */
int dl_wait(struct stream *stream);
int dl_unsafe(void);
int dl_capture_mode(int *mode);
struct event *dl_event_new(void);
void dl_event_delete(struct event *event);
int dl_event_record(struct event *event, struct stream *stream);
int dl_event_done(struct event *event);
int dl_stream_wait(struct stream *stream, struct event *event);
int dl_elapsed(struct event *from, struct event *to, float *milliseconds);

/* ---- libraries: a handle of cuBLAS and its kind ---- */

struct handle {
    uint64_t magic;
    struct stream *stream;
    int device, pointer_mode, math_mode;
    int64_t numbers[32];
};

struct handle *dl_handle_new(void);
void dl_handle_delete(struct handle *handle);
/* The work of a library call, on the stream of its handle. */
void dl_library_work(void *handle);

#endif
