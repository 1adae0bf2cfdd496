/* The SAN-M decoder (docs/spec.md 4). */
#include <string.h>

#include "model.h"

typedef struct {
    const Kernels *kernels;
    const Decoder *decoder;
    Team *team;
    int batch, longest, tokens, seen;
    const float *past; /* (batch, layers, left, dim), or NULL for whole utterances; so is next */
    float *logits, *next;
    float *x, *entered[2], *query, *context, *inner, *scores; /* of tokens */
    float *memory, *kv[2];                                    /* of encoder rows */
    float *units;                                             /* scores of tokens, where there are units */
    Acts acts, probabilities;                                 /* of encoder rows, and of units */
    int *starts, *seen_starts; /* of each stream's tokens and encoder rows */
    Workspace *spaces;
} Decoding;

/* out = norm2(ffn(norm1(x))), or the bare feed-forward where there is no norm2. */
static void feed_forward(const Decoding *w, const Workspace *space, const DecoderBlock *block, Rows rows, float *out) {
    const int dim = w->decoder->dim, width = block->up.n, count = rows.to - rows.from;
    const size_t from = (size_t)rows.from * dim;
    float *inner = w->inner + (size_t)rows.from * w->decoder->hidden;
    const Target to_inner = {.out = inner, .out_stride = width, .activation = RELU};
    linear(space, &block->up, w->x + from, dim, count, &block->norm1, to_inner);
    const Target to_out = {.out = out + from, .out_stride = dim};
    linear(space, &block->down, inner, width, count, &block->ffn_norm, to_out);
    if (block->norm2.gain)
        w->kernels->layer_norm(&block->norm2, out + from, dim, count, out + from, dim);
}

/* What a layer's memory and attention read of tokens and encoder rows. */
static void decoder_project(const Decoding *w, const Workspace *space, int layer, Rows tokens, Rows seen) {
    const DecoderBlock *block = w->decoder->blocks + layer;
    if (block->cross && seen.from < seen.to) {
        const Acts some = acts_part(&w->acts, seen.from, seen.to);
        const size_t stride = 2 * (size_t)w->decoder->dim;
        const Target to_kv = {.out = w->kv[layer % 2] + seen.from * stride, .out_stride = stride};
        w->kernels->multiply(&some, &block->kv, &to_kv);
    }
    feed_forward(w, space, block, tokens, w->entered[layer % 2]);
}

static void cross_attention(const Decoding *w, Workspace *space, int layer, Rows tokens) {
    const Decoder *d = w->decoder;
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, width = dim / d->heads, count = tokens.to - tokens.from;
    float *x = w->x + (size_t)tokens.from * dim, *query = w->query + (size_t)tokens.from * dim;
    linear(space, &block->q, x, dim, count, &block->norm3, (Target){.out = query, .out_stride = dim});
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        if (its.from >= its.to) continue;
        for (int head = 0; head < d->heads; head++) {
            const size_t from = (size_t)its.from * dim + head * width;
            const float *key = w->kv[layer % 2] + (size_t)w->seen_starts[b] * 2 * dim + head * width;
            Attended keys = {.x = key, .stride = 2 * dim, .count = w->seen_starts[b + 1] - w->seen_starts[b]};
            Attended values = keys;
            values.x += dim;
            attend(w->kernels, &space->attention, width, w->query + from, dim, its.to - its.from, &keys, &values,
                   w->context + from, dim);
        }
    }
    const Target back = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    linear(space, &block->out, w->context + (size_t)tokens.from * dim, dim, count, NULL, back);
}

/* The last `left` rows of before (left, dim) followed by entered (rows, dim). */
static void next_past(const float *before, const float *entered, int rows, int left, int dim, float *next) {
    for (int i = 0; i < left; i++) {
        const int from = i + rows - left;
        const float *row = from < 0 ? before + (size_t)(from + left) * dim : entered + (size_t)from * dim;
        memcpy(next + (size_t)i * dim, row, (size_t)dim * 4);
    }
}

