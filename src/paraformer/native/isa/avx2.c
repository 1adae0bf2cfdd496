/* AVX2 and FMA. vpmaddubsw multiplies bytes and adds pairs of products in 16 bits, where they saturate if two neighbours
 * of a row add up to more than 128, since weights reach 255. Rows are therefore moved by a number of their own, so that most
 * of theirs lie close to 0, and what is left over is multiplied once more, word by word. No integer differs from others'. */
#include "../features.h"
#include "avx2.h"

#define NEEDS {HAS_AVX2, HAS_AVX2, HAS_AVX2}
#define FAST {1, 0, 1}

#define MOST_INT8 5
#define DOT_INT8(i, j) s##i##j = dot(v##j, x, s##i##j);

/* Right where pairs of x's numbers are close to zero. */
static inline Vector dot(Vector w, Vector x, Vector sum) {
    const Vector pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "product.h"

#define OWN_INT8
static void multiply_int8(const Acts *acts, const Linear *linear, const Target *target);

#include "family.h"

/* -- rows that are close to zero ------------------------------------------------------------------------------------ */

enum {
    PAIR = 128,             /* times 255 that is less than 2^15 */
    PART = PAIR / 2,
    UNCUT = 126,            /* a moved byte of more may have been cut off */
    MOST_CLOSE = 60,        /* rows at a time, */
    CLOSE_WORDS = 1 << 14,  /* all their words */
    LEFT_WORDS = 1 << 12,   /* and what is left over of them */
    DEPTH = LEFT_WORDS / 4, /* words of a row at a time: of each at most three are left over */
    AT_ONCE = 64,
    MOST_SUMMED = 1 << 15   /* weights of which a sum can be told by `nearest` */
};

/* Rows as they are multiplied, and the words that are left over of each: at[] says which word it belongs to. */
typedef struct {
    uint32_t words[CLOSE_WORDS], left[LEFT_WORDS];
    uint16_t at[LEFT_WORDS];
    int first[MOST_CLOSE + 1]; /* of what is left over of a row */
    int moved[MOST_CLOSE], rows, per_row;
} Close;

/* The highest bit of each of eight words. */
static inline uint64_t bits_of8(Vector x) { return (unsigned)_mm256_movemask_ps((__m256)x); }

/* Bytes that may have been cut off where they were moved. */
static inline Vector cut_off(Vector x) {
    const Vector most = _mm256_set1_epi8(UNCUT), least = _mm256_set1_epi8(-UNCUT);
    return _mm256_or_si256(_mm256_cmpgt_epi8(x, most), _mm256_cmpgt_epi8(least, x));
}

/* Words of which any bit is set, with all bits. */
static inline Vector any(Vector x) {
    const Vector zero = _mm256_setzero_si256();
    return _mm256_cmpeq_epi32(_mm256_cmpeq_epi32(x, zero), zero);
}

/* Those of eight words that are not close to zero, with all bits. */
static inline Vector far_words(Vector x) {
    const Vector pairs = _mm256_abs_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x));
    return any(_mm256_or_si256(_mm256_cmpgt_epi16(pairs, _mm256_set1_epi16(PAIR)), cut_off(x)));
}

/* How many words of a row are not close to a number. */
static int far_from(const uint32_t *row, int words, int moved) {
    const Vector by = _mm256_set1_epi8((char)moved);
    int count = 0;
    for (int k = 0; k + LANES <= words; k += LANES)
        count += __builtin_popcountll(bits_of8(far_words(_mm256_subs_epi8(load(row + k), by))));
    return count;
}

/* Whether there was room for what is left over of a word. */
static inline int leave(Close *to, int word, uint32_t left) {
    const int at = to->first[to->rows + 1];
    if (at == LEFT_WORDS) return 0;
    to->left[at] = left, to->at[at] = (uint16_t)word, to->first[to->rows + 1]++;
    return 1;
}

/* A word of any four numbers as one of at most PART, and what is left over as further ones. */
static int take_apart(Close *to, int word, __m128i x) {
    for (int first = 1, room = 1;; first = 0) {
        const __m128i part = _mm_max_epi16(_mm_min_epi16(x, _mm_set1_epi16(PART)), _mm_set1_epi16(-PART));
        const uint32_t bytes = (uint32_t)_mm_cvtsi128_si32(_mm_packs_epi16(part, part));
        if (first) to->words[to->rows * to->per_row + word] = bytes;
        else room = leave(to, word, bytes);
        x = _mm_sub_epi16(x, part);
        if (!room || _mm_testz_si128(x, x)) return room;
    }
}

