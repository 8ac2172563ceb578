/* The frames that a thread of Python runs, read where they lie.
 *
 * A frame is a row of words: its code, the frame before it, the instruction that it executes, in an order that differs
 * from one Python to the next. Which word is which is found by looking for what Python itself says of the frames that
 * run now, and is right only if all of these are read as Python says them. */
#define _GNU_SOURCE
#include "watch.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uintptr_t word;
/* So far is looked for what is known to lie in a thread's state, a frame or a code object, in words. */
#define FAR_IN_THREAD 40
#define FAR_IN_FRAME 12
#define FAR_IN_CODE 40
#define MOST_CHARACTERS 4096
/* Python 3.14 marks references in their last bits; none of its objects lies at such an address. */
#define WITHOUT_MARKS(value) ((value) & ~(word)7)

static struct {
    int in_thread, through; /* the word of a thread's state that leads to its frame; -1: at once, else through this */
    int code, previous, instruction;
    int file, name, lines;      /* words of a code object */
    int first_line;             /* a half of a word of it */
    intptr_t first_instruction; /* where in a code object its instructions begin, in bytes */
} layout;

/* What Python exports. */
static struct {
    void *(*PyGILState_GetThisThreadState)(void);
    void *(*PyEval_GetFrame)(void);
    void *(*PyFrame_GetBack)(void *frame);
    void *(*PyFrame_GetCode)(void *frame);
    int (*PyFrame_GetLasti)(void *frame);
    void *(*PyObject_GetAttrString)(void *, const char *);
    void (*Py_DecRef)(void *);
    int (*PyCode_Addr2Line)(void *code, int at);
    void *PyCode_Type;
} py;

/* How texts lie, of which Python has three kinds, by the width of a character. */
static struct {
    unsigned state_mask, state_of[4]; /* what tells the kind: ASCII, one, two and four bytes a character */
    int first[4];                     /* where the characters begin, in bytes */
} texts;
#define TEXT_LENGTH 2 /* words of a text: how many characters it has, */
#define TEXT_HASH 3   /* its hash, which Python knows of every name, */
#define TEXT_STATE 4  /* and what kind it is of */
static const int widths[4] = {1, 1, 2, 4};

static word word_at(const void *object, int number) { return ((const word *)object)[number]; }

/* The type of an object: its second word, in every CPython with a GIL. */
static int is_code(word value) { return value != 0 && word_at((const void *)value, 1) == (word)py.PyCode_Type; }

/* Codes of the interpreter's own, which stand between a frame and its caller and which Python does not speak of. */
#define MOST_SILENT 4
static word silent[MOST_SILENT];
static int num_silent;

static int is_silent(word code) {
    for (int i = 0; i < num_silent; i++)
        if (silent[i] == code) return 1;
    return 0;
}

/* What tells a code from another that has come to lie where it lay, with texts where its texts lay. */
static word check_of(const void *code) {
    word name_hash = word_at((const void *)word_at(code, layout.name), TEXT_HASH);
    unsigned first_line = ((const unsigned *)code)[layout.first_line];
    return ((word_at(code, layout.file) * 31 + name_hash) * 31 + word_at(code, layout.lines)) * 31 + first_line;
}

/* The kind of a text; -1: none that is known. */
static int kind_of(const void *text) {
    unsigned state = *(const unsigned *)((const word *)text + TEXT_STATE) & texts.state_mask;
    for (int kind = 0; kind < 4; kind++)
        if (state == texts.state_of[kind]) return kind;
    return -1;
}

static struct text copied(const void *text) {
    int kind = kind_of(text);
    size_t length = kind < 0 ? 0 : word_at(text, TEXT_LENGTH), size = kind < 0 ? 0 : length * (size_t)widths[kind];
    void *characters = size == 0 || length > MOST_CHARACTERS ? NULL : malloc(size);
    if (characters == NULL) return (struct text){NULL, 0, 1};
    memcpy(characters, (const char *)text + texts.first[kind], size);
    return (struct text){characters, (int32_t)size, widths[kind]};
}

void code_described(const void *code, struct code *result) {
    *result = (struct code){copied((const void *)word_at(code, layout.file)),
                            copied((const void *)word_at(code, layout.name))};
}

int32_t line_of(const void *code, int32_t at) {
    int line = py.PyCode_Addr2Line((void *)code, at);
    return line > 0 ? line : py.PyCode_Addr2Line((void *)code, -1);
}

