/* What a beam is computed from, as Python fills it. */
#ifndef PARAFORMER_BEAM_H
#define PARAFORMER_BEAM_H

#include "workspace.h"

/* The tables of a language model. Pairs stand in the order of their first item and then of their second; triples in that
 * of the place of their first two among the pairs and then of their third. Values are logarithms, some in 16 bits. */
typedef struct {
    const float *unigram, *unigram_backoff;
    const int64_t *pairs, *triples; /* where those of each item, and of each pair, begin; one more is the end */
    const uint16_t *pair_word, *pair, *pair_backoff, *triple_word, *triple;
} Ngrams;

/* One search over (tokens, candidates). */
typedef struct {
    const Ngrams *model;
    const int64_t *ids;
    const float *log_probs;
    const uint8_t *silent; /* whether an item stands for no text */
    int64_t tokens, candidates, width; /* width: histories that are kept from token to token */
    int64_t older, newer; /* the last two items before the first token */
    float weight; /* of the language model */
} Beam;

#endif
