/* The few best items of each token by the decoder and a lexicon: candidates.py and lexicon.py say what they are, and compute
 * the same within rounding where there is no compiled code. */
#include "candidates.h"

#include <math.h>

#include "numbers.h"

enum { SIDE_BY_SIDE = 16 }; /* numbers that are gathered at once: one alone would wait for itself */

static float largest_of(const float *x, int64_t count) {
    float top[SIDE_BY_SIDE];
    for (int j = 0; j < SIDE_BY_SIDE; j++) top[j] = -INFINITY;
    int64_t i = 0;
    for (; i + SIDE_BY_SIDE <= count; i += SIDE_BY_SIDE)
        for (int j = 0; j < SIDE_BY_SIDE; j++) top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
    for (; i < count; i++) top[0] = x[i] > top[0] ? x[i] : top[0];
    for (int j = 1; j < SIDE_BY_SIDE; j++) top[0] = top[j] > top[0] ? top[j] : top[0];
    return top[0];
}

static float sum_of(const float *x, int64_t count) {
    float sums[SIDE_BY_SIDE] = {0};
    int64_t i = 0;
    for (; i + SIDE_BY_SIDE <= count; i += SIDE_BY_SIDE)
        for (int j = 0; j < SIDE_BY_SIDE; j++) sums[j] += x[i + j];
    for (; i < count; i++) sums[0] += x[i];
    for (int j = 1; j < SIDE_BY_SIDE; j++) sums[0] += sums[j];
    return sums[0];
}

/* The natural logarithm of a normal number: that of its power of two and, within half an octave of 1, a series. */
static inline float logarithm(float x) {
    const uint32_t bits = bits_of(x), half = bits_of(0.70710678f); /* sqrt(1/2), where the series begins */
    const int octave = (int32_t)(bits - half) >> 23;
    const float m = float_of(bits - ((uint32_t)octave << 23)), f = (m - 1.0f) / (m + 1.0f), s = f * f;
    const float rest = s * (0.33333333f + s * (0.2f + s * (0.14285714f + s * 0.11111111f)));
    return 0.69314718f * (float)octave + (2.0f * f + 2.0f * f * rest);
}

/* What probabilities are made with: the largest score, the sum of e^(score - largest), and its logarithm. */
typedef struct {
    float largest, sum, log_sum;
} Norms;

/* Those of x, and e^(score - largest) of each. */
static Norms powers(const float *x, int64_t count, float *y) {
    const float largest = largest_of(x, count);
    for (int64_t i = 0; i < count; i++) y[i] = exponential((x[i] - largest) * LOG2_E);
    const float sum = sum_of(y, count);
    return (Norms){largest, sum, logarithm(sum)};
}

static inline float log_prob(Norms norms, float x) { return x - norms.largest - norms.log_sum; }

/* Let items count by their units too. heard: of each unit how probable it is, times `sum`; spoken: space for a number of
 * each item that has readings. */
static void add_units(const Lexicon *lexicon, const float *heard, float sum, float *spoken, float *log_probs) {
    const float rate = 1.0f / sum, own = 1.0f - lexicon->by_units;
    for (int64_t i = 0; i < lexicon->count; i++) {
        float share = 0;
        for (int32_t r = lexicon->begins[i]; r < lexicon->begins[i + 1]; r++) share += heard[lexicon->unit[r]] * lexicon->share[r];
        spoken[i] = share;
    }
    for (int64_t i = 0; i < lexicon->count; i++) spoken[i] = logarithm(spoken[i] * rate + lexicon->least);
    for (int64_t i = 0; i < lexicon->count; i++) {
        float *log_prob = log_probs + lexicon->items[i];
        *log_prob = own * *log_prob + lexicon->by_units * spoken[i];
    }
}

/* The largest of x, largest first, of equal ones the first, and where they are. */
static void best_of(const float *x, int64_t size, int64_t most, int64_t *places, float *best) {
    int64_t kept = 0;
    for (int64_t i = 0; i < size; i++) {
        if (kept == most && !(x[i] > best[kept - 1])) continue;
        int64_t at = kept < most ? kept++ : kept - 1;
        for (; at > 0 && x[i] > best[at - 1]; at--) best[at] = best[at - 1], places[at] = places[at - 1];
        best[at] = x[i], places[at] = i;
    }
}

/* ids, log_probs (tokens, candidates), best first; past the last item they stay as they are. Returns whether memory was
 * short. */
PF_EXPORT int pf_candidates(const Scored *scored, int64_t *ids, float *log_probs) {
    const Lexicon *lexicon = scored->lexicon;
    const int64_t size = scored->size, heard = lexicon ? scored->heard : 0, most = scored->candidates;
    Arena arena = {0};
    float *space = arena_alloc(&arena, (size_t)(size > heard ? size : heard) * sizeof *space);
    float *own = arena_alloc(&arena, (size_t)size * sizeof *own);
    float *spoken = arena_alloc(&arena, (size_t)(lexicon ? lexicon->count : 0) * sizeof *spoken);
    for (int64_t token = 0; !arena.failed && token < scored->tokens; token++, ids += most, log_probs += most) {
        const float *x = scored->scores + token * size;
        Norms norms = powers(x, size, space);
        if (lexicon) {
            for (int64_t i = 0; i < size; i++) own[i] = log_prob(norms, x[i]);
            add_units(lexicon, space, powers(scored->units + token * heard, heard, space).sum, spoken, own);
            norms = powers(own, size, space);
            x = own;
        }
        best_of(x, size, most, ids, log_probs);
        for (int64_t c = 0; c < most && c < size; c++) log_probs[c] = log_prob(norms, log_probs[c]);
    }
    arena_free(&arena);
    return arena.failed;
}
