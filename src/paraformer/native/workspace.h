/* Memory that a call computes in, all of it taken before the first number is computed: nothing can fail half-way, nor in
 * a helper thread. */
#ifndef PARAFORMER_WORKSPACE_H
#define PARAFORMER_WORKSPACE_H

#include "kernels.h"

/* Memory that is given back all at once. Begin with {0}. */
typedef struct {
    void *chunk; /* the newest, which begins with the address of the one before */
    size_t used, size;
    int failed; /* whether memory was short at any time */
} Arena;

/* Bytes that begin at a cache line, or NULL. */
void *arena_alloc(Arena *arena, size_t bytes);
void arena_free(Arena *arena);

Acts acts_alloc(Arena *arena, int format, int rows, int k);
/* Other rows in the same place, of no more words and slices in all. */
Acts acts_as(const Acts *acts, int format, int rows, int k, int slice);
/* Rows from..to-1, in the same place. */
Acts acts_part(const Acts *acts, int from, int to);

/* Space to attend in, one head at a time. */
typedef struct {
    int format, at_once;
    Acts queries, weights;
    uint32_t *key_words, *value_words, *row;
    float *middle, *centred, *rate, *scale, *sum; /* of columns */
    float *key_scale, *scores;
} Attention;

/* For heads of up to so many numbers, rows and keys. */
Attention attention_alloc(Arena *arena, int format, int width, int rows, int keys);
/* Queries (rows, width) attend to keys with values; out (rows, width). */
void attend(const Kernels *kernels, Attention *attention, int width, const float *query, size_t query_stride, int rows,
            const Attended *keys, const Attended *values, float *out, size_t out_stride);

#endif
