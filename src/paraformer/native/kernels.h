/* What the engine's parts share: the layout of numbers, and the table of kernels of one family of processors.
 *
 * Rows and weights come in three formats, float32, bfloat16 and 8-bit integers, with one layout: a 32-bit word holds 1
 * float, 2 bfloat16 or 4 int8 that follow each other along the summed axis. Weights lie in panels of 64 columns,
 * [panels][words along k][64]; rows of activations are words along k. So one instruction can take the same word of a row
 * to 16 columns at once, whatever the format: fused multiply-add, vdpbf16ps or vpdpbusd.
 *
 * The structures down to Fbank are filled by Python (native/layout.py) or by model.c; a change to any of them, or to an
 * exported function, needs a new PF_ABI. */
#ifndef PARAFORMER_KERNELS_H
#define PARAFORMER_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { PF_ABI = 10 };

/* Everything else is invisible outside the library, where another library might use the same name. */
#ifdef _WIN32
#define PF_EXPORT __declspec(dllexport)
#else
#define PF_EXPORT __attribute__((visibility("default")))
#endif

enum { F32 = 0, BF16 = 1, INT8 = 2, FORMATS = 3 };

enum { PANEL = 64, CACHE_LINE = 64 };

/* What sums pass through. GELU: x * (1 + erf(x / sqrt 2)) / 2. */
enum { UNCHANGED = 0, RELU = 1, GELU = 2 };

/* y = x W^T + bias. Columns are padded to whole panels, k to whole words, both with zeros.
 * INT8: a weight w is stored as the unsigned byte w + 128; scale has one factor per column. Where rows have a zero of their
 * own, sum has the sum of each column's weights, scaled; else it is NULL. Other formats use neither.
 * slice: numbers along k, a whole number of words, that have scales and sums of their own, those of slice s `pitch` * s
 * further on: for rows of which few numbers are large. 0: all of them. What is sliced passes through no activation. */
typedef struct {
    const uint32_t *words;
    const float *scale, *sum;
    const float *bias;
    int32_t k, n, format, slice, pitch;
} Linear;

/* Rows made ready to be multiplied. Sums begin at begin[row]: 0, or for INT8, where x = q * scale[row] + zero[row],
 * -128 * sum(q), which undoes the weights' offset. With slices, those of slice s stand `pitch` * s further on. */
typedef struct {
    uint32_t *words;
    float *scale, *zero;
    int32_t *begin;
    int32_t format, rows, words_per_row, slice, pitch;
} Acts;

/* What becomes of the sums: an activation, then up to two matrices added, then stored as float32. */
typedef struct {
    float *out;
    size_t out_stride;
    const float *add, *add2;
    size_t add_stride, add2_stride;
    int32_t activation;
} Target;

/* y = (x - mean) / sqrt(variance + epsilon) * gain + shift, of k numbers. */
typedef struct {
    const float *gain, *shift;
    int32_t k;
    float epsilon;
} Norm;

/* The keys or values of one head: `past` rows and then `count` more. */
typedef struct {
    const float *before, *x;
    size_t before_stride, stride;
    int32_t past, count;
} Attended;

/* size: points of the spectrum, a power of two, at least width and 2. turns: cos and sin of 2 pi k / size, k < size / 2.
 * Band b: entries starts[b] to starts[b + 1] of weights, from bin first[b] on. */
typedef struct {
    const float *window, *turns, *weights;
    const int32_t *starts, *first;
    int32_t width, size, bands;
    float scale, pre_emphasis, floor;
} Fbank;

/* A filter over rows, with the row itself added: y[t] = x[t] + sum_j taps[j] * x[t + j - left], over those of `rows` rows
 * that exist, rows before 0 taken from `before` (left rows, its last one just before x; NULL: zero). taps (kernel, dim). */
typedef struct {
    const float *x, *taps, *before;
    float *y;
    size_t stride, before_stride, y_stride;
    int32_t rows, dim, kernel, left;
} Filter;

