/* The SAN-M encoder and the predictor's weights (docs/spec.md 2, 3.1). */
#include <string.h>

#include "encoder.h"
#include "features.h"

/* Copy a layer's keys and values to (batch, layers, size, dim), for later steps to look back to. */
static void store_keys_values(const Encoding *w, const Run *run, int layer, Rows rows) {
    const size_t dim = run->stack->dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, run->starts, b);
        for (int row = its.from; row < its.to; row++) {
            const size_t to = (((size_t)b * run->stack->layers + layer) * run->size + row - run->starts[b]) * dim;
            const float *from = run->qkv[layer % 2] + (size_t)row * 3 * dim;
            memcpy(run->keys + to, from + dim, dim * 4);
            memcpy(run->values + to, from + 2 * dim, dim * 4);
        }
    }
}

/* What a layer's attention and memory read of each row. */
static void encoder_project(const Run *run, const Workspace *space, int layer, Rows rows) {
    const EncoderBlock *block = run->stack->blocks + layer;
    const int dim = run->stack->dim, k = block->norm1.k;
    const float *input = layer ? run->x : run->input;
    const Target to_qkv = {.out = run->qkv[layer % 2] + (size_t)rows.from * 3 * dim, .out_stride = 3 * dim};
    linear(space, &block->qkv, input + (size_t)rows.from * k, k, rows.to - rows.from, &block->norm1, to_qkv);
}

static void encoder_attention(const Encoding *w, const Run *run, Workspace *space, int layer, Rows rows) {
    const int dim = run->stack->dim, heads = run->stack->heads, width = dim / heads;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, run->starts, b);
        if (its.from >= its.to) continue;
        const int past = run->past_keys ? (int)run->past_lengths[b] : 0, own = run->starts[b + 1] - run->starts[b];
        const size_t skipped =
            (((size_t)b * run->stack->layers + layer) * run->past_size + run->past_size - past) * dim;
        for (int head = 0; head < heads; head++) {
            if (!takes(space, b * heads + head)) continue;
            const float *query = run->qkv[layer % 2] + (size_t)its.from * 3 * dim + head * width;
            const float *key = run->qkv[layer % 2] + (size_t)run->starts[b] * 3 * dim + dim + head * width;
            Attended keys = {.x = key, .stride = 3 * dim, .count = own}, values = keys;
            values.x += dim;
            if (past) {
                keys.before = run->past_keys + skipped + head * width;
                values.before = run->past_values + skipped + head * width;
                keys.before_stride = values.before_stride = dim, keys.past = values.past = past;
            }
            attend(w->kernels, &space->attention, width, query, 3 * dim, its.to - its.from, &keys, &values,
                   run->context + (size_t)its.from * dim + head * width, dim);
        }
    }
}

static void encoder_memory(const Encoding *w, const Run *run, int layer, Rows rows) {
    const Memory *memory = &run->stack->blocks[layer].memory;
    const int dim = run->stack->dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, run->starts, b);
        const size_t start = run->starts[b];
        const Filter filter = {.x = run->qkv[layer % 2] + start * 3 * dim + 2 * dim, .taps = memory->taps,
                               .y = run->memory + start * dim, .stride = 3 * dim, .y_stride = dim,
                               .rows = run->starts[b + 1] - (int)start, .dim = dim, .kernel = memory->kernel,
                               .left = memory->left};
        w->kernels->filter(&filter, its.from - (int)start, its.to - (int)start);
    }
}

