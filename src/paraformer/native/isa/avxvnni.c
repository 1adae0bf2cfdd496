/* AVX-VNNI: vpdpbusd on registers of 8 words, of processors without AVX-512. */
#include "../features.h"
#include "avx2.h"

#define NEEDS {HAS_AVX2 | HAS_AVX_VNNI, HAS_AVX2 | HAS_AVX_VNNI, HAS_AVX2 | HAS_AVX_VNNI}
#define FAST {1, 0, 1}

#define MOST_INT8 6
#define DOT_INT8(i, j) s##i##j = _mm256_dpbusd_avx_epi32(s##i##j, v##j, x);

#include "product.h"

#include "family.h"