/* What a family of processors computes in its own way. Everything above it is the same C for all. */
typedef struct {
    const char *name;
    int32_t needs[FORMATS]; /* of the processor (features.c), to compute in each format */
    int32_t fast[FORMATS];  /* whether a format has instructions here that leave other runtimes behind */

    /* Convert rows of k floats. asymmetric: each row, or slice of one, has a zero of its own, halfway between its least and
     * its largest number; else it is 0. */
    void (*acts_fill)(Acts *acts, const float *x, size_t stride, int k, int asymmetric);
    void (*layer_norm)(const Norm *norm, const float *x, size_t stride, int rows, float *y, size_t y_stride);
    void (*multiply)(const Acts *acts, const Linear *linear, const Target *target);

    /* The mean of each column. */
    void (*means)(const Attended *rows, int width, float *mean);
    /* Halfway between the least and the largest number of each column, and how far those are from it. */
    void (*ranges)(const Attended *rows, int width, float *middle, float *reach);
    /* Panels in which column n is row n, as `row` converts it; for INT8 less `middle` and with a scale of its own. row: one
     * row's Acts; centred: space for one. */
    void (*pack_columns)(int format, const Attended *rows, int width, const float *middle, uint32_t *words, float *scale,
                         uint32_t *row, float *centred);
    /* Panels in which row k is row k; for INT8 less `middle`, times `rate`, and with the sums of columns times `scale`. */
    void (*pack_rows)(int format, const Attended *rows, int width, const float *middle, const float *rate,
                      uint32_t *words, const float *scale, float *sum);
    /* One row of scores, times `factor`, to weights that add up to 1 once multiplied with scale[row]; before, the largest
     * is 1. INT8: from -127 for none to 127 for the largest. */
    void (*softmax)(Acts *weights, int row, const float *x, int count, float factor);

    /* Rows from..to-1 of a filter. */
    void (*filter)(const Filter *filter, int from, int to);
    /* frames (count, bands) of samples, `shift` of them from one frame to the next; space: fbank_space bytes. */
    void (*fbank)(const Fbank *fbank, const float *samples, int count, int shift, float *frames, void *space);
} Kernels;

/* erf(a / sqrt 2) / 2 to 1.2e-7 for 0 <= a <= GELU_REACH, as a polynomial (minimax) of 2 a / GELU_REACH - 1: its terms from
 * the highest power down. At GELU_REACH it is a little more than 0.5, which is what it is beyond. */
#define GELU_REACH 5.5f
#define GELU_TERMS(FIRST, NEXT)                                                                   \
    FIRST(7.0667795766e-3f) NEXT(-6.5234793535e-3f) NEXT(-3.4766629718e-2f) NEXT(4.7112220419e-2f) \
    NEXT(5.4751089219e-2f) NEXT(-1.3742186853e-1f) NEXT(3.1466116094e-2f) NEXT(1.6547050021e-1f)  \
    NEXT(-2.1733783586e-1f) NEXT(5.0700863166e-2f) NEXT(1.7699330565e-1f) NEXT(-2.7179590018e-1f) \
    NEXT(2.0681937814e-1f) NEXT(-9.4562562654e-2f) NEXT(2.5007861860e-2f) NEXT(4.9702026197e-1f)

/* 2^r for |r| <= 0.5 to 3e-7 relative, as a polynomial (minimax): its terms from the highest power down. */
#define POWER_TERMS(FIRST, NEXT)                                                                    \
    FIRST(1.3149166726e-3f) NEXT(9.6811914201e-3f) NEXT(5.5513120579e-2f) NEXT(2.4021986354e-1f) \
    NEXT(6.9314629670e-1f) NEXT(1.0f)
#define LOG2_E 1.44269504f /* e^x = 2^(x * LOG2_E) */

static inline int per_word(int format) { return format == INT8 ? 4 : format == BF16 ? 2 : 1; }
static inline int words_for(int format, int k) { return (k + per_word(format) - 1) / per_word(format); }
static inline int panels_for(int n) { return (n + PANEL - 1) / PANEL; }
static inline int slices_for(int slice, int k) { return slice ? (k + slice - 1) / slice : 1; }

/* What takes numbers that are at most `reach` from zero to -127..127: 0, where they are too small for any. */
static inline float rate_for(float reach) {
    const float rate = 127.0f / reach;
    return rate < INFINITY ? rate : 0.0f;
}

/* Slice s of rows, of a layer, and where its sums go: the first is added to what the target says, the others to that. */
static inline Acts acts_slice(const Acts *acts, int s) {
    Acts part = *acts;
    part.scale += (size_t)s * acts->pitch, part.zero += (size_t)s * acts->pitch, part.begin += (size_t)s * acts->pitch;
    return part;
}
static inline Linear linear_slice(const Linear *linear, int s) {
    Linear part = *linear;
    const size_t columns = (size_t)s * linear->pitch;
    if (linear->scale) part.scale += columns;
    if (linear->sum) part.sum += columns;
    if (s) part.bias = NULL;
    return part;
}
static inline Target target_slice(const Target *target, int s) {
    return s ? (Target){.out = target->out, .out_stride = target->out_stride, .add = target->out, .add_stride = target->out_stride}
             : *target;
}

/* Frames that are computed side by side. */
enum { FBANK_LANES = 16 };
static inline size_t fbank_space(const Fbank *f) { return (size_t)(f->size + f->size / 2) * FBANK_LANES * sizeof(float); }

static inline const float *attended_row(const Attended *rows, int n) {
    return n < rows->past ? rows->before + n * rows->before_stride : rows->x + (n - rows->past) * rows->stride;
}

#endif
