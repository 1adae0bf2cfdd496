/* The SAN-M decoder (docs/spec.md 4). */
#include <string.h>

#include "model.h"

typedef struct {
    const Kernels *kernels;
    const Decoder *decoder;
    Team *team;
    int columns, batch, longest, tokens, seen, hints; /* columns: whether threads divide those; hints: number of hotwords */
    const float *past; /* (batch, layers, left, dim), or NULL for whole utterances; so is next */
    const float *hotwords; /* (hints, dim) */
    float *logits, *scored, *rows, *next; /* the caller's; scored: of units */
    float *x, *entered[2], *query, *context, *both, *inner, *scores; /* of tokens */
    float *memory, *kv[2];                                           /* of encoder rows */
    float *hint_kv;                                                  /* of hotwords */
    float *units;                                                    /* scores of tokens, where there are units */
    Acts acts, hint_acts, probabilities;                             /* of encoder rows, of hotwords, and of units */
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
    meet(space);
    const Target to_out = {.out = out + from, .out_stride = dim};
    linear(space, &block->down, inner, width, count, &block->ffn_norm, to_out);
    meet(space);
    if (!block->norm2.gain) return;
    const Rows own = own_rows(space, w->tokens);
    float *y = out + (size_t)own.from * dim;
    w->kernels->layer_norm(&block->norm2, y, dim, own.to - own.from, y, dim);
}

/* Keys and values of rows that attention looks at: `count` of them. */
static void project(const Decoding *w, const Workspace *space, const Acts *acts, const Linear *layer, int count, float *kv) {
    const Rows rows = layer_rows(space, count);
    const size_t stride = 2 * (size_t)w->decoder->dim;
    if (rows.from >= rows.to) return;
    const Acts some = acts_part(acts, rows.from, rows.to);
    product(space, &some, layer, (Target){.out = kv + rows.from * stride, .out_stride = stride});
}

/* What a layer's memory and attention read of tokens, encoder rows and hotwords. */
static void decoder_project(const Decoding *w, const Workspace *space, int layer, Rows tokens) {
    const DecoderBlock *block = w->decoder->blocks + layer;
    if (block->cross.q.n) project(w, space, &w->acts, &block->cross.kv, w->seen, w->kv[layer % 2]);
    if (w->hints && layer == w->decoder->hinted)
        project(w, space, &w->hint_acts, &w->decoder->hint.kv, w->hints, w->hint_kv);
    feed_forward(w, space, block, tokens, w->entered[layer % 2]);
}

/* One attention's part: target = out(attention of norm(x) to keys and values kv), those of all streams where starts is NULL. */
static void cross_attention(const Decoding *w, Workspace *space, const Cross *cross, const float *kv, const int *starts,
                            Rows tokens, Target target) {
    const Decoder *d = w->decoder;
    const int dim = d->dim, width = dim / d->heads, count = tokens.to - tokens.from;
    float *x = w->x + (size_t)tokens.from * dim, *query = w->query + (size_t)tokens.from * dim;
    linear(space, &cross->q, x, dim, count, &cross->norm, (Target){.out = query, .out_stride = dim});
    meet(space);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(tokens, w->starts, b);
        if (its.from >= its.to) continue;
        for (int head = 0; head < d->heads; head++) {
            if (!takes(space, b * d->heads + head)) continue;
            const size_t from = (size_t)its.from * dim + head * width;
            const float *key = kv + (size_t)(starts ? starts[b] : 0) * 2 * dim + head * width;
            Attended keys = {.x = key, .stride = 2 * dim, .count = starts ? starts[b + 1] - starts[b] : w->hints};
            Attended values = keys;
            values.x += dim;
            attend(w->kernels, &space->attention, width, w->query + from, dim, its.to - its.from, &keys, &values,
                   w->context + from, dim);
        }
    }
    meet(space);
    linear(space, &cross->out, w->context + (size_t)tokens.from * dim, dim, count, NULL, target);
    meet(space);
}

