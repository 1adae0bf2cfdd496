/* Kernels for AVX-512, with VNNI and BF16 where the processor has them: of families whose registers are its. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "../features.h"
#include "../kernels.h"
#include "each.h"

#define LANES 16
#define BLOCK_ROWS 6 /* 6 rows x 4 registers of sums, 4 of weights and 1 of activations: 29 of 32 */
#define UNSIGNED_BYTES ((int)0x80808080) /* added to a word of four signed bytes */
#define ALWAYS static inline __attribute__((always_inline))
/* for j in 0..count-1, written out, so that what it indexes stays in registers. */
#define EACH(count, j) _Pragma("GCC unroll 8") for (int j = 0; j < count; j++)

ALWAYS __mmask16 first(int count) { return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1); }

/* -- rows ----------------------------------------------------------------------------------------------------------- */

/* Two rows of 16 floats as 32 bfloat16, rounded to nearest even; a single one as 16. */
ALWAYS __m256i bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

/* 16 floats as bytes in 32-bit words: (x - middle) * factor, rounded to nearest even. Not as a fused multiply-add, so that
 * every family of processors comes to the same integers. */
ALWAYS __m512i bytes(__m512 x, __m512 factor, __m512 middle) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, middle), factor));
}

/* To words, of one row or slice. */
static void convert_int8(Acts *acts, uint32_t *words, int row, const float *x, int k, int asymmetric) {
    const int whole = k / PANEL * PANEL; /* 4 registers make one of bytes */
    __m512 top = _mm512_set1_ps(-INFINITY), low = _mm512_set1_ps(INFINITY);
    for (int i = 0; i < whole; i += LANES) {
        __m512 y = _mm512_loadu_ps(x + i);
        __asm__("" : "+v"(y)); /* loaded once, not by each of the two */
        top = _mm512_max_ps(top, y), low = _mm512_min_ps(low, y);
    }
    for (int i = whole; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512 y = _mm512_maskz_loadu_ps(mask, x + i);
        top = _mm512_mask_max_ps(top, mask, top, y), low = _mm512_mask_min_ps(low, mask, low, y);
    }
    const float largest = _mm512_reduce_max_ps(top), least = _mm512_reduce_min_ps(low);
    const float zero = asymmetric ? 0.5f * largest + 0.5f * least : 0.0f, above = largest - zero, below = zero - least;
    const float reach = above > below ? above : below;
    const __m512 factor = _mm512_set1_ps(rate_for(reach)), middle = _mm512_set1_ps(zero);
    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i sum = _mm512_setzero_si512();
    words[words_for(INT8, k) - 1] = 0;
    for (int i = 0; i < whole; i += PANEL) {
        const __m512i ab = _mm512_packs_epi32(bytes(_mm512_loadu_ps(x + i), factor, middle), bytes(_mm512_loadu_ps(x + i + 16), factor, middle));
        const __m512i cd = _mm512_packs_epi32(bytes(_mm512_loadu_ps(x + i + 32), factor, middle), bytes(_mm512_loadu_ps(x + i + 48), factor, middle));
        const __m512i all = _mm512_packs_epi16(ab, cd); /* of each quarter of each */
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), all);
        _mm512_storeu_si512((int8_t *)words + i, _mm512_permutexvar_epi32(in_order, all));
    }
    for (int i = whole; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512i y = bytes(_mm512_maskz_loadu_ps(mask, x + i), factor, middle);
        const __m512i q = _mm512_maskz_max_epi32(mask, y, _mm512_set1_epi32(-128)); /* also of NaN, as packs makes it */
        sum = _mm512_add_epi32(sum, q);
        _mm512_mask_cvtsepi32_storeu_epi8((int8_t *)words + i, mask, q);
    }
    acts->scale[row] = reach / 127.0f;
    acts->zero[row] = zero;
    acts->begin[row] = -128 * _mm512_reduce_add_epi32(sum);
}

