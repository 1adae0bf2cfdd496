#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define BLOCK_ROWS 6 /* 6 rows x 4 registers of sums, 4 of weights and 1 of activations: 29 of 32 */
#define ATTENDING 48 /* rows of queries at once, so that their scores stay in the cache: whole blocks */
#define LAYER_NORM_EPS 1e-12f
#define ALWAYS static inline __attribute__((always_inline))

void *aligned(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64); }

ALWAYS __mmask16 first(int count) { return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1); }

/* -- rows ----------------------------------------------------------------------------------------------------------- */

int acts_alloc(Acts *acts, int format, int rows, int k) {
    acts->format = format;
    acts->rows = rows;
    acts->words_per_row = words_for(format, k);
    acts->words = aligned((size_t)rows * acts->words_per_row * 4);
    acts->scale = aligned((size_t)rows * 4);
    acts->zero = aligned((size_t)rows * 4);
    acts->begin = aligned((size_t)rows * 4);
    if (acts->begin) memset(acts->begin, 0, (size_t)rows * 4);
    return !acts->words || !acts->scale || !acts->zero || !acts->begin;
}

void acts_free(Acts *acts) {
    free(acts->words);
    free(acts->scale);
    free(acts->zero);
    free(acts->begin);
}

Acts acts_part(const Acts *acts, int from, int to) {
    return (Acts){acts->words + (size_t)from * acts->words_per_row, acts->scale + from, acts->zero + from,
                  acts->begin + from, acts->format, to - from, acts->words_per_row};
}

/* Two rows of 16 floats as 32 bfloat16, rounded to nearest even; a single one as 16. */
ALWAYS __m256i bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

static void convert(Acts *acts, int row, const float *x, int k, int lopsided) {
    uint32_t *words = acts->words + (size_t)row * acts->words_per_row;
    if (acts->format == F32) {
        memcpy(words, x, (size_t)k * 4);
        return;
    }
    if (acts->format == BF16) {
        if (k & 1) words[acts->words_per_row - 1] = 0;
        for (int i = 0; i < k; i += LANES) {
            const __mmask16 mask = first(k - i);
            _mm256_mask_storeu_epi16((uint16_t *)words + i, mask, bf16(_mm512_maskz_loadu_ps(mask, x + i)));
        }
        return;
    }
    const int whole = k / LANES * LANES;
    const __mmask16 rest = first(k - whole);
    __m512 top = _mm512_set1_ps(-INFINITY), low = _mm512_set1_ps(INFINITY);
    for (int i = 0; i < whole; i += LANES) {
        const __m512 y = _mm512_loadu_ps(x + i);
        top = _mm512_max_ps(top, y), low = _mm512_min_ps(low, y);
    }
    const __m512 last = _mm512_maskz_loadu_ps(rest, x + whole);
    const float largest = _mm512_reduce_max_ps(_mm512_mask_max_ps(top, rest, top, last));
    const float least = _mm512_reduce_min_ps(_mm512_mask_min_ps(low, rest, low, last));
    const float zero = lopsided ? 0.5f * largest + 0.5f * least : 0.0f, reach = fmaxf(largest - zero, zero - least);
    const __m512 factor = _mm512_set1_ps(reach > 0 ? 127.0f / reach : 0.0f), middle = _mm512_set1_ps(zero);
    __m512i sum = _mm512_setzero_si512();
    words[acts->words_per_row - 1] = 0;
    for (int i = 0; i < whole; i += LANES) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), middle), factor));
        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)((int8_t *)words + i), _mm512_cvtsepi32_epi8(q));
    }
    if (rest) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(rest, _mm512_sub_ps(last, middle), factor));
        sum = _mm512_add_epi32(sum, q);
        _mm512_mask_cvtsepi32_storeu_epi8((int8_t *)words + whole, rest, q);
    }
    acts->scale[row] = reach / 127.0f;
    acts->zero[row] = zero;
    acts->begin[row] = -128 * _mm512_reduce_add_epi32(sum);
}

void acts_fill(Acts *acts, const float *x, size_t stride, int k, int lopsided) {
    for (int row = 0; row < acts->rows; row++) convert(acts, row, x + row * stride, k, lopsided);
}