/* The word of a row, moved; past its last number there are zeros. */
static inline __m128i moved_word(const uint32_t *row, int word, int numbers, int moved) {
    const __m128i count = _mm_set1_epi16((int16_t)least(numbers - 4 * word, 4)), x = _mm_cvtsi32_si128((int)row[word]);
    const __m128i there = _mm_cmpgt_epi16(count, _mm_set_epi16(7, 6, 5, 4, 3, 2, 1, 0));
    return _mm_and_si128(_mm_sub_epi16(_mm_cvtepi8_epi16(x), _mm_set1_epi16((int16_t)moved)), there);
}

static void begin_close(Close *rows, int words) { rows->first[0] = rows->rows = 0, rows->per_row = words; }

/* What most of a row's numbers are close to. sum: of them. */
static int centre(const uint32_t *row, int words, int numbers, int sum) {
    /* A byte, as every mean is but one of numbers with NaN: what is moved by more might not have room, taken apart. */
    const int mean = (int8_t)(sum / numbers);
    /* Behind an activation most numbers are the least one, -127, and the mean is too high. */
    return far_from(row, words, -PART) < far_from(row, words, mean) ? -PART : mean;
}

/* Take in one more row of `numbers` numbers. Returns whether there was room. */
static int bring_close(Close *to, const uint32_t *row, int numbers, int moved) {
    const int words = to->per_row, all = numbers / (4 * LANES) * LANES;
    if (to->rows == MOST_CLOSE || (to->rows + 1) * words > CLOSE_WORDS) return 0;
    const Vector by = _mm256_set1_epi8((char)moved), most = _mm256_set1_epi8(PART), least = _mm256_set1_epi8(-PART);
    uint32_t *out = to->words + to->rows * words, left[AT_ONCE];
    to->first[to->rows + 1] = to->first[to->rows];
    for (int from = 0; from < all; from += AT_ONCE) {
        uint64_t far = 0, cut = 0; /* of so many words, since the end of a loop over those of eight is guessed wrongly */
        for (int k = 0; k < AT_ONCE && from + k < all; k += LANES) {
            const Vector x = _mm256_subs_epi8(load(row + from + k), by), away = far_words(x);
            const Vector part = _mm256_max_epi8(_mm256_min_epi8(x, most), least);
            save(out + from + k, _mm256_blendv_epi8(x, part, away));
            save(left + k, _mm256_sub_epi8(x, part));
            far |= bits_of8(away) << k, cut |= bits_of8(any(cut_off(x))) << k;
        }
        for (; far; far &= far - 1) {
            const int k = __builtin_ctzll(far), word = from + k;
            if (!(cut >> k & 1 ? take_apart(to, word, moved_word(row, word, numbers, moved)) : leave(to, word, left[k])))
                return 0;
        }
    }
    for (int k = all; k < words; k++)
        if (!take_apart(to, k, moved_word(row, k, numbers, moved))) return 0;
    to->moved[to->rows++] = moved;
    return 1;
}

/* -- products ------------------------------------------------------------------------------------------------------- */

/* What is left over of a row, with all columns of a panel. */
static void add_left(const Close *rows, int row, const uint32_t *w, uint32_t *sums) {
    const int from = rows->first[row], to = rows->first[row + 1];
    if (from == to) return;
    Vector s[PANEL / LANES];
    for (int j = 0; j < PANEL / LANES; j++) s[j] = load(sums + j * LANES);
    for (int i = from; i < to; i++) {
        const Vector x = broadcast(rows->left + i);
        const uint32_t *b = w + (size_t)rows->at[i] * PANEL;
        for (int j = 0; j < PANEL / LANES; j++) s[j] = dot(load(b + j * LANES), x, s[j]);
    }
    for (int j = 0; j < PANEL / LANES; j++) save(sums + j * LANES, s[j]);
}