/* Attention to sound, and in one layer to hotwords beside it. */
static void attention_of(const Decoding *w, Workspace *space, int layer, Rows tokens) {
    const Decoder *d = w->decoder;
    const int dim = d->dim, hinted = w->hints && layer == d->hinted;
    const Cross *cross = &d->blocks[layer].cross;
    float *x = w->x + (size_t)tokens.from * dim, *both = w->both + (size_t)tokens.from * 2 * dim;
    Target target = {.out = x, .out_stride = dim, .add = x, .add_stride = dim};
    const Target heard = {.out = both, .out_stride = 2 * dim}, meant = {.out = both + dim, .out_stride = 2 * dim};
    cross_attention(w, space, cross, w->kv[layer % 2], w->seen_starts, tokens, hinted ? heard : target);
    if (!hinted) return;
    cross_attention(w, space, &d->hint, w->hint_kv, NULL, tokens, meant);
    linear(space, &d->both, both, 2 * dim, tokens.to - tokens.from, NULL, target);
    meet(space);
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
static void decoder_finish(const Decoding *w, Workspace *space, int layer, Rows tokens) {
    const Decoder *d = w->decoder;
    const DecoderBlock *block = d->blocks + layer;
    const int dim = d->dim, kept = block->memory.kernel - 1;
    const Rows own = own_rows(space, w->tokens);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(own, w->starts, b);
        const size_t start = w->starts[b], state = ((size_t)b * d->layers + layer) * kept * dim;
        const int rows = w->starts[b + 1] - (int)start;
        const float *entered = w->entered[layer % 2] + start * dim;
        /* What is kept may be more than the filter reaches: so all layers keep the same. */
        const float *before = w->past ? w->past + state + (size_t)(kept - block->memory.left) * dim : NULL;
        const Filter filter = {.x = entered, .taps = block->memory.taps, .before = before,
                               .y = w->query + start * dim, .stride = dim, .before_stride = dim, .y_stride = dim,
                               .rows = rows, .dim = dim, .kernel = block->memory.kernel, .left = block->memory.left};
        w->kernels->filter(&filter, its.from - (int)start, its.to - (int)start);
        if (w->past && b % w->team->parts == space->part) next_past(w->past + state, entered, rows, kept, dim, w->next + state);
    }
    for (size_t i = (size_t)own.from * dim; i < (size_t)own.to * dim; i++) w->x[i] += w->query[i];
    meet(space);
    if (block->cross.q.n) attention_of(w, space, layer, tokens);
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

static Most most_of_cross(Most most, const Cross *cross, int tokens) {
    return cross->q.n ? most_of(most_of(most, &cross->q, tokens), &cross->out, tokens) : most;
}

/* What a thread needs that computes so many tokens. */
static Most most_of_all(const Decoding *w, int tokens, int keys) {
    const Decoder *d = w->decoder;
    Most most = most_of_cross((Most){0}, &d->hint, tokens);
    if (d->last.up.n) most = most_of(most_of(most, &d->last.up, tokens), &d->last.down, tokens);
    if (w->logits) most = most_of(most, &d->output, tokens);
    if (d->units.n) most = most_of(most_of(most, &d->units, tokens), &d->back, tokens);
    if (d->hint.q.n) most = most_of(most, &d->both, tokens);
    for (const DecoderBlock *block = d->blocks; block < d->blocks + d->layers; block++)
        most = most_of_cross(most_of(most_of(most, &block->up, tokens), &block->down, tokens), &block->cross, tokens);
    return most_attended(most, tokens, keys, d->dim / d->heads);
}

/* Take all the memory that is needed. Returns whether there was enough. */
static int decoding_alloc(Decoding *w, Arena *arena, const int64_t *counts, const uint8_t *mask, int size) {
    const Decoder *d = w->decoder;
    w->starts = starts_of(arena, counts, w->batch), w->seen_starts = seen_starts_of(arena, mask, w->batch, size);
    if (arena->failed) return 0;
    w->tokens = w->starts[w->batch], w->seen = w->seen_starts[w->batch];
    const size_t dim = d->dim, tokens = w->tokens, seen = w->seen, row = tokens * dim * 4;
    int most = w->hints;
    for (int b = 0; b < w->batch; b++) most = larger(most, w->seen_starts[b + 1] - w->seen_starts[b]);
    w->x = arena_alloc(arena, row);
    w->entered[0] = arena_alloc(arena, row), w->entered[1] = arena_alloc(arena, row);
    w->query = arena_alloc(arena, row);
    w->context = arena_alloc(arena, row);
    w->inner = arena_alloc(arena, tokens * d->hidden * 4);
    if (w->logits) w->scores = arena_alloc(arena, tokens * d->output.n * 4);
    if (d->units.n) {
        w->units = arena_alloc(arena, tokens * d->units.n * 4);
        w->probabilities = acts_alloc(arena, F32, w->tokens, d->units.n);
    }
    w->memory = arena_alloc(arena, seen * dim * 4);
    w->kv[0] = arena_alloc(arena, 2 * seen * dim * 4), w->kv[1] = arena_alloc(arena, 2 * seen * dim * 4);
    w->acts = acts_alloc(arena, d->blocks[0].cross.kv.format, w->seen, d->dim);
    if (w->hints) {
        w->both = arena_alloc(arena, 2 * row);
        w->hint_kv = arena_alloc(arena, 2 * (size_t)w->hints * dim * 4);
        w->hint_acts = acts_alloc(arena, d->hint.kv.format, w->hints, d->dim);
    }
    const Most needed = most_of_all(w, most_rows(w->team, w->columns, w->tokens), most);
    w->spaces = workspaces_alloc(arena, w->kernels, w->team, w->columns, needed, d->attention);
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
    const Rows own = own_rows(space, w->tokens);
    float *x = w->x + (size_t)tokens.from * dim, *scores = w->units + (size_t)tokens.from * units;
    linear(space, &d->units, x, dim, count, &d->units_norm, (Target){.out = scores, .out_stride = units});
    meet(space);
    Acts some = acts_part(&w->probabilities, own.from, own.to);
    for (int i = 0; i < own.to - own.from; i++) {
        float *probabilities = (float *)some.words + (size_t)i * units;
        w->kernels->softmax(&some, i, w->units + (size_t)(own.from + i) * units, units, 1.0f);
        for (int j = 0; j < units; j++) probabilities[j] *= some.scale[i];
    }
    meet(space);
    const float *all = (const float *)w->probabilities.words + (size_t)tokens.from * units;
    linear(space, &d->back, all, units, count, NULL, (Target){.out = x, .out_stride = dim});
    meet(space);
}

/* Layers from..to-1. */
static void decoder_blocks(const Decoding *w, Workspace *space, int from, int to, Rows tokens) {
    for (int layer = from; layer < to; layer++) {
        decoder_project(w, space, layer, tokens);
        team_barrier(w->team);
        decoder_finish(w, space, layer, tokens);
    }
}

/* Make encoder rows, or hotwords, ready for the products of all layers. */
static void make_ready(const Workspace *space, const Acts *acts, const Linear *layer, const float *rows, int dim) {
    const Rows own = own_rows(space, acts->rows);
    Acts some = acts_part(acts, own.from, own.to);
    space->kernels->acts_fill(&some, rows + (size_t)own.from * dim, dim, dim, layer->sum != NULL);
}

/* Rows of this thread's tokens, each so wide, to their places in the caller's array (batch, longest, width). */
static void hand_out(const Decoding *w, Rows own, const float *rows, int width, float *out) {
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(own, w->starts, b);
        if (its.from < its.to)
            memcpy(out + ((size_t)b * w->longest + its.from - w->starts[b]) * width, rows + (size_t)its.from * width,
                   (size_t)(its.to - its.from) * width * 4);
    }
}