static void norm_row(const float *x, int k, const float *gain, const float *shift, float *y) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < k; i += LANES) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(first(k - i), x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / k);
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512 centred = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    const __m512 rate = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / k + LAYER_NORM_EPS));
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512 centred = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean);
        const __m512 scaled = _mm512_mul_ps(_mm512_mul_ps(centred, rate), _mm512_maskz_loadu_ps(mask, gain + i));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_add_ps(scaled, _mm512_maskz_loadu_ps(mask, shift + i)));
    }
}

void layer_norm(const float *x, size_t stride, int rows, int k, const float *gain, const float *shift, float *y,
                size_t y_stride) {
    for (int row = 0; row < rows; row++) norm_row(x + row * stride, k, gain, shift, y + row * y_stride);
}

void acts_fill_normed(Acts *acts, const float *x, size_t stride, int k, int lopsided, const float *gain,
                      const float *shift) {
    float *normed = aligned((size_t)k * 4);
    for (int row = 0; row < acts->rows; row++) {
        norm_row(x + row * stride, k, gain, shift, normed);
        convert(acts, row, normed, k, lopsided);
    }
    free(normed);
}

/* -- products ------------------------------------------------------------------------------------------------------- */

/* Sums of a few rows and one panel, [rows][4 registers]. While they are computed, `lines` cache lines for each word of k
 * are fetched from `ahead`, the next panel: few rows alone would wait for memory. Every sum has a name, since compilers
 * keep arrays in memory. */
#define EACH_1(DO) DO(0)
#define EACH_2(DO) EACH_1(DO) DO(1)
#define EACH_3(DO) EACH_2(DO) DO(2)
#define EACH_4(DO) EACH_3(DO) DO(3)
#define EACH_5(DO) EACH_4(DO) DO(4)
#define EACH_6(DO) EACH_5(DO) DO(5)

#define NAME_SUMS(i)                                                                       \
    __m512i s##i##0 = _mm512_set1_epi32(begin[i]), s##i##1 = s##i##0, s##i##2 = s##i##0, s##i##3 = s##i##0;
#define STORE_SUMS(i)                                                                      \
    sums[4 * i] = s##i##0, sums[4 * i + 1] = s##i##1, sums[4 * i + 2] = s##i##2, sums[4 * i + 3] = s##i##3;
#define ADD_ROW(DOT, i)                                                                    \
    x = _mm512_set1_epi32((int)a[i * stride + w]);                                         \
    s##i##0 = DOT(s##i##0, b0, x), s##i##1 = DOT(s##i##1, b1, x);                          \
    s##i##2 = DOT(s##i##2, b2, x), s##i##3 = DOT(s##i##3, b3, x);
#define ADD_F32(i) ADD_ROW(DOT_F32, i)
#define ADD_BF16(i) ADD_ROW(DOT_BF16, i)
#define ADD_INT8(i) ADD_ROW(DOT_INT8, i)

#define DOT_F32(sum, b, x) (__m512i) _mm512_fmadd_ps((__m512)(b), (__m512)(x), (__m512)(sum))
#define DOT_BF16(sum, b, x) (__m512i) _mm512_dpbf16_ps((__m512)(sum), (__m512bh)(b), (__m512bh)(x))
#define DOT_INT8(sum, b, x) _mm512_dpbusd_epi32(sum, b, x)

#define DEFINE_SUMS(FORMAT, ROWS)                                                                                   \
    static void sums_##FORMAT##_##ROWS(const uint32_t *a, size_t stride, const uint32_t *b, int words,              \
                                       const char *ahead, int lines, const int32_t *begin, __m512i *sums) {         \
        EACH_##ROWS(NAME_SUMS) for (int w = 0; w < words; w++, b += PANEL) {                                        \
            const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);                              \
            const __m512i b2 = _mm512_loadu_si512(b + 32), b3 = _mm512_loadu_si512(b + 48);                         \
            __m512i x;                                                                                              \
            for (int line = 0; line < lines; line++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);                 \
            EACH_##ROWS(ADD_##FORMAT)                                                                               \
        }                                                                                                           \
        EACH_##ROWS(STORE_SUMS)                                                                                     \
    }
#define DEFINE_ALL(FORMAT)                                                                                          \
    DEFINE_SUMS(FORMAT, 1)                                                                                          \
    DEFINE_SUMS(FORMAT, 2)                                                                                          \
    DEFINE_SUMS(FORMAT, 3)                                                                                          \
    DEFINE_SUMS(FORMAT, 4)                                                                                          \
    DEFINE_SUMS(FORMAT, 5)                                                                                          \
    DEFINE_SUMS(FORMAT, 6)
