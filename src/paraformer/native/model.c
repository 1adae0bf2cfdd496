/* SAN-M encoder and decoder (docs/spec.md 2 and 4) over the rows of many utterances at once.
 *
 * Callers pass rectangular batches with lengths; here the rows that exist stand one after another, so that padding costs
 * nothing and one utterance never meets another's rows outside its own attention and memory.
 *
 * Several threads may share the work: each takes an equal share of the rows through all layers, and waits for the others
 * where attention or memory is about to read theirs. What the others may still be reading is kept in pairs, one for even
 * layers and one for odd ones, so that one meeting in each layer is enough. */
#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
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
    int32_t attention, layers, dim, input, heads, hidden, conv_left, conv_right; /* attention: its format */
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
    int32_t attention, layers, dim, heads, hidden;
} Decoder;

int64_t pf_sizes(int which) {
    const size_t sizes[] = {sizeof(Linear), sizeof(EncoderBlock), sizeof(Encoder), sizeof(DecoderBlock), sizeof(Decoder)};
    return (int64_t)sizes[which];
}

/* -- threads -------------------------------------------------------------------------------------------------------- */

typedef struct {
    int parts;
    atomic_int arrived, meetings;
} Team;

enum { PATIENCE = 20000 }; /* looks at a counter, some 40 ns each, before a waiting thread lets others have the core */

/* Wait until all threads have come here. */
static void meet(Team *team) {
    if (team->parts == 1) return;
    const int meeting = atomic_load(&team->meetings);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->parts) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->meetings, meeting + 1);
        return;
    }
    for (int looked = 0; atomic_load(&team->meetings) == meeting; looked++)
        if (looked < PATIENCE)
            _mm_pause();
        else
            sched_yield();
}

/* Rows from..to-1 of many. */
typedef struct {
    int from, to;
} Rows;

static Rows share(int rows, int part, int parts) {
    return (Rows){(int)((int64_t)rows * part / parts), (int)((int64_t)rows * (part + 1) / parts)};
}

/* Those of utterance b. */
static Rows within(Rows rows, const int *starts, int b) {
    return (Rows){rows.from > starts[b] ? rows.from : starts[b], rows.to < starts[b + 1] ? rows.to : starts[b + 1]};
}

static void *given_up(Room *room) {
    leave(room);
    return NULL;
}

static int *starts_of(Room *room, const int64_t *lengths, int batch) {
    int *starts = take(room, ((size_t)batch + 1) * sizeof(int));
    if (!starts) return NULL;
    starts[0] = 0;
    for (int b = 0; b < batch; b++) starts[b + 1] = starts[b] + (int)lengths[b];
    return starts;
}

/* -- one linear layer ----------------------------------------------------------------------------------------------- */

/* What a thread computes in. */
typedef struct {
    Acts acts;
    float *normed;
    Attention attention;
} Bench;

/* The most that layers read of a row: words, and numbers. */
typedef struct {
    int words, numbers;
} Widest;

static int larger(int a, int b) { return a > b ? a : b; }

static Widest wider(Widest w, const Linear *layer) {
    return (Widest){larger(w.words, words_for(layer->format, layer->k)), larger(w.numbers, layer->k)};
}

/* One for each of `parts` threads that share `rows` rows and attend to up to `keys`, or NULL. */
static Bench *benches_for(Room *room, int parts, int rows, Widest widest, int format, int width, int keys) {
    Bench *benches = take(room, (size_t)parts * sizeof(Bench));
    const int most = (rows + parts - 1) / parts;
    for (int part = 0; benches && part < parts; part++)
        benches[part] = (Bench){.acts = acts_in(room, F32, most, widest.words),
                                .normed = take(room, (size_t)widest.numbers * 4),
                                .attention = attention_in(room, format, width, most, keys)};
    return benches;
}

static void linear(const Bench *bench, const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm,
                   Target target) {
    Acts acts = acts_as(&bench->acts, layer->format, rows, layer->k);
    if (norm)
        acts_fill_normed(&acts, x, stride, layer->k, layer->sum != NULL, norm->gain, norm->shift, bench->normed);
    else
        acts_fill(&acts, x, stride, layer->k, layer->sum != NULL);
    multiply(&acts, layer, target);
}

