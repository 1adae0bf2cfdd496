/* What candidates are chosen from, as Python fills it. */
#ifndef PARAFORMER_CANDIDATES_H
#define PARAFORMER_CANDIDATES_H

#include "workspace.h"

/* Readings in the order of their items: those of items[i] are begins[i] to begins[i + 1] - 1, each a unit and the share of
 * the unit's occurrences that are the item. */
typedef struct {
    const uint16_t *items, *unit;
    const int32_t *begins;
    const float *share;
    int64_t count; /* of items that have readings */
    float by_units, least; /* how far they count; the probability of an item none of whose units was heard */
} Lexicon;

/* Scores (tokens, size) of items and, where there is a lexicon, (tokens, heard) of units. */
typedef struct {
    const Lexicon *lexicon; /* or NULL */
    const float *scores, *units;
    int64_t tokens, size, heard, candidates; /* candidates: of each token */
} Scored;

#endif
