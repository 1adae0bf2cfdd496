/* The structures of a SAN-M model, as Python fills them, and what encoder and decoder share: rows divided among threads,
 * and one linear layer.
 *
 * Callers pass rectangular batches with lengths; here the rows that exist stand one after another, so that padding costs
 * nothing and one utterance never meets another's rows outside its own attention and memory.
 *
 * Several threads may share the work. Where rows are many, each takes an equal share of them through all layers, and waits
 * for the others where attention or memory is about to read theirs. What the others may still be reading is kept in pairs,
 * one for even layers and one for odd ones, so that one barrier in each layer is enough: whoever writes the even one again
 * has passed the barrier of the odd layer between, and so has everybody who read it. Where rows are few, reading weights is
 * what takes time: there each thread takes all rows through its share of every layer's columns, so that weights are read
 * once, and all meet after each layer. No number depends on either. */
#ifndef PARAFORMER_MODEL_H
#define PARAFORMER_MODEL_H

#include "threads.h"
#include "workspace.h"

typedef struct {
    const float *taps; /* (kernel, dim) */
    int32_t kernel, left; /* kernel 0: there is none */
} Memory;

typedef struct {
    Linear layer; /* over `kernel` rows side by side */
    int32_t kernel, stride;
} Conv;

/* Convolutions over frames, with zeros around them and GELU after each: the first (kernel - 1) / 2 rows before the first. */
typedef struct {
    const Conv *convs;
    int32_t count, frames, bands; /* of convolutions, 0 where there is no front; of a window, those that they see */
} Front;

typedef struct {
    Norm norm1, norm2;
    Linear qkv, out, up, down;
    Memory memory;
    int32_t residual;
} EncoderBlock;

/* Blocks of one width, and the norm after the last. */
typedef struct {
    const EncoderBlock *blocks;
    Norm norm;
    int32_t layers, dim, input, heads, hidden, activation; /* input: numbers of a row that the first block is given */
} Stack;

typedef struct {
    Front front;
    Stack rows, windows;
    Norm merge_norm;
    Linear merge; /* of the rows of a window side by side; k 0: a window is a row, and `windows` are not there */
    Linear conv;  /* of the predictor, over a window and its neighbours side by side; k 0: there is `filter` */
    Memory filter; /* of the predictor's first version, each number by itself, and what it adds */
    const float *filter_bias, *fire;
    float fire_bias;
    int32_t attention, input, rows_per_window, conv_left, conv_right; /* attention: its format */
} Encoder;

/* Attention of normed rows to rows of another kind; q.n 0: there is none. */
typedef struct {
    Norm norm;
    Linear q, kv, out;
} Cross;

typedef struct {
    Norm norm1, norm2, ffn_norm;
    Linear up, down;
    Memory memory;
    Cross cross;
} DecoderBlock;

/* After the first `heard` layers only the probabilities of units go on, where there are any.
 * hint: attention to hotwords in layer `hinted`, beside that to sound; `both` makes one of the two side by side. */
typedef struct {
    const DecoderBlock *blocks;
    DecoderBlock last; /* norm1, up, ffn_norm and down alone; up.n 0: rows come out as the last layer leaves them */
    Norm norm, units_norm;
    Cross hint;
    Linear both, output, units, back;
    int32_t attention, layers, heard, hinted, dim, heads, hidden;
} Decoder;

/* One direction of an LSTM's layer. input makes the gates of all rows at once, with all that is added to them; to those of a
 * row, hidden adds what it makes of the row before. */
typedef struct {
    Linear input, hidden;
} Lstm;

/* Rows from..to-1 of many. */
typedef struct {
    int from, to;
} Rows;

Rows share_of(int rows, int part, int parts);
/* Those of utterance b, where starts tells the first row of each and the end of the last. */
Rows within(Rows rows, const int *starts, int b);
/* The starts of utterances of so many rows, or NULL. */
int *starts_of(Arena *arena, const int64_t *lengths, int batch);
/* The same with so many rows for each, or NULL. */
int *starts_times(Arena *arena, const int *starts, int batch, int times);

/* What one thread computes a layer in, and which it is. columns: whether those of layers are divided, not the rows; then all
 * threads make rows ready in one place, each its share of them. */
typedef struct {
    const Kernels *kernels;
    Team *team;
    int part, columns;
    Acts acts;
    const Acts *shared; /* the first thread's */
    float *normed;
    Attention attention;
} Workspace;

/* The most that a thread needs for any layer: rows, or slices of them, words of all of them, numbers of one; and where it
 * attends, rows, keys and numbers of a head. */
typedef struct {
    size_t words;
    int rows, numbers, queries, keys, width;
} Most;

/* With a layer of which a thread computes so many rows. */
Most most_of(Most most, const Linear *layer, int rows);
/* With attention. */
Most most_attended(Most most, int rows, int keys, int width);
/* The most rows that a thread takes through layers, of so many. */
int most_rows(const Team *team, int columns, int rows);
/* One for each thread, or NULL. format: of attention. */
Workspace *workspaces_alloc(Arena *arena, const Kernels *kernels, Team *team, int columns, Most most, int format);

/* This thread's share of so many rows, of what has no weights. */
Rows own_rows(const Workspace *space, int rows);
/* Those that it takes through layers: its share, or where columns are divided all. */
Rows layer_rows(const Workspace *space, int rows);
/* Where columns are divided, wait until all parts have theirs. */
void meet(const Workspace *space);
/* Whether a unit of work that touches all rows is this thread's, where columns are divided; else each has its own rows. */
int takes(const Workspace *space, int unit);
/* target = layer(norm(x)) of `rows` rows, this thread's columns of it; norm may be NULL. Where columns are divided all threads
 * call it, and meet between this layer and the next. */
void linear(const Workspace *space, const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm,
            Target target);
/* The same of rows that were made ready. */
void product(const Workspace *space, const Acts *acts, const Linear *layer, Target target);

static inline int larger(int a, int b) { return a > b ? a : b; }

#endif
