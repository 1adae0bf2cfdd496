/* The SAN-M encoder and the predictor's weights (docs/spec.md 2, 3.1). */
#include <string.h>

#include "features.h"
#include "model.h"

/* What is encoded, and where it goes; the past is NULL where nothing is looked back at. */
typedef struct {
    const Kernels *kernels;
    const Encoder *encoder;
    Team *team;
    int batch, size, past_size, rows;
    const float *past_keys, *past_values; /* (batch, layers, past_size, dim), right-aligned */
    const int64_t *past_lengths;
    float *hidden, *weights, *keys, *values;
    float *input, *x, *qkv[2], *context, *memory, *inner, *side, *predicted;
    int *starts;
    Workspace *spaces;
} Encoding;

/* Copy a layer's keys and values to (batch, layers, size, dim), for later steps to look back to. */
static void store_keys_values(const Encoding *w, int layer, Rows rows) {
    const Encoder *e = w->encoder;
    const size_t dim = e->dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++) {
            const size_t to = (((size_t)b * e->layers + layer) * w->size + row - w->starts[b]) * dim;
            const float *from = w->qkv[layer % 2] + (size_t)row * 3 * dim;
            memcpy(w->keys + to, from + dim, dim * 4);
            memcpy(w->values + to, from + 2 * dim, dim * 4);
        }
    }
}

/* What a layer's attention and memory read of each row. */
static void encoder_project(const Encoding *w, const Workspace *space, int layer, Rows rows) {
    const EncoderBlock *block = w->encoder->blocks + layer;
    const int dim = w->encoder->dim, k = block->norm1.k;
    const float *input = layer ? w->x : w->input;
    const Target to_qkv = {.out = w->qkv[layer % 2] + (size_t)rows.from * 3 * dim, .out_stride = 3 * dim};
    linear(space, &block->qkv, input + (size_t)rows.from * k, k, rows.to - rows.from, &block->norm1, to_qkv);
    if (w->keys) store_keys_values(w, layer, rows);
}

static void encoder_attention(const Encoding *w, Workspace *space, int layer, Rows rows) {
    const Encoder *e = w->encoder;
    const int dim = e->dim, width = dim / e->heads;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        if (its.from >= its.to) continue;
        const int past = w->past_keys ? (int)w->past_lengths[b] : 0, own = w->starts[b + 1] - w->starts[b];
        const size_t skipped = (((size_t)b * e->layers + layer) * w->past_size + w->past_size - past) * dim;
        for (int head = 0; head < e->heads; head++) {
            const float *query = w->qkv[layer % 2] + (size_t)its.from * 3 * dim + head * width;
            const float *key = w->qkv[layer % 2] + (size_t)w->starts[b] * 3 * dim + dim + head * width;
            Attended keys = {.x = key, .stride = 3 * dim, .count = own}, values = keys;
            values.x += dim;
            if (past) {
                keys.before = w->past_keys + skipped + head * width;
                values.before = w->past_values + skipped + head * width;
                keys.before_stride = values.before_stride = dim, keys.past = values.past = past;
            }
            attend(w->kernels, &space->attention, query, 3 * dim, its.to - its.from, &keys, &values,
                   w->context + (size_t)its.from * dim + head * width, dim);
        }
    }
}

/* The rest of a layer: memory and attention, which read other threads' rows too, and the feed-forward. */
static void encoder_finish(const Encoding *w, Workspace *space, int layer, Rows rows) {
    const Encoder *e = w->encoder;
    const EncoderBlock *block = e->blocks + layer;
    const int dim = e->dim, count = rows.to - rows.from;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        const size_t start = w->starts[b];
        const Filter filter = {.x = w->qkv[layer % 2] + start * 3 * dim + 2 * dim, .taps = block->memory.taps,
                               .y = w->memory + start * dim, .stride = 3 * dim, .y_stride = dim,
                               .rows = w->starts[b + 1] - (int)start, .dim = dim, .kernel = block->memory.kernel,
                               .left = block->memory.left};
        w->kernels->filter(&filter, its.from - (int)start, its.to - (int)start);
    }
    encoder_attention(w, space, layer, rows);
    float *x = w->x + (size_t)rows.from * dim, *inner = w->inner + (size_t)rows.from * e->hidden;
    Target to_x = {.out = x, .out_stride = dim, .add = w->memory + (size_t)rows.from * dim, .add_stride = dim};
    if (block->residual) to_x.add2 = x, to_x.add2_stride = dim;
    linear(space, &block->out, w->context + (size_t)rows.from * dim, dim, count, NULL, to_x);
    const Target to_inner = {.out = inner, .out_stride = e->hidden, .relu = 1};
    linear(space, &block->up, x, dim, count, &block->norm2, to_inner);
    const Target back = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    linear(space, &block->down, inner, e->hidden, count, NULL, back);
}

