/* AMX: AVX-512 and tiles, of 16 rows of 16 words, whose products take one instruction. The words of a tile are those of
 * rows or of a panel as they lie, so that nothing is laid out anew. */
#include "avx512.h"

enum { TILE = 16, BLOCK = 2 * TILE };

/* Rows from which tiles are faster. Of INT8 alone, whose sums are the same either way: those of BF16 differ in rounding, and
 * a row must not depend on how many others come with it. */
enum { ENOUGH = 8 };

/* Tiles are loaded and stored behind the compiler's back: what it has yet to write must be written by now. */
#define WRITTEN __asm__ volatile("" ::: "memory")

/* Sums of up to 32 rows and a panel; and of both the last words along k, where they do not fill a tile, with zeros behind. */
typedef struct {
    uint32_t sums[BLOCK][PANEL];
    uint32_t rows[BLOCK][TILE], columns[TILE][PANEL];
} Tiles;

/* Tiles 0 to 3 are sums, of two halves of up to 32 rows by twice 16 columns; 4 and 5 the halves, 6 and 7 the columns. */
static void set_shapes(int rows) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1}; /* as ldtilecfg has it */
    const int upper = rows < TILE ? rows : TILE, lower = rows - upper;
    const int each[8] = {upper, upper, lower, lower, upper, lower, TILE, TILE};
    for (int i = 0; i < 8; i++)
        if (each[i]) shapes.rows[i] = (uint8_t)each[i], shapes.bytes[i] = TILE * 4;
    WRITTEN;
    _tile_loadconfig(&shapes);
}

/* Adds the products of rows with 32 columns, of one tile along k. */
#define ADD_TILE(PRODUCT, a, stride, b, two)           \
    _tile_loadd(6, b, PANEL * 4);                      \
    _tile_loadd(7, b + TILE, PANEL * 4);               \
    _tile_loadd(4, a, stride * 4);                     \
    if (two) {                                         \
        _tile_loadd(5, a + TILE * stride, stride * 4); \
    }                                                  \
    PRODUCT(0, 4, 6);                                  \
    PRODUCT(1, 4, 7);                                  \
    if (two) {                                         \
        PRODUCT(2, 5, 6);                              \
        PRODUCT(3, 5, 7);                              \
    }

/* Sums of rows and 32 columns, those from `half` on of the panel, over `words` along k that begin at a and b. two: whether
 * there are rows in the lower half. Meanwhile `lines` cache lines for each tile are fetched from `ahead`. */
#define DEFINE_SUMS_OF_TILES(FORMAT, PRODUCT)                                                                    \
    static void tile_sums_##FORMAT(const uint32_t *a, size_t stride, const uint32_t *b, int words, int two,     \
                                   const Tiles *tiles, int half, const char *ahead, int lines) {                \
        const size_t past = TILE;                                                                                \
        _tile_zero(0);                                                                                          \
        _tile_zero(1);                                                                                          \
        if (two) {                                                                                              \
            _tile_zero(2);                                                                                      \
            _tile_zero(3);                                                                                      \
        }                                                                                                       \
        for (; words >= TILE; words -= TILE, a += TILE, b += TILE * PANEL) {                                    \
            for (int line = 0; line < lines; line++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);             \
            ADD_TILE(PRODUCT, a, stride, b, two)                                                                 \
        }                                                                                                       \
        if (words) {                                                                                            \
            const uint32_t *rows = tiles->rows[0], *columns = tiles->columns[0] + half;                         \
            ADD_TILE(PRODUCT, rows, past, columns, two)                                                          \
        }                                                                                                       \
    }
DEFINE_SUMS_OF_TILES(INT8, _tile_dpbsud)
DEFINE_SUMS_OF_TILES(BF16, _tile_dpbf16ps)

