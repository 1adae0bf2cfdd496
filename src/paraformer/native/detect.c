/* What may run on any x86-64 processor: built without the instructions that the rest needs. */
#include <math.h>

enum { HAS_AVX512 = 1, HAS_VNNI = 2, HAS_BF16 = 4 };

int pf_processor(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int found = 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found |= HAS_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) found |= HAS_VNNI;
    if (__builtin_cpu_supports("avx512bf16")) found |= HAS_BF16;
    return found;
#else
    return 0;
#endif
}

float pf_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