static void convert(Acts *acts, int row, const float *x, int k, int asymmetric) {
    uint32_t *words = acts->words + (size_t)row * acts->words_per_row;
    acts->begin[row] = 0;
    if (acts->format == F32) {
        memcpy(words, x, (size_t)k * 4);
    } else if (acts->format == BF16) {
        if (k & 1) words[acts->words_per_row - 1] = 0;
        for (int i = 0; i < k; i += LANES) {
            const __mmask16 mask = first(k - i);
            _mm256_mask_storeu_epi16((uint16_t *)words + i, mask, bf16(_mm512_maskz_loadu_ps(mask, x + i)));
        }
    } else {
        const int slice = acts->slice ? acts->slice : k;
        for (int from = 0; from < k; from += slice) {
            Acts part = acts_slice(acts, from / slice);
            const int count = k - from < slice ? k - from : slice;
            convert_int8(&part, words + words_for(INT8, from), row, x + from, count, asymmetric);
        }
    }
}

static void acts_fill(Acts *acts, const float *x, size_t stride, int k, int asymmetric) {
    for (int row = 0; row < acts->rows; row++) convert(acts, row, x + row * stride, k, asymmetric);
}

ALWAYS float total(const __m512 *parts) {
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(parts[0], parts[1]), _mm512_add_ps(parts[2], parts[3])));
}

static void norm_row(const Norm *norm, const float *x, float *y) {
    const int k = norm->k;
    const int whole = k / PANEL * PANEL; /* four sums side by side, since one alone would wait for itself */
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int i = 0; i < whole; i += PANEL)
        EACH(4, j) sums[j] = _mm512_add_ps(sums[j], _mm512_loadu_ps(x + i + j * LANES));
    for (int i = whole; i < k; i += LANES) sums[0] = _mm512_add_ps(sums[0], _mm512_maskz_loadu_ps(first(k - i), x + i));
    const __m512 mean = _mm512_set1_ps(total(sums) / k);
    EACH(4, j) sums[j] = _mm512_setzero_ps();
    for (int i = 0; i < whole; i += PANEL)
        EACH(4, j) {
            const __m512 centred = _mm512_sub_ps(_mm512_loadu_ps(x + i + j * LANES), mean);
            sums[j] = _mm512_fmadd_ps(centred, centred, sums[j]);
        }
    for (int i = whole; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512 centred = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), mean);
        sums[0] = _mm512_fmadd_ps(centred, centred, sums[0]);
    }
    const __m512 rate = _mm512_set1_ps(1.0f / sqrtf(total(sums) / k + norm->epsilon));
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = first(k - i);
        const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), rate);
        const __m512 moved = _mm512_maskz_loadu_ps(mask, norm->shift + i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_fmadd_ps(scaled, _mm512_maskz_loadu_ps(mask, norm->gain + i), moved));
    }
}

static void layer_norm(const Norm *norm, const float *x, size_t stride, int rows, float *y, size_t y_stride) {
    for (int row = 0; row < rows; row++) norm_row(norm, x + row * stride, y + row * y_stride);
}

/* -- products ------------------------------------------------------------------------------------------------------- */

/* Where the sums of a few rows and one panel go. */
typedef struct {
    const Acts *acts;
    const Linear *linear;
    const Target *target;
    int column, row;
    __mmask16 masks[4]; /* of columns that exist */
} Place;

/* Add the matrices that are to be added to row i, and store it. */
ALWAYS void add_and_store(const Place *place, const Target *target, int i, __m512 *y) {
    const int at = place->row + i, column = place->column;
    if (target->add) {
        const float *add = target->add + at * target->add_stride + column;
        EACH(4, j) y[j] = _mm512_add_ps(y[j], _mm512_maskz_loadu_ps(place->masks[j], add + j * LANES));
    }
    if (target->add2) {
        const float *add = target->add2 + at * target->add2_stride + column;
        EACH(4, j) y[j] = _mm512_add_ps(y[j], _mm512_maskz_loadu_ps(place->masks[j], add + j * LANES));
    }
    float *out = target->out + at * target->out_stride + column;
    EACH(4, j) _mm512_mask_storeu_ps(out + j * LANES, place->masks[j], y[j]);
}