/* The same of `rows` rows and a whole panel. */
static void block_sums(int format, const uint32_t *a, size_t stride, const uint32_t *b, int rows, int words, Tiles *tiles,
                       const char *ahead, int lines) {
    const int left = words % TILE, two = rows > TILE;
    for (int i = 0; left && i < rows; i++)
        _mm512_storeu_si512(tiles->rows[i], _mm512_maskz_loadu_epi32(first(left), a + i * stride + words - left));
    for (int w = 0; left && w < TILE; w++) {
        const __mmask16 there = w < left ? 0xffff : 0;
        const uint32_t *word = b + (size_t)(words - left + w) * PANEL;
        EACH(4, j) _mm512_storeu_si512(tiles->columns[w] + j * LANES, _mm512_maskz_loadu_epi32(there, word + j * LANES));
    }
    WRITTEN;
    for (int half = 0; half < PANEL; half += 2 * TILE, ahead += (size_t)words / TILE * lines * 64) {
        (format == INT8 ? tile_sums_INT8 : tile_sums_BF16)(a, stride, b + half, words, two, tiles, half, ahead, lines);
        _tile_stored(0, tiles->sums[0] + half, PANEL * 4);
        _tile_stored(1, tiles->sums[0] + half + TILE, PANEL * 4);
        if (two) {
            _tile_stored(2, tiles->sums[TILE] + half, PANEL * 4);
            _tile_stored(3, tiles->sums[TILE] + half + TILE, PANEL * 4);
        }
    }
    WRITTEN;
}

/* One slice, `words` along k from `from` on, of the rows and the panel of a place; b: where the panel's part of it begins. */
static void multiply_slice_by_tiles(const Place *block, int rows, int s, int from, int words, const uint32_t *b,
                                    Tiles *tiles) {
    Slice slice;
    set_slice(&slice, block, s);
    const Acts *acts = &slice.acts;
    const int row = block->row;
    const size_t stride = (size_t)acts->words_per_row;
    const char *ahead = (const char *)(b + stride * PANEL); /* the same slice of the next panel, all in the first block */
    block_sums(acts->format, acts->words + row * stride + from, stride, b, rows, words, tiles, ahead, row ? 0 : PANEL / 2);
    for (int i = 0; i < rows; i++) {
        const __m512i begin = _mm512_set1_epi32(acts->begin[row + i]);
        __m512i sum[4];
        EACH(4, j) sum[j] = _mm512_add_epi32(_mm512_loadu_si512(tiles->sums[i] + j * LANES), begin);
        store(&slice.place, i, sum[0], sum[1], sum[2], sum[3]);
    }
}

static void multiply_by_tiles(const Acts *acts, const Linear *linear, const Target *target) {
    Tiles tiles;
    const Target sums = {.out = target->out, .out_stride = target->out_stride};
    const int words = acts->words_per_row, each = linear->slice ? words_for(linear->format, linear->slice) : words;
    for (int panel = 0; panel < panels_for(linear->n); panel++) {
        const uint32_t *b = linear->words + (size_t)panel * words * PANEL;
        Place place = first_place(acts, linear, target, &sums, panel);
        for (int rows; place.row < acts->rows; place.row += rows) {
            rows = acts->rows - place.row < BLOCK ? acts->rows - place.row : BLOCK;
            if (rows < BLOCK || !place.row) set_shapes(rows);
            for (int from = 0; from < words; from += each)
                multiply_slice_by_tiles(&place, rows, from / each, from, words - from < each ? words - from : each,
                                        b + (size_t)from * PANEL, &tiles);
            if (target->activation == GELU) gelu(&place, target, rows);
        }
    }
    _tile_release();
}

static void multiply(const Acts *acts, const Linear *linear, const Target *target) {
    if (acts->format == F32 || (acts->format == INT8 && acts->rows < ENOUGH))
        multiply_by_registers(acts, linear, target);
    else
        multiply_by_tiles(acts, linear, target);
}

#define NEEDS {HAS_AVX512 | HAS_AMX_INT8, HAS_AVX512 | HAS_BF16 | HAS_AMX_BF16, HAS_AVX512 | HAS_VNNI | HAS_AMX_INT8}
#define FAST {1, 1, 1}
#include "table.h"
