/* Every allocation and free of torch's CPU allocator, on all threads, without torch's profiler.
 *
 * libc10 tells `ProfiledCPUMemoryReporter` of each block. It is an exported class, so that these calls go through
 * libc10's own table of addresses (its relocations), in which functions of ours are put in place of them: they call
 * the original first or last, and note address, size, time and stack. Nothing of torch is recorded, no flag of its is
 * set, and a profiler of the program sees what it would see. Memory that is shared between processes is told to
 * `reportMemoryUsageToProfiler` by libtorch_cpu, through the table of that; so is `Engine::evaluate_function` called,
 * which runs one node of autograd's graph.
 *
 * Calls are in the order: a block is noted after it was allocated and before it is freed, so that an address that is
 * used again is never seen to be allocated twice. */
#define _GNU_SOURCE
#include "watch.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ != 8 || !defined(__ELF__)
#error "64-bit ELF only"
#endif

/* c10::Device is a class of two signed bytes that is copied bit by bit: it travels in a register. */
struct device {
    int8_t type, index;
};
#define CPU 0

typedef void new_function(void *reporter, void *block, size_t size);
typedef void delete_function(void *reporter, void *block);
typedef void report_function(void *block, int64_t size, size_t allocated, size_t reserved, struct device device);
typedef void evaluate_function(void *engine, void *task, const void *node, void *inputs, void *queue);

static new_function *original_new;
static delete_function *original_delete;
static report_function *original_report;
static evaluate_function *original_evaluate;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int is_watching, is_recording;
static int64_t level, highest; /* bytes: now, and the most since this was last asked */

/* The events, a column each: those that are being written, and those that were taken last. */
struct events {
    int64_t *time_ns, *address, *size, *total;
    int32_t *stack;
    size_t num, capacity;
    int64_t initial, num_lost;
};
static struct events writing, taken;
static size_t most_events; /* so that a program that nobody can interrupt does not fill the memory */
#define NULL_VALUE INT64_MIN

/* The blocks that were living when events began to be noted. */
static struct living {
    int64_t *address, *size;
    size_t num, capacity;
} living;

/* What Python is to call, in its main thread, each time that so many more events have been noted. */
static struct {
    size_t every; /* 0: nothing is to be called */
    int is_due;
    void *function;
    int (*Py_AddPendingCall)(int (*call)(void *), void *argument);
    void *(*PyObject_CallNoArgs)(void *);
    void (*Py_DecRef)(void *);
} many;

static int widen(struct events *events) {
    size_t capacity = events->capacity ? 2 * events->capacity : 1 << 14;
    int64_t **columns[] = {&events->time_ns, &events->address, &events->size, &events->total};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        int64_t *larger = realloc(*columns[i], capacity * sizeof **columns[i]);
        if (larger == NULL) return 0;
        *columns[i] = larger;
    }
    int32_t *stacks = realloc(events->stack, capacity * sizeof *stacks);
    if (stacks == NULL) return 0;
    events->stack = stacks;
    events->capacity = capacity;
    return 1;
}

/* Give back what was needed once: there were many more events then than now. */
static void narrow(struct events *events, size_t num) {
    if (events->capacity <= 1 << 18 || num > events->capacity / 8) return;
    free(events->time_ns), free(events->address), free(events->size), free(events->total), free(events->stack);
    *events = (struct events){.num = 0};
}

