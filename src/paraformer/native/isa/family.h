/* The kernels of a family of processors, in C that is compiled for each of them with its own instructions. Only the sums
 * of products, where the time goes, are a family's own: its file defines add_products, for at most MOST_ROWS of a
 * format and BLOCK_ROWS of any, says what the processor NEEDS and what is FAST, and includes this. With OWN_INT8 it makes
 * products of bytes by a multiply_int8 of its own.
 *
 * Each kernel says what is computed in the fewest words; order and roundings are those of avx512.c wherever that costs
 * nothing, and integers are the same everywhere. */
#include <math.h>
#include <string.h>

#include "../features.h"
#include "../numbers.h"

static inline int least(int a, int b) { return a < b ? a : b; }

/* Rounded to nearest even. */
static inline uint16_t bf16(float x) {
    const uint32_t bits = bits_of(x);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* -- rows ----------------------------------------------------------------------------------------------------------- */

enum { SIDE_BY_SIDE = 16 }; /* numbers that are gathered at once: one alone would wait for itself */

#ifndef OWN_EXTREMES
static void extremes(const float *x, int k, float *largest, float *smallest) {
    float top[SIDE_BY_SIDE], low[SIDE_BY_SIDE];
    for (int j = 0; j < SIDE_BY_SIDE; j++) top[j] = -INFINITY, low[j] = INFINITY;
    int i = 0;
    for (; i + SIDE_BY_SIDE <= k; i += SIDE_BY_SIDE)
        for (int j = 0; j < SIDE_BY_SIDE; j++) {
            top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
        }
    for (; i < k; i++) top[0] = x[i] > top[0] ? x[i] : top[0], low[0] = x[i] < low[0] ? x[i] : low[0];
    *largest = top[0], *smallest = low[0];
    for (int j = 1; j < SIDE_BY_SIDE; j++) {
        *largest = top[j] > *largest ? top[j] : *largest;
        *smallest = low[j] < *smallest ? low[j] : *smallest;
    }
}

#endif

/* To words, of one row or slice. */
static void convert_int8(Acts *acts, uint32_t *words, int row, const float *x, int k, int asymmetric) {
    int8_t *to = (int8_t *)words;
    float largest, smallest;
    extremes(x, k, &largest, &smallest);
    const float zero = asymmetric ? 0.5f * largest + 0.5f * smallest : 0.0f;
    const float above = largest - zero, below = zero - smallest, reach = above > below ? above : below;
    const float factor = rate_for(reach);
    uint32_t sum = 0; /* may overflow where there is NaN, which becomes the least whole number */
    words[words_for(INT8, k) - 1] = 0;
    for (int i = 0; i < k; i++) {
        const int q = nearest((x[i] - zero) * factor);
        to[i] = (int8_t)q;
        sum += (uint32_t)q;
    }
    acts->scale[row] = reach / 127.0f;
    acts->zero[row] = zero;
    acts->begin[row] = (int32_t)(0u - 128u * sum);
}

static void acts_fill(Acts *acts, const float *x, size_t stride, int k, int asymmetric) {
    for (int row = 0; row < acts->rows; row++, x += stride) {
        uint32_t *words = acts->words + (size_t)row * acts->words_per_row;
        acts->begin[row] = 0;
        if (acts->format == INT8) {
            const int slice = acts->slice ? acts->slice : k;
            for (int from = 0; from < k; from += slice) {
                Acts part = acts_slice(acts, from / slice);
                convert_int8(&part, words + words_for(INT8, from), row, x + from, least(slice, k - from), asymmetric);
            }
        } else if (acts->format == BF16) {
            words[acts->words_per_row - 1] = 0;
            for (int i = 0; i < k; i++) ((uint16_t *)words)[i] = bf16(x[i]);
        } else {
            memcpy(words, x, (size_t)k * 4);
        }
    }
}

static float total(const float *parts) {
    float sum = 0;
    for (int i = 0; i < SIDE_BY_SIDE; i++) sum += parts[i];
    return sum;
}

static void layer_norm(const Norm *norm, const float *x, size_t stride, int rows, float *y, size_t y_stride) {
    const int k = norm->k;
    for (int row = 0; row < rows; row++, x += stride, y += y_stride) {
        float sums[SIDE_BY_SIDE] = {0}, squares[SIDE_BY_SIDE] = {0};
        for (int i = 0; i < k; i += SIDE_BY_SIDE)
            for (int j = 0; j < least(SIDE_BY_SIDE, k - i); j++) sums[j] += x[i + j];
        const float mean = total(sums) / k;
        for (int i = 0; i < k; i += SIDE_BY_SIDE)
            for (int j = 0; j < least(SIDE_BY_SIDE, k - i); j++)
                squares[j] = MULTIPLY_ADD(x[i + j] - mean, x[i + j] - mean, squares[j]);
        const float rate = 1.0f / sqrtf(total(squares) / k + norm->epsilon);
        for (int i = 0; i < k; i++) y[i] = MULTIPLY_ADD((x[i] - mean) * rate, norm->gain[i], norm->shift[i]);
    }
}

static inline float gelu(float x) {
    const float size = fabsf(x), near = size < GELU_REACH ? size : GELU_REACH;
    const float at = MULTIPLY_ADD(near, 2.0f / GELU_REACH, -1.0f);
#define FIRST(term) float half = term;
#define NEXT(term) half = MULTIPLY_ADD(half, at, term);
    GELU_TERMS(FIRST, NEXT)
#undef FIRST
#undef NEXT
    return MULTIPLY_ADD(size, half < 0.5f ? half : 0.5f, 0.5f * x);
}

#ifndef OWN_STORE
/* Finish and store the sums of a row and the columns from `column` on: floats, or whole numbers where there is a scale. */
static void store(const Acts *acts, const Linear *linear, const Target *target, int row, int column, const uint32_t *sums) {
    const int count = least(PANEL, linear->n - column);
    float *out = target->out + row * target->out_stride + column, y[PANEL];
    const float *bias = linear->bias ? linear->bias + column : NULL;
    if (linear->scale) {
        const float *scale = linear->scale + column, *sum = linear->sum ? linear->sum + column : NULL;
        const float factor = acts->scale[row], zero = acts->zero[row];
        for (int j = 0; j < PANEL; j++) {
            y[j] = (float)(int32_t)sums[j] * (scale[j] * factor);
            if (sum) y[j] = MULTIPLY_ADD(sum[j], zero, y[j]);
            if (bias) y[j] += bias[j];
        }
    } else {
        memcpy(y, sums, sizeof(y));
        for (int j = 0; bias && j < PANEL; j++) y[j] += bias[j];
    }
    for (int j = 0; target->activation == RELU && j < PANEL; j++) y[j] = y[j] > 0 ? y[j] : 0;
    for (int j = 0; target->activation == GELU && j < PANEL; j++) y[j] = gelu(y[j]);
    for (int j = 0; target->add && j < count; j++) y[j] += target->add[row * target->add_stride + column + j];
    for (int j = 0; target->add2 && j < count; j++) y[j] += target->add2[row * target->add2_stride + column + j];
    if (count == PANEL)
        memcpy(out, y, sizeof(y));
    else
        memcpy(out, y, (size_t)count * 4);
}
#endif

/* `rows` rows from `row` on and one slice of a panel, w. ahead: weights that will be wanted soon. */
static void multiply_block(const Acts *acts, const Linear *linear, const Target *target, int row, int rows, int column,
                           int from, int count, const uint32_t *w, const uint32_t *ahead) {
    uint32_t sums[BLOCK_ROWS][PANEL];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PANEL; j++) sums[i][j] = (uint32_t)acts->begin[row + i];
    const size_t stride = (size_t)acts->words_per_row;
    add_products(acts->format, rows, acts->words + row * stride + from, stride, count, w + (size_t)from * PANEL,
                 least(PANEL, linear->n - column), ahead + (size_t)from * PANEL, sums[0]);
    for (int i = 0; i < rows; i++) store(acts, linear, target, row + i, column, sums[i]);
}