/* The rest of a layer: memory and attention, which read other threads' rows too, and the feed-forward. */
static void encoder_finish(const Encoding *w, const Run *run, Workspace *space, int layer, Rows rows) {
    const EncoderBlock *block = run->stack->blocks + layer;
    const int dim = run->stack->dim, hidden = run->stack->hidden, count = rows.to - rows.from;
    const Rows own = own_rows(space, run->starts[w->batch]); /* of memory and what is kept, which have no columns */
    float *x = run->x + (size_t)rows.from * dim, *inner = run->inner + (size_t)rows.from * hidden;
    Target to_x = {.out = x, .out_stride = dim, .add_stride = dim, .add2_stride = dim};
    if (run->keys) store_keys_values(w, run, layer, own);
    if (block->memory.kernel) {
        encoder_memory(w, run, layer, own);
        to_x.add = run->memory + (size_t)rows.from * dim;
    }
    encoder_attention(w, run, space, layer, rows);
    meet(space);
    if (block->residual) to_x.add2 = x;
    linear(space, &block->out, run->context + (size_t)rows.from * dim, dim, count, NULL, to_x);
    meet(space);
    const Target to_inner = {.out = inner, .out_stride = hidden, .activation = run->stack->activation};
    linear(space, &block->up, x, dim, count, &block->norm2, to_inner);
    meet(space);
    const Target back = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    linear(space, &block->down, inner, hidden, count, NULL, back);
    meet(space);
}

/* All blocks of a stack. */
static void encoder_blocks(const Encoding *w, const Run *run, Workspace *space) {
    const Rows rows = layer_rows(space, run->starts[w->batch]);
    for (int layer = 0; layer < run->stack->layers; layer++) {
        encoder_project(run, space, layer, rows);
        team_barrier(w->team);
        encoder_finish(w, run, space, layer, rows);
    }
}

/* Windows of rows, whose norm takes their place. */
static void merge(const Encoding *w, const Workspace *space) {
    const Encoder *e = w->encoder;
    const int dim = e->rows.dim, k = e->merge.k;
    const Rows own = own_rows(space, w->rows.starts[w->batch]), windows = layer_rows(space, w->starts[w->batch]);
    float *x = w->rows.x + (size_t)own.from * dim;
    w->kernels->layer_norm(&e->rows.norm, x, dim, own.to - own.from, x, dim);
    team_barrier(w->team); /* a window's rows may be of two threads */
    const Target to_x = {.out = w->windows.x + (size_t)windows.from * e->windows.dim, .out_stride = e->windows.dim};
    linear(space, &e->merge, w->rows.x + (size_t)windows.from * k, k, windows.to - windows.from, &e->merge_norm, to_x);
    meet(space);
}

/* Rows of each window and its neighbours side by side, for the predictor's convolution. */
static void gather_neighbours(const Encoding *w, Rows rows) {
    const Encoder *e = w->encoder;
    const int dim = w->last->stack->dim, reach = e->conv_left + 1 + e->conv_right;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++)
            for (int j = 0; j < reach; j++) {
                float *to = w->side + ((size_t)row * reach + j) * dim;
                const int from = row + j - e->conv_left;
                if (from < w->starts[b] || from >= w->starts[b + 1])
                    memset(to, 0, (size_t)dim * 4);
                else
                    memcpy(to, w->hidden + ((size_t)b * w->size + from - w->starts[b]) * dim, (size_t)dim * 4);
            }
    }
}

/* What the predictor's first version makes of rows: each number by itself, and the row added. */
static void filter_hidden(const Encoding *w, Rows rows) {
    const Encoder *e = w->encoder;
    const int dim = w->last->stack->dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        const size_t start = w->starts[b];
        const Filter filter = {.x = w->hidden + (size_t)b * w->size * dim, .taps = e->filter.taps,
                               .y = w->predicted + start * dim, .stride = dim, .y_stride = dim,
                               .rows = w->starts[b + 1] - (int)start, .dim = dim, .kernel = e->filter.kernel,
                               .left = e->filter.left};
        w->kernels->filter(&filter, its.from - (int)start, its.to - (int)start);
    }
    for (int row = rows.from; row < rows.to; row++)
        for (int i = 0; i < dim; i++) {
            float *y = w->predicted + (size_t)row * dim + i;
            *y = *y + e->filter_bias[i] > 0 ? *y + e->filter_bias[i] : 0;
        }
}