static void note(uintptr_t address, int64_t size, int64_t total, int32_t stack) {
    struct timespec now;
    if (writing.num >= most_events || (writing.num == writing.capacity && !widen(&writing))) {
        writing.num_lost++;
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    size_t at = writing.num++;
    writing.time_ns[at] = now.tv_sec * 1000000000ll + now.tv_nsec;
    writing.address[at] = (int64_t)address;
    writing.size[at] = size;
    writing.stack[at] = stack;
    writing.total[at] = total;
    if (many.every != 0 && writing.num % many.every == 0) many.is_due = 1;
}

/* Called by Python, between two of its instructions. What this raises comes up there. */
static int call_many(void *unused) {
    (void)unused;
    if (many.every == 0) return 0;
    void *result = many.PyObject_CallNoArgs(many.function);
    if (result == NULL) return -1;
    many.Py_DecRef(result);
    return 0;
}

/* Without the lock: Python has one of its own for this. */
static void tell_if_due(void) {
    if (!many.is_due) return;
    many.is_due = 0;
    many.Py_AddPendingCall(call_many, NULL);
}

static void allocated(uintptr_t address, int64_t size) {
    pthread_mutex_lock(&lock);
    int64_t before = block_put(address, size);
    if (before > 0) {
        /* Its free was not seen: it ended before this began. */
        level -= before;
        if (is_recording) note(address, -before, level, 0);
    }
    level += size;
    if (level > highest) highest = level;
    if (is_recording) note(address, size, level, stack_now());
    pthread_mutex_unlock(&lock);
    tell_if_due();
}

static void freed(uintptr_t address) {
    pthread_mutex_lock(&lock);
    int64_t size = block_take(address);
    if (size > 0) {
        level -= size;
        if (is_recording) note(address, -size, level, stack_now());
    }
    pthread_mutex_unlock(&lock);
    tell_if_due();
}

static void on_new(void *reporter, void *block, size_t size) {
    original_new(reporter, block, size);
    if (is_watching && size > 0 && block != NULL) allocated((uintptr_t)block, (int64_t)size);
}

static void on_delete(void *reporter, void *block) {
    if (is_watching && block != NULL) freed((uintptr_t)block);
    original_delete(reporter, block);
}

static void on_report(void *block, int64_t size, size_t total, size_t reserved, struct device device) {
    if (is_watching && is_recording && size != 0 && device.type == CPU) {
        pthread_mutex_lock(&lock);
        /* Shared memory is not the allocator's: it is in no total of its. */
        if (is_recording) note((uintptr_t)block, size, NULL_VALUE, stack_now());
        pthread_mutex_unlock(&lock);
        tell_if_due();
    }
    original_report(block, size, total, reserved, device);
}

static void on_evaluate(void *engine, void *task, const void *node, void *inputs, void *queue) {
    /* Left on every way out: a node may raise. */
    __attribute__((cleanup(evaluation_ended))) int began = is_watching ? evaluation_began(node) : -1;
    original_evaluate(engine, task, node, inputs, queue);
}

/* The places of libc10 and libtorch_cpu that were changed, to change them back. */
struct place {
    void **slot, *ours, *theirs;
};
static struct place places[8];
static size_t num_places;

/* Some loaders leave addresses of the dynamic section relative to where the library lies. */
static const char *at(const struct link_map *library, ElfW(Addr) address) {
    return (const char *)(address < library->l_addr ? library->l_addr + address : address);
}

/* Whether there may be written: 1 for yes, -1 for no, 0 for unknown. */
static int is_writable(const void *address) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int found = 0;
    if (maps == NULL) return 0;
    while (!found && fgets(line, sizeof line, maps)) {
        unsigned long first, end;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &first, &end, access) == 3 && (uintptr_t)address - first < end - first)
            found = access[1] == 'w' ? 1 : -1;
    }
    fclose(maps);
    return found;
}

static int put(void **slot, void *function) {
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE), page = (uintptr_t)slot & ~(page_size - 1);
    int access = is_writable(slot);
    /* What is not known cannot be left as it was: the loader may have to write there. */
    if (access == 0) return 0;
    if (access < 0 && mprotect((void *)page, page_size, PROT_READ | PROT_WRITE) != 0) return 0;
    __atomic_store_n(slot, function, __ATOMIC_RELEASE);
    if (access < 0) mprotect((void *)page, page_size, PROT_READ);
    return 1;
}