/* GELU of a few rows and one panel, stored by `store`, and what follows it. Apart, so that sums have all registers. */
static __attribute__((noinline)) void gelu(const Place *place, const Target *target, int rows) {
    const __m512 reach = _mm512_set1_ps(GELU_REACH), half = _mm512_set1_ps(0.5f);
    for (int i = 0; i < rows; i++) {
        const float *x = target->out + (place->row + i) * target->out_stride + place->column;
        __m512 y[4], size[4], at[4], part[4];
        EACH(4, j) {
            y[j] = _mm512_maskz_loadu_ps(place->masks[j], x + j * LANES), size[j] = _mm512_abs_ps(y[j]);
            at[j] = _mm512_min_ps(size[j], reach);
            at[j] = _mm512_fmadd_ps(at[j], _mm512_set1_ps(2.0f / GELU_REACH), _mm512_set1_ps(-1.0f));
        }
#define FIRST(term) EACH(4, j) part[j] = _mm512_set1_ps(term);
#define NEXT(term) EACH(4, j) part[j] = _mm512_fmadd_ps(part[j], at[j], _mm512_set1_ps(term));
        GELU_TERMS(FIRST, NEXT)
#undef FIRST
#undef NEXT
        EACH(4, j) y[j] = _mm512_fmadd_ps(size[j], _mm512_min_ps(part[j], half), _mm512_mul_ps(y[j], half));
        add_and_store(place, target, i, y);
    }
}

/* Finish and store the sums of row i. */
ALWAYS void store(const Place *place, int i, __m512i s0, __m512i s1, __m512i s2, __m512i s3) {
    const Acts *acts = place->acts;
    const Linear *linear = place->linear;
    const Target *target = place->target;
    const int at = place->row + i, column = place->column;
    __m512 y[4] = {(__m512)s0, (__m512)s1, (__m512)s2, (__m512)s3};
    if (linear->scale) {
        const __m512 scale = _mm512_set1_ps(acts->scale[at]);
        EACH(4, j) {
            const __m512 factor = _mm512_mul_ps(_mm512_loadu_ps(linear->scale + column + j * LANES), scale);
            y[j] = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)y[j]), factor);
        }
        if (linear->sum) {
            const __m512 zero = _mm512_set1_ps(acts->zero[at]);
            EACH(4, j) y[j] = _mm512_fmadd_ps(_mm512_loadu_ps(linear->sum + column + j * LANES), zero, y[j]);
        }
    }
    if (linear->bias) EACH(4, j) y[j] = _mm512_add_ps(y[j], _mm512_loadu_ps(linear->bias + column + j * LANES));
    if (target->activation == RELU) EACH(4, j) y[j] = _mm512_max_ps(y[j], _mm512_setzero_ps());
    add_and_store(place, target, i, y);
}

/* Sums of a few rows and one panel. While they are computed, `lines` cache lines for each word of k are fetched from
 * `ahead`, the next panel: few rows alone would wait for memory. Every sum has a name, since compilers keep arrays in
 * memory, and is held in a register until all are complete: otherwise what is stored last may leave it in the loop. */
#define NAME_SUMS(i)                                                                       \
    __m512i s##i##0 = _mm512_set1_epi32(begin[i]), s##i##1 = s##i##0, s##i##2 = s##i##0, s##i##3 = s##i##0;
#define HOLD_SUMS(i) __asm__ volatile("" : "+v"(s##i##0), "+v"(s##i##1), "+v"(s##i##2), "+v"(s##i##3));
#define STORE_SUMS(i) store(place, i, s##i##0, s##i##1, s##i##2, s##i##3);
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
                                       const char *ahead, int lines, const int32_t *begin, const Place *place) {    \
        EACH_##ROWS(NAME_SUMS) for (int w = 0; w < words; w++, b += PANEL) {                                        \
            const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);                              \
            const __m512i b2 = _mm512_loadu_si512(b + 32), b3 = _mm512_loadu_si512(b + 48);                         \
            __m512i x;                                                                                              \
            for (int line = 0; line < lines; line++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);                 \
            EACH_##ROWS(ADD_##FORMAT)                                                                               \
        }                                                                                                           \
        EACH_##ROWS(HOLD_SUMS)                                                                                      \
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

typedef void (*Sums)(const uint32_t *, size_t, const uint32_t *, int, const char *, int, const int32_t *, const Place *);
static const Sums SUMS[3][BLOCK_ROWS] = {LIST(F32), LIST(BF16), LIST(INT8)};

/* The first rows of a panel. sums: where theirs go before GELU, which then follows. */
ALWAYS Place first_place(const Acts *acts, const Linear *linear, const Target *target, const Target *sums, int panel) {
    Place place = {.acts = acts, .linear = linear, .column = panel * PANEL};
    place.target = target->activation == GELU ? sums : target;
    EACH(4, j) place.masks[j] = first(linear->n - place.column - j * LANES);
    return place;
}

