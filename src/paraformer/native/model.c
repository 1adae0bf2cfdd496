/* SAN-M encoder and decoder (docs/spec.md 2 and 4) over the rows of many utterances at once.
 *
 * Callers pass rectangular batches with lengths; here the rows that exist stand one after another, so that padding costs
 * nothing and one utterance never meets another's rows outside its own attention and memory. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

typedef struct {
    const float *gain, *shift;
    int32_t k;
} Norm;

typedef struct {
    const float *taps; /* (kernel, dim) */
    int32_t kernel, left;
} Memory;

typedef struct {
    Norm norm1, norm2;
    Linear qkv, out, up, down;
    Memory memory;
    int32_t residual;
} EncoderBlock;

typedef struct {
    const EncoderBlock *blocks;
    Norm norm;
    Linear conv; /* of the predictor, over three rows side by side */
    const float *fire;
    float fire_bias;
    Attended attention;
    int32_t layers, dim, input, heads, hidden, conv_left, conv_right;
} Encoder;

typedef struct {
    Norm norm1, norm2, norm3, ffn_norm;
    Linear up, down, q, kv, out;
    Memory memory;
    int32_t cross;
} DecoderBlock;

typedef struct {
    const DecoderBlock *blocks;
    DecoderBlock last; /* norm1, up, ffn_norm and down alone */
    Norm norm;
    Linear output;
    Attended attention;
    int32_t layers, dim, heads, hidden;
} Decoder;

enum { OK = 0, NO_MEMORY = 1 };

int64_t pf_sizes(int which) {
    const size_t sizes[] = {sizeof(Linear), sizeof(EncoderBlock), sizeof(Encoder), sizeof(DecoderBlock), sizeof(Decoder)};
    return (int64_t)sizes[which];
}

static int *starts_of(const int64_t *lengths, int batch) {
    int *starts = aligned(((size_t)batch + 1) * sizeof(int));
    if (!starts) return NULL;
    starts[0] = 0;
    for (int b = 0; b < batch; b++) starts[b + 1] = starts[b] + (int)lengths[b];
    return starts;
}

/* -- one linear layer ----------------------------------------------------------------------------------------------- */

static int linear(const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm, Target target) {
    Acts acts = {0};
    const int failed = acts_alloc(&acts, layer->format, rows, layer->k);
    if (!failed) {
        if (norm)
            acts_fill_normed(&acts, x, stride, layer->k, norm->gain, norm->shift);
        else
            acts_fill(&acts, x, stride, layer->k, 1.0f);
        multiply(&acts, layer, target);
    }
    acts_free(&acts);
    return failed;
}

/* -- encoder -------------------------------------------------------------------------------------------------------- */

typedef struct {
    const float *keys, *values; /* (batch, layers, size, dim), right-aligned; NULL: none */
    const int64_t *lengths;
    int size;
} Past;

typedef struct {
    float *x, *qkv, *context, *memory, *hidden;
    int *starts;
    int rows;
} Work;

static int encoder_attention(const Encoder *e, int layer, int batch, const Past *past, const Work *w) {
    const int dim = e->dim, width = dim / e->heads;
    for (int b = 0; b < batch; b++) {
        const size_t from = w->starts[b];
        const int rows = w->starts[b + 1] - w->starts[b];
        const int before = past->keys ? (int)past->lengths[b] : 0;
        const size_t skipped = past->keys ? (((size_t)b * e->layers + layer) * past->size + past->size - before) * dim : 0;
        for (int head = 0; head < e->heads; head++) {
            const float *q = w->qkv + from * 3 * dim + head * width;
            const float *pk = before ? past->keys + skipped + head * width : NULL;
            const float *pv = before ? past->values + skipped + head * width : NULL;
            if (attend(e->attention, width, q, 3 * dim, rows, pk, pv, dim, before, q + dim, q + 2 * dim, 3 * dim, rows,
                       w->context + from * dim + head * width, dim))
                return NO_MEMORY;
        }
    }
    return OK;
}