/* -- encoder -------------------------------------------------------------------------------------------------------- */

/* What is encoded, and where it goes; the past is NULL where nothing is looked back at. */
typedef struct {
    Room room;
    const Encoder *encoder;
    Team team;
    int batch, size, past_size, rows;
    const float *past_keys, *past_values; /* (batch, layers, past_size, dim), right-aligned */
    const int64_t *past_lengths;
    float *hidden, *weights, *keys, *values;
    float *input, *x, *qkv[2], *context, *memory, *inner, *side, *predicted;
    int *starts;
    Bench *benches;
} Encoding;

/* Copy a layer's keys and values to (batch, layers, size, dim). */
static void keep(const Encoding *w, int layer, Rows rows) {
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
static void encoder_enter(const Encoding *w, const Bench *bench, int layer, Rows rows) {
    const EncoderBlock *block = w->encoder->blocks + layer;
    const int dim = w->encoder->dim, k = block->norm1.k;
    const float *input = layer ? w->x : w->input;
    const Target to_qkv = {.out = w->qkv[layer % 2] + (size_t)rows.from * 3 * dim, .out_stride = 3 * dim};
    linear(bench, &block->qkv, input + (size_t)rows.from * k, k, rows.to - rows.from, &block->norm1, to_qkv);
    if (w->keys) keep(w, layer, rows);
}

static void encoder_attention(const Encoding *w, Bench *bench, int layer, Rows rows) {
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
            attend(&bench->attention, query, 3 * dim, its.to - its.from, &keys, &values,
                   w->context + (size_t)its.from * dim + head * width, dim);
        }
    }
}

/* The rest of a layer. */
static void encoder_leave(const Encoding *w, Bench *bench, int layer, Rows rows) {
    const Encoder *e = w->encoder;
    const EncoderBlock *block = e->blocks + layer;
    const int dim = e->dim, count = rows.to - rows.from;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        const size_t start = w->starts[b];
        memory(w->qkv[layer % 2] + start * 3 * dim + 2 * dim, 3 * dim, its.from - (int)start, its.to - (int)start,
               w->starts[b + 1] - (int)start, dim, block->memory.taps, block->memory.kernel, block->memory.left, NULL, 0,
               w->memory + start * dim, dim);
    }
    encoder_attention(w, bench, layer, rows);
    float *x = w->x + (size_t)rows.from * dim, *inner = w->inner + (size_t)rows.from * e->hidden;
    Target to_x = {.out = x, .out_stride = dim, .add = w->memory + (size_t)rows.from * dim, .add_stride = dim};
    if (block->residual) to_x.add2 = x, to_x.add2_stride = dim;
    linear(bench, &block->out, w->context + (size_t)rows.from * dim, dim, count, NULL, to_x);
    const Target to_inner = {.out = inner, .out_stride = e->hidden, .relu = 1};
    linear(bench, &block->up, x, dim, count, &block->norm2, to_inner);
    const Target back = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    linear(bench, &block->down, inner, e->hidden, count, NULL, back);
}

float pf_sigmoid(float x); /* detect.c: in plain instructions, from the C library */

static void predict(const Encoding *w, const Bench *bench, Rows rows) {
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
    linear(bench, &e->conv, w->side + (size_t)rows.from * widest, widest, rows.to - rows.from, NULL, target);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        for (int row = its.from; row < its.to; row++) {
            const float *y = w->predicted + (size_t)row * dim;
            float lanes[16] = {0}, sum = e->fire_bias;
            for (int i = 0; i < dim; i++) lanes[i % 16] += y[i] * e->fire[i];
            for (int i = 0; i < 16; i++) sum += lanes[i];
            w->weights[(size_t)b * w->size + row - w->starts[b]] = pf_sigmoid(sum);
        }
    }
}

void pf_encoding_free(Encoding *w) {
    if (w) leave(&w->room);
}

/* Work for so many threads that each call pf_encode: feats (batch, size, input) with scale and positions, lengths (batch)
 * -> hidden (batch, size, dim) and weights (batch, size) before smoothing, both zeroed by the caller; with a past also
 * keys and values (batch, layers, size, dim). NULL where memory is short. */