/* A slice, and the place that it has in place of the whole. */
typedef struct {
    Acts acts;
    Linear linear;
    Target target;
    Place place;
} Slice;

ALWAYS void set_slice(Slice *slice, const Place *whole, int s) {
    slice->acts = acts_slice(whole->acts, s), slice->linear = linear_slice(whole->linear, s);
    slice->target = target_slice(whole->target, s), slice->place = *whole;
    slice->place.acts = &slice->acts, slice->place.linear = &slice->linear, slice->place.target = &slice->target;
}

/* One slice of a few rows and one panel, b. */
static void multiply_slice(const Place *block, int rows, int s, int from, int count, const uint32_t *b, const char *ahead,
                           int lines) {
    Slice slice;
    set_slice(&slice, block, s);
    const Acts *acts = &slice.acts;
    const int words = acts->words_per_row, row = block->row;
    SUMS[acts->format][rows - 1](acts->words + (size_t)row * words + from, words, b + (size_t)from * PANEL, count,
                                 ahead + (size_t)from * lines * 64, lines, acts->begin + row, &slice.place);
}

static void multiply_by_registers(const Acts *acts, const Linear *linear, const Target *target) {
    const int panels = panels_for(linear->n), words = acts->words_per_row;
    const int each = linear->slice ? words_for(linear->format, linear->slice) : words;
    const int blocks = (acts->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    /* The next panel has 4 lines for each word of k: all of them are asked for in the first few blocks. */
    const int lines = blocks >= 4 ? 1 : blocks == 3 ? 2 : blocks ? 4 / blocks : 0;
    const size_t bytes = (size_t)words * PANEL * 4, asked = (size_t)words * lines * 64;
    const Target sums = {.out = target->out, .out_stride = target->out_stride};
    for (int panel = 0; panel < panels; panel++) {
        const uint32_t *b = linear->words + (size_t)panel * words * PANEL;
        Place place = first_place(acts, linear, target, &sums, panel);
        for (int i = 0; i < blocks; i++) {
            const int row = place.row, rows = (acts->rows - row + blocks - i - 1) / (blocks - i);
            const char *ahead = (const char *)b + bytes + i * asked;
            const int now = i * asked < bytes ? lines : 0;
            if (each >= words)
                SUMS[acts->format][rows - 1](acts->words + (size_t)row * words, words, b, words, ahead, now,
                                             acts->begin + row, &place);
            for (int from = 0; each < words && from < words; from += each)
                multiply_slice(&place, rows, from / each, from, words - from < each ? words - from : each, b, ahead, now);
            if (target->activation == GELU) gelu(&place, target, rows);
            place.row += rows;
        }
    }
}

/* -- attention ------------------------------------------------------------------------------------------------------ */

static void means(const Attended *rows, int width, float *mean) {
    const int count = rows->past + rows->count;
    for (int i = 0; i < width; i += PANEL) {
        __mmask16 mask[4];
        __m512 sum[4];
        EACH(4, j) mask[j] = first(width - i - j * LANES), sum[j] = _mm512_setzero_ps();
        for (int n = 0; n < count; n++) {
            const float *row = attended_row(rows, n) + i;
            EACH(4, j) sum[j] = _mm512_add_ps(sum[j], _mm512_maskz_loadu_ps(mask[j], row + j * LANES));
        }
        EACH(4, j) _mm512_storeu_ps(mean + i + j * LANES, _mm512_div_ps(sum[j], _mm512_set1_ps((float)count)));
    }
}

static void ranges(const Attended *rows, int width, float *middle, float *reach) {
    for (int i = 0; i < width; i += PANEL) {
        __mmask16 mask[4];
        __m512 low[4], top[4];
        EACH(4, j) {
            mask[j] = first(width - i - j * LANES);
            low[j] = _mm512_set1_ps(INFINITY), top[j] = _mm512_set1_ps(-INFINITY);
        }
        for (int n = 0; n < rows->past + rows->count; n++) {
            const float *row = attended_row(rows, n) + i;
            EACH(4, j) {
                const __m512 x = _mm512_maskz_loadu_ps(mask[j], row + j * LANES);
                low[j] = _mm512_min_ps(low[j], x), top[j] = _mm512_max_ps(top[j], x);
            }
        }
        EACH(4, j) {
            const __m512 half = _mm512_set1_ps(0.5f);
            const __m512 centre = _mm512_fmadd_ps(half, top[j], _mm512_mul_ps(half, low[j]));
            const __m512 above = _mm512_sub_ps(top[j], centre), below = _mm512_sub_ps(centre, low[j]);
            _mm512_storeu_ps(middle + i + j * LANES, centre);
            _mm512_storeu_ps(reach + i + j * LANES, _mm512_max_ps(above, below));
        }
    }
}

static void pack_columns(int format, const Attended *rows, int width, const float *middle, uint32_t *words,
                         float *scale, uint32_t *row, float *centred) {
    const int per_row = words_for(format, width);
    const __m512i steps = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                             _mm512_set1_epi32(PANEL));
    const __m512i offset = _mm512_set1_epi32(format == INT8 ? UNSIGNED_BYTES : 0);
    int32_t begin;
    float zero;
    for (int n = 0; n < rows->past + rows->count; n++) {
        Acts one = {row, scale + n, &zero, &begin, format, 1, per_row, 0, 1};
        const float *x = attended_row(rows, n);
        for (int i = 0; format == INT8 && i < width; i++) centred[i] = x[i] - middle[i];
        convert(&one, 0, format == INT8 ? centred : x, width, 0);
        uint32_t *column = words + (size_t)(n / PANEL) * per_row * PANEL + n % PANEL;
        for (int w = 0; w < per_row; w += LANES) {
            const __mmask16 mask = first(per_row - w);
            const __m512i part = _mm512_add_epi8(_mm512_maskz_loadu_epi32(mask, row + w), offset);
            _mm512_mask_i32scatter_epi32(column + (size_t)w * PANEL, mask, steps, part, 4);
        }
    }
}

