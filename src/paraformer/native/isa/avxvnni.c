/* AVX-VNNI: vpdpbusd on registers of 8 words, of processors without AVX-512. */
#include "../features.h"
#include "avx2.h"

#define NEEDS {HAS_AVX2 | HAS_AVX_VNNI, HAS_AVX2 | HAS_AVX_VNNI, HAS_AVX2 | HAS_AVX_VNNI}
#define FAST {1, 0, 1}

#define MOST_INT8 6
#define TAKE_INT8(_, j) const Vector v##j = load(b + j * LANES);
#define WORDS_INT8(i) WORDS_1(i)
#define DOT_INT8(i, j) s##i##j = _mm256_dpbusd_avx_epi32(s##i##j, v##j, x);

static const int PARTS[FORMATS] = {1, 2, 1};

static inline void widen(int format, const uint32_t *words, int count, uint32_t *to) {
    if (format == BF16) widen_bf16(words, count, to);
}

#include "product.h"

#include "family.h"
