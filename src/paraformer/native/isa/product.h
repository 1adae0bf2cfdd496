/* Sums of products of a few rows and one panel, held in registers: the text of families whose registers hold LANES words.
 *
 * Before it is included a family's file names its operations: Vector, LANES; load, save and broadcast of words;
 * EACH_REGISTER(DO, i), which is DO(i, j) for each register j of 16 columns; and for each FORMAT
 *   MOST_FORMAT: rows whose sums the registers hold;
 *   TAKE_FORMAT(_, j): weights of register j, from b + j * LANES;
 *   WORDS_FORMAT(i): of row i, WORDS_1 or, where each is widened to two, WORDS_2;
 *   DOT_FORMAT(i, j): to s<i><j> the products of those weights with x, and with y where there are two;
 * LACKING, where there is one: that products of bytes want lacking(words, count) added, for each row;
 * PARTS, how many words a word of a row in each format becomes, and widen(format, ...), which makes two of one. */
#include "each.h"

enum { STRIP = 16, WORDS_AT_ONCE = 512 };

/* Every sum has a name, since compilers keep arrays in memory. */
#define NAME(i, j) Vector s##i##j = load(sums + i * PANEL + j * LANES);
#define SAVE(i, j) save(sums + i * PANEL + j * LANES, s##i##j);
#define NAME_ROW(i) EACH_REGISTER(NAME, i)
#define SAVE_ROW(i) EACH_REGISTER(SAVE, i)
#define WORDS_1(i) const Vector x = broadcast(a + i * stride + w);
#define WORDS_2(i) const Vector x = broadcast(a + i * stride + 2 * w), y = broadcast(a + i * stride + 2 * w + 1);
#define ADD_F32(i) {WORDS_F32(i) EACH_REGISTER(DOT_F32, i)}
#define ADD_BF16(i) {WORDS_BF16(i) EACH_REGISTER(DOT_BF16, i)}
#define ADD_INT8(i) {WORDS_INT8(i) EACH_REGISTER(DOT_INT8, i)}

/* What is fetched ahead comes while these products are computed: few rows alone would wait for memory. */
#define DEFINE_SUMS(FORMAT, ROWS)                                                                        \
    static void sums_##FORMAT##_##ROWS(const uint32_t *a, size_t stride, const uint32_t *b, int words,   \
                                       const uint32_t *ahead, uint32_t *sums) {                          \
        EACH_##ROWS(NAME_ROW) for (int w = 0; w < words; w++, b += PANEL, ahead += PANEL) {              \
            EACH_REGISTER(TAKE_##FORMAT, 0)                                                              \
            __builtin_prefetch(ahead, 0, 2);                                                             \
            EACH_##ROWS(ADD_##FORMAT)                                                                    \
        }                                                                                                \
        EACH_##ROWS(SAVE_ROW)                                                                            \
    }
#define DEFINE_4(FORMAT) DEFINE_SUMS(FORMAT, 1) DEFINE_SUMS(FORMAT, 2) DEFINE_SUMS(FORMAT, 3) DEFINE_SUMS(FORMAT, 4)
#define DEFINE_5(FORMAT) DEFINE_4(FORMAT) DEFINE_SUMS(FORMAT, 5)
#define DEFINE_6(FORMAT) DEFINE_5(FORMAT) DEFINE_SUMS(FORMAT, 6)
#define LIST_4(FORMAT) sums_##FORMAT##_1, sums_##FORMAT##_2, sums_##FORMAT##_3, sums_##FORMAT##_4
#define LIST_5(FORMAT) LIST_4(FORMAT), sums_##FORMAT##_5
#define LIST_6(FORMAT) LIST_5(FORMAT), sums_##FORMAT##_6
#define APPLY_(macro, most, FORMAT) macro##most(FORMAT)
#define APPLY(macro, most, FORMAT) APPLY_(macro, most, FORMAT)

APPLY(DEFINE_, MOST_F32, F32)
APPLY(DEFINE_, MOST_BF16, BF16)
APPLY(DEFINE_, MOST_INT8, INT8)

enum { BLOCK_ROWS = 6 };
static const int MOST_ROWS[FORMATS] = {MOST_F32, MOST_BF16, MOST_INT8};

typedef void (*AddProducts)(const uint32_t *, size_t, const uint32_t *, int, const uint32_t *, uint32_t *);
static const AddProducts PRODUCTS[FORMATS][BLOCK_ROWS] = {
    {APPLY(LIST_, MOST_F32, F32)}, {APPLY(LIST_, MOST_BF16, BF16)}, {APPLY(LIST_, MOST_INT8, INT8)}};

static void add_products(int format, int rows, const uint32_t *x, size_t stride, int words, const uint32_t *w,
                         int columns, const uint32_t *ahead, uint32_t *sums) {
    uint32_t wide[BLOCK_ROWS * WORDS_AT_ONCE * 2];
    for (int from = 0; from < words; from += WORDS_AT_ONCE) {
        const int some = words - from < WORDS_AT_ONCE ? words - from : WORDS_AT_ONCE;
        const uint32_t *a = x + from;
        size_t apart = stride;
        if (PARTS[format] == 2) {
            apart = 2 * (size_t)some;
            for (int i = 0; i < rows; i++) widen(format, a + i * stride, some, wide + i * apart);
            a = wide;
        }
#ifdef LACKING
        for (int i = 0; format == INT8 && i < rows; i++) {
            const uint32_t less = (uint32_t)lacking(x + from + i * stride, some);
            for (int j = 0; j < PANEL; j++) sums[i * PANEL + j] += less;
        }
#endif
        const size_t at = (size_t)from * PANEL;
        for (int strip = 0; strip < columns; strip += STRIP)
            PRODUCTS[format][rows - 1](a, apart, w + at + strip, some, ahead + at + strip, sums + strip);
    }
}