#define LIST(FORMAT)                                                                                                \
    {sums_##FORMAT##_1, sums_##FORMAT##_2, sums_##FORMAT##_3, sums_##FORMAT##_4, sums_##FORMAT##_5, sums_##FORMAT##_6}

DEFINE_ALL(F32)
DEFINE_ALL(BF16)
DEFINE_ALL(INT8)

typedef void (*Sums)(const uint32_t *, size_t, const uint32_t *, int, const char *, int, const int32_t *, __m512i *);
static const Sums SUMS[3][BLOCK_ROWS] = {LIST(F32), LIST(BF16), LIST(INT8)};

static void store(const __m512i *sums, int rows, int row, int panel, const Acts *acts, const Linear *linear,
                  const Target *target) {
    for (int j = 0; j < 4; j++) {
        const int column = panel * PANEL + j * LANES;
        const __mmask16 mask = first(linear->n - column);
        const __m512 bias = linear->bias ? _mm512_loadu_ps(linear->bias + column) : _mm512_setzero_ps();
        const __m512 scale = acts->format == INT8 ? _mm512_loadu_ps(linear->scale + column) : _mm512_setzero_ps();
        const __m512 sum = linear->sum ? _mm512_loadu_ps(linear->sum + column) : _mm512_setzero_ps();
        for (int i = 0; i < rows; i++) {
            const size_t at = row + i;
            __m512 y = (__m512)sums[4 * i + j];
            if (acts->format == INT8) {
                y = _mm512_cvtepi32_ps(sums[4 * i + j]);
                const __m512 begun = _mm512_fmadd_ps(sum, _mm512_set1_ps(acts->zero[at]), bias);
                y = _mm512_fmadd_ps(y, _mm512_mul_ps(scale, _mm512_set1_ps(acts->scale[at])), begun);
            } else {
                y = _mm512_add_ps(y, bias);
            }
            if (target->relu) y = _mm512_max_ps(y, _mm512_setzero_ps());
            if (target->add) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, target->add + at * target->add_stride + column));
            if (target->add2)
                y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, target->add2 + at * target->add2_stride + column));
            _mm512_mask_storeu_ps(target->out + at * target->out_stride + column, mask, y);
        }
    }
}

void multiply(const Acts *acts, const Linear *linear, Target target) {
    const int panels = (linear->n + PANEL - 1) / PANEL, words = acts->words_per_row;
    const int blocks = (acts->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    /* The next panel has 4 lines for each word of k: all of them are asked for in the first few blocks. */
    const int lines = blocks >= 4 ? 1 : blocks == 3 ? 2 : blocks ? 4 / blocks : 0;
    const size_t bytes = (size_t)words * PANEL * 4, asked = (size_t)words * lines * 64;
    __m512i sums[BLOCK_ROWS * 4];
    for (int panel = 0; panel < panels; panel++) {
        const uint32_t *b = linear->words + (size_t)panel * words * PANEL;
        for (int i = 0, row = 0; i < blocks; i++) {
            const int rows = (acts->rows - row + blocks - i - 1) / (blocks - i);
            const char *ahead = (const char *)b + bytes + i * asked;
            SUMS[acts->format][rows - 1](acts->words + (size_t)row * words, words, b, words, ahead,
                                         i * asked < bytes ? lines : 0, acts->begin + row, sums);
            store(sums, rows, row, panel, acts, linear, &target);
            row += rows;
        }
    }
}

/* -- attention ------------------------------------------------------------------------------------------------------ */

static int panels_for(int n) { return (n + PANEL - 1) / PANEL; }

/* Panels in which column n is row n of x, (n, width) at `stride`, less `mean`; columns from `at` on. Absent ones stay as
 * they are. row, centred: space for one. scale: of each column, for INT8. */
static void pack_columns(int format, const float *x, size_t stride, int count, int width, const float *mean,
                         uint32_t *words, int at, uint32_t *row, float *centred, float *scale) {
    const int per_row = words_for(format, width);
    const __m512i steps = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                             _mm512_set1_epi32(PANEL));
    const __m512i offset = _mm512_set1_epi32(format == INT8 ? (int)0x80808080 : 0);
    int32_t begin;
    float zero;
    for (int n = 0; n < count; n++) {
        Acts one = {row, scale + at + n, &zero, &begin, format, 1, per_row};
        for (int i = 0; i < width; i++) centred[i] = x[n * stride + i] - mean[i];
        convert(&one, 0, centred, width, 0);
        uint32_t *column = words + (size_t)((at + n) / PANEL) * per_row * PANEL + (at + n) % PANEL;
        for (int w = 0; w < per_row; w += LANES) {
            const __mmask16 mask = first(per_row - w);
            const __m512i part = _mm512_xor_si512(_mm512_maskz_loadu_epi32(mask, row + w), offset);
            _mm512_mask_i32scatter_epi32(column + (size_t)w * PANEL, mask, steps, part, 4);
        }
    }
}

