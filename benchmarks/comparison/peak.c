/* What a core can do at most, in registers alone: the clock, and products of bytes as each family of processors has them. */
#include <immintrin.h>

/* `count` additions, each of which waits for the one before: a cycle each. Returns their number, a whole multiple of 8. Of a
 * register, since some processors add constants without computing. */
long adds(long count) {
    long x = 0, one = 1;
    for (long i = 0; i < count / 8; i++) {
        __asm__ volatile("add %1, %0\n add %1, %0\n add %1, %0\n add %1, %0\n" : "+r"(x) : "r"(one));
        __asm__ volatile("add %1, %0\n add %1, %0\n add %1, %0\n add %1, %0\n" : "+r"(x) : "r"(one));
    }
    return x;
}

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define KEEP(i) __asm__ volatile("" : "+v"(s##i));
#define ZERO_512(i) __m512i s##i = _mm512_setzero_si512();
#define ZERO_256(i) __m256i s##i = _mm256_setzero_si256();
#define DOT_AVX512(i) __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(s##i) : "v"(x), "v"(y));
#define DOT_AVXVNNI(i) __asm__ volatile("%{vex%} vpdpbusd %1, %2, %0" : "+x"(s##i) : "x"(x), "x"(y));
#define DOT_AVX2(i)                                                                                   \
    __asm__ volatile("vpmaddubsw %2, %3, %1\n vpmaddwd %2, %1, %1\n vpaddd %1, %0, %0"               \
                     : "+x"(s##i), "=&x"(t) : "x"(x), "x"(y));

/* Rounds of 12 independent sums, or of 4 tiles of them; the products of a round: */
enum { AMX = 4 * 16 * 16 * 64, AVX512 = 12 * 64, AVXVNNI = 12 * 32, AVX2 = 12 * 32 };

__attribute__((target("avx512f,avx512vnni"))) static void products_avx512(long rounds) {
    __m512i x = _mm512_set1_epi32(1), y = x;
    EACH(ZERO_512) for (long i = 0; i < rounds; i++) { EACH(DOT_AVX512) }
    EACH(KEEP)
}

__attribute__((target("avx2"))) static void products_avxvnni(long rounds) {
    __m256i x = _mm256_set1_epi32(1), y = x;
    EACH(ZERO_256) for (long i = 0; i < rounds; i++) { EACH(DOT_AVXVNNI) }
    EACH(KEEP)
}

/* Bytes multiplied and added in pairs of 16 bits, and those in pairs of 32. */
__attribute__((target("avx2"))) static void products_avx2(long rounds) {
    __m256i x = _mm256_set1_epi32(1), y = x, t;
    EACH(ZERO_256) for (long i = 0; i < rounds; i++) { EACH(DOT_AVX2) }
    EACH(KEEP)
}

/* Four tiles of sums and two of each kind of factors, as the engine has them; zeros, which take as long. */
static void products_amx(long rounds) {
    struct {
        unsigned char palette, other[15];
        unsigned short bytes[16];
        unsigned char rows[16];
    } shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
    for (long i = 0; i < rounds; i++) {
        __asm__ volatile("tdpbsud %tmm6, %tmm4, %tmm0\n tdpbsud %tmm7, %tmm4, %tmm1\n"
                         "tdpbsud %tmm6, %tmm5, %tmm2\n tdpbsud %tmm7, %tmm5, %tmm3");
    }
    __asm__ volatile("tilerelease");
}

/* Operations, two for a product and its sum, of so many rounds of a family's; the widest first. */
long products(int family, long rounds) {
    if (family == 0) products_amx(rounds);
    if (family == 1) products_avx512(rounds);
    if (family == 2) products_avxvnni(rounds);
    if (family == 3) products_avx2(rounds);
    return 2 * rounds * (family == 0 ? AMX : family == 1 ? AVX512 : family == 2 ? AVXVNNI : AVX2);
}