static void fire(const Encoding *w, Rows rows) {
    const Encoder *e = w->encoder;
    const int dim = w->last->stack->dim;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++) {
            const float *y = w->predicted + (size_t)row * dim;
            /* In 16 sums, added up in the same order on every processor: a token more or less hangs on the last bits. */
            float lanes[16] = {0}, sum = e->fire_bias;
            for (int i = 0; i < dim; i++) lanes[i % 16] += y[i] * e->fire[i];
            for (int i = 0; i < 16; i++) sum += lanes[i];
            w->weights[(size_t)b * w->size + row - w->starts[b]] = sigmoid(sum);
        }
    }
}

static void predict(const Encoding *w, const Workspace *space) {
    const Encoder *e = w->encoder;
    const int dim = w->last->stack->dim, k = e->conv.k, count = w->starts[w->batch];
    const Rows own = own_rows(space, count), rows = layer_rows(space, count);
    if (k) {
        gather_neighbours(w, own);
        meet(space);
        const Target target = {.out = w->predicted + (size_t)rows.from * dim, .out_stride = dim, .activation = RELU};
        linear(space, &e->conv, w->side + (size_t)rows.from * k, k, rows.to - rows.from, NULL, target);
        meet(space);
    } else {
        filter_hidden(w, own);
    }
    fire(w, own);
}

/* Take the memory of a stack, and return what a thread needs for it too. */
static Most run_alloc(const Encoding *w, Run *run, Arena *arena, Most most) {
    const Stack *stack = run->stack;
    const int count = run->starts[w->batch], share = most_rows(w->team, w->columns, count);
    const size_t rows = count, row = rows * stack->dim * 4;
    int keys = 0;
    for (int b = 0; b < w->batch; b++)
        keys = larger(keys, run->starts[b + 1] - run->starts[b] + (run->past_keys ? (int)run->past_lengths[b] : 0));
    run->x = arena_alloc(arena, row);
    run->input = stack->input == stack->dim ? run->x : arena_alloc(arena, rows * stack->input * 4);
    run->qkv[0] = arena_alloc(arena, 3 * row), run->qkv[1] = arena_alloc(arena, 3 * row);
    run->context = arena_alloc(arena, row);
    run->memory = arena_alloc(arena, row);
    run->inner = arena_alloc(arena, rows * stack->hidden * 4);
    for (const EncoderBlock *block = stack->blocks; block < stack->blocks + stack->layers; block++) {
        most = most_of(most_of(most, &block->qkv, share), &block->out, share);
        most = most_of(most_of(most, &block->up, share), &block->down, share);
    }
    return most_attended(most, share, keys, stack->dim / stack->heads);
}

/* Take all the memory that is needed. Returns whether there was enough. */
static int encoding_alloc(Encoding *w, Arena *arena, const int64_t *lengths) {
    const Encoder *e = w->encoder;
    const int reach = e->conv_left + 1 + e->conv_right;
    w->starts = w->windows.starts = starts_of(arena, lengths, w->batch);
    if (!w->starts) return 0;
    w->rows.starts = starts_times(arena, w->starts, w->batch, e->rows_per_window);
    if (!w->rows.starts) return 0;
    const int windows = w->starts[w->batch], share = most_rows(w->team, w->columns, windows);
    Most most = run_alloc(w, &w->rows, arena, e->conv.k ? most_of((Most){0}, &e->conv, share) : (Most){0});
    if (e->merge.k) most = most_of(run_alloc(w, &w->windows, arena, most), &e->merge, share);
    if (e->front.count) front_alloc(w, arena);
    w->side = arena_alloc(arena, (size_t)windows * reach * w->last->stack->dim * 4);
    w->predicted = arena_alloc(arena, (size_t)windows * w->last->stack->dim * 4);
    if (arena->failed) return 0;
    w->spaces = workspaces_alloc(arena, w->kernels, w->team, w->columns, front_most(w, most), e->attention);
    return !arena->failed;
}

