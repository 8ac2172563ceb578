/* cuDNN: descriptors remember what torch asks back; one plan for every graph; recurrent weights laid out one by one. */
#define _GNU_SOURCE
#include "driverless.h"

#include <stdlib.h>
#include <string.h>

enum { POINTER_ATTRIBUTE = 6, CHAR_ATTRIBUTE = 24, NUMERICAL_NOTES = 11, BEHAVIOR_NOTES = 19, DESCRIPTOR_ATTRIBUTE = 15 };

size_t cudnnGetVersion(void) {
    return CUDNN_VERSION;
}

size_t cudnnGetCudartVersion(void) {
    return CUDA_VERSION;
}

int cudnnGetProperty(int which, int *value) {
    *value = which == 0 ? CUDNN_VERSION / 10000 : which == 1 ? CUDNN_VERSION / 100 % 100 : CUDNN_VERSION % 100;
    return OK;
}

const char *cudnnGetErrorString(int status) {
    return status ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_SUCCESS";
}

void cudnnGetLastErrorString(char *text, size_t room) {
    if (room) *text = 0;
}

int cudnnSetStream(struct handle *handle, struct stream *stream) {
    handle->stream = stream;
    return OK;
}

int cudnnGetStream(struct handle *handle, struct stream **stream) {
    *stream = handle->stream;
    return OK;
}

/* ---- Handles and descriptors ---- */

static int new_handle(struct handle **to) {
    *to = dl_handle_new();
    return OK;
}