Encoding *pf_encoding(const Encoder *e, int parts, int batch, int size, const float *feats, const int64_t *lengths,
                      const float *past_keys, const float *past_values, const int64_t *past_lengths, int past_size,
                      float *hidden, float *weights, float *keys, float *values) {
    Room room = {0};
    Encoding *w = take(&room, sizeof(Encoding));
    int *starts = starts_of(&room, lengths, batch);
    if (room.failed) return given_up(&room);
    const size_t rows = starts[batch], row = rows * e->dim * 4;
    Widest widest = wider((Widest){0}, &e->conv);
    for (const EncoderBlock *block = e->blocks; block < e->blocks + e->layers; block++)
        widest = wider(wider(wider(wider(widest, &block->qkv), &block->out), &block->up), &block->down);
    int most = 0;
    for (int b = 0; b < batch; b++) most = larger(most, (int)lengths[b] + (past_keys ? (int)past_lengths[b] : 0));
    *w = (Encoding){.encoder = e, .team = {.parts = parts}, .batch = batch, .size = size, .past_size = past_size,
                    .rows = (int)rows, .past_keys = past_keys, .past_values = past_values,
                    .past_lengths = past_lengths, .hidden = hidden, .weights = weights, .keys = keys,
                    .values = values, .starts = starts,
                    .input = take(&room, rows * e->input * 4),
                    .x = take(&room, row),
                    .qkv = {take(&room, 3 * row), take(&room, 3 * row)},
                    .context = take(&room, row),
                    .memory = take(&room, row),
                    .inner = take(&room, rows * e->hidden * 4),
                    .side = take(&room, (e->conv_left + 1 + e->conv_right) * row),
                    .predicted = take(&room, row),
                    .benches = benches_for(&room, parts, (int)rows, widest, e->attention, e->dim / e->heads, most)};
    w->room = room;
    if (room.failed) return given_up(&room);
    for (int b = 0; b < batch; b++)
        memcpy(w->input + (size_t)w->starts[b] * e->input, feats + (size_t)b * size * e->input,
               (size_t)lengths[b] * e->input * 4);
    return w;
}

/* One thread's part. */
void pf_encode(Encoding *w, int part) {
    const Encoder *e = w->encoder;
    const Rows rows = share(w->rows, part, w->team.parts);
    for (int layer = 0; layer < e->layers; layer++) {
        encoder_enter(w, w->benches + part, layer, rows);
        meet(&w->team);
        encoder_leave(w, w->benches + part, layer, rows);
    }
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(rows, w->starts, b);
        layer_norm(w->x + (size_t)its.from * e->dim, e->dim, its.to - its.from, e->dim, e->norm.gain, e->norm.shift,
                   w->hidden + ((size_t)b * w->size + its.from - w->starts[b]) * e->dim, e->dim);
    }
    meet(&w->team);
    predict(w, w->benches + part, rows);
}

/* -- decoder -------------------------------------------------------------------------------------------------------- */

typedef struct {
    Room room;
    const Decoder *decoder;
    Team team;
    int batch, longest, tokens, seen;
    const float *past; /* (batch, layers, left, dim), or NULL for whole utterances; so is next */
    float *logits, *next;
    float *x, *entered[2], *query, *context, *inner, *scores; /* of tokens */
    float *memory, *kv[2];                                    /* of encoder rows */
    Acts acts;
    int *starts, *seen_starts; /* of each stream's tokens and encoder rows */
    Bench *benches;
} Decoding;

/* out = norm2(ffn(norm1(x))), or the bare feed-forward where there is no norm2. */
static void feed_forward(const Decoding *w, const Bench *bench, const DecoderBlock *block, Rows rows, float *out) {
    const int dim = w->decoder->dim, width = block->up.n, count = rows.to - rows.from;
    const size_t from = (size_t)rows.from * dim;
    float *inner = w->inner + (size_t)rows.from * w->decoder->hidden;
    const Target to_inner = {.out = inner, .out_stride = width, .relu = 1};
    linear(bench, &block->up, w->x + from, dim, count, &block->norm1, to_inner);
    const Target to_out = {.out = out + from, .out_stride = dim};
    linear(bench, &block->down, inner, width, count, &block->ffn_norm, to_out);
    if (block->norm2.gain) layer_norm(out + from, dim, count, dim, block->norm2.gain, block->norm2.shift, out + from, dim);
}

