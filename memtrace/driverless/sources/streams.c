/* Streams, events and captures. Nothing runs, so all work has ended when it is asked; time is that of the host. */
#define _GNU_SOURCE
#include "driverless.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* The handles 0, 1 and 2 stand for the default streams; all others are pointers to this. */
struct stream {
    int device, priority;
    struct capture *capture;
    struct stream *next;
};

struct event {
    uint64_t nanoseconds;
    struct capture *capture;
    int is_recorded;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stream *streams;
static unsigned long long captures;
static int num_global_captures; /* captures under way that forbid unsafe calls of every thread */
static __thread int thread_mode; /* 0: global, 1: of this thread, 2: relaxed */

static int is_default(const struct stream *stream) {
    return (uintptr_t)stream <= 2;
}

struct stream *dl_stream_new(int device, int priority) {
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream) abort();
    stream->device = device;
    stream->priority = priority;
    pthread_mutex_lock(&lock);
    stream->next = streams;
    streams = stream;
    pthread_mutex_unlock(&lock);
    return stream;
}

void dl_stream_delete(struct stream *stream) {
    if (is_default(stream)) return;
    pthread_mutex_lock(&lock);
    struct stream **at = &streams;
    while (*at && *at != stream) at = &(*at)->next;
    if (*at) *at = stream->next;
    pthread_mutex_unlock(&lock);
    free(stream);
}

int dl_stream_priority(struct stream *stream) {
    return is_default(stream) ? 0 : stream->priority;
}

/* ---- Captures ---- */

struct capture *dl_capture_of(struct stream *stream) {
    return is_default(stream) ? NULL : stream->capture;
}

int dl_capture_begin(struct stream *stream, int mode, struct graph *into) {
    if (is_default(stream)) return CAPTURE_UNSUPPORTED;
    if (stream->capture) return INVALID_VALUE;
    struct capture *capture = calloc(1, sizeof *capture);
    capture->mode = mode;
    capture->thread = (uint64_t)pthread_self();
    capture->graph = into ? into : calloc(1, sizeof *capture->graph);
    pthread_mutex_lock(&lock);
    capture->id = ++captures;
    num_global_captures += mode == 0;
    stream->capture = capture;
    pthread_mutex_unlock(&lock);
    return OK;
}

/* Ends a capture on every stream that joined it. The capture stays: events may still point at it. */
int dl_capture_end(struct stream *stream, struct graph **graph) {
    struct capture *capture = dl_capture_of(stream);
    if (!capture) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct stream *one = streams; one; one = one->next)
        if (one->capture == capture) one->capture = NULL;
    num_global_captures -= capture->mode == 0;
    capture->ended = 1;
    pthread_mutex_unlock(&lock);
    *graph = capture->invalidated ? NULL : capture->graph;
    return capture->invalidated ? CAPTURE_INVALIDATED : OK;
}

void dl_capture_join(struct stream *stream, struct capture *capture) {
    if (!is_default(stream)) stream->capture = capture;
}

int dl_work(struct stream *stream) {
    struct capture *capture = dl_capture_of(stream);
    if (!capture) return 0;
    __atomic_add_fetch(&capture->graph->nodes, 1, __ATOMIC_RELAXED);
    return 1;
}

int dl_wait(struct stream *stream) {
    struct capture *capture = dl_capture_of(stream);
    if (!capture) return OK;
    capture->invalidated = 1;
    return CAPTURE_UNSUPPORTED;
}

/* Whether a call that a capture forbids is made while one is under way: by the strictest mode that holds here. */
int dl_unsafe(void) {
    if (!num_global_captures || thread_mode == 2) return OK;
    pthread_mutex_lock(&lock);
    int forbidden = 0;
    for (struct stream *one = streams; one; one = one->next) {
        struct capture *capture = one->capture;
        if (!capture || capture->mode == 2) continue;
        if (capture->thread != (uint64_t)pthread_self() && (capture->mode == 1 || thread_mode == 1)) continue;
        capture->invalidated = forbidden = 1;
    }
    pthread_mutex_unlock(&lock);
    return forbidden ? CAPTURE_UNSUPPORTED : OK;
}

int dl_capture_mode(int *mode) {
    int before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return OK;
}

/* ---- Events ---- */

struct event *dl_event_new(void) {
    return calloc(1, sizeof(struct event));
}

void dl_event_delete(struct event *event) {
    free(event);
}

int dl_event_record(struct event *event, struct stream *stream) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->nanoseconds = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    event->capture = dl_capture_of(stream);
    event->is_recorded = 1;
    return OK;
}

/* An event of a capture may be asked only by the capture. */
int dl_event_done(struct event *event) {
    return event->capture && !event->capture->ended ? CAPTURED_EVENT : OK;
}

int dl_stream_wait(struct stream *stream, struct event *event) {
    struct capture *capture = event->capture;
    if (capture && !capture->ended && !dl_capture_of(stream)) dl_capture_join(stream, capture);
    return OK;
}

int dl_elapsed(struct event *from, struct event *to, float *milliseconds) {
    if (!from->is_recorded || !to->is_recorded) return INVALID_HANDLE;
    *milliseconds = (float)((double)to->nanoseconds - (double)from->nanoseconds) / 1e6f;
    return OK;
}