/* Panels in which row k is row k of x, (k, width) at `stride`; rows from `at` on. */
static void pack_rows(int format, const float *x, size_t stride, int count, int width, uint32_t *words, int at,
                      int words_along_k) {
    for (int k = 0; k < count; k++)
        for (int i = 0; i < width; i += LANES) {
            const __mmask16 mask = first(width - i);
            const __m512 y = _mm512_maskz_loadu_ps(mask, x + k * stride + i);
            uint32_t *panel = words + (size_t)(i / PANEL) * words_along_k * PANEL + i % PANEL;
            if (format == F32) {
                _mm512_storeu_ps(panel + (size_t)(at + k) * PANEL, y);
                continue;
            }
            uint32_t *word = panel + (size_t)((at + k) / 2) * PANEL;
            const __m512i half = _mm512_cvtepu16_epi32(bf16(y));
            _mm512_storeu_si512(word, (at + k) % 2 ? _mm512_or_si512(_mm512_slli_epi32(half, 16), _mm512_loadu_si512(word))
                                                   : half);
        }
}

/* exp to 1e-7 relative: 2^n times a polynomial of what is left, |r| <= ln 2 / 2. */
ALWAYS __m512 exponential(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(_mm512_mul_ps(r, r), y, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(y, n);
}

/* One row of scores, times scale, to weights that add up to the returned number; the largest is 1. */
static float softmax(Acts *weights, int row, const float *x, int count, float scale) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 mask = first(count - i);
        top = _mm512_mask_max_ps(top, mask, top, _mm512_maskz_loadu_ps(mask, x + i));
    }
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    uint32_t *words = weights->words + (size_t)row * weights->words_per_row;
    words[weights->words_per_row - 1] = 0;
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 mask = first(count - i);
        const __m512 below = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), top), _mm512_set1_ps(scale));
        const __m512 y = _mm512_maskz_mov_ps(mask, exponential(below));
        sum = _mm512_add_ps(sum, y);
        if (weights->format == F32)
            _mm512_mask_storeu_ps(words + i, mask, y);
        else
            _mm256_mask_storeu_epi16((uint16_t *)words + i, mask, bf16(y));
    }
    return _mm512_reduce_add_ps(sum);
}

typedef struct {
    Acts queries, weights;
    uint32_t *key_words, *value_words, *row;
    float *key_scale, *mean, *centred, *scores;
} Attention;

static int attention_alloc(Attention *a, Attended formats, int width, int rows, int keys) {
    const size_t padded = (size_t)panels_for(keys) * PANEL, along_width = words_for(formats.keys, width);
    const int failed = acts_alloc(&a->queries, formats.keys, rows, width) | acts_alloc(&a->weights, formats.values, rows, keys);
    a->key_words = aligned(padded * along_width * 4);
    a->key_scale = aligned(padded * 4);
    a->value_words = aligned((size_t)panels_for(width) * a->weights.words_per_row * PANEL * 4);
    a->row = aligned(along_width * 4);
    a->mean = aligned((size_t)width * 4), a->centred = aligned((size_t)width * 4);
    a->scores = aligned((size_t)rows * padded * 4);
    return failed || !a->key_words || !a->key_scale || !a->value_words || !a->row || !a->mean || !a->centred ||
           !a->scores;
}

static void attention_free(Attention *a) {
    acts_free(&a->queries);
    acts_free(&a->weights);
    free(a->key_words);
    free(a->key_scale);
    free(a->value_words);
    free(a->row);
    free(a->mean);
    free(a->centred);
    free(a->scores);
}