static int encoder_block(const Encoder *e, int layer, int batch, const Past *past, const Work *w, const float *input) {
    const EncoderBlock *block = e->blocks + layer;
    const int dim = e->dim, rows = w->rows;
    const Target to_qkv = {.out = w->qkv, .out_stride = 3 * dim};
    if (linear(&block->qkv, input, block->norm1.k, rows, &block->norm1, to_qkv)) return NO_MEMORY;
    for (int b = 0; b < batch; b++)
        memory(w->qkv + (size_t)w->starts[b] * 3 * dim + 2 * dim, 3 * dim, w->starts[b + 1] - w->starts[b], dim,
               block->memory.taps, block->memory.kernel, block->memory.left, NULL, 0,
               w->memory + (size_t)w->starts[b] * dim, dim);
    if (encoder_attention(e, layer, batch, past, w)) return NO_MEMORY;
    Target to_x = {.out = w->x, .out_stride = dim, .add = w->memory, .add_stride = dim};
    if (block->residual) to_x.add2 = input, to_x.add2_stride = dim;
    if (linear(&block->out, w->context, dim, rows, NULL, to_x)) return NO_MEMORY;
    const Target to_hidden = {.out = w->hidden, .out_stride = e->hidden, .relu = 1};
    if (linear(&block->up, w->x, dim, rows, &block->norm2, to_hidden)) return NO_MEMORY;
    const Target back = {.out = w->x, .out_stride = dim, .add = w->x, .add_stride = dim};
    return linear(&block->down, w->hidden, e->hidden, rows, NULL, back);
}

/* Copy this layer's keys and values of all rows to (batch, layers, size, dim). */
static void keep(const Encoder *e, int layer, int batch, int size, const Work *w, float *keys, float *values) {
    const size_t dim = e->dim;
    for (int b = 0; b < batch; b++)
        for (int t = 0; t < w->starts[b + 1] - w->starts[b]; t++) {
            const size_t to = (((size_t)b * e->layers + layer) * size + t) * dim;
            const float *from = w->qkv + ((size_t)w->starts[b] + t) * 3 * dim;
            memcpy(keys + to, from + dim, dim * 4);
            memcpy(values + to, from + 2 * dim, dim * 4);
        }
}

float pf_sigmoid(float x); /* detect.c: in plain instructions, from the C library */

static int predict(const Encoder *e, int batch, int size, const Work *w, const float *hidden, float *weights) {
    const int dim = e->dim, reach = e->conv_left + 1 + e->conv_right;
    const int widest = reach * dim;
    float *side = aligned((size_t)w->rows * widest * 4), *y = aligned((size_t)w->rows * dim * 4);
    int failed = !side || !y;
    if (!failed) {
        for (int b = 0; b < batch; b++) {
            const int rows = w->starts[b + 1] - w->starts[b];
            for (int t = 0; t < rows; t++)
                for (int j = 0; j < reach; j++) {
                    float *to = side + ((size_t)w->starts[b] + t) * widest + (size_t)j * dim;
                    const int from = t + j - e->conv_left;
                    if (from < 0 || from >= rows)
                        memset(to, 0, (size_t)dim * 4);
                    else
                        memcpy(to, hidden + ((size_t)b * size + from) * dim, (size_t)dim * 4);
                }
        }
        failed = linear(&e->conv, side, widest, w->rows, NULL, (Target){.out = y, .out_stride = dim, .relu = 1});
    }
    for (int b = 0; !failed && b < batch; b++)
        for (int t = 0; t < w->starts[b + 1] - w->starts[b]; t++) {
            const float *row = y + ((size_t)w->starts[b] + t) * dim;
            float lanes[16] = {0}, sum = e->fire_bias;
            for (int i = 0; i < dim; i++) lanes[i % 16] += row[i] * e->fire[i];
            for (int i = 0; i < 16; i++) sum += lanes[i];
            weights[(size_t)b * size + t] = pf_sigmoid(sum);
        }
    free(side);
    free(y);
    return failed;
}

static int work_alloc(Work *w, const Encoder *e, const int64_t *lengths, int batch) {
    w->starts = starts_of(lengths, batch);
    if (!w->starts) return NO_MEMORY;
    w->rows = w->starts[batch];
    const size_t rows = w->rows;
    w->x = aligned(rows * e->dim * 4);
    w->qkv = aligned(rows * 3 * e->dim * 4);
    w->context = aligned(rows * e->dim * 4);
    w->memory = aligned(rows * e->dim * 4);
    w->hidden = aligned(rows * e->hidden * 4);
    return !w->x || !w->qkv || !w->context || !w->memory || !w->hidden;
}

static void work_free(Work *w) {
    free(w->starts);
    free(w->x);
    free(w->qkv);
    free(w->context);
    free(w->memory);
    free(w->hidden);
}

/* feats (batch, size, input) with scale and positions, lengths (batch) -> hidden (batch, size, dim) and weights
 * (batch, size) before smoothing, both zeroed by the caller; with a past also keys and values (batch, layers, size, dim). */
