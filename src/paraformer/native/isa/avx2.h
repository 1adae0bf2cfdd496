/* Registers of 8 words, floats or halves of them: what AVX2 and AVX-VNNI have in common. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "../kernels.h"

#define LANES 8
#define EACH_REGISTER(DO, i) DO(i, 0) DO(i, 1)
typedef __m256i Vector;

static inline Vector load(const uint32_t *from) { return _mm256_loadu_si256((const Vector *)from); }
static inline void save(uint32_t *to, Vector x) { _mm256_storeu_si256((Vector *)to, x); }
static inline Vector broadcast(const uint32_t *word) { return _mm256_set1_epi32((int)*word); }
static inline Vector fused(Vector x, Vector y, Vector sum) {
    return (Vector)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)sum);
}

#define MOST_F32 6
#define TAKE_F32(_, j) const Vector v##j = load(b + j * LANES);
#define WORDS_F32(i) WORDS_1(i)
#define DOT_F32(i, j) s##i##j = fused(x, v##j, s##i##j);

/* A bfloat16 is the upper half of a float: each word becomes two floats. */
#define UPPER ((int)0xffff0000)
#define MOST_BF16 4
#define TAKE_BF16(_, j)                                                                            \
    const Vector both##j = load(b + j * LANES), v##j = _mm256_slli_epi32(both##j, 16),             \
                 u##j = _mm256_and_si256(both##j, _mm256_set1_epi32(UPPER));
#define WORDS_BF16(i) WORDS_2(i)
#define DOT_BF16(i, j) s##i##j = fused(y, u##j, fused(x, v##j, s##i##j));

static const int PARTS[FORMATS] = {1, 2, 1};
static inline void widen(int format, const uint32_t *words, int count, uint32_t *to) {
    for (int k = 0; format == BF16 && k < count; k++) to[2 * k] = words[k] << 16, to[2 * k + 1] = words[k] & (uint32_t)UPPER;
}

#define TAKE_INT8(_, j) const Vector v##j = load(b + j * LANES);
#define WORDS_INT8(i) WORDS_1(i)

#define OWN_EXTREMES
static inline float of_all(__m256 x, int largest) {
    float each[LANES];
    _mm256_storeu_ps(each, x);
    for (int i = 1; i < LANES; i++) each[0] = (each[i] > each[0]) == largest ? each[i] : each[0];
    return each[0];
}

/* The largest and the smallest number of a row; four registers at once, since one alone would wait for itself. NaN is passed
 * over: of two operands the second is taken where either is NaN. */
static void extremes(const float *x, int k, float *largest, float *smallest) {
    __m256 top[4], low[4];
    for (int j = 0; j < 4; j++) top[j] = _mm256_set1_ps(-INFINITY), low[j] = _mm256_set1_ps(INFINITY);
    int i = 0;
    for (; i + 4 * LANES <= k; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
            const __m256 some = _mm256_loadu_ps(x + i + j * LANES);
            top[j] = _mm256_max_ps(some, top[j]), low[j] = _mm256_min_ps(some, low[j]);
        }
    for (; i < k; i++) top[0] = _mm256_max_ps(_mm256_set1_ps(x[i]), top[0]), low[0] = _mm256_min_ps(_mm256_set1_ps(x[i]), low[0]);
    *largest = of_all(_mm256_max_ps(_mm256_max_ps(top[0], top[1]), _mm256_max_ps(top[2], top[3])), 1);
    *smallest = of_all(_mm256_min_ps(_mm256_min_ps(low[0], low[1]), _mm256_min_ps(low[2], low[3])), 0);
}

#define OWN_STORE
static inline __m256 float_gelu(__m256 x) {
    const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    const __m256 near = _mm256_min_ps(size, _mm256_set1_ps(GELU_REACH));
    const __m256 at = _mm256_fmadd_ps(near, _mm256_set1_ps(2.0f / GELU_REACH), _mm256_set1_ps(-1.0f));
#define FIRST(term) __m256 half = _mm256_set1_ps(term);
#define NEXT(term) half = _mm256_fmadd_ps(half, at, _mm256_set1_ps(term));
    GELU_TERMS(FIRST, NEXT)
#undef FIRST
#undef NEXT
    const __m256 of_one = _mm256_set1_ps(0.5f);
    return _mm256_fmadd_ps(size, _mm256_min_ps(half, of_one), _mm256_mul_ps(of_one, x));
}

/* As family.h has it, a register at a time. */
static void store(const Acts *acts, const Linear *linear, const Target *target, int row, int column, const uint32_t *sums) {
    float *out = target->out + row * target->out_stride + column;
    const float *scale = linear->scale ? linear->scale + column : NULL;
    const float *sum = scale && linear->sum ? linear->sum + column : NULL;
    const float *bias = linear->bias ? linear->bias + column : NULL;
    const float *add = target->add ? target->add + row * target->add_stride + column : NULL;
    const float *add2 = target->add2 ? target->add2 + row * target->add2_stride + column : NULL;
    const __m256 factor = _mm256_set1_ps(scale ? acts->scale[row] : 0), zero = _mm256_set1_ps(sum ? acts->zero[row] : 0);
    for (int j = 0; j < PANEL && column + j < linear->n; j += LANES) {
        const Vector whole = load(sums + j);
        __m256 y = (__m256)whole;
        if (scale) y = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_mul_ps(_mm256_loadu_ps(scale + j), factor));
        if (sum) y = _mm256_fmadd_ps(_mm256_loadu_ps(sum + j), zero, y);
        if (bias) y = _mm256_add_ps(y, _mm256_loadu_ps(bias + j));
        if (target->activation == RELU) y = _mm256_max_ps(y, _mm256_setzero_ps());
        if (target->activation == GELU) y = float_gelu(y);
        if (column + j + LANES <= linear->n) {
            if (add) y = _mm256_add_ps(y, _mm256_loadu_ps(add + j));
            if (add2) y = _mm256_add_ps(y, _mm256_loadu_ps(add2 + j));
            _mm256_storeu_ps(out + j, y);
        } else {
            float last[LANES];
            _mm256_storeu_ps(last, y);
            for (int i = 0; column + j + i < linear->n; i++) {
                if (add) last[i] += add[j + i];
                if (add2) last[i] += add2[j + i];
                out[j + i] = last[i];
            }
        }
    }
}