/* What a column of weights adds to a sum for every unit of a row's zero. */
static void sum_columns(const uint32_t *words, int along_k, int width, const float *scale, float *sum) {
    for (int i = 0; i < width; i += LANES) {
        const uint32_t *word = words + (size_t)(i / PANEL) * along_k * PANEL + i % PANEL;
        __m512i total = _mm512_set1_epi32(-128 * 4 * along_k);
        for (int k = 0; k < along_k; k++, word += PANEL)
            total = _mm512_dpbusd_epi32(total, _mm512_loadu_si512(word), _mm512_set1_epi8(1));
        _mm512_storeu_ps(sum + i, _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_loadu_ps(scale + i)));
    }
}

static void pack_rows(int format, const Attended *rows, int width, const float *middle, const float *rate,
                      uint32_t *words, const float *scale, float *sum) {
    const int keys = rows->past + rows->count, along_k = words_for(format, keys), each = per_word(format);
    for (int k = 0; k < along_k; k++)
        for (int i = 0; i < width; i += LANES) {
            const __mmask16 mask = first(width - i);
            __m512i word = _mm512_set1_epi32(format == INT8 ? UNSIGNED_BYTES : 0);
            for (int n = k * each, j = 0; j < each && n < keys; j++, n++) {
                const __m512 x = _mm512_maskz_loadu_ps(mask, attended_row(rows, n) + i);
                __m512i part = (__m512i)x;
                if (format == BF16) part = _mm512_cvtepu16_epi32(bf16(x));
                if (format == INT8) {
                    const __m512 less = _mm512_sub_ps(x, _mm512_loadu_ps(middle + i));
                    part = _mm512_cvtps_epi32(_mm512_mul_ps(less, _mm512_loadu_ps(rate + i)));
                }
                word = _mm512_add_epi32(word, _mm512_sll_epi32(part, _mm_cvtsi32_si128(32 / each * j)));
            }
            _mm512_storeu_si512(words + ((size_t)(i / PANEL) * along_k + k) * PANEL + i % PANEL, word);
        }
    if (format == INT8) sum_columns(words, along_k, width, scale, sum);
}

/* 2^x to 3e-7 relative: 2^n times a polynomial of what is left. */
ALWAYS __m512 exponential(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT), r = _mm512_sub_ps(x, n);
#define FIRST(term) __m512 y = _mm512_set1_ps(term);
#define NEXT(term) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(term));
    POWER_TERMS(FIRST, NEXT)