/* What comes after the layers: rows and scores, in the caller's arrays. */
static void put_out(const Decoding *w, const Workspace *space, Rows tokens) {
    const Decoder *d = w->decoder;
    const int dim = d->dim, vocabulary = d->output.n;
    const Rows own = own_rows(space, w->tokens);
    const float *last = d->last.up.n ? w->query : w->x;
    if (d->last.up.n) feed_forward(w, space, &d->last, tokens, w->query);
    for (int b = 0; b < w->batch && w->rows; b++) {
        const Rows its = within(own, w->starts, b);
        if (its.from >= its.to) continue;
        float *to = w->rows + ((size_t)b * w->longest + its.from - w->starts[b]) * dim;
        const float *from = last + (size_t)its.from * dim;
        if (d->norm.gain)
            w->kernels->layer_norm(&d->norm, from, dim, its.to - its.from, to, dim);
        else
            memcpy(to, from, (size_t)(its.to - its.from) * dim * 4);
    }
    if (w->scored) hand_out(w, own, w->units, d->units.n, w->scored);
    if (!w->logits) return;
    const Target to_scores = {.out = w->scores + (size_t)tokens.from * vocabulary, .out_stride = vocabulary};
    linear(space, &d->output, last + (size_t)tokens.from * dim, dim, tokens.to - tokens.from, &d->norm, to_scores);
    meet(space);
    hand_out(w, own, w->scores, vocabulary, w->logits);
}

/* One thread's part. */
static void decode(void *decoding, int part) {
    const Decoding *w = decoding;
    const Decoder *d = w->decoder;
    Workspace *space = w->spaces + part;
    const Rows tokens = layer_rows(space, w->tokens);
    make_ready(space, &w->acts, &d->blocks[0].cross.kv, w->memory, d->dim);
    if (w->hints) make_ready(space, &w->hint_acts, &d->hint.kv, w->hotwords, d->dim);
    meet(space);
    decoder_blocks(w, space, 0, d->heard, tokens);
    if (d->units.n) through_units(w, space, tokens);
    decoder_blocks(w, space, d->heard, d->layers, tokens);
    put_out(w, space, tokens);
}

/* memory (batch, size, dim), mask (batch, size), embeds (batch, longest, dim) of which counts (batch) are tokens, and where the
 * decoder attends to them, hotwords (hints, dim) -> logits (batch, longest, vocabulary), scored (batch, longest, units) where it
 * has units, and the rows (batch, longest, dim) that logits are made of; NULL: not wanted. past and next (batch, layers, left,
 * dim), or NULL. What is no token, threads and the result as in pf_encode. */
PF_EXPORT int pf_decode(const Kernels *kernels, const Decoder *d, int parts, int columns, int32_t *lent_to, int batch, int size,
                        const float *memory_rows, const uint8_t *mask, int longest, const float *embeds,
                        const int64_t *counts, int hints, const float *hotwords, const float *past, float *logits,
                        float *scored, float *rows, float *next) {
    Team team;
    Arena arena = {0};
    Decoding w = {.kernels = kernels, .decoder = d, .team = &team, .batch = batch, .longest = longest, .hints = hints,
                  .hotwords = hotwords, .past = past, .logits = logits, .scored = scored, .rows = rows,
                  .next = next};
    team_start(&team, parts, lent_to);
    w.columns = columns && team.parts > 1;
    const int ready = decoding_alloc(&w, &arena, counts, mask, size);
    if (ready) gather_inputs(&w, size, memory_rows, mask, embeds, counts);
    team_finish(&team, ready ? decode : NULL, &w);
    arena_free(&arena);
    return !ready;
}