static void add_close(const Close *rows, const uint32_t *w, const uint32_t *ahead, int columns, uint32_t *sums) {
    const int blocks = (rows->rows + MOST_INT8 - 1) / MOST_INT8;
    for (int strip = 0; strip < columns; strip += STRIP)
        for (int i = 0, row = 0, block; i < blocks; i++, row += block) {
            block = (rows->rows - row + blocks - i - 1) / (blocks - i);
            PRODUCTS[INT8][block - 1](rows->words + row * rows->per_row, (size_t)rows->per_row, w + strip, rows->per_row,
                                      (i ? w : ahead) + strip, sums + row * PANEL + strip);
        }
}

/* Sums of a column's weights as they are stored, of so many numbers along k. */
static void sum_weights(const Linear *linear, int column, int numbers, uint32_t *whole) {
    for (int j = 0; j < PANEL; j++) {
        const float scale = column + j < linear->n ? linear->scale[column + j] : 0.0f;
        whole[j] = (uint32_t)(scale > 0.0f ? nearest(linear->sum[column + j] / scale) : 0) + 128u * (uint32_t)numbers;
    }
}

/* One slice of the layer, from the word `from` on. */
static void multiply_slice(const Acts *acts, const Linear *linear, const Target *target, int from, int words,
                           int numbers) {
    Close rows;
    uint32_t sums[MOST_CLOSE * PANEL], whole[PANEL] = {0};
    const int deep = words > DEPTH, moves = linear->sum != NULL && numbers < MOST_SUMMED;
    const size_t stride = (size_t)acts->words_per_row;
    for (int row = 0, count; row < acts->rows; row += count) {
        const uint32_t *x = acts->words + row * stride + from;
        begin_close(&rows, words);
        /* A deep row is for itself, since not all of it stays at hand. */
        for (count = 0; row + count < acts->rows && !(deep && count); count++) {
            const uint32_t *own = x + count * stride;
            const int moved = moves ? centre(own, words, numbers, acts->begin[row + count] / -128) : 0;
            if (deep) rows.moved[0] = moved;
            else if (!bring_close(&rows, own, numbers, moved)) break;
        }
        for (int column = 0; column < linear->n; column += PANEL) {
            const uint32_t *w = linear->words + column * stride + (size_t)from * PANEL;
            const uint32_t *next = column + PANEL < linear->n ? w + stride * PANEL : w;
            const int columns = least(PANEL, linear->n - column);
            if (moves) sum_weights(linear, column, numbers, whole);
            for (int i = 0; i < count; i++) {
                const Vector begin = _mm256_set1_epi32(acts->begin[row + i]), moved = _mm256_set1_epi32(rows.moved[i]);
                for (int j = 0; j < PANEL; j += LANES)
                    save(sums + i * PANEL + j, _mm256_add_epi32(begin, _mm256_mullo_epi32(moved, load(whole + j))));
            }
            for (int at = 0; deep && at < words; at += DEPTH) {
                const int moved = rows.moved[0];
                begin_close(&rows, least(DEPTH, words - at));
                bring_close(&rows, x + at, least(4 * DEPTH, numbers - 4 * at), moved);
                add_close(&rows, w + (size_t)at * PANEL, w + (size_t)at * PANEL, columns, sums);
                add_left(&rows, 0, w + (size_t)at * PANEL, sums);
            }
            if (!deep) add_close(&rows, w, next, columns, sums);
            for (int i = 0; i < count; i++) {
                for (int j = 0; j < PANEL && row + i + 2 < acts->rows; j += CACHE_LINE / 4)
                    __builtin_prefetch(target->out + (row + i + 2) * target->out_stride + column + j, 1, 3);
                if (!deep) add_left(&rows, i, w, sums + i * PANEL);
                store(acts, linear, target, row + i, column, sums + i * PANEL);
            }
        }
    }
}

static void multiply_int8(const Acts *acts, const Linear *linear, const Target *target) {
    const int words = acts->words_per_row, each = linear->slice ? words_for(INT8, linear->slice) : words;
    for (int s = 0; s < slices_for(linear->slice, linear->k); s++) {
        const Acts some = acts_slice(acts, s);
        const Linear part = linear_slice(linear, s);
        const Target to = target_slice(target, s);
        const int numbers = linear->slice ? least(linear->slice, linear->k - s * linear->slice) : linear->k;
        multiply_slice(&some, &part, &to, s * each, least(each, words - s * each), numbers);
    }
}
