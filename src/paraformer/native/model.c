#include "model.h"

#include "beam.h"
#include "candidates.h"

/* What Python must agree with before it calls anything: the ABI's number, then each structure's size; 0 past the end. */
PF_EXPORT int64_t pf_layout(int which) {
    const size_t layout[] = {PF_ABI,         sizeof(Linear), sizeof(Acts),    sizeof(Target),       sizeof(Norm),
                             sizeof(Attended), sizeof(Filter), sizeof(Fbank),   sizeof(Kernels),      sizeof(EncoderBlock),
                             sizeof(Conv),   sizeof(Stack),   sizeof(Encoder), sizeof(DecoderBlock), sizeof(Decoder),
                             sizeof(Lstm),   sizeof(Ngrams),  sizeof(Beam),    sizeof(Lexicon),      sizeof(Scored)};
    return which < (int)(sizeof(layout) / sizeof(*layout)) ? (int64_t)layout[which] : 0;
}

/* A family of processors' kernels by number, the fastest first; NULL past the end. */
extern const Kernels kernels_plain;
#if defined(__x86_64__) || defined(__i386__)
extern const Kernels kernels_avx2, kernels_avxvnni, kernels_avx512, kernels_amx;
#define FAMILIES &kernels_amx, &kernels_avx512, &kernels_avxvnni, &kernels_avx2, &kernels_plain
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
#define FAMILIES &kernels_neon, &kernels_plain
#else
#define FAMILIES &kernels_plain
#endif

PF_EXPORT const Kernels *pf_kernels(int which) {
    static const Kernels *const families[] = {FAMILIES};
    return which < (int)(sizeof(families) / sizeof(*families)) ? families[which] : NULL;
}

PF_EXPORT int pf_fbank(const Kernels *kernels, const Fbank *fbank, const float *samples, int count, int shift,
                       float *frames) {
    Arena arena = {0};
    void *space = arena_alloc(&arena, fbank_space(fbank));
    if (space) kernels->fbank(fbank, samples, count, shift, frames, space);
    arena_free(&arena);
    return arena.failed;
}

Rows share_of(int rows, int part, int parts) {
    return (Rows){(int)((int64_t)rows * part / parts), (int)((int64_t)rows * (part + 1) / parts)};
}

Rows within(Rows rows, const int *starts, int b) {
    return (Rows){rows.from > starts[b] ? rows.from : starts[b], rows.to < starts[b + 1] ? rows.to : starts[b + 1]};
}

int *starts_of(Arena *arena, const int64_t *lengths, int batch) {
    int *starts = arena_alloc(arena, ((size_t)batch + 1) * sizeof(int));
    if (!starts) return NULL;
    starts[0] = 0;
    for (int b = 0; b < batch; b++) starts[b + 1] = starts[b] + (int)lengths[b];
    return starts;
}

int *starts_times(Arena *arena, const int *starts, int batch, int times) {
    int *more = arena_alloc(arena, ((size_t)batch + 1) * sizeof(int));
    for (int b = 0; more && b <= batch; b++) more[b] = starts[b] * times;
    return more;
}

Most most_of(Most most, const Linear *layer, int rows) {
    const size_t words = (size_t)rows * words_for(layer->format, layer->k);
    most.words = words > most.words ? words : most.words;
    most.rows = larger(most.rows, rows * slices_for(layer->slice, layer->k));
    most.numbers = larger(most.numbers, layer->k);
    return most;
}

Most most_attended(Most most, int rows, int keys, int width) {
    most.queries = larger(most.queries, rows);
    most.keys = larger(most.keys, keys), most.width = larger(most.width, width);
    return most;
}

int most_rows(const Team *team, int columns, int rows) {
    return columns ? rows : (rows + team->parts - 1) / team->parts;
}