/* Put `ours` wherever a library calls the function of that name; return at how many places. */
static int redirect(const struct link_map *library, const char *name, void *ours, void *theirs) {
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const ElfW(Rela) *tables[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    int found = 0, kind = 0;
    for (const ElfW(Dyn) *entry = library->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB) symbols = (const void *)at(library, entry->d_un.d_ptr);
        if (entry->d_tag == DT_STRTAB) strings = at(library, entry->d_un.d_ptr);
        if (entry->d_tag == DT_JMPREL) tables[0] = (const void *)at(library, entry->d_un.d_ptr);
        if (entry->d_tag == DT_PLTRELSZ) sizes[0] = entry->d_un.d_val;
        if (entry->d_tag == DT_RELA) tables[1] = (const void *)at(library, entry->d_un.d_ptr);
        if (entry->d_tag == DT_RELASZ) sizes[1] = entry->d_un.d_val;
        if (entry->d_tag == DT_PLTREL) kind = (int)entry->d_un.d_val;
    }
    if (symbols == NULL || strings == NULL || (tables[0] != NULL && kind != DT_RELA)) return 0;
    for (int i = 0; i < 2; i++)
        for (const ElfW(Rela) *entry = tables[i]; entry && (char *)entry < (char *)tables[i] + sizes[i]; entry++) {
            size_t symbol = ELF64_R_SYM(entry->r_info);
            unsigned type = (unsigned)ELF64_R_TYPE(entry->r_info);
#if defined(__x86_64__)
            int is_call = type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT;
#elif defined(__aarch64__)
            int is_call = type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT;
#else
            int is_call = 0;
#endif
            if (!is_call || symbol == 0 || strcmp(strings + symbols[symbol].st_name, name) != 0) continue;
            void **slot = (void **)(library->l_addr + entry->r_offset);
            if (num_places == sizeof places / sizeof *places || !put(slot, ours)) return found;
            places[num_places++] = (struct place){slot, ours, theirs};
            found++;
        }
    return found;
}

/* No table is being changed at a fork, or the child would have it halfway changed, with nobody to end that. */
static void before_fork(void) { pthread_mutex_lock(&lock); }

static void in_parent(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    is_watching = is_recording = 0;
    /* What the parent was to be told of may wait to be called here, too. */
    many.every = 0, many.is_due = 0;
}

/* Take back what `watch_install` did; calls that are in it now go on. */
void watch_uninstall(void) {
    is_watching = is_recording = 0;
    while (num_places > 0) {
        struct place *place = &places[--num_places];
        /* Whoever came after us keeps what is theirs. */
        if (*place->slot == place->ours) put(place->slot, place->theirs);
    }
}

/* Put `ours` wherever a library calls the exported function of that name, and say where that is; return at how many
 * places. */
static int follow(const struct link_map *library, const char *name, void *ours, void **theirs) {
    *theirs = dlsym((void *)library, name);
    return *theirs == NULL ? 0 : redirect(library, name, ours, *theirs);
}

/* Watch from now on; return whether every call could be found. Blocks of before are not known. The libraries are what
 * dlopen returned for them. */
int watch_install(const struct link_map *libc10, const struct link_map *libtorch_cpu, size_t max_events) {
    static int has_begun;
    pthread_mutex_lock(&lock);
    blocks_forget();
    level = highest = 0;
    writing.num = 0;
    most_events = max_events;
    pthread_mutex_unlock(&lock);
    if (!has_begun) has_begun = pthread_atfork(before_fork, in_parent, in_child) == 0;
    if (!has_begun) return 0;
    is_watching = 1;
    if (follow(libc10, "_ZN3c1025ProfiledCPUMemoryReporter3NewEPvm", on_new, (void **)&original_new) == 1 &&
        follow(libc10, "_ZN3c1025ProfiledCPUMemoryReporter6DeleteEPv", on_delete, (void **)&original_delete) >= 1 &&
        follow(libtorch_cpu, "_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE", on_report,
               (void **)&original_report) >= 1 &&
        follow(libtorch_cpu,
               "_ZN5torch8autograd6Engine17evaluate_functionERSt10shared_ptrINS0_9GraphTaskEEPNS0_4NodeERNS0_"
               "11InputBufferERKS2_INS0_10ReadyQueueEE",
               on_evaluate, (void **)&original_evaluate) >= 1)
        return 1;
    watch_uninstall();
    return 0;
}

