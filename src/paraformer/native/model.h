/* The structures of a SAN-M model, as Python fills them, and what encoder and decoder share: rows divided among threads,
 * and one linear layer.
 *
 * Callers pass rectangular batches with lengths; here the rows that exist stand one after another, so that padding costs
 * nothing and one utterance never meets another's rows outside its own attention and memory.
 *
 * Several threads may share the work: each takes an equal share of the rows through all layers, and waits for the others
 * where attention or memory is about to read theirs. What the others may still be reading is kept in pairs, one for even
 * layers and one for odd ones, so that one barrier in each layer is enough: whoever writes the even one again has passed
 * the barrier of the odd layer between, and so has everybody who read it. */
#ifndef PARAFORMER_MODEL_H
#define PARAFORMER_MODEL_H

#include "threads.h"
#include "workspace.h"

typedef struct {
    const float *gain, *shift;
    int32_t k;
} Norm;

typedef struct {
    const float *taps; /* (kernel, dim) */
    int32_t kernel, left;
} Memory;

typedef struct {
    Norm norm1, norm2;
    Linear qkv, out, up, down;
    Memory memory;
    int32_t residual;
} EncoderBlock;

typedef struct {
    const EncoderBlock *blocks;
    Norm norm;
    Linear conv; /* of the predictor, over three rows side by side */
    const float *fire;
    float fire_bias;
    int32_t attention, layers, dim, input, heads, hidden, conv_left, conv_right; /* attention: its format */
} Encoder;

typedef struct {
    Norm norm1, norm2, norm3, ffn_norm;
    Linear up, down, q, kv, out;
    Memory memory;
    int32_t cross;
} DecoderBlock;

typedef struct {
    const DecoderBlock *blocks;
    DecoderBlock last; /* norm1, up, ffn_norm and down alone */
    Norm norm;
    Linear output;
    int32_t attention, layers, dim, heads, hidden;
} Decoder;

/* Rows from..to-1 of many. */
typedef struct {
    int from, to;
} Rows;

Rows share_of(int rows, int part, int parts);
/* Those of utterance b, where starts tells the first row of each and the end of the last. */
Rows within(Rows rows, const int *starts, int b);
/* The starts of utterances of so many rows, or NULL. */
int *starts_of(Arena *arena, const int64_t *lengths, int batch);

/* What one thread computes a layer in. */
typedef struct {
    const Kernels *kernels;
    Acts acts;
    float *normed;
    Attention attention;
} Workspace;

/* The most that layers read of a row: words, and numbers. */
typedef struct {
    int words, numbers;
} Widest;

Widest wider(Widest widest, const Linear *layer);
/* One for each of `parts` threads that share `rows` rows and attend to up to `keys`, or NULL. */
Workspace *workspaces_alloc(Arena *arena, const Kernels *kernels, int parts, int rows, Widest widest, int format,
                            int width, int keys);

/* target = layer(norm(x)) of `rows` rows; norm may be NULL. */
void linear(const Workspace *space, const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm,
            Target target);

static inline int larger(int a, int b) { return a > b ? a : b; }

#endif
