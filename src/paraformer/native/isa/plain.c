/* Sums of products in C alone, one row and one word after the other: what those of every other family are tested against,
 * and what runs where there is no other. */
#include "../numbers.h"

#define NEEDS {0, 0, 0}
#define FAST {0, 0, 0}

enum { BLOCK_ROWS = 1 };
static const int MOST_ROWS[FORMATS] = {1, 1, 1};

static void add_f32(const uint32_t *x, const uint32_t *w, int words, float *sums) {
    for (int k = 0; k < words; k++, w += PANEL)
        for (int j = 0; j < PANEL; j++) sums[j] += float_of(x[k]) * float_of(w[j]);
}

static void add_bf16(const uint32_t *x, const uint32_t *w, int words, float *sums) {
    for (int k = 0; k < words; k++, w += PANEL)
        for (int j = 0; j < PANEL; j++) {
            sums[j] += float_of(w[j] << 16) * float_of(x[k] << 16);
            sums[j] += float_of(w[j] & 0xffff0000) * float_of(x[k] & 0xffff0000);
        }
}

static void add_int8(const uint32_t *words, const uint32_t *w, int count, int32_t *sums) {
    for (int k = 0; k < count; k++, w += PANEL) {
        const int8_t *x = (const int8_t *)(words + k);
        const int x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        for (int j = 0; j < PANEL; j++) {
            const uint32_t b = w[j];
            sums[j] += (int)(b & 255) * x0 + (int)(b >> 8 & 255) * x1 + (int)(b >> 16 & 255) * x2 + (int)(b >> 24) * x3;
        }
    }
}

/* Add the products of `rows` rows and one panel to sums (rows, PANEL), of `columns` columns at least. ahead: weights of the
 * same size to fetch. */
static void add_products(int format, int rows, const uint32_t *x, size_t stride, int words, const uint32_t *w,
                         int columns, const uint32_t *ahead, uint32_t *sums) {
    (void)columns, (void)ahead;
    for (int i = 0; i < rows; i++, x += stride, sums += PANEL) {
        if (format == F32) add_f32(x, w, words, (float *)sums);
        if (format == BF16) add_bf16(x, w, words, (float *)sums);
        if (format == INT8) add_int8(x, w, words, (int32_t *)sums);
    }
}

#include "family.h"