/* The rest of a layer; what a stream keeps is left to the part with its number, of all that there are. */
static void decoder_finish(const Decoding *w, int layer, Rows tokens, int part) {
    const Decoder *d = w->decoder;
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, kept = block->memory.kernel - 1;
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        const size_t start = w->starts[b], state = ((size_t)b * d->layers + layer) * kept * dim;
        const int rows = w->starts[b + 1] - (int)start;
        const float *entered = w->entered[layer % 2] + start * dim;
        /* What is kept may be more than the filter reaches: so all layers keep the same. */
        const float *before = w->past ? w->past + state + (size_t)(kept - block->memory.left) * dim : NULL;
        const Filter filter = {.x = entered, .taps = block->memory.taps, .before = before,
                               .y = w->query + start * dim, .stride = dim, .before_stride = dim, .y_stride = dim,
                               .rows = rows, .dim = dim, .kernel = block->memory.kernel, .left = block->memory.left};
        w->kernels->filter(&filter, its.from - (int)start, its.to - (int)start);
        if (w->past && b % w->team->parts == part) next_past(w->past + state, entered, rows, kept, dim, w->next + state);
    }
    for (size_t i = (size_t)tokens.from * dim; i < (size_t)tokens.to * dim; i++) w->x[i] += w->query[i];
    if (block->cross) cross_attention(w, w->spaces + part, layer, tokens);
}

/* Where each stream's rows that the mask shows begin, among all of them. */
static int *seen_starts_of(Arena *arena, const uint8_t *mask, int batch, int size) {
    int *starts = arena_alloc(arena, ((size_t)batch + 1) * sizeof(int)), seen = 0;
    for (int b = 0; starts && b <= batch; b++) {
        starts[b] = seen;
        for (int t = 0; b < batch && t < size; t++) seen += mask[(size_t)b * size + t];
    }
    return starts;
}

/* What a thread needs that computes so many tokens. */
static Most most_of_all(const Decoder *d, int tokens, int keys) {
    Most most = most_of(most_of(most_of((Most){0}, &d->output, tokens), &d->last.up, tokens), &d->last.down, tokens);
    if (d->units.n) most = most_of(most_of(most, &d->units, tokens), &d->back, tokens);
    for (const DecoderBlock *block = d->blocks; block < d->blocks + d->layers; block++) {
        most = most_of(most_of(most, &block->up, tokens), &block->down, tokens);
        if (block->cross) most = most_of(most_of(most, &block->q, tokens), &block->out, tokens);
    }
    return most_attended(most, tokens, keys, d->dim / d->heads);
}

/* Take all the memory that is needed. Returns whether there was enough. */
static int decoding_alloc(Decoding *w, Arena *arena, const int64_t *counts, const uint8_t *mask, int size) {
    const Decoder *d = w->decoder;
    w->starts = starts_of(arena, counts, w->batch), w->seen_starts = seen_starts_of(arena, mask, w->batch, size);
    if (arena->failed) return 0;
    w->tokens = w->starts[w->batch], w->seen = w->seen_starts[w->batch];
    const size_t dim = d->dim, tokens = w->tokens, seen = w->seen, row = tokens * dim * 4;
    int most = 0;
    for (int b = 0; b < w->batch; b++) most = larger(most, w->seen_starts[b + 1] - w->seen_starts[b]);
    w->x = arena_alloc(arena, row);
    w->entered[0] = arena_alloc(arena, row), w->entered[1] = arena_alloc(arena, row);
    w->query = arena_alloc(arena, row);
    w->context = arena_alloc(arena, row);
    w->inner = arena_alloc(arena, tokens * d->hidden * 4);
    w->scores = arena_alloc(arena, tokens * d->output.n * 4);
    if (d->units.n) {
        w->units = arena_alloc(arena, tokens * d->units.n * 4);
        w->probabilities = acts_alloc(arena, F32, w->tokens, d->units.n);
    }
    w->memory = arena_alloc(arena, seen * dim * 4);
    w->kv[0] = arena_alloc(arena, 2 * seen * dim * 4), w->kv[1] = arena_alloc(arena, 2 * seen * dim * 4);
    w->acts = acts_alloc(arena, d->blocks[0].kv.format, w->seen, d->dim);
    w->spaces = workspaces_alloc(arena, w->kernels, w->team->parts,
                                 most_of_all(d, largest_share(w->tokens, w->team->parts), most), d->attention);
    return !arena->failed;
}