static void multiply(const Acts *acts, const Linear *linear, const Target *target) {
#ifdef OWN_INT8
    if (acts->format == INT8) {
        multiply_int8(acts, linear, target);
        return;
    }
#endif
    const int words = acts->words_per_row, each = linear->slice ? words_for(linear->format, linear->slice) : words;
    const int most = MOST_ROWS[acts->format], blocks = (acts->rows + most - 1) / most;
    for (int panel = 0; panel < panels_for(linear->n); panel++) {
        const uint32_t *w = linear->words + (size_t)panel * words * PANEL;
        for (int i = 0, row = 0, rows; i < blocks; i++, row += rows) {
            const uint32_t *ahead = i ? w : w + (size_t)words * PANEL; /* the next panel, while the first rows pass by */
            rows = (acts->rows - row + blocks - i - 1) / (blocks - i);
            for (int s = 0; s < slices_for(linear->slice, linear->k); s++) {
                const Acts some = acts_slice(acts, s);
                const Linear part = linear_slice(linear, s);
                const Target to = target_slice(target, s);
                multiply_block(&some, &part, &to, row, rows, panel * PANEL, s * each, least(each, words - s * each), w, ahead);
            }
        }
    }
}

/* -- attention ------------------------------------------------------------------------------------------------------ */

