/* Numbers one at a time, in C that compilers turn into instructions for several. */
#ifndef PARAFORMER_NUMBERS_H
#define PARAFORMER_NUMBERS_H

#include <string.h>

#include "kernels.h"

#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

/* The nearest whole number, of two the even one; for |x| < 2^22, where floats so large have no fraction. */
static inline int nearest(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    return (int)(x + magic - magic);
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* 2^x to 3e-7 relative: 2^n times a polynomial of what is left. */
static inline float exponential(float x) {
    /* Not below -127, of which the last line makes 0; of negative numbers the larger bits, since a choice by the numbers
     * themselves is made a branch. */
    const uint32_t bits = bits_of(x), lowest = bits_of(-127.0f);
    const float at = float_of(bits < lowest ? bits : lowest);
    const int n = nearest(at);
    const float r = at - (float)n;
#define FIRST(term) float y = term;
#define NEXT(term) y = MULTIPLY_ADD(y, r, term);
    POWER_TERMS(FIRST, NEXT)
#undef FIRST
#undef NEXT
    return y * float_of((uint32_t)(n + 127) << 23);
}

#endif
