/* NEON with dot products (Armv8.2 and later). sdot takes signed bytes, so weights lose the 128 that they are stored with,
 * and sums, which begin with what would undo it, are given it back: the same integers as everywhere. */
#include <arm_neon.h>

#include "../features.h"
#include "../kernels.h"

#define NEEDS {HAS_DOTPROD, HAS_DOTPROD, HAS_DOTPROD}
#define FAST {0, 0, 0} /* not measured: qemu, where they gave the same integers as plain ones, tells no time */

#define LANES 4
#define EACH_REGISTER(DO, i) DO(i, 0) DO(i, 1) DO(i, 2) DO(i, 3)
typedef uint32x4_t Vector;

static inline Vector load(const uint32_t *from) { return vld1q_u32(from); }
static inline void save(uint32_t *to, Vector x) { vst1q_u32(to, x); }
static inline Vector broadcast(const uint32_t *word) { return vld1q_dup_u32(word); }
static inline Vector fused(Vector x, Vector y, Vector sum) {
    const float32x4_t to = vreinterpretq_f32_u32(sum);
    return vreinterpretq_u32_f32(vfmaq_f32(to, vreinterpretq_f32_u32(x), vreinterpretq_f32_u32(y)));
}
static inline Vector dot(Vector x, Vector y, Vector sum) {
    const int32x4_t to = vreinterpretq_s32_u32(sum);
    return vreinterpretq_u32_s32(vdotq_s32(to, vreinterpretq_s8_u32(x), vreinterpretq_s8_u32(y)));
}

#define MOST_F32 6
#define TAKE_F32(_, j) const Vector v##j = load(b + j * LANES);
#define WORDS_F32(i) WORDS_1(i)
#define DOT_F32(i, j) s##i##j = fused(x, v##j, s##i##j);

/* A bfloat16 is the upper half of a float: each word becomes two floats. */
#define UPPER 0xffff0000u
#define MOST_BF16 4
#define TAKE_BF16(_, j)                                                                          \
    const Vector both##j = load(b + j * LANES), v##j = vshlq_n_u32(both##j, 16),                 \
                 u##j = vandq_u32(both##j, vdupq_n_u32(UPPER));
#define WORDS_BF16(i) WORDS_2(i)
#define DOT_BF16(i, j) s##i##j = fused(y, u##j, fused(x, v##j, s##i##j));

#define MOST_INT8 6
#define TAKE_INT8(_, j) const Vector v##j = veorq_u32(load(b + j * LANES), vdupq_n_u32(0x80808080));
#define WORDS_INT8(i) WORDS_1(i)
#define DOT_INT8(i, j) s##i##j = dot(x, v##j, s##i##j);

static const int PARTS[FORMATS] = {1, 2, 1};

static inline void widen(int format, const uint32_t *words, int count, uint32_t *to) {
    for (int k = 0; format == BF16 && k < count; k++) to[2 * k] = words[k] << 16, to[2 * k + 1] = words[k] & UPPER;
}

/* What the products of a row lack where weights are without their 128. */
static inline int32_t lacking(const uint32_t *words, int count) {
    int32_t sum = 0;
    for (int k = 0; k < 4 * count; k++) sum += ((const int8_t *)words)[k];
    return 128 * sum;
}
#define LACKING 1

#include "product.h"

#include "family.h"