int cudnnCreate(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateActivationDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateCTCLossDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateConvolutionDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateDropoutDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateFilterDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreatePoolingDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateRNNDataDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateRNNDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateSpatialTransformerDescriptor(struct handle **to) {
    return new_handle(to);
}

int cudnnCreateTensorDescriptor(struct handle **to) {
    return new_handle(to);
}

/* Kept of a tensor: its type, its dimensions, then sizes and strides. */
static void describe(struct handle *tensor, int kind, int dimensions, const int *sizes, const int *strides) {
    tensor->numbers[0] = kind;
    tensor->numbers[1] = dimensions;
    for (int one = 0; one < dimensions && one < 8; one++) {
        tensor->numbers[2 + one] = sizes[one];
        tensor->numbers[10 + one] = strides ? strides[one] : 0;
    }
}

static int described(struct handle *tensor, int room, int *kind, int *dimensions, int *sizes, int *strides) {
    *kind = (int)tensor->numbers[0];
    *dimensions = (int)tensor->numbers[1];
    for (int one = 0; one < room && one < *dimensions; one++) {
        sizes[one] = (int)tensor->numbers[2 + one];
        if (strides) strides[one] = (int)tensor->numbers[10 + one];
    }
    return OK;
}

int cudnnSetTensorNdDescriptor(struct handle *tensor, int kind, int dimensions, const int *sizes, const int *strides) {
    describe(tensor, kind, dimensions, sizes, strides);
    return OK;
}

int cudnnGetTensorNdDescriptor(struct handle *tensor, int room, int *kind, int *dimensions, int *sizes, int *strides) {
    return described(tensor, room, kind, dimensions, sizes, strides);
}

int cudnnSetFilterNdDescriptor(struct handle *filter, int kind, int format, int dimensions, const int *sizes) {
    describe(filter, kind, dimensions, sizes, NULL);
    filter->numbers[20] = format;
    return OK;
}

int cudnnGetFilterNdDescriptor(struct handle *filter, int room, int *kind, int *format, int *dimensions, int *sizes) {
    *format = (int)filter->numbers[20];
    return described(filter, room, kind, dimensions, sizes, NULL);
}

/* ---- Dropout: the state of a generator for every thread that the device can hold ---- */

int cudnnDropoutGetStatesSize(struct handle *handle, size_t *bytes) {
    (void)handle;
    *bytes = (size_t)dl_gpu()->multiprocessors * (size_t)dl_gpu()->threads_per_multiprocessor * 16;
    return OK;
}

/* ---- Graphs: a query finds one engine, one configuration, one plan, which needs no scratch ---- */

int cudnnBackendCreateDescriptor(int kind, struct handle **to) {
    *to = dl_handle_new();
    (*to)->numbers[0] = kind;
    return OK;
}

int cudnnBackendDestroyDescriptor(struct handle *descriptor) {
    dl_handle_delete(descriptor);
    return OK;
}

enum { TENSOR_KIND = 901, TENSOR_SIZES = 902 };

/* The largest input of a convolution unfolded to a matrix, which the plainest algorithm makes whole as its scratch. */
static _Atomic uint64_t largest_unfolded;

uint64_t dl_largest_unfolded(void) {
    return largest_unfolded;
}

/* Kept of a tensor of a graph: element bytes, its number of sizes, then sizes. */
static void keep_tensor(struct handle *tensor, int name, int64_t count, const void *values) {
    if (name == TENSOR_KIND) {
        int kind = *(const int *)values;
        tensor->numbers[1] = kind == 1 ? 8 : kind == 2 || kind == 9 ? 2 : 4; /* double; half and bfloat16 */
    }
    if (name == TENSOR_SIZES)
        for (int64_t one = tensor->numbers[2] = count < 8 ? count : 8; one-- > 0;)
            tensor->numbers[3 + one] = ((const int64_t *)values)[one];
}

static int64_t product_but(const struct handle *tensor, int64_t left_out) {
    int64_t product = 1;
    for (int64_t one = 0; one < tensor->numbers[2]; one++)
        if (one != left_out) product *= tensor->numbers[3 + one];
    return product;
}

/* Kept of a convolution: the places of its output, the weights of one of them, and element bytes. */
static void keep_convolution(struct handle *convolution, int name, const struct handle *tensor) {
    int64_t *kept = convolution->numbers + 1;
    if (name == 703 || name == 709 || name == 715) kept[0] = product_but(tensor, 0);
    else if (name == 705 || name == 711 || name == 717) kept[1] = product_but(tensor, 1);
    else if (name == 704 || name == 710 || name == 716) kept[2] = tensor->numbers[1];
    uint64_t bytes = (uint64_t)(kept[0] * kept[1] * kept[2]), most = largest_unfolded;
    while (bytes > most && !__atomic_compare_exchange_n(&largest_unfolded, &most, bytes, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* The addresses that a plan is run on are attributes, too. */
int cudnnBackendSetAttribute(struct handle *descriptor, int name, int kind, int64_t count, const void *values) {
    if (name == TENSOR_KIND || name == TENSOR_SIZES) keep_tensor(descriptor, name, count, values);
    if (kind == DESCRIPTOR_ATTRIBUTE && name >= 703 && name <= 717 && count == 1)
        keep_convolution(descriptor, name, *(struct handle *const *)values);
    if (kind == POINTER_ATTRIBUTE)
        for (int64_t one = 0; one < count; one++) dl_handed(((const uint64_t *)values)[one]);
    return OK;
}

int cudnnBackendFinalize(struct handle *descriptor) {
    (void)descriptor;
    return OK;
}

int cudnnBackendGetAttribute(struct handle *descriptor, int name, int kind, int64_t room, int64_t *count, void *values) {
    (void)descriptor, (void)name;
    int has_notes = kind == NUMERICAL_NOTES || kind == BEHAVIOR_NOTES;
    if (count) *count = !has_notes;
    if (values && room > 0 && !has_notes && kind != DESCRIPTOR_ATTRIBUTE) memset(values, 0, kind == CHAR_ATTRIBUTE ? 1 : 8);
    return OK;
}

int cudnnBackendExecute(struct handle *handle, struct handle *plan, struct handle *arguments) {
    (void)plan, (void)arguments;
    dl_library_work(handle);
    return OK;
}

int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *handle, int mode, int operations, void *x, void *z,
                                                             void *y, void *scale, void *activation, size_t *bytes) {
    (void)handle, (void)mode, (void)operations, (void)x, (void)z, (void)y, (void)scale, (void)activation;
    *bytes = 0;
    return OK;
}

int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *handle, int mode, int operations, void *activation,
                                                         void *x, size_t *bytes) {
    (void)handle, (void)mode, (void)operations, (void)activation, (void)x;
    *bytes = 0;
    return OK;
}

int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *handle, int mode, int operations, void *x, void *y,
                                                      void *dy, void *dz, void *dx, void *scale, void *activation,
                                                      size_t *bytes) {
    (void)handle, (void)mode, (void)operations, (void)x, (void)y, (void)dy, (void)dz, (void)dx, (void)scale;
    (void)activation;
    *bytes = 0;
    return OK;
}

/* ---- Recurrent layers: first every matrix, layer by layer and direction by direction, then every bias ---- */

enum { CELL, BIASES, DIRECTIONS, KIND, INPUT, HIDDEN, PROJECTION, LAYERS };

int cudnnSetRNNDescriptor_v8(struct handle *rnn, int algorithm, int cell, int biases, int direction, int skip, int kind,
                             int precision, int math, int input, int hidden, int projection, int layers, void *dropout,
                             unsigned flags) {
    (void)algorithm, (void)skip, (void)precision, (void)math, (void)dropout, (void)flags;
    rnn->numbers[CELL] = cell;
    rnn->numbers[BIASES] = biases == 0 ? 0 : biases == 2 ? 2 : 1;
    rnn->numbers[DIRECTIONS] = direction + 1;
    rnn->numbers[KIND] = kind;
    rnn->numbers[INPUT] = input;
    rnn->numbers[HIDDEN] = hidden;
    rnn->numbers[PROJECTION] = projection;
    rnn->numbers[LAYERS] = layers;
    return OK;
}

static int64_t gates(const struct handle *rnn) {
    return rnn->numbers[CELL] == 2 ? 4 : rnn->numbers[CELL] == 3 ? 3 : 1;
}

static int64_t element_bytes(int64_t kind) {
    return kind == 1 ? 8 : kind == 2 || kind == 9 ? 2 : 4; /* double; half and bfloat16 */
}

static int64_t projected(const struct handle *rnn) {
    return rnn->numbers[PROJECTION] && rnn->numbers[PROJECTION] < rnn->numbers[HIDDEN] ? rnn->numbers[PROJECTION] : 0;
}

static int64_t output(const struct handle *rnn) {
    return projected(rnn) ? projected(rnn) : rnn->numbers[HIDDEN];
}

/* Columns of a matrix on the input of a pseudo-layer: the first layer reads the data, others what is below. */
static int64_t columns(const struct handle *rnn, int64_t pseudo_layer) {
    int64_t directions = rnn->numbers[DIRECTIONS];
    return pseudo_layer < directions ? rnn->numbers[INPUT] : output(rnn) * directions;
}

static int64_t layer_matrices(const struct handle *rnn, int64_t pseudo_layer) {
    int64_t hidden = rnn->numbers[HIDDEN];
    return gates(rnn) * hidden * (columns(rnn, pseudo_layer) + output(rnn)) + projected(rnn) * hidden;
}

static int64_t layer_biases(const struct handle *rnn) {
    return rnn->numbers[BIASES] * gates(rnn) * rnn->numbers[HIDDEN];
}

static int64_t pseudo_layers(const struct handle *rnn) {
    return rnn->numbers[LAYERS] * rnn->numbers[DIRECTIONS];
}

static int64_t matrices_before(const struct handle *rnn, int64_t pseudo_layer) {
    int64_t elements = 0;
    for (int64_t one = 0; one < pseudo_layer; one++) elements += layer_matrices(rnn, one);
    return elements;
}

int cudnnGetRNNWeightSpaceSize(struct handle *handle, struct handle *rnn, size_t *bytes) {
    (void)handle;
    int64_t elements = matrices_before(rnn, pseudo_layers(rnn)) + pseudo_layers(rnn) * layer_biases(rnn);
    *bytes = (size_t)(elements * element_bytes(rnn->numbers[KIND]));
    return OK;
}

/* Says where a part of the weights lies, to whoever asked: torch asks for matrices and for biases in turns. */
static void place(const struct handle *rnn, char *weights, struct handle *to, void **at, int64_t first, int64_t rows,
                  int64_t width) {
    int sizes[3] = {1, (int)rows, (int)width}, strides[3] = {(int)(rows * width), (int)width, 1};
    if (to) describe(to, (int)rnn->numbers[KIND], 3, sizes, strides);
    if (at) *at = weights + first * element_bytes(rnn->numbers[KIND]);
}

static void place_matrix(const struct handle *rnn, int pseudo_layer, char *weights, int which, struct handle *to,
                         void **at) {
    int64_t hidden = rnn->numbers[HIDDEN], kinds = gates(rnn), width = columns(rnn, pseudo_layer);
    int64_t first = matrices_before(rnn, pseudo_layer), state = first + kinds * hidden * width;
    if (which < kinds) place(rnn, weights, to, at, first + which * hidden * width, hidden, width);
    else if (which < 2 * kinds)
        place(rnn, weights, to, at, state + (which - kinds) * hidden * output(rnn), hidden, output(rnn));
    else if (projected(rnn)) place(rnn, weights, to, at, state + kinds * hidden * output(rnn), projected(rnn), hidden);
}

/* Matrices 0 to gates-1 are on the input, as many more on the state, the last projects; only the first two have biases. */
int cudnnGetRNNWeightParams(struct handle *handle, struct handle *rnn, int pseudo_layer, size_t bytes, void *weights,
                            int which, struct handle *matrix, void **matrix_at, struct handle *bias, void **bias_at) {
    (void)handle, (void)bytes;
    int64_t kinds = gates(rnn), hidden = rnn->numbers[HIDDEN];
    if (matrix_at) *matrix_at = NULL;
    if (bias_at) *bias_at = NULL;
    place_matrix(rnn, pseudo_layer, weights, which, matrix, matrix_at);
    if (which < rnn->numbers[BIASES] * kinds) {
        int64_t first = matrices_before(rnn, pseudo_layers(rnn)) + pseudo_layer * layer_biases(rnn);
        place(rnn, weights, bias, bias_at, first + which * hidden, hidden, 1);
    }
    return OK;
}

int cudnnSetRNNDataDescriptor(struct handle *data, int kind, int layout, int length, int batch, int width,
                              const int *lengths, void *fill) {
    (void)layout, (void)width, (void)lengths, (void)fill;
    data->numbers[0] = kind;
    data->numbers[1] = length;
    data->numbers[2] = batch;
    return OK;
}

/* By two published logs, see memtrace/hooks/fake/kernels/recurrent_memory.py. Kept for backward: 5 numbers for each place
   and unit of an LSTM, 6 of a GRU, and the output of each layer but the last. Scratch: the weights, and some rows. */
int cudnnGetRNNTempSpaceSizes(struct handle *handle, struct handle *rnn, int training, struct handle *data,
                              size_t *workspace, size_t *reserve) {
    (void)handle;
    int64_t length = data->numbers[1], batch = data->numbers[2], hidden = rnn->numbers[HIDDEN];
    int64_t bytes = element_bytes(rnn->numbers[KIND]), kinds = gates(rnn), directions = rnn->numbers[DIRECTIONS];
    int64_t layers = rnn->numbers[LAYERS], kept = kinds == 4 ? 5 : kinds == 3 ? 6 : 2;
    int64_t rows = (3 * kinds - 1) * layers * directions + 4 * (directions - 1) * length;
    kept = kept * hidden * layers + output(rnn) * (layers - 1);
    if (workspace) *workspace = (size_t)((matrices_before(rnn, pseudo_layers(rnn)) + rows * batch * hidden) * bytes);
    if (reserve) *reserve = training ? (size_t)(length * batch * directions * kept * bytes) : 0;
    return OK;
}

/* ---- CTC: forward and backward variables of every time, sample and place between labels ---- */

int cudnnSetCTCLossDescriptor_v8(struct handle *loss, int kind, int normalizes, int gradient, int longest) {
    (void)kind, (void)normalizes, (void)gradient;
    loss->numbers[0] = longest;
    return OK;
}

int cudnnSetCTCLossDescriptor_v9(struct handle *loss, int kind, int normalizes, int gradient, int longest) {
    return cudnnSetCTCLossDescriptor_v8(loss, kind, normalizes, gradient, longest);
}

/* The probabilities are described as time, samples, classes. What the library takes in fact is not public. */
static size_t ctc_bytes(const struct handle *probabilities, int64_t longest) {
    int64_t times = probabilities->numbers[2], samples = probabilities->numbers[3];
    return (size_t)(2 * times * samples * (2 * longest + 1) * 4);
}

int cudnnGetCTCLossWorkspaceSize_v8(struct handle *handle, int algorithm, struct handle *loss,
                                    struct handle *probabilities, struct handle *gradients, size_t *bytes) {
    (void)handle, (void)algorithm, (void)gradients;
    *bytes = ctc_bytes(probabilities, loss->numbers[0]);
    return OK;
}

int cudnnGetCTCLossWorkspaceSize(struct handle *handle, struct handle *probabilities, struct handle *gradients,
                                 const int *labels, const int *label_lengths, const int *times, int algorithm,
                                 struct handle *loss, size_t *bytes) {
    (void)handle, (void)gradients, (void)labels, (void)times, (void)algorithm, (void)loss;
    int longest = 0;
    for (int64_t one = 0; one < probabilities->numbers[3]; one++)
        if (label_lengths[one] > longest) longest = label_lengths[one];
    *bytes = ctc_bytes(probabilities, longest);
    return OK;
}