int pf_encode(const Encoder *e, int batch, int size, const float *feats, const int64_t *lengths, const float *past_keys,
              const float *past_values, const int64_t *past_lengths, int past_size, float *hidden, float *weights,
              float *keys, float *values) {
    Work w = {0};
    const Past past = {past_keys, past_values, past_lengths, past_size};
    int failed = work_alloc(&w, e, lengths, batch);
    float *input = failed ? NULL : aligned((size_t)w.rows * e->input * 4);
    failed |= !input;
    for (int b = 0; !failed && b < batch; b++)
        memcpy(input + (size_t)w.starts[b] * e->input, feats + (size_t)b * size * e->input,
               (size_t)lengths[b] * e->input * 4);
    for (int layer = 0; !failed && layer < e->layers; layer++) {
        failed = encoder_block(e, layer, batch, &past, &w, layer ? w.x : input);
        if (!failed && keys) keep(e, layer, batch, size, &w, keys, values);
    }
    for (int b = 0; !failed && b < batch; b++)
        layer_norm(w.x + (size_t)w.starts[b] * e->dim, e->dim, (int)lengths[b], e->dim, e->norm.gain, e->norm.shift,
                   hidden + (size_t)b * size * e->dim, e->dim);
    if (!failed) failed = predict(e, batch, size, &w, hidden, weights);
    free(input);
    work_free(&w);
    return failed;
}

/* -- decoder -------------------------------------------------------------------------------------------------------- */

typedef struct {
    float *x, *entered, *query, *context, *hidden;
    int *starts; /* of each stream's tokens */
    int rows;
} Tokens;

typedef struct {
    float *kv;
    int *starts; /* of each stream's encoder rows */
    int rows;
    Acts acts;
} Seen;

/* out = norm2(ffn(norm1(x))), or the bare feed-forward where there is no norm2. */
static int feed_forward(const DecoderBlock *block, const float *x, int dim, int rows, float *hidden, float *out) {
    const int inner = block->up.n;
    if (linear(&block->up, x, dim, rows, &block->norm1, (Target){.out = hidden, .out_stride = inner, .relu = 1}))
        return NO_MEMORY;
    if (linear(&block->down, hidden, inner, rows, &block->ffn_norm, (Target){.out = out, .out_stride = dim}))
        return NO_MEMORY;
    if (block->norm2.gain) layer_norm(out, dim, rows, dim, block->norm2.gain, block->norm2.shift, out, dim);
    return OK;
}

static int cross_attention(const Decoder *d, const DecoderBlock *block, int batch, const Tokens *t, Seen *seen) {
    const int dim = d->dim, width = dim / d->heads;
    if (linear(&block->q, t->x, dim, t->rows, &block->norm3, (Target){.out = t->query, .out_stride = dim}))
        return NO_MEMORY;
    multiply(&seen->acts, &block->kv, (Target){.out = seen->kv, .out_stride = 2 * dim});
    for (int b = 0; b < batch; b++)
        for (int head = 0; head < d->heads; head++) {
            const size_t from = (size_t)t->starts[b] * dim + head * width;
            const float *key = seen->kv + (size_t)seen->starts[b] * 2 * dim + head * width;
            if (attend(d->attention, width, t->query + from, dim, t->starts[b + 1] - t->starts[b], NULL, NULL, 0, 0, key,
                       key + dim, 2 * dim, seen->starts[b + 1] - seen->starts[b], t->context + from, dim))
                return NO_MEMORY;
        }
    const Target back = {.out = t->x, .out_stride = dim, .add = t->x, .add_stride = dim};
    return linear(&block->out, t->context, dim, t->rows, NULL, back);
}

/* The last `left` rows of before (left, dim) followed by entered (rows, dim). */
static void remember(const float *before, const float *entered, int rows, int left, int dim, float *next) {
    for (int i = 0; i < left; i++) {
        const int from = i + rows - left;
        const float *row = from < 0 ? before + (size_t)(from + left) * dim : entered + (size_t)from * dim;
        memcpy(next + (size_t)i * dim, row, (size_t)dim * 4);
    }
}

