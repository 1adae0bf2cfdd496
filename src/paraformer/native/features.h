#ifndef PARAFORMER_FEATURES_H
#define PARAFORMER_FEATURES_H

/* Bits of what a processor may have, beyond the least of its kind. AVX2 stands for FMA too; DOTPROD is of Armv8.2. */
enum {
    HAS_AVX512 = 1,
    HAS_VNNI = 2,
    HAS_BF16 = 4,
    HAS_AVX2 = 8,
    HAS_AVX_VNNI = 16,
    HAS_DOTPROD = 32,
    HAS_AMX_INT8 = 64,
    HAS_AMX_BF16 = 128
};

/* A sum of these for the processor that asks. */
int pf_features(void);

/* 1 / (1 + e^-x), the same to the last bit on every processor: it decides when a token fires. */
float sigmoid(float x);

#endif
