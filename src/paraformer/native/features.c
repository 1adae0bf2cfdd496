/* What the processor has, and what of the engine's arithmetic must not depend on it: built in the plainest instructions. */
#include "features.h"

#include <math.h>

#include "kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Which registers the operating system saves: 6 is those of AVX, 0xe6 those of AVX-512 as well. */
static unsigned saved(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Whether this process may use tiles: Linux wants to be asked, once for all its threads, and refuses where a thread has a
 * stack for signals that has no room for them. Elsewhere nobody is known to ask. */
static int tiles_granted(unsigned kept) {
#if defined(__linux__) && defined(__x86_64__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, of <asm/prctl.h> since Linux 5.16 */
    return (kept >> 17 & 3) == 3 && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
#else
    return (void)kept, 0;
#endif
}

/* Asked of the processor itself, because not every compiler's __builtin_cpu_supports knows all of these. */
PF_EXPORT int pf_features(void) {
    unsigned a, b, c, d, a1, b1, c1, d1;
    const unsigned kept = saved();
    if ((kept & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    int found = 0;
    const unsigned fma = 1u << 12, avx2 = 1u << 5, f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if (__get_cpuid(1, &a1, &b1, &c1, &d1) && (c1 & fma) && (b & avx2)) found |= HAS_AVX2;
    if (!a || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) a1 = 0; /* a: the last leaf of those of number 7 */
    if (a1 >> 4 & 1) found |= HAS_AVX_VNNI;
    if ((kept & 0xe6) != 0xe6 || (b & f_dq_bw_vl) != f_dq_bw_vl) return found;
    found |= HAS_AVX512;
    if (c >> 11 & 1) found |= HAS_VNNI;
    if (a1 >> 5 & 1) found |= HAS_BF16;
    if ((d >> 24 & 1) && tiles_granted(kept)) found |= (d >> 25 & 1 ? HAS_AMX_INT8 : 0) | (d >> 22 & 1 ? HAS_AMX_BF16 : 0);
    return found;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

enum { ASIMDDP = 1 << 20 }; /* of AT_HWCAP, as <asm/hwcap.h> has it */

PF_EXPORT int pf_features(void) { return getauxval(AT_HWCAP) & ASIMDDP ? HAS_DOTPROD : 0; }
#elif defined(__aarch64__) && defined(__APPLE__)
PF_EXPORT int pf_features(void) { return HAS_DOTPROD; } /* every one of Apple's since 2018, so every Mac */
#else
PF_EXPORT int pf_features(void) { return 0; }
#endif

float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
