/* What the parts of the encoder share: windows of 60 ms go in and come out, and between there may be several rows to one. */
#ifndef PARAFORMER_ENCODER_H
#define PARAFORMER_ENCODER_H

#include "model.h"

/* Blocks of one width at work; the past is NULL where nothing is looked back at. */
typedef struct {
    const Stack *stack;
    const int *starts;   /* of each utterance's rows, and the end of the last */
    int size, past_size; /* rows of an utterance in the caller's arrays */
    const float *past_keys, *past_values; /* (batch, layers, past_size, dim), right-aligned */
    const int64_t *past_lengths;
    float *keys, *values;
    float *input, *x, *qkv[2], *context, *memory, *inner;
} Run;

/* What goes into a convolution: rows of zeros stand before, between and after the utterances. */
typedef struct {
    float *x;
    const int *starts; /* of each utterance's rows, and the end of the last, zeros not counted */
    int per_window, width, zeros;
} Level;

/* What is encoded, and where it goes. */
typedef struct {
    const Kernels *kernels;
    const Encoder *encoder;
    Team *team;
    int columns, batch, size; /* columns: whether threads divide those */
    const int *starts;   /* of each utterance's windows, and the end of the last */
    const int64_t *first; /* the position of each utterance's first window: below 1 there is nothing yet */
    const float *feats, *places; /* (batch, size, input), and with a front what is added to rows (batch, size, rows, dim) */
    float *hidden, *weights, *side, *predicted;
    Run rows, windows;
    const Run *last; /* of the two */
    Level *levels;   /* one for each convolution, and the rows that the last makes */
    Workspace *spaces;
} Encoding;

/* Take the memory of all levels. */
void front_alloc(Encoding *w, Arena *arena);
/* What a thread needs for the front too. */
Most front_most(const Encoding *w, Most most);
/* Copy frames to the first level, and write the zeros of all. */
void front_fill(const Encoding *w);
/* One thread's part: frames to the rows of the first block. */
void front_rows(const Encoding *w, const Workspace *space);

#endif