/* What a layer's memory and attention read of tokens and encoder rows. */
static void decoder_enter(const Decoding *w, const Bench *bench, int layer, Rows tokens, Rows seen) {
    const DecoderBlock *block = w->decoder->blocks + layer;
    if (block->cross && seen.from < seen.to) {
        const Acts some = acts_part(&w->acts, seen.from, seen.to);
        const size_t stride = 2 * (size_t)w->decoder->dim;
        multiply(&some, &block->kv, (Target){.out = w->kv[layer % 2] + seen.from * stride, .out_stride = stride});
    }
    feed_forward(w, bench, block, tokens, w->entered[layer % 2]);
}

static void cross_attention(const Decoding *w, Bench *bench, int layer, Rows tokens) {
    const Decoder *d = w->decoder;
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, width = dim / d->heads, count = tokens.to - tokens.from;
    float *x = w->x + (size_t)tokens.from * dim, *query = w->query + (size_t)tokens.from * dim;
    linear(bench, &block->q, x, dim, count, &block->norm3, (Target){.out = query, .out_stride = dim});
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        if (its.from >= its.to) continue;
        for (int head = 0; head < d->heads; head++) {
            const size_t from = (size_t)its.from * dim + head * width;
            const float *key = w->kv[layer % 2] + (size_t)w->seen_starts[b] * 2 * dim + head * width;
            Attended keys = {.x = key, .stride = 2 * dim, .count = w->seen_starts[b + 1] - w->seen_starts[b]};
            Attended values = keys;
            values.x += dim;
            attend(&bench->attention, w->query + from, dim, its.to - its.from, &keys, &values, w->context + from, dim);
        }
    }
    const Target back = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    linear(bench, &block->out, w->context + (size_t)tokens.from * dim, dim, count, NULL, back);
}

/* The last `left` rows of before (left, dim) followed by entered (rows, dim). */
static void remember(const float *before, const float *entered, int rows, int left, int dim, float *next) {
    for (int i = 0; i < left; i++) {
        const int from = i + rows - left;
        const float *row = from < 0 ? before + (size_t)(from + left) * dim : entered + (size_t)from * dim;
        memcpy(next + (size_t)i * dim, row, (size_t)dim * 4);
    }
}

/* The rest of a layer; what a stream keeps is left to the part with its number, of all that there are. */
static void decoder_leave(const Decoding *w, int layer, Rows tokens, int part) {
    const Decoder *d = w->decoder;
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, kept = block->memory.kernel - 1;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        const size_t start = w->starts[b], state = ((size_t)b * d->layers + layer) * kept * dim;
        const int rows = w->starts[b + 1] - (int)start;
        const float *entered = w->entered[layer % 2] + start * dim;
        memory(entered, dim, its.from - (int)start, its.to - (int)start, rows, dim, block->memory.taps,
               block->memory.kernel, block->memory.left, w->past ? w->past + state : NULL, dim, w->query + start * dim, dim);
        if (w->past && b % w->team.parts == part) remember(w->past + state, entered, rows, kept, dim, w->next + state);
    }
    for (size_t i = (size_t)tokens.from * dim; i < (size_t)tokens.to * dim; i++) w->x[i] += w->query[i];
    if (block->cross) cross_attention(w, w->benches + part, layer, tokens);
}

void pf_decoding_free(Decoding *w) {
    if (w) leave(&w->room);
}

/* Where each stream's rows that the mask shows begin, among all of them. */
static int *seen_starts_of(Room *room, const uint8_t *mask, int batch, int size) {
    int *starts = take(room, ((size_t)batch + 1) * sizeof(int)), seen = 0;
    for (int b = 0; starts && b <= batch; b++) {
        starts[b] = seen;
        for (int t = 0; b < batch && t < size; t++) seen += mask[(size_t)b * size + t];
    }
    return starts;
}

