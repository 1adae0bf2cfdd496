/* Matrix products, attention and row operations on AVX-512, in float32, bfloat16 or 8-bit integers.
 *
 * All three formats share one layout: a 32-bit word holds 1 float, 2 bfloat16 or 4 int8 that follow each other along the
 * summed axis. Weights lie in panels of 64 columns, [panels][words along k][64]; rows of activations are words along k.
 * One register of 16 words then takes part in one instruction: fused multiply-add, vdpbf16ps or vpdpbusd.
 */
#ifndef PARAFORMER_KERNELS_H
#define PARAFORMER_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { F32 = 0, BF16 = 1, INT8 = 2 };

enum { PANEL = 64 };

/* y = x W^T + bias. Columns are padded to whole panels, k to whole words, both with zeros.
 * INT8: a weight w is stored as the unsigned byte w + 128; scale has one factor per column. Where rows have a zero of their
 * own, sum has the sum of each column's weights, scaled; else it is NULL. Other formats use neither. */
typedef struct {
    const uint32_t *words;
    const float *scale, *sum;
    const float *bias;
    int32_t k, n, format;
} Linear;

/* Rows made ready to be multiplied. Sums begin at begin[row]: 0, or for INT8, where x = q * scale[row] + zero[row],
 * -128 * sum(q), which undoes the weights' offset. */
typedef struct {
    uint32_t *words;
    float *scale, *zero;
    int32_t *begin;
    int format, rows, words_per_row;
} Acts;

/* What becomes of the sums: relu, then up to two matrices added, then stored as float32. */
typedef struct {
    float *out;
    size_t out_stride;
    const float *add, *add2;
    size_t add_stride, add2_stride;
    int relu;
} Target;

/* Memory that is given back all at once. Begin with {0}. */
typedef struct {
    void *chunk; /* the newest, which begins with the address of the one before */
    size_t used, size;
    int failed; /* whether memory was short at any time */
} Room;

/* Bytes that begin at a cache line, or NULL. */
void *take(Room *room, size_t bytes);
/* The room may lie in its own memory. */
void leave(Room *room);

static inline int per_word(int format) { return format == INT8 ? 4 : format == BF16 ? 2 : 1; }
static inline int words_for(int format, int k) { return (k + per_word(format) - 1) / per_word(format); }

Acts acts_in(Room *room, int format, int rows, int k);
/* Other rows in the same place, of no more words in all. */
Acts acts_as(const Acts *acts, int format, int rows, int k);
/* Rows from..to-1, in the same place. */
Acts acts_part(const Acts *acts, int from, int to);
/* Convert rows of k floats. lopsided: each row has a zero of its own, halfway between its least and its largest number;
 * else it is 0. */
void acts_fill(Acts *acts, const float *x, size_t stride, int k, int lopsided);
/* The same of layer-normalised rows; normed: space for one. */
void acts_fill_normed(Acts *acts, const float *x, size_t stride, int k, int lopsided, const float *gain,
                      const float *shift, float *normed);

void layer_norm(const float *x, size_t stride, int rows, int k, const float *gain, const float *shift, float *y,
                size_t y_stride);

void multiply(const Acts *acts, const Linear *linear, Target target);

/* The keys or values of one head: `past` rows and then `count` more. */
typedef struct {
    const float *before, *x;
    size_t before_stride, stride;
    int past, count;
} Attended;

/* Space to attend in, one head at a time. */
typedef struct {
    int format, width, at_once;
    Acts queries, weights;
    uint32_t *key_words, *value_words, *row;
    float *middle, *centred, *rate, *scale, *sum; /* of columns */
    float *key_scale, *scores;
} Attention;

/* For up to so many rows and keys. */
Attention attention_in(Room *room, int format, int width, int rows, int keys);
/* Queries (rows, width) attend to keys with values; out (rows, width). */
void attend(Attention *attention, const float *query, size_t query_stride, int rows, const Attended *keys,
            const Attended *values, float *out, size_t out_stride);

/* y[t] = x[t] + sum_j taps[j] * x[t + j - left] for t in from..to-1, over those of `rows` rows that exist, rows before 0
 * taken from `before` (left rows, its last one first before x; NULL: zero). taps (kernel, dim). */
void memory(const float *x, size_t stride, int from, int to, int rows, int dim, const float *taps, int kernel, int left,
            const float *before, size_t before_stride, float *y, size_t y_stride);

#endif