/* Tokens, and the encoder rows that the mask shows, one after another. */
static void gather_inputs(const Decoding *w, int size, const float *memory_rows, const uint8_t *mask, const float *embeds,
                          const int64_t *counts) {
    const size_t dim = w->decoder->dim;
    for (int b = 0; b < w->batch; b++) {
        memcpy(w->x + w->starts[b] * dim, embeds + (size_t)b * w->longest * dim, (size_t)counts[b] * dim * 4);
        float *to = w->memory + w->seen_starts[b] * dim;
        for (int t = 0; t < size; t++)
            if (mask[(size_t)b * size + t]) {
                memcpy(to, memory_rows + ((size_t)b * size + t) * dim, dim * 4);
                to += dim;
            }
    }
}

/* Scores of units from rows of sound, and rows anew from their probabilities alone. */
static void through_units(const Decoding *w, const Workspace *space, Rows tokens) {
    const Decoder *d = w->decoder;
    const int dim = d->dim, units = d->units.n, count = tokens.to - tokens.from;
    float *x = w->x + (size_t)tokens.from * dim, *scores = w->units + (size_t)tokens.from * units;
    linear(space, &d->units, x, dim, count, &d->units_norm, (Target){.out = scores, .out_stride = units});
    Acts some = acts_part(&w->probabilities, tokens.from, tokens.to);
    float *probabilities = (float *)some.words;
    for (int i = 0; i < count; i++) {
        w->kernels->softmax(&some, i, scores + (size_t)i * units, units, 1.0f);
        for (int j = 0; j < units; j++) probabilities[(size_t)i * units + j] *= some.scale[i];
    }
    linear(space, &d->back, probabilities, units, count, NULL, (Target){.out = x, .out_stride = dim});
}

/* Layers from..to-1. */
static void decoder_blocks(const Decoding *w, int part, int from, int to, Rows tokens, Rows seen) {
    for (int layer = from; layer < to; layer++) {
        decoder_project(w, w->spaces + part, layer, tokens, seen);
        team_barrier(w->team);
        decoder_finish(w, layer, tokens, part);
    }
}

/* One thread's part. */
static void decode(void *decoding, int part) {
    const Decoding *w = decoding;
    const Decoder *d = w->decoder;
    const int dim = d->dim, vocabulary = d->output.n;
    const Rows tokens = share_of(w->tokens, part, w->team->parts), seen = share_of(w->seen, part, w->team->parts);
    Acts some = acts_part(&w->acts, seen.from, seen.to);
    w->kernels->acts_fill(&some, w->memory + (size_t)seen.from * dim, dim, dim, d->blocks[0].kv.sum != NULL);
    decoder_blocks(w, part, 0, d->heard, tokens, seen);
    if (d->units.n) through_units(w, w->spaces + part, tokens);
    decoder_blocks(w, part, d->heard, d->layers, tokens, seen);
    feed_forward(w, w->spaces + part, &d->last, tokens, w->query);
    const Target to_scores = {.out = w->scores + (size_t)tokens.from * vocabulary, .out_stride = vocabulary};
    linear(w->spaces + part, &d->output, w->query + (size_t)tokens.from * dim, dim, tokens.to - tokens.from, &d->norm,
           to_scores);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        if (its.from < its.to)
            memcpy(w->logits + ((size_t)b * w->longest + its.from - w->starts[b]) * vocabulary,
                   w->scores + (size_t)its.from * vocabulary, (size_t)(its.to - its.from) * vocabulary * 4);
    }
}

/* memory (batch, size, dim), mask (batch, size), embeds (batch, longest, dim) of which counts (batch) are tokens -> logits
 * (batch, longest, vocabulary), zeroed by the caller; past and next (batch, layers, left, dim), or NULL. Threads and the
 * result as in pf_encode. */
PF_EXPORT int pf_decode(const Kernels *kernels, const Decoder *d, int parts, int32_t *lent_to, int batch, int size,
                        const float *memory_rows, const uint8_t *mask, int longest, const float *embeds,
                        const int64_t *counts, const float *past, float *logits, float *next) {
    Team team;
    Arena arena = {0};
    Decoding w = {.kernels = kernels, .decoder = d, .team = &team, .batch = batch, .longest = longest, .past = past,
                  .logits = logits, .next = next};
    team_start(&team, parts, lent_to);
    const int ready = decoding_alloc(&w, &arena, counts, mask, size);
    if (ready) gather_inputs(&w, size, memory_rows, mask, embeds, counts);
    team_finish(&team, ready ? decode : NULL, &w);
    arena_free(&arena);
    return !ready;
}