static void list_living(void) {
    size_t num = blocks_num();
    living.num = 0;
    if (num > living.capacity) {
        free(living.address), free(living.size);
        living.address = malloc(2 * num * sizeof *living.address);
        living.size = malloc(2 * num * sizeof *living.size);
        living.capacity = living.address != NULL && living.size != NULL ? 2 * num : 0;
    }
    if (num > living.capacity) return;
    blocks_list(living.address, living.size);
    living.num = num;
}

/* Begin or end to note events. Living blocks are known at all times, and listed when it begins. */
void watch_record(int on) {
    pthread_mutex_lock(&lock);
    if (on && !is_recording) {
        writing.initial = level;
        list_living();
    }
    is_recording = on;
    pthread_mutex_unlock(&lock);
}

/* The blocks that were living when events last began to be noted. With the GIL, under which that happens. */
const struct living *watch_living(void) { return &living; }

/* Have Python call a function in its main thread each time that so many more events have been noted; 0 for no more. It
 * may be called once again by then, and must stay. With the GIL. */
void watch_many(void *function, size_t every) {
    int is_found = FIND(many, Py_AddPendingCall) && FIND(many, PyObject_CallNoArgs) && FIND(many, Py_DecRef);
    pthread_mutex_lock(&lock);
    many.function = function, many.every = is_found ? every : 0;
    pthread_mutex_unlock(&lock);
}

/* Bytes that are allocated now, and the most since this was last asked. */
void watch_levels(int64_t result[2]) {
    pthread_mutex_lock(&lock);
    result[0] = level, result[1] = highest;
    highest = level;
    pthread_mutex_unlock(&lock);
}

/* Take all events that were noted, and note on; they stay as they are until the next call. */
const struct events *watch_take(void) {
    pthread_mutex_lock(&lock);
    struct events old = taken;
    taken = writing, writing = old;
    narrow(&writing, taken.num);
    writing.num = 0, writing.num_lost = 0, writing.initial = level;
    pthread_mutex_unlock(&lock);
    return &taken;
}

/* Write the numbers of all stacks of the taken events to a column, each once; return how many they are. */
size_t watch_stacks(int32_t *stacks, int32_t *counts, size_t num_counts) {
    size_t num = 0;
    memset(counts, 0, num_counts * sizeof *counts);
    for (size_t i = 0; i < taken.num; i++)
        if (counts[taken.stack[i]] == 0) counts[taken.stack[i]] = 1, stacks[num++] = taken.stack[i];
    return num;
}

/* Write the actions of the taken events to a column, and make their sizes such without signs; return the largest. */
int64_t watch_actions(int8_t alloc, int8_t free_, int8_t *actions) {
    int64_t largest = 0;
    for (size_t i = 0; i < taken.num; i++) {
        actions[i] = taken.size[i] > 0 ? alloc : free_;
        if (taken.size[i] < 0) taken.size[i] = -taken.size[i];
        if (taken.size[i] > largest) largest = taken.size[i];
    }
    return largest;
}

/* Write the sizes to a column of half the width; the largest must fit. */
void watch_sizes(int32_t *sizes) {
    for (size_t i = 0; i < taken.num; i++) sizes[i] = (int32_t)taken.size[i];
}

/* Write, for the stack of each taken event, the value that a table has for it. */
void watch_translate(const int32_t *values, int32_t *result) {
    for (size_t i = 0; i < taken.num; i++) result[i] = values[taken.stack[i]];
}

/* Free what a library has allocated: by the allocator that they all use. */
void watch_free(void *memory) { free(memory); }