static void means(const Attended *rows, int width, float *mean) {
    const int count = rows->past + rows->count;
    for (int i = 0; i < width; i++) mean[i] = 0;
    for (int n = 0; n < count; n++)
        for (int i = 0; i < width; i++) mean[i] += attended_row(rows, n)[i];
    for (int i = 0; i < width; i++) mean[i] /= (float)count;
}

static void ranges(const Attended *rows, int width, float *middle, float *reach) {
    float *smallest = middle, *largest = reach;
    for (int i = 0; i < width; i++) smallest[i] = INFINITY, largest[i] = -INFINITY;
    for (int n = 0; n < rows->past + rows->count; n++) {
        const float *x = attended_row(rows, n);
        for (int i = 0; i < width; i++) {
            smallest[i] = x[i] < smallest[i] ? x[i] : smallest[i];
            largest[i] = x[i] > largest[i] ? x[i] : largest[i];
        }
    }
    for (int i = 0; i < width; i++) {
        const float least = smallest[i], most = largest[i];
        middle[i] = MULTIPLY_ADD(0.5f, most, 0.5f * least);
        const float above = most - middle[i], below = middle[i] - least;
        reach[i] = above > below ? above : below;
    }
}

static void pack_columns(int format, const Attended *rows, int width, const float *middle, uint32_t *words,
                         float *scale, uint32_t *row, float *centred) {
    const int per_row = words_for(format, width);
    int32_t begin;
    float zero;
    for (int n = 0; n < rows->past + rows->count; n++) {
        Acts one = {row, scale + n, &zero, &begin, format, 1, per_row, 0, 1};
        const float *x = attended_row(rows, n);
        for (int i = 0; format == INT8 && i < width; i++) centred[i] = x[i] - middle[i];
        acts_fill(&one, format == INT8 ? centred : x, 0, width, 0);
        uint32_t *column = words + (size_t)(n / PANEL) * per_row * PANEL + n % PANEL;
        for (int w = 0; w < per_row; w++) column[(size_t)w * PANEL] = format == INT8 ? row[w] ^ 0x80808080 : row[w];
    }
}

/* Words of `count` columns, of as many rows as a word has numbers. INT8: whole has their sums. */
static void pack_words(int format, const float *const *rows, int count, const float *middle, const float *rate,
                       uint32_t *words, int32_t *whole) {
    if (format == F32) memcpy(words, rows[0], (size_t)count * 4);
    for (int i = 0; format == BF16 && i < count; i++) words[i] = bf16(rows[0][i]) | (uint32_t)bf16(rows[1][i]) << 16;
    for (int i = 0; format == INT8 && i < count; i++) {
        const int a = nearest((rows[0][i] - middle[i]) * rate[i]), b = nearest((rows[1][i] - middle[i]) * rate[i]);
        const int c = nearest((rows[2][i] - middle[i]) * rate[i]), d = nearest((rows[3][i] - middle[i]) * rate[i]);
        const uint32_t low = (uint32_t)(a & 255) | (uint32_t)(b & 255) << 8;
        words[i] = (low | (uint32_t)(c & 255) << 16 | (uint32_t)d << 24) ^ 0x80808080;
        whole[i] += a + b + c + d;
    }
}