static void predict(const Encoding *w, const Workspace *space, Rows rows) {
    const Encoder *e = w->encoder;
    const int dim = e->dim, reach = e->conv_left + 1 + e->conv_right, widest = reach * dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++)
            for (int j = 0; j < reach; j++) {
                float *to = w->side + (size_t)row * widest + (size_t)j * dim;
                const int from = row + j - e->conv_left;
                if (from < w->starts[b] || from >= w->starts[b + 1])
                    memset(to, 0, (size_t)dim * 4);
                else
                    memcpy(to, w->hidden + ((size_t)b * w->size + from - w->starts[b]) * dim, (size_t)dim * 4);
            }
    }
    const Target target = {.out = w->predicted + (size_t)rows.from * dim, .out_stride = dim, .relu = 1};
    linear(space, &e->conv, w->side + (size_t)rows.from * widest, widest, rows.to - rows.from, NULL, target);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++) {
            const float *y = w->predicted + (size_t)row * dim;
            float lanes[16] = {0}, sum = e->fire_bias;
            for (int i = 0; i < dim; i++) lanes[i % 16] += y[i] * e->fire[i];
            for (int i = 0; i < 16; i++) sum += lanes[i];
            w->weights[(size_t)b * w->size + row - w->starts[b]] = sigmoid(sum);
        }
    }
}

/* Take all the memory that is needed. Returns whether there was enough. */
static int encoding_alloc(Encoding *w, Arena *arena, const int64_t *lengths) {
    const Encoder *e = w->encoder;
    w->starts = starts_of(arena, lengths, w->batch);
    if (!w->starts) return 0;
    w->rows = w->starts[w->batch];
    const size_t rows = w->rows, row = rows * e->dim * 4;
    Widest widest = wider((Widest){0}, &e->conv);
    for (const EncoderBlock *block = e->blocks; block < e->blocks + e->layers; block++)
        widest = wider(wider(wider(wider(widest, &block->qkv), &block->out), &block->up), &block->down);
    int most = 0;
    for (int b = 0; b < w->batch; b++)
        most = larger(most, (int)lengths[b] + (w->past_keys ? (int)w->past_lengths[b] : 0));
    w->input = arena_alloc(arena, rows * e->input * 4);
    w->x = arena_alloc(arena, row);
    w->qkv[0] = arena_alloc(arena, 3 * row), w->qkv[1] = arena_alloc(arena, 3 * row);
    w->context = arena_alloc(arena, row);
    w->memory = arena_alloc(arena, row);
    w->inner = arena_alloc(arena, rows * e->hidden * 4);
    w->side = arena_alloc(arena, (e->conv_left + 1 + e->conv_right) * row);
    w->predicted = arena_alloc(arena, row);
    w->spaces = workspaces_alloc(arena, w->kernels, w->team->parts, w->rows, widest, e->attention, e->dim / e->heads, most);
    return !arena->failed;
}

/* One thread's part. */
static void encode(void *encoding, int part) {
    const Encoding *w = encoding;
    const Encoder *e = w->encoder;
    const Rows rows = share_of(w->rows, part, w->team->parts);
    for (int layer = 0; layer < e->layers; layer++) {
        encoder_project(w, w->spaces + part, layer, rows);
        team_barrier(w->team);
        encoder_finish(w, w->spaces + part, layer, rows);
    }
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        w->kernels->layer_norm(w->x + (size_t)its.from * e->dim, e->dim, its.to - its.from, e->dim, e->norm.gain,
                               e->norm.shift, w->hidden + ((size_t)b * w->size + its.from - w->starts[b]) * e->dim, e->dim);
    }
    team_barrier(w->team);
    predict(w, w->spaces + part, rows);
}


/* feats (batch, size, input) with scale and positions, lengths (batch) -> hidden (batch, size, dim) and weights (batch,
 * size) before smoothing, both zeroed by the caller; with a past also keys and values (batch, layers, size, dim). By up to
 * `parts` threads, see team_start. Returns 1, with nothing computed, where memory is short. */
PF_EXPORT int pf_encode(const Kernels *kernels, const Encoder *e, int parts, int32_t *lent_to, int batch, int size,
                        const float *feats, const int64_t *lengths, const float *past_keys, const float *past_values,
                        const int64_t *past_lengths, int past_size, float *hidden, float *weights, float *keys,
                        float *values) {
    Team team;
    Arena arena = {0};
    Encoding w = {.kernels = kernels, .encoder = e, .team = &team, .batch = batch, .size = size, .past_size = past_size,
                  .past_keys = past_keys, .past_values = past_values, .past_lengths = past_lengths, .hidden = hidden,
                  .weights = weights, .keys = keys, .values = values};
    team_start(&team, parts, lent_to);
    const int ready = encoding_alloc(&w, &arena, lengths);
    for (int b = 0; ready && b < batch; b++)
        memcpy(w.input + (size_t)w.starts[b] * e->input, feats + (size_t)b * size * e->input,
               (size_t)lengths[b] * e->input * 4);
    team_finish(&team, ready ? encode : NULL, &w);
    arena_free(&arena);
    return !ready;
}
