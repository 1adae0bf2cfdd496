/* What may run on any x86-64 processor: built without the instructions that the rest needs. */
#include <cpuid.h>
#include <math.h>

enum { HAS_AVX512 = 1, HAS_VNNI = 2, HAS_BF16 = 4 };

/* Whether the operating system saves the registers of SSE, AVX and AVX-512. */
static int saved(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 0xe6) == 0xe6;
}

/* Asked of the processor itself, because not every compiler's __builtin_cpu_supports knows all of these. */
int pf_processor(void) {
    unsigned a, b, c, d, found = 0;
    if (!saved() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if ((b & f_dq_bw_vl) == f_dq_bw_vl) found |= HAS_AVX512;
    if (c >> 11 & 1) found |= HAS_VNNI;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1)) found |= HAS_BF16;
    return (int)found;
}

float pf_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
