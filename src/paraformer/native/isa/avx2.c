/* AVX2 and FMA. Bytes are widened to 16 bits and multiplied in pairs with vpmaddwd, whose sums of two products have 32: the
 * instruction for bytes, vpmaddubsw, has 16 and would saturate. A word of four bytes becomes its even ones and its odd ones. */
#include "../features.h"
#include "avx2.h"

#define NEEDS {HAS_AVX2, HAS_AVX2, HAS_AVX2}
#define FAST {1, 0, 1}

#define MOST_INT8 4
#define TAKE_INT8(_, j)                                                                            \
    const Vector all##j = load(b + j * LANES), u##j = _mm256_srli_epi16(all##j, 8),                \
                 v##j = _mm256_and_si256(all##j, _mm256_set1_epi16(255));
#define WORDS_INT8(i) WORDS_2(i)
#define DOT_INT8(i, j)                                                                             \
    s##i##j = _mm256_add_epi32(s##i##j, _mm256_madd_epi16(v##j, x));                               \
    s##i##j = _mm256_add_epi32(s##i##j, _mm256_madd_epi16(u##j, y));

static inline uint32_t halves(uint32_t word, int first) {
    return (uint32_t)(uint16_t)(int8_t)(word >> first) | (uint32_t)(uint16_t)(int8_t)(word >> (first + 16)) << 16;
}

static inline void widen_int8(const uint32_t *words, int count, uint32_t *to) {
    int k = 0;
    for (; k + LANES <= count; k += LANES) {
        const Vector all = load(words + k), odd = _mm256_srai_epi16(all, 8);
        const Vector even = _mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8);
        const Vector low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd); /* of each half */
        save(to + 2 * k, _mm256_permute2x128_si256(low, high, 0x20));
        save(to + 2 * k + LANES, _mm256_permute2x128_si256(low, high, 0x31));
    }
    for (; k < count; k++) to[2 * k] = halves(words[k], 0), to[2 * k + 1] = halves(words[k], 8);
}

static const int PARTS[FORMATS] = {1, 2, 2};

static inline void widen(int format, const uint32_t *words, int count, uint32_t *to) {
    if (format == BF16) widen_bf16(words, count, to);
    if (format == INT8) widen_int8(words, count, to);
}

#include "product.h"

#include "family.h"
