/* The best text by the decoder and a language model of three together: language.py says what it is, and computes the same
 * numbers where there is no compiled code. */
#include "beam.h"

#include "numbers.h"

/* A number of 16 bits; no instruction for it is in the plainest set. */
static float half(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 0) {
        const float small = (float)fraction * 0x1p-24f;
        return sign ? -small : small;
    }
    return float_of(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13); /* 112: of 127 and 15 */
}

/* The place of a word among from..to-1, which stand in order, or -1. Halves are chosen without a branch, which nobody could
 * foretell. */
static int64_t find(const uint16_t *words, int64_t from, int64_t to, int64_t word) {
    if (from == to) return -1;
    for (int64_t count = to - from; count > 1; count -= count / 2) from += words[from + count / 2] <= word ? count / 2 : 0;
    return words[from] == word ? from : -1;
}

typedef struct {
    int64_t older, newer;
} History;

/* log p(word | newer), which is all that is known where the history was never seen. */
static float after_one(const Ngrams *model, int64_t newer, int64_t word) {
    const int64_t pair = find(model->pair_word, model->pairs[newer], model->pairs[newer + 1], word);
    return pair < 0 ? model->unigram_backoff[newer] + model->unigram[word] : half(model->pair[pair]);
}

/* log p(word | older, newer); context: the place of the pair, or -1; lower: log p(word | newer). */
static float after_two(const Ngrams *model, int64_t context, float lower, int64_t word) {
    if (context < 0) return lower;
    const int64_t triple = find(model->triple_word, model->triples[context], model->triples[context + 1], word);
    return triple < 0 ? half(model->pair_backoff[context]) + lower : half(model->triple[triple]);
}

/* The totals of all ways from `count` histories over the candidates of one token. lower: space for a number of each. */
static void score(const Beam *beam, const History *past, const double *totals, int count, int64_t token, float *lower,
                  double *scores) {
    const int64_t *ids = beam->ids + token * beam->candidates;
    const float *log_probs = beam->log_probs + token * beam->candidates;
    const uint8_t *silent = beam->silent + token * beam->candidates;
    const Ngrams *model = beam->model;
    for (int h = 0; h < count; h++) {
        const int64_t older = past[h].older, newer = past[h].newer;
        int first = 0; /* of the histories that end as this one */
        while (past[first].newer != newer) first++;
        float *after = lower + first * beam->candidates;
        for (int64_t c = 0; first == h && c < beam->candidates; c++) after[c] = after_one(model, newer, ids[c]);
        const int64_t context = find(model->pair_word, model->pairs[older], model->pairs[older + 1], newer);
        for (int64_t c = 0; c < beam->candidates; c++) {
            const float said = silent[c] ? 0.0f : after_two(model, context, after[c], ids[c]);
            const float gain = log_probs[c] + beam->weight * said;
            *scores++ = totals[h] + (double)gain;
        }
    }
}

/* Whether a way is to be taken before another: it scores more, or as much and comes first. */
static int before(const double *scores, int32_t way, int32_t other) {
    return scores[way] > scores[other] || (scores[way] == scores[other] && way < other);
}

/* Put a way into a heap of `size` at place `at` or below it, where all that is below is in order. */
static void sink(const double *scores, int32_t *heap, int size, int at, int32_t way) {
    for (int below; (below = 2 * at + 1) < size; at = below) {
        if (below + 1 < size && before(scores, heap[below + 1], heap[below])) below++;
        if (before(scores, way, heap[below])) break;
        heap[at] = heap[below];
    }
    heap[at] = way;
}

/* The best way to each history that there may be after a token, at most `width` of them, best first; of equal ways the
 * first. heap: space for all ways. Returns how many there are. */
static int keep(const Beam *beam, const History *past, int count, int64_t token, const double *scores, int32_t *heap,
                int32_t *ways, History *kept, double *totals) {
    const int64_t *ids = beam->ids + token * beam->candidates;
    const uint8_t *silent = beam->silent + token * beam->candidates;
    int left = count * (int)beam->candidates, found = 0;
    /* A heap, since of all ways only some dozens are taken, and to order them all would cost more. */
    for (int way = left; way-- > 0;) heap[way] = way;
    for (int at = left / 2; at-- > 0;) sink(scores, heap, left, at, heap[at]);
    for (; left > 0 && found < beam->width; sink(scores, heap, left, 0, heap[left])) {
        const int32_t way = heap[0];
        left--;
        const int back = way / (int)beam->candidates, place = way % (int)beam->candidates;
        const History next = silent[place] ? past[back] : (History){past[back].newer, ids[place]};
        int known = 0;
        for (int k = 0; k < found; k++) known |= kept[k].older == next.older && kept[k].newer == next.newer;
        if (known) continue;
        kept[found] = next;
        totals[found] = scores[way];
        ways[found++] = way;
    }
    return found;
}

/* places (tokens): of each token the candidate on the best way. Returns whether memory was short. */
PF_EXPORT int pf_beam(const Beam *beam, int64_t *places) {
    const size_t width = (size_t)beam->width, tokens = (size_t)beam->tokens;
    Arena arena = {0};
    int32_t *ways = arena_alloc(&arena, tokens * width * sizeof *ways);
    double *scores = arena_alloc(&arena, width * (size_t)beam->candidates * sizeof *scores);
    int32_t *heap = arena_alloc(&arena, width * (size_t)beam->candidates * sizeof *heap);
    float *lower = arena_alloc(&arena, width * (size_t)beam->candidates * sizeof *lower);
    double *totals = arena_alloc(&arena, width * sizeof *totals);
    History *past = arena_alloc(&arena, width * sizeof *past), *next = arena_alloc(&arena, width * sizeof *next);
    if (!arena.failed) {
        int count = 1, at = 0;
        past[0] = (History){beam->older, beam->newer};
        totals[0] = 0;
        for (size_t token = 0; token < tokens; token++) {
            score(beam, past, totals, count, (int64_t)token, lower, scores);
            count = keep(beam, past, count, (int64_t)token, scores, heap, ways + token * width, next, totals);
            History *other = past;
            past = next;
            next = other;
        }
        /* The best way ends first in the last token's list; each tells which one it came from. */
        for (size_t token = tokens; token-- > 0;) {
            const int way = ways[token * width + (size_t)at];
            at = way / (int)beam->candidates;
            places[token] = way % beam->candidates;
        }
    }
    arena_free(&arena);
    return arena.failed;
}