/* past, next (batch, layers, left, dim), or NULL for whole utterances. */
static int decoder_block(const Decoder *d, int layer, int batch, const Tokens *t, Seen *seen, const float *past,
                         float *next) {
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, kept = block->memory.kernel - 1;
    if (feed_forward(block, t->x, dim, t->rows, t->hidden, t->entered)) return NO_MEMORY;
    for (int b = 0; b < batch; b++) {
        const size_t from = (size_t)t->starts[b] * dim, state = ((size_t)b * d->layers + layer) * kept * dim;
        const int rows = t->starts[b + 1] - t->starts[b];
        memory(t->entered + from, dim, rows, dim, block->memory.taps, block->memory.kernel, block->memory.left,
               past ? past + state : NULL, dim, t->query + from, dim);
        if (past) remember(past + state, t->entered + from, rows, kept, dim, next + state);
    }
    for (size_t i = 0; i < (size_t)t->rows * dim; i++) t->x[i] += t->query[i];
    return block->cross ? cross_attention(d, block, batch, t, seen) : OK;
}

static int tokens_alloc(Tokens *t, const Decoder *d, const int64_t *counts, int batch) {
    t->starts = starts_of(counts, batch);
    if (!t->starts) return NO_MEMORY;
    t->rows = t->starts[batch];
    const size_t bytes = (size_t)t->rows * d->dim * 4;
    t->x = aligned(bytes), t->entered = aligned(bytes), t->query = aligned(bytes), t->context = aligned(bytes);
    t->hidden = aligned((size_t)t->rows * d->hidden * 4);
    return !t->x || !t->entered || !t->query || !t->context || !t->hidden;
}

static void tokens_free(Tokens *t) {
    free(t->x);
    free(t->entered);
    free(t->query);
    free(t->context);
    free(t->hidden);
    free(t->starts);
}

/* The encoder rows that the mask shows, ready for every layer's keys and values. */
static int seen_alloc(Seen *seen, const Decoder *d, int batch, int size, const float *memory_rows, const uint8_t *mask) {
    const int dim = d->dim;
    seen->starts = aligned(((size_t)batch + 1) * sizeof(int));
    float *rows = aligned((size_t)batch * size * dim * 4);
    if (!seen->starts || !rows) {
        free(rows);
        return NO_MEMORY;
    }
    int count = 0;
    for (int b = 0; b < batch; b++) {
        seen->starts[b] = count;
        for (int t = 0; t < size; t++)
            if (mask[(size_t)b * size + t])
                memcpy(rows + (size_t)count++ * dim, memory_rows + ((size_t)b * size + t) * dim, (size_t)dim * 4);
    }
    seen->starts[batch] = seen->rows = count;
    seen->kv = aligned((size_t)count * 2 * dim * 4);
    int failed = acts_alloc(&seen->acts, d->blocks[0].kv.format, count, dim) || !seen->kv;
    if (!failed) acts_fill(&seen->acts, rows, dim, dim, 1.0f);
    free(rows);
    return failed;
}

static void seen_free(Seen *seen) {
    acts_free(&seen->acts);
    free(seen->kv);
    free(seen->starts);
}

/* memory (batch, size, dim), mask (batch, size), embeds (batch, longest, dim) of which counts (batch) are tokens
 * -> logits (batch, longest, vocabulary), zeroed by the caller; past and next as decoder_block takes them. */
int pf_decode(const Decoder *d, int batch, int size, const float *memory_rows, const uint8_t *mask, int longest,
              const float *embeds, const int64_t *counts, const float *past, float *logits, float *next) {
    Tokens t = {0};
    Seen seen = {0};
    const int dim = d->dim, vocabulary = d->output.n;
    int failed = tokens_alloc(&t, d, counts, batch) || seen_alloc(&seen, d, batch, size, memory_rows, mask);
    for (int b = 0; !failed && b < batch; b++)
        memcpy(t.x + (size_t)t.starts[b] * dim, embeds + (size_t)b * longest * dim, (size_t)counts[b] * dim * 4);
    for (int layer = 0; !failed && layer < d->layers; layer++)
        failed = decoder_block(d, layer, batch, &t, &seen, past, next);
    if (!failed) failed = feed_forward(&d->last, t.x, dim, t.rows, t.hidden, t.entered);
    float *scores = failed ? NULL : aligned((size_t)t.rows * vocabulary * 4);
    failed |= !scores;
    if (!failed)
        failed = linear(&d->output, t.entered, dim, t.rows, &d->norm, (Target){.out = scores, .out_stride = vocabulary});
    for (int b = 0; !failed && b < batch; b++)
        memcpy(logits + (size_t)b * longest * vocabulary, scores + (size_t)t.starts[b] * vocabulary,
               (size_t)counts[b] * vocabulary * 4);
    free(scores);
    tokens_free(&t);
    seen_free(&seen);
    return failed;
}