static void pack_rows(int format, const Attended *rows, int width, const float *middle, const float *rate,
                      uint32_t *words, const float *scale, float *sum) {
    static const float zeros[PANEL];
    const int keys = rows->past + rows->count, along_k = words_for(format, keys), each = per_word(format);
    for (int from = 0; from < width; from += PANEL, words += (size_t)along_k * PANEL) {
        const int count = least(PANEL, width - from);
        int32_t whole[PANEL] = {0};
        for (int k = 0; k < along_k; k++) {
            const float *some[4];
            for (int j = 0; j < each; j++) /* past the last, what becomes zero */
                some[j] = k * each + j < keys ? attended_row(rows, k * each + j) + from : format == INT8 ? middle + from : zeros;
            pack_words(format, some, count, middle + from, rate + from, words + (size_t)k * PANEL, whole);
        }
        for (int i = 0; format == INT8 && i < count; i++) sum[from + i] = (float)whole[i] * scale[from + i];
    }
}

/* Powers in a row's format, from its `from`-th on, and their sum; of INT8, that of the whole numbers that they become. */
static void put_powers(int format, const float *powers, int count, uint32_t *words, int from, float *sum,
                       uint32_t *whole) {
    for (int i = 0; format == INT8 && i < count; i++) {
        const int q = nearest(MULTIPLY_ADD(powers[i], 254.0f, -127.0f));
        *whole += (uint32_t)q;
        ((int8_t *)words)[from + i] = (int8_t)q;
    }
    for (int i = 0; format != INT8 && i < count; i++) *sum += powers[i];
    if (format == F32) memcpy(words + from, powers, (size_t)count * 4);
    for (int i = 0; format == BF16 && i < count; i++) ((uint16_t *)words)[from + i] = bf16(powers[i]);
}

static void softmax(Acts *weights, int row, const float *x, int count, float factor) {
    const float in_bits = factor * LOG2_E;
    float top, low, sum = 0, powers[PANEL];
    uint32_t whole = 0;
    extremes(x, count, &top, &low);
    top *= in_bits;
    uint32_t *words = weights->words + (size_t)row * weights->words_per_row;
    words[weights->words_per_row - 1] = 0;
    for (int from = 0; from < count; from += PANEL) {
        const int some = least(PANEL, count - from);
        for (int i = 0; i < some; i++) powers[i] = exponential(MULTIPLY_ADD(x[from + i], in_bits, -top));
        put_powers(weights->format, powers, some, words, from, &sum, &whole);
    }
    weights->scale[row] = 1.0f / (weights->format == INT8 ? (float)(int32_t)(whole + 127u * (uint32_t)count) : sum);
    weights->zero[row] = 127.0f * weights->scale[row];
    weights->begin[row] = weights->format == INT8 ? (int32_t)(0u - 128u * whole) : 0;
}

/* -- filters -------------------------------------------------------------------------------------------------------- */

static void filter(const Filter *f, int from, int to) {
    for (int t = from; t < to; t++) {
        float *y = f->y + t * f->y_stride;
        memcpy(y, f->x + t * f->stride, (size_t)f->dim * 4);
        for (int j = 0; j < f->kernel; j++) {
            const int at = t + j - f->left;
            const float *x = f->x + (ptrdiff_t)at * (ptrdiff_t)f->stride, *tap = f->taps + (size_t)j * f->dim;
            if (at >= f->rows || (at < 0 && !f->before)) continue;
            if (at < 0) x = f->before + (ptrdiff_t)(at + f->left) * (ptrdiff_t)f->before_stride;
            for (int i = 0; i < f->dim; i++) y[i] = MULTIPLY_ADD(tap[i], x[i], y[i]);
        }
    }
}

#include "table.h"
