/* Attention of one head (docs/spec.md 2.2): scores by one product, softmax, and the weighted values by another. */
#include <math.h>
#include <string.h>

#include "workspace.h"

/* Rows of queries at once, so that their scores stay in the cache. */
enum { QUERIES_AT_ONCE = 48 };

Attention attention_alloc(Arena *arena, int format, int width, int rows, int keys) {
    const size_t padded = (size_t)panels_for(keys) * PANEL, columns = (size_t)panels_for(width) * PANEL;
    const int at_once = rows < QUERIES_AT_ONCE ? rows : QUERIES_AT_ONCE;
    return (Attention){
        .format = format,
        .at_once = at_once,
        .queries = acts_alloc(arena, format, at_once, width),
        .weights = acts_alloc(arena, format, at_once, keys),
        .key_words = arena_alloc(arena, padded * words_for(format, width) * 4),
        .value_words = arena_alloc(arena, columns * words_for(format, keys) * 4),
        .row = arena_alloc(arena, (size_t)words_for(format, width) * 4),
        .middle = arena_alloc(arena, columns * 4),
        .centred = arena_alloc(arena, columns * 4),
        .rate = arena_alloc(arena, columns * 4),
        .scale = arena_alloc(arena, columns * 4),
        .sum = arena_alloc(arena, columns * 4),
        .key_scale = arena_alloc(arena, padded * 4),
        .scores = arena_alloc(arena, at_once * padded * 4),
    };
}

/* What all keys have in common adds the same to every score of a query, which softmax does not see; without it 8 bits
 * resolve how they differ (SageAttention, arXiv 2410.02367). */
static Linear pack_keys(const Kernels *kernels, Attention *a, int width, const Attended *keys) {
    const int padded = panels_for(keys->past + keys->count) * PANEL, per_row = words_for(a->format, width);
    memset(a->key_words + (size_t)(padded - PANEL) * per_row, 0, (size_t)PANEL * per_row * 4);
    memset(a->key_scale + padded - PANEL, 0, PANEL * 4);
    if (a->format == INT8) kernels->means(keys, width, a->middle);
    kernels->pack_columns(a->format, keys, width, a->middle, a->key_words, a->key_scale, a->row, a->centred);
    return (Linear){.words = a->key_words, .scale = a->format == INT8 ? a->key_scale : NULL, .k = width, .n = padded,
                    .format = a->format};
}

/* Weights add up to 1, so what is taken from all values comes back as a bias. */
static Linear pack_values(const Kernels *kernels, Attention *a, int width, const Attended *values) {
    Linear linear = {.words = a->value_words, .k = values->past + values->count, .n = width, .format = a->format};
    if (a->format == INT8) {
        kernels->ranges(values, width, a->middle, a->scale);
        for (int i = 0; i < width; i++) {
            a->rate[i] = rate_for(a->scale[i]);
            a->scale[i] /= 127.0f;
        }
        linear.scale = a->scale, linear.sum = a->sum, linear.bias = a->middle;
    }
    kernels->pack_rows(a->format, values, width, a->middle, a->rate, a->value_words, a->scale, a->sum);
    return linear;
}

void attend(const Kernels *kernels, Attention *a, int width, const float *query, size_t query_stride, int rows,
            const Attended *keys, const Attended *values, float *out, size_t out_stride) {
    const int count = keys->past + keys->count;
    if (!count) { /* with nothing to attend to the context is zero, as in the reference */
        for (int row = 0; row < rows; row++) memset(out + row * out_stride, 0, (size_t)width * 4);
        return;
    }
    const Linear to_scores = pack_keys(kernels, a, width, keys), to_context = pack_values(kernels, a, width, values);
    const float factor = 1.0f / sqrtf((float)width);
    for (int row = 0; row < rows; row += a->at_once) {
        const int some = rows - row < a->at_once ? rows - row : a->at_once;
        Acts queries = acts_as(&a->queries, a->format, some, width, 0);
        Acts weights = acts_as(&a->weights, a->format, some, count, 0);
        kernels->acts_fill(&queries, query + row * query_stride, query_stride, width, 0);
        kernels->multiply(&queries, &to_scores, &(Target){.out = a->scores, .out_stride = to_scores.n});
        for (int i = 0; i < some; i++)
            kernels->softmax(&weights, i, a->scores + (size_t)i * to_scores.n, count, factor);
        float *to = out + row * out_stride;
        kernels->multiply(&weights, &to_context, &(Target){.out = to, .out_stride = out_stride});
        /* INT8 has the factor in its scale; the others' weights are still to be divided by their sum. */
        for (int i = 0; a->format != INT8 && i < some; i++)
            for (int j = 0; j < width; j++) to[i * out_stride + j] *= weights.scale[i];
    }
}
