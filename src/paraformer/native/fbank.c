/* Log-mel frames as paraformer.fbank computes them, 16 frames at once: each lane of a register is one frame, so no
 * number of one frame ever meets one of another, whatever frames come along. */
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#define LANES 16

/* size: points of the spectrum, a power of two, at least width and 2. turns: cos and sin of 2 pi k / size, k < size / 2.
 * Band b: entries starts[b] to starts[b + 1] of weights, from bin first[b] on. */
typedef struct {
    const float *window, *turns, *weights;
    const int32_t *starts, *first;
    int32_t width, size, bands;
    float scale, pre_emphasis, floor;
} Fbank;

/* Natural logarithm of normal positive numbers, to 1e-7 relative: of a mantissa near 1 by a polynomial. */
static __m512 logarithm(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 n = _mm512_getexp_ps(x), m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    const __mmask16 large = _mm512_cmp_ps_mask(m, _mm512_set1_ps(1.41421356f), _CMP_GT_OQ);
    m = _mm512_sub_ps(_mm512_mask_mul_ps(m, large, m, _mm512_set1_ps(0.5f)), one);
    n = _mm512_mask_add_ps(n, large, n, one);
    const __m512 squared = _mm512_mul_ps(m, m);
    __m512 y = _mm512_set1_ps(7.0376836292e-2f);
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(-1.1514610310e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(1.1676998740e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(-1.2420140846e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(1.4249322787e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(-1.6668057665e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(2.0000714765e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(-2.4999993993e-1f));
    y = _mm512_fmadd_ps(y, m, _mm512_set1_ps(3.3333331174e-1f));
    y = _mm512_mul_ps(_mm512_mul_ps(y, m), squared);
    y = _mm512_fmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), y);
    y = _mm512_fnmadd_ps(squared, _mm512_set1_ps(0.5f), y);
    return _mm512_fmadd_ps(n, _mm512_set1_ps(0.693359375f), _mm512_add_ps(m, y));
}

/* Samples of 16 frames to mean-free, pre-emphasised, windowed ones: y[0..size). */
static void prepare(const Fbank *f, const float *samples, __m512i starts, __m512 *y) {
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0; k < f->width; k++) {
        y[k] = _mm512_mul_ps(_mm512_i32gather_ps(starts, samples + k, 4), _mm512_set1_ps(f->scale));
        sum = _mm512_add_ps(sum, y[k]);
    }
    const __m512 mean = _mm512_div_ps(sum, _mm512_set1_ps((float)f->width));
    const __m512 part = _mm512_set1_ps(f->pre_emphasis);
    for (int k = f->width - 1; k >= 0; k--) {
        const __m512 here = _mm512_sub_ps(y[k], mean), before = _mm512_sub_ps(y[k ? k - 1 : 0], mean);
        y[k] = _mm512_mul_ps(_mm512_fnmadd_ps(part, before, here), _mm512_set1_ps(f->window[k]));
    }
    for (int k = f->width; k < f->size; k++) y[k] = _mm512_setzero_ps();
}

/* The transform of `points` complex numbers: y[2 n] + i y[2 n + 1], in place; turns as in Fbank, of 2 * points. */
static void transform(__m512 *y, int points, const float *turns) {
    for (int i = 1, j = 0; i < points; i++) { /* bits of the places reversed */
        int bit = points >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i >= j) continue;
        const __m512 real = y[2 * i], imaginary = y[2 * i + 1];
        y[2 * i] = y[2 * j], y[2 * i + 1] = y[2 * j + 1];
        y[2 * j] = real, y[2 * j + 1] = imaginary;
    }
    for (int half = 1; half < points; half *= 2)
        for (int k = 0; k < half; k++) {
            const float *turn = turns + 2 * (size_t)k * (points / half);
            const __m512 cosine = _mm512_set1_ps(turn[0]), sine = _mm512_set1_ps(turn[1]);
            for (int start = k; start < points; start += 2 * half) {
                __m512 *a = y + 2 * start, *b = a + 2 * half;
                const __m512 real = _mm512_fmadd_ps(sine, b[1], _mm512_mul_ps(cosine, b[0]));
                const __m512 imaginary = _mm512_fnmadd_ps(sine, b[0], _mm512_mul_ps(cosine, b[1]));
                b[0] = _mm512_sub_ps(a[0], real), b[1] = _mm512_sub_ps(a[1], imaginary);
                a[0] = _mm512_add_ps(a[0], real), a[1] = _mm512_add_ps(a[1], imaginary);
            }
        }
}

/* Four times the power in the bins below half the sample rate, of real samples transformed in pairs. */
static void powers(const __m512 *y, int points, const float *turns, __m512 *power) {
    for (int k = 0; k < points; k++) {
        const __m512 *a = y + 2 * k, *b = y + 2 * ((points - k) % points);
        const __m512 even_re = _mm512_add_ps(a[0], b[0]), even_im = _mm512_sub_ps(a[1], b[1]);
        const __m512 odd_re = _mm512_add_ps(a[1], b[1]), odd_im = _mm512_sub_ps(b[0], a[0]);
        const __m512 cosine = _mm512_set1_ps(turns[2 * k]), sine = _mm512_set1_ps(turns[2 * k + 1]);
        const __m512 re = _mm512_add_ps(even_re, _mm512_fmadd_ps(sine, odd_im, _mm512_mul_ps(cosine, odd_re)));
        const __m512 im = _mm512_add_ps(even_im, _mm512_fnmadd_ps(sine, odd_re, _mm512_mul_ps(cosine, odd_im)));
        power[k] = _mm512_fmadd_ps(re, re, _mm512_mul_ps(im, im));
    }
}

/* frames (count, bands) of samples, `shift` of them from one frame to the next. Returns 1 where memory is short. */
int pf_fbank(const Fbank *f, const float *samples, int count, int shift, float *frames) {
    const int points = f->size / 2;
    Room room = {0};
    __m512 *y = take(&room, (size_t)f->size * sizeof(__m512)), *power = take(&room, (size_t)points * sizeof(__m512));
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int at = 0; !room.failed && at < count; at += LANES) {
        const int left = count - at < LANES ? count - at : LANES;
        const __m512i lane = _mm512_min_epi32(lanes, _mm512_set1_epi32(left - 1));
        prepare(f, samples + (size_t)at * shift, _mm512_mullo_epi32(lane, _mm512_set1_epi32(shift)), y);
        transform(y, points, f->turns);
        powers(y, points, f->turns, power);
        for (int band = 0; band < f->bands; band++) {
            __m512 sum = _mm512_setzero_ps();
            const float *weights = f->weights + f->starts[band];
            for (int i = 0; i < f->starts[band + 1] - f->starts[band]; i++)
                sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[i]), power[f->first[band] + i], sum);
            sum = _mm512_max_ps(_mm512_mul_ps(sum, _mm512_set1_ps(0.25f)), _mm512_set1_ps(f->floor));
            _mm512_mask_i32scatter_ps(frames + (size_t)at * f->bands + band, (__mmask16)((1u << left) - 1),
                                      _mm512_mullo_epi32(lanes, _mm512_set1_epi32(f->bands)), logarithm(sum), 4);
        }
    }
    leave(&room);
    return room.failed;
}