Workspace *workspaces_alloc(Arena *arena, const Kernels *kernels, Team *team, int columns, Most most, int format) {
    Workspace *spaces = arena_alloc(arena, (size_t)team->parts * sizeof(Workspace));
    const int per_row = most.rows ? (int)((most.words + most.rows - 1) / most.rows) : 0;
    for (int part = 0; spaces && part < team->parts; part++)
        spaces[part] = (Workspace){.kernels = kernels,
                                   .team = team,
                                   .part = part,
                                   .columns = columns,
                                   .acts = acts_alloc(arena, F32, most.rows, per_row),
                                   .shared = &spaces->acts,
                                   .normed = arena_alloc(arena, (size_t)most.numbers * 4),
                                   .attention = attention_alloc(arena, format, most.width, most.queries, most.keys)};
    return spaces;
}

Rows own_rows(const Workspace *space, int rows) { return share_of(rows, space->part, space->team->parts); }

Rows layer_rows(const Workspace *space, int rows) {
    return space->columns ? (Rows){0, rows} : own_rows(space, rows);
}

void meet(const Workspace *space) {
    if (space->columns) team_barrier(space->team);
}

int takes(const Workspace *space, int unit) {
    return !space->columns || unit % space->team->parts == space->part;
}

/* Columns from..to-1 of a layer, as a layer. */
static Linear columns_of(const Linear *layer, int from, int to) {
    Linear some = *layer;
    some.n = to - from;
    some.words += (size_t)from * words_for(layer->format, layer->k);
    if (layer->scale) some.scale += from;
    if (layer->sum) some.sum += from;
    if (layer->bias) some.bias += from;
    return some;
}

void product(const Workspace *space, const Acts *acts, const Linear *layer, Target target) {
    if (!space->columns) {
        space->kernels->multiply(acts, layer, &target);
        return;
    }
    const Rows panels = own_rows(space, panels_for(layer->n));
    const int from = panels.from * PANEL, to = panels.to * PANEL < layer->n ? panels.to * PANEL : layer->n;
    if (from >= to) return;
    const Linear some = columns_of(layer, from, to);
    target.out += from;
    if (target.add) target.add += from;
    if (target.add2) target.add2 += from;
    space->kernels->multiply(acts, &some, &target);
}

void linear(const Workspace *space, const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm,
            Target target) {
    const Kernels *kernels = space->kernels;
    Acts acts = acts_as(space->columns ? space->shared : &space->acts, layer->format, rows, layer->k, layer->slice);
    const Rows own = space->columns ? own_rows(space, rows) : (Rows){0, rows};
    const int asymmetric = layer->sum != NULL;
    for (int row = own.from; row < own.to; row++) { /* one at a time, which then is still in the nearest cache */
        Acts one = acts_part(&acts, row, row + 1);
        const float *from = x + row * stride;
        if (norm) kernels->layer_norm(norm, from, 0, 1, space->normed, 0);
        kernels->acts_fill(&one, norm ? space->normed : from, 0, layer->k, asymmetric);
    }
    meet(space);
    product(space, &acts, layer, target);
}

/* One layer by itself, at work. */
typedef struct {
    const Linear *layer;
    const float *x;
    float *y;
    int rows, activation;
    Workspace *spaces;
} Single;

static void compute(void *single, int part) {
    const Single *w = single;
    const Rows rows = own_rows(w->spaces + part, w->rows);
    const int k = w->layer->k, n = w->layer->n;
    const Target to_y = {.out = w->y + (size_t)rows.from * n, .out_stride = n, .activation = w->activation};
    linear(w->spaces + part, w->layer, w->x + (size_t)rows.from * k, k, rows.to - rows.from, NULL, to_y);
}

/* y (rows, n) = layer(x (rows, k)). Threads and the result as in pf_encode. */
PF_EXPORT int pf_linear(const Kernels *kernels, const Linear *layer, int parts, int32_t *lent_to, int rows, const float *x,
                        int activation, float *y) {
    Team team;
    Arena arena = {0};
    Single w = {.layer = layer, .x = x, .y = y, .rows = rows, .activation = activation};
    team_start(&team, parts, lent_to);
    const Most most = most_of((Most){0}, layer, most_rows(&team, 0, rows));
    w.spaces = workspaces_alloc(&arena, kernels, &team, 0, most, F32);
    team_finish(&team, arena.failed ? NULL : compute, &w);
    arena_free(&arena);
    return arena.failed;
}