const void *current_frame(void) {
    const void *thread = py.PyGILState_GetThisThreadState();
    if (thread == NULL) return NULL;
    word found = word_at(thread, layout.in_thread);
    if (layout.through >= 0 && found != 0) found = word_at((const void *)found, layout.through);
    return (const void *)found;
}

size_t frames_now(struct frame *frames, size_t most) {
    size_t num = 0;
    for (const void *frame = current_frame(); frame != NULL && num < most;
         frame = (const void *)word_at(frame, layout.previous)) {
        word code = WITHOUT_MARKS(word_at(frame, layout.code));
        /* Between Python and C stand frames that run no code of Python. */
        if (!is_code(code) || is_silent(code)) continue;
        intptr_t at = (intptr_t)(word_at(frame, layout.instruction) - code) - layout.first_instruction;
        frames[num++] = (struct frame){frame, (const void *)code, check_of((const void *)code), (int32_t)at};
    }
    return num;
}

/* Whether words can be read: a call of the system that is refused in any case says of which fault, and copies eight
 * bytes before. Less than a page: its first and last word say it of all. */
static int can_be_read(const void *address, size_t num_words) {
    const word *row = address;
    for (int i = 0; i < 2; i++)
        if (syscall(SYS_rt_sigprocmask, ~0, i ? row + num_words - 1 : row, NULL, sizeof(word)) != -1 || errno != EINVAL)
            return 0;
    return 1;
}

/* A frame as Python says it. */
#define MOST_SAID 64
struct said {
    word code;
    int at;
};

static size_t frames_said(struct said *said, size_t most) {
    void *frame = py.PyEval_GetFrame();
    size_t num = 0;
    for (int is_first = 1; frame != NULL; is_first = 0) {
        void *code = py.PyFrame_GetCode(frame), *back = py.PyFrame_GetBack(frame);
        if (num < most) said[num++] = (struct said){(word)code, py.PyFrame_GetLasti(frame)};
        py.Py_DecRef(code);
        if (!is_first) py.Py_DecRef(frame);
        frame = back;
    }
    return num;
}

/* The word of a row of words that is, without marks, what is looked for; -1: none. */
static int find_word(const void *row, int far, word wanted) {
    for (int i = 0; i < far; i++)
        if (WITHOUT_MARKS(word_at(row, i)) == wanted) return i;
    return -1;
}

/* Whether a row of words may be the frame of a code. */
static int may_be_frame(word row, word code) {
    return row % sizeof(word) == 0 && row != code && can_be_read((const void *)row, FAR_IN_FRAME) &&
           find_word((const void *)row, FAR_IN_FRAME, code) >= 0 && !is_code(row);
}

/* Whether all frames that run now are read as Python says them, with the words that are set. Codes between them that
 * Python does not say are silent from now on, if they may be learned. */
static int is_proved(const struct said *said, size_t num, int may_learn) {
    struct frame frames[2 * MOST_SAID];
    size_t found = frames_now(frames, sizeof frames / sizeof *frames), at = 0;
    int before = num_silent;
    for (size_t i = 0; i < found; i++) {
        word code = (word)frames[i].code;
        if (at < num && code == said[at].code && frames[i].at == said[at].at)
            at++;
        else if (at == MOST_SAID)
            break; /* More frames than were said. */
        else if (may_learn && num_silent < MOST_SILENT && !is_silent(code))
            silent[num_silent++] = code;
        else if (!is_silent(code)) {
            num_silent = before;
            return 0;
        }
    }
    if (at < num) num_silent = before;
    return at == num;
}

/* Whether so many frames can be read one after the other, or all that there are, with the words that are set. */
static int can_be_followed(word frame, size_t num) {
    for (; num > 0 && frame != 0; num--) {
        if (frame % sizeof(word) != 0 || !can_be_read((const void *)frame, FAR_IN_FRAME)) return 0;
        word code = WITHOUT_MARKS(word_at((const void *)frame, layout.code));
        if (code != 0 && !can_be_read((const void *)code, FAR_IN_CODE / 2)) return 0;
        frame = word_at((const void *)frame, layout.previous);
    }
    return 1;
}

/* Find the words of a frame; return whether all that run now are read as Python says them. */
static int find_in_frame(word frame, const struct said *said, size_t num) {
    const void *row = (const void *)frame;
    layout.code = find_word(row, FAR_IN_FRAME, said[0].code);
    for (layout.instruction = 0; layout.instruction < FAR_IN_FRAME; layout.instruction++) {
        layout.first_instruction = (intptr_t)(word_at(row, layout.instruction) - said[0].code) - said[0].at;
        /* Instructions follow the fields of a code object. */
        if (layout.first_instruction <= 0 || layout.first_instruction > 1024) continue;
        for (layout.previous = 0; layout.previous < FAR_IN_FRAME; layout.previous++)
            if (layout.previous != layout.code && can_be_followed(frame, 4 * num) && is_proved(said, num, 1)) return 1;
    }
    return 0;
}