static void add_rows(const float *x, size_t stride, int count, int width, float *sum) {
    for (int n = 0; n < count; n++)
        for (int i = 0; i < width; i++) sum[i] += x[n * stride + i];
}

/* Some rows of one head; keys and values are packed. */
static void attend_rows(Attention *a, const float *query, size_t query_stride, int rows, const Linear *to_keys,
                        const Linear *to_values, float *out, size_t out_stride) {
    const int keys = to_values->k, width = to_keys->k;
    a->queries.rows = a->weights.rows = rows;
    acts_fill(&a->queries, query, query_stride, width, 0);
    multiply(&a->queries, to_keys, (Target){.out = a->scores, .out_stride = to_keys->n});
    const float scale = 1.0f / sqrtf((float)width);
    float sums[ATTENDING];
    for (int i = 0; i < rows; i++) sums[i] = softmax(&a->weights, i, a->scores + (size_t)i * to_keys->n, keys, scale);
    multiply(&a->weights, to_values, (Target){.out = out, .out_stride = out_stride});
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) out[i * out_stride + j] *= 1.0f / sums[i];
}

int attend(Attended formats, int width, const float *query, size_t query_stride, int rows, const float *past_key,
           const float *past_value, size_t past_stride, int past, const float *key, const float *value, size_t stride,
           int own, float *out, size_t out_stride) {
    const int keys = past + own;
    if (!keys) {
        for (int row = 0; row < rows; row++) memset(out + row * out_stride, 0, (size_t)width * 4);
        return 0;
    }
    Attention a = {0};
    const int failed = attention_alloc(&a, formats, width, rows < ATTENDING ? rows : ATTENDING, keys);
    if (!failed) {
        const int padded = panels_for(keys) * PANEL, along_width = a.queries.words_per_row;
        memset(a.key_words + (size_t)(padded - PANEL) * along_width, 0, (size_t)PANEL * along_width * 4);
        memset(a.key_scale, 0, (size_t)padded * 4);
        /* What all keys have in common adds the same to every score of a query, which softmax does not see; without it 8
         * bits resolve how they differ (SageAttention, arXiv 2410.02367). */
        memset(a.mean, 0, (size_t)width * 4);
        if (formats.keys == INT8) {
            add_rows(past_key, past_stride, past, width, a.mean);
            add_rows(key, stride, own, width, a.mean);
            for (int i = 0; i < width; i++) a.mean[i] /= keys;
        }
        pack_columns(formats.keys, past_key, past_stride, past, width, a.mean, a.key_words, 0, a.row, a.centred, a.key_scale);
        pack_columns(formats.keys, key, stride, own, width, a.mean, a.key_words, past, a.row, a.centred, a.key_scale);
        pack_rows(formats.values, past_value, past_stride, past, width, a.value_words, 0, a.weights.words_per_row);
        pack_rows(formats.values, value, stride, own, width, a.value_words, past, a.weights.words_per_row);
        const Linear to_keys = {.words = a.key_words, .scale = a.key_scale, .k = width, .n = padded, .format = formats.keys};
        const Linear to_values = {.words = a.value_words, .k = keys, .n = width, .format = formats.values};
        for (int row = 0; row < rows; row += ATTENDING)
            attend_rows(&a, query + row * query_stride, query_stride, rows - row < ATTENDING ? rows - row : ATTENDING,
                        &to_keys, &to_values, out + row * out_stride, out_stride);
    }
    attention_free(&a);
    return failed;
}

/* -- memory --------------------------------------------------------------------------------------------------------- */

void memory(const float *x, size_t stride, int from, int to, int rows, int dim, const float *taps, int kernel, int left,
            const float *before, size_t before_stride, float *y, size_t y_stride) {
    for (int t = from; t < to; t++)
        for (int i = 0; i < dim; i += LANES) {
            const __mmask16 mask = first(dim - i);
            __m512 sum = _mm512_maskz_loadu_ps(mask, x + t * stride + i);
            for (int j = 0; j < kernel; j++) {
                const int at = t + j - left;
                if (at >= rows || (at < 0 && !before)) continue;
                const float *row = at < 0 ? before + (left + at) * before_stride : x + at * stride;
                sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, taps + (size_t)j * dim + i),
                                      _mm512_maskz_loadu_ps(mask, row + i), sum);
            }
            _mm512_mask_storeu_ps(y + t * y_stride + i, mask, sum);
        }
}
