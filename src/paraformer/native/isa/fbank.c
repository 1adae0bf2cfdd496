/* Log-mel frames as paraformer.fbank computes them, 16 frames at once: each lane is one frame, so no number of one frame
 * ever meets one of another, whatever frames come along. One text for every family of processors, each of which compiles
 * it for itself, under the name of its ISA: the compiler knows how many registers 16 floats fill. */
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "../kernels.h"

typedef float Floats __attribute__((vector_size(4 * FBANK_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * FBANK_LANES)));

/* Lanes of x where the mask is all ones, of y where it is 0. */
static inline Floats choose(Ints mask, Floats x, Floats y) { return (Floats)((mask & (Ints)x) | (~mask & (Ints)y)); }

static inline Floats gather(const float *from, const int *places) {
#ifdef __AVX512F__
    return (Floats)_mm512_i32gather_ps(_mm512_loadu_si512(places), from, 4);
#else
    Floats x;
    for (int lane = 0; lane < FBANK_LANES; lane++) x[lane] = from[places[lane]];
    return x;
#endif
}

/* Natural logarithm of normal positive numbers, to 1e-7 relative: of a mantissa near 1 by a polynomial (cephes). */
static inline Floats logarithm(Floats x) {
    const Ints bits = (Ints)x;
    Ints exponent = (bits >> 23) - 127;
    Floats m = (Floats)((bits & 0x7fffff) | 0x3f800000); /* 1 to 2 */
    const Ints large = m > 1.41421356f;                 /* -1 where true */
    m = choose(large, m * 0.5f, m) - 1.0f;
    exponent -= large;
    const Floats n = __builtin_convertvector(exponent, Floats), squared = m * m;
    Floats y = 7.0376836292e-2f * m + -1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m + -1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m + -1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m + -2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * squared;
    y = n * -2.12194440e-4f + y;
    y = y - squared * 0.5f;
    return n * 0.693359375f + (m + y);
}

/* Samples of 16 frames to mean-free, pre-emphasised, windowed ones: y[0..size). */
static void prepare(const Fbank *f, const float *samples, const int *starts, Floats *y) {
    Floats sum = {0};
    for (int k = 0; k < f->width; k++) {
        y[k] = gather(samples + k, starts) * f->scale;
        sum += y[k];
    }
    const Floats mean = sum / (float)f->width;
    for (int k = f->width - 1; k >= 0; k--) {
        const Floats here = y[k] - mean, before = y[k ? k - 1 : 0] - mean;
        y[k] = (here - f->pre_emphasis * before) * f->window[k];
    }
    memset(y + f->width, 0, (size_t)(f->size - f->width) * sizeof(Floats));
}

/* The transform of `points` complex numbers: y[2 n] + i y[2 n + 1], in place; turns as in Fbank, of 2 * points. */
static void transform(Floats *y, int points, const float *turns) {
    for (int i = 1, j = 0; i < points; i++) { /* bits of the places reversed */
        int bit = points >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i >= j) continue;
        const Floats real = y[2 * i], imaginary = y[2 * i + 1];
        y[2 * i] = y[2 * j], y[2 * i + 1] = y[2 * j + 1];
        y[2 * j] = real, y[2 * j + 1] = imaginary;
    }
    for (int half = 1; half < points; half *= 2)
        for (int k = 0; k < half; k++) {
            const float *turn = turns + 2 * (size_t)k * (points / half);
            for (int start = k; start < points; start += 2 * half) {
                Floats *a = y + 2 * start, *b = a + 2 * half;
                const Floats real = turn[1] * b[1] + turn[0] * b[0], imaginary = turn[0] * b[1] - turn[1] * b[0];
                b[0] = a[0] - real, b[1] = a[1] - imaginary;
                a[0] += real, a[1] += imaginary;
            }
        }
}

/* Four times the power in the bins below half the sample rate, of real samples transformed in pairs. */
static void powers(const Floats *y, int points, const float *turns, Floats *power) {
    for (int k = 0; k < points; k++) {
        const Floats *a = y + 2 * k, *b = y + 2 * ((points - k) % points);
        const Floats even_re = a[0] + b[0], even_im = a[1] - b[1], odd_re = a[1] + b[1], odd_im = b[0] - a[0];
        const float cosine = turns[2 * k], sine = turns[2 * k + 1];
        const Floats re = even_re + (sine * odd_im + cosine * odd_re), im = even_im + (cosine * odd_im - sine * odd_re);
        power[k] = re * re + im * im;
    }
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

void JOIN(fbank, ISA)(const Fbank *f, const float *samples, int count, int shift, float *frames, void *space) {
    const int points = f->size / 2;
    Floats *y = space, *power = y + f->size;
    for (int at = 0; at < count; at += FBANK_LANES) {
        const int left = count - at < FBANK_LANES ? count - at : FBANK_LANES;
        int starts[FBANK_LANES]; /* lanes without a frame repeat the last one */
        for (int lane = 0; lane < FBANK_LANES; lane++) starts[lane] = (lane < left ? lane : left - 1) * shift;
        prepare(f, samples + (size_t)at * shift, starts, y);
        transform(y, points, f->turns);
        powers(y, points, f->turns, power);
        for (int band = 0; band < f->bands; band++) {
            Floats sum = {0};
            const float *weights = f->weights + f->starts[band];
            for (int i = 0; i < f->starts[band + 1] - f->starts[band]; i++) sum += weights[i] * power[f->first[band] + i];
            sum *= 0.25f;
            const Floats floor = (Floats){0} + f->floor, logarithms = logarithm(choose(sum > floor, sum, floor));
            for (int lane = 0; lane < left; lane++) frames[(size_t)(at + lane) * f->bands + band] = logarithms[lane];
        }
    }
}