/* Try each word of the thread's state, and of what it points to, for the frame that runs now. */
static int find_from(const void *thread, const struct said *said, size_t num) {
    for (layout.in_thread = 0; layout.in_thread < FAR_IN_THREAD; layout.in_thread++) {
        word value = word_at(thread, layout.in_thread);
        layout.through = -1;
        if (may_be_frame(value, said[0].code) && find_in_frame(value, said, num)) return 1;
        if (value % sizeof(word) != 0 || !can_be_read((const void *)value, 3)) continue;
        for (layout.through = 0; layout.through < 3; layout.through++) {
            word inner = word_at((const void *)value, layout.through);
            if (may_be_frame(inner, said[0].code) && find_in_frame(inner, said, num)) return 1;
        }
    }
    return 0;
}

/* The word of a code object that is one of its attributes; -1: none. */
static int find_attribute(const void *code, const char *name) {
    void *value = py.PyObject_GetAttrString((void *)code, name);
    int found = value == NULL ? -1 : find_word(code, FAR_IN_CODE, (word)value);
    if (value != NULL) py.Py_DecRef(value);
    return found;
}

/* Find out how texts lie, by one of each kind; return whether that could be. */
static int find_texts(void *const samples[4]) {
    const char *const beginnings[4] = {"memtrace", "m\xe9mtrace", "m\0\x17\x04m\0t\0", "m\0\0\0\x0c\xf4\x01\0"};
    unsigned states[4];
    for (int kind = 0; kind < 4; kind++) {
        const char *text = samples[kind];
        states[kind] = *(const unsigned *)((const word *)text + TEXT_STATE);
        for (texts.first[kind] = 24; memcmp(text + texts.first[kind], beginnings[kind], 8) != 0; texts.first[kind]++)
            if (texts.first[kind] >= 80) return 0;
    }
    /* Among other bits, some of which are set to nothing, three hold the width of a character and one, two bits on,
     * whether all are ASCII. */
    for (int bit = 0; bit + 5 < 32; bit++) {
        int is_here = 1;
        for (int kind = 0; kind < 4; kind++)
            is_here &= (states[kind] >> bit & 7) == (unsigned)widths[kind] && (states[kind] >> (bit + 4) & 1) == !kind;
        if (!is_here) continue;
        texts.state_mask = 23u << bit;
        for (int kind = 0; kind < 4; kind++) texts.state_of[kind] = states[kind] & texts.state_mask;
        return 1;
    }
    return 0;
}

/* Whether the frames that run now are read as Python says them; with codes between them that it does not say, if these
 * may be learned. With the GIL. */
int frames_prove(int may_learn) {
    struct said said[MOST_SAID];
    return is_proved(said, frames_said(said, MOST_SAID), may_learn);
}

/* Find out how frames lie, by those that run now, three at least, texts by one of each kind, and codes by one that
 * begins in such a line; return whether that could be. With the GIL. */
int frames_find(void *const samples[4], const void *sample, unsigned first_line) {
    struct said said[MOST_SAID];
    if (!(FIND(py, PyGILState_GetThisThreadState) && FIND(py, PyEval_GetFrame) && FIND(py, PyFrame_GetBack) &&
          FIND(py, PyFrame_GetCode) && FIND(py, PyFrame_GetLasti) && FIND(py, PyObject_GetAttrString) && FIND(py, Py_DecRef) &&
          FIND(py, PyCode_Addr2Line) && FIND(py, PyCode_Type)))
        return 0;
    if (!find_texts(samples)) return 0;
    size_t num = frames_said(said, MOST_SAID);
    const void *thread = py.PyGILState_GetThisThreadState(), *code = (const void *)said[0].code;
    if (num < 3 || thread == NULL) return 0;
    num_silent = 0;
    layout.file = find_attribute(code, "co_filename"), layout.name = find_attribute(code, "co_name");
    layout.lines = find_attribute(code, "co_linetable");
    for (layout.first_line = 0; ((const unsigned *)sample)[layout.first_line] != first_line; layout.first_line++)
        if (layout.first_line == 2 * FAR_IN_CODE) return 0;
    return layout.file >= 0 && layout.name >= 0 && layout.lines >= 0 && find_from(thread, said, num);
}