#undef FIRST
#undef NEXT
    return _mm512_scalef_ps(y, n);
}

static void softmax(Acts *weights, int row, const float *x, int count, float factor) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 mask = first(count - i);
        top = _mm512_mask_max_ps(top, mask, top, _mm512_maskz_loadu_ps(mask, x + i));
    }
    const __m512 in_bits = _mm512_set1_ps(factor * LOG2_E);
    top = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(top)), in_bits);
    uint32_t *words = weights->words + (size_t)row * weights->words_per_row;
    words[weights->words_per_row - 1] = 0;
    __m512 sum = _mm512_setzero_ps();
    __m512i whole = _mm512_setzero_si512();
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 mask = first(count - i);
        const __m512 y = exponential(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + i), in_bits, top));
        if (weights->format == INT8) {
            const __m512 byte = _mm512_fmsub_ps(y, _mm512_set1_ps(254), _mm512_set1_ps(127));
            const __m512i q = _mm512_maskz_cvtps_epi32(mask, byte);
            whole = _mm512_add_epi32(whole, q);
            _mm512_mask_cvtepi32_storeu_epi8((int8_t *)words + i, mask, q);
            continue;
        }
        sum = _mm512_mask_add_ps(sum, mask, sum, y);
        if (weights->format == F32)
            _mm512_mask_storeu_ps(words + i, mask, y);
        else
            _mm256_mask_storeu_epi16((uint16_t *)words + i, mask, bf16(y));
    }
    const int total = _mm512_reduce_add_epi32(whole);
    weights->scale[row] = 1.0f / (weights->format == INT8 ? (float)(total + 127 * count) : _mm512_reduce_add_ps(sum));
    weights->zero[row] = 127.0f * weights->scale[row];
    weights->begin[row] = weights->format == INT8 ? -128 * total : 0;
}

/* -- filters -------------------------------------------------------------------------------------------------------- */

enum { TOGETHER = 4 }; /* rows whose sums stay in registers while the taps pass by */

/* y[o] += sum_j taps[j] * x[j + o] for j in from..to-1 and `rows` rows, a constant. */
ALWAYS void weigh(int rows, const float *x, size_t stride, int dim, const float *taps, int from, int to, float *y,
                  size_t y_stride) {
    for (int i = 0; i < dim; i += LANES) {
        const __mmask16 mask = first(dim - i);
        __m512 sums[TOGETHER];
        EACH(rows, o) sums[o] = _mm512_maskz_loadu_ps(mask, y + o * y_stride + i);
        for (int j = from; j < to; j++) {
            const __m512 tap = _mm512_maskz_loadu_ps(mask, taps + (size_t)j * dim + i);
            EACH(rows, o)
                sums[o] = _mm512_fmadd_ps(tap, _mm512_maskz_loadu_ps(mask, x + (j + o) * stride + i), sums[o]);
        }
        EACH(rows, o) _mm512_mask_storeu_ps(y + o * y_stride + i, mask, sums[o]);
    }
}

static void filter(const Filter *f, int from, int to) {
    for (int t = from; t < to; t++) memcpy(f->y + t * f->y_stride, f->x + t * f->stride, (size_t)f->dim * 4);
    for (int t = from, done; t < to; t += done) {
        const float *at = f->x + ((ptrdiff_t)t - f->left) * (ptrdiff_t)f->stride;
        const int missing = t < f->left ? f->left - t : 0, following = f->rows - t + f->left;
        const int until = following < f->kernel ? following : f->kernel;
        float *sums = f->y + t * f->y_stride;
        done = !missing && t + TOGETHER <= to && following >= f->kernel + TOGETHER - 1 ? TOGETHER : 1;
        if (done == TOGETHER) {
            weigh(TOGETHER, at, f->stride, f->dim, f->taps, 0, f->kernel, sums, f->y_stride);
            continue;
        }
        if (f->before)
            weigh(1, f->before + t * f->before_stride, f->before_stride, f->dim, f->taps, 0, missing, sums, f->y_stride);
        weigh(1, at, f->stride, f->dim, f->taps, missing, until, sums, f->y_stride);
    }
}