static Widest widest_of(const Decoder *d) {
    Widest widest = wider(wider(wider((Widest){0}, &d->output), &d->last.up), &d->last.down);
    for (const DecoderBlock *block = d->blocks; block < d->blocks + d->layers; block++) {
        widest = wider(wider(widest, &block->up), &block->down);
        if (block->cross) widest = wider(wider(widest, &block->q), &block->out);
    }
    return widest;
}

/* Work for so many threads that each call pf_decode: memory (batch, size, dim), mask (batch, size), embeds (batch, longest,
 * dim) of which counts (batch) are tokens -> logits (batch, longest, vocabulary), zeroed by the caller; past and next
 * (batch, layers, left, dim), or NULL. NULL where memory is short. */
Decoding *pf_decoding(const Decoder *d, int parts, int batch, int size, const float *memory_rows, const uint8_t *mask,
                      int longest, const float *embeds, const int64_t *counts, const float *past, float *logits,
                      float *next) {
    Room room = {0};
    Decoding *w = take(&room, sizeof(Decoding));
    int *starts = starts_of(&room, counts, batch), *seen_starts = seen_starts_of(&room, mask, batch, size);
    if (room.failed) return given_up(&room);
    const size_t dim = d->dim, tokens = starts[batch], seen = seen_starts[batch], row = tokens * dim * 4;
    int most = 0;
    for (int b = 0; b < batch; b++) most = larger(most, seen_starts[b + 1] - seen_starts[b]);
    *w = (Decoding){.decoder = d, .team = {.parts = parts}, .batch = batch, .longest = longest, .tokens = (int)tokens,
                    .seen = (int)seen, .past = past, .logits = logits, .next = next, .starts = starts,
                    .seen_starts = seen_starts,
                    .x = take(&room, row),
                    .entered = {take(&room, row), take(&room, row)},
                    .query = take(&room, row),
                    .context = take(&room, row),
                    .inner = take(&room, tokens * d->hidden * 4),
                    .scores = take(&room, tokens * d->output.n * 4),
                    .memory = take(&room, seen * dim * 4),
                    .kv = {take(&room, 2 * seen * dim * 4), take(&room, 2 * seen * dim * 4)},
                    .acts = acts_in(&room, d->blocks[0].kv.format, (int)seen, (int)dim),
                    .benches = benches_for(&room, parts, (int)tokens, widest_of(d), d->attention, d->dim / d->heads,
                                           most)};
    w->room = room;
    if (room.failed) return given_up(&room);
    for (int b = 0; b < batch; b++) {
        memcpy(w->x + starts[b] * dim, embeds + (size_t)b * longest * dim, (size_t)counts[b] * dim * 4);
        float *to = w->memory + seen_starts[b] * dim;
        for (int t = 0; t < size; t++)
            if (mask[(size_t)b * size + t]) {
                memcpy(to, memory_rows + ((size_t)b * size + t) * dim, dim * 4);
                to += dim;
            }
    }
    return w;
}

/* One thread's part. */
void pf_decode(Decoding *w, int part) {
    const Decoder *d = w->decoder;
    const int dim = d->dim, vocabulary = d->output.n;
    const Rows tokens = share(w->tokens, part, w->team.parts), seen = share(w->seen, part, w->team.parts);
    Acts some = acts_part(&w->acts, seen.from, seen.to);
    acts_fill(&some, w->memory + (size_t)seen.from * dim, dim, dim, d->blocks[0].kv.sum != NULL);
    for (int layer = 0; layer < d->layers; layer++) {
        decoder_enter(w, w->benches + part, layer, tokens, seen);
        meet(&w->team);
        decoder_leave(w, layer, tokens, part);
    }
    feed_forward(w, w->benches + part, &d->last, tokens, w->query);
    const Target to_scores = {.out = w->scores + (size_t)tokens.from * vocabulary, .out_stride = vocabulary};
    linear(w->benches + part, &d->output, w->query + (size_t)tokens.from * dim, dim, tokens.to - tokens.from, &d->norm,
           to_scores);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        if (its.from < its.to)
            memcpy(w->logits + ((size_t)b * w->longest + its.from - w->starts[b]) * vocabulary,
                   w->scores + (size_t)its.from * vocabulary, (size_t)(its.to - its.from) * vocabulary * 4);
    }
}