/* Copy the rows that exist to where the first layer reads them. */
static void gather_feats(const Encoding *w) {
    const size_t input = w->encoder->input;
    if (w->encoder->front.count) {
        front_fill(w);
        return;
    }
    for (int b = 0; b < w->batch; b++)
        memcpy(w->rows.input + w->starts[b] * input, w->feats + (size_t)b * w->size * input,
               (size_t)(w->starts[b + 1] - w->starts[b]) * input * 4);
}

/* One thread's part. */
static void encode(void *encoding, int part) {
    const Encoding *w = encoding;
    const Stack *last = w->last->stack;
    Workspace *space = w->spaces + part;
    front_rows(w, space);
    encoder_blocks(w, &w->rows, space);
    if (w->encoder->merge.k) {
        merge(w, space);
        encoder_blocks(w, &w->windows, space);
    }
    const Rows own = own_rows(space, w->starts[w->batch]);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(own, w->starts, b);
        w->kernels->layer_norm(&last->norm, w->last->x + (size_t)its.from * last->dim, last->dim, its.to - its.from,
                               w->hidden + ((size_t)b * w->size + its.from - w->starts[b]) * last->dim, last->dim);
    }
    team_barrier(w->team);
    predict(w, space);
}

/* feats (batch, size, input), for an encoder without a front with scale and positions; else first (batch) is the position of
 * the first window and places (batch, size * rows, dim) what is added to rows. lengths (batch) -> hidden (batch, size, dim) and
 * weights (batch, size) before smoothing; with a past also keys and values (batch, layers, size * rows, dim). What is beyond
 * a length is left as it was. By up to `parts` threads, see team_start, that divide columns or rows. Returns 1, with nothing
 * computed, where memory is short. */
PF_EXPORT int pf_encode(const Kernels *kernels, const Encoder *e, int parts, int columns, int32_t *lent_to, int batch, int size,
                        const float *feats, const int64_t *lengths, const int64_t *first, const float *places,
                        const float *past_keys, const float *past_values, const int64_t *past_lengths, int past_size,
                        float *hidden, float *weights, float *keys, float *values) {
    Team team;
    Arena arena = {0};
    Encoding w = {.kernels = kernels, .encoder = e, .team = &team, .batch = batch, .size = size,
                  .first = first, .feats = feats, .places = places, .hidden = hidden,
                  .weights = weights};
    w.rows = (Run){.stack = &e->rows, .size = size * e->rows_per_window, .past_size = past_size, .past_keys = past_keys,
                   .past_values = past_values, .past_lengths = past_lengths, .keys = keys, .values = values};
    w.windows = (Run){.stack = &e->windows};
    w.last = e->merge.k ? &w.windows : &w.rows;
    team_start(&team, parts, lent_to);
    w.columns = columns && team.parts > 1;
    const int ready = encoding_alloc(&w, &arena, lengths);
    if (ready) gather_feats(&w);
    team_finish(&team, ready ? encode : NULL, &w);
    arena_free(&arena);
    return !ready;
}

/* x (rows, input) -> y (rows, dim), through blocks and the norm after them, by the caller's thread; they may be one place,
 * and any number of threads may share a stack. attention: its format. Returns 1, with nothing computed, where memory is
 * short. */
PF_EXPORT int pf_blocks(const Kernels *kernels, const Stack *stack, int attention, int rows, const float *x, float *y) {
    const int starts[] = {0, rows};
    Team team;
    Arena arena = {0};
    Encoding w = {.kernels = kernels, .team = &team, .batch = 1, .rows = {.stack = stack, .starts = starts}};
    team_start(&team, 1, NULL);
    const Most most = run_alloc(&w, &w.rows, &arena, (Most){0});
    w.spaces = workspaces_alloc(&arena, kernels, &team, 0, most, attention);
    if (!arena.failed) {
        memcpy(w.rows.input, x, (size_t)rows * stack->input * 4);
        encoder_blocks(&w, &w.rows, w.spaces);
        kernels->layer_norm(&stack->norm, w.rows.x, stack->dim, rows, y, stack->dim);
    }
    arena_free(&arena);
    return arena.failed;
}
