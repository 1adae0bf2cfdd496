/* A layer of an LSTM, in one direction or both (Hochreiter and Schmidhuber, 1997), with gates in torch's order: input, forget,
 * cell, output. */
#include <string.h>

#include "model.h"
#include "numbers.h"

/* One layer at work; of each direction the gates of all rows, and of a step's rows: gates, what came out before, cells. */
typedef struct {
    const Lstm *ways;
    int count, batch, size;
    const int *starts; /* of each sequence's rows, and the end of the last */
    const float *x;
    float *y, *gates[2], *now[2], *before[2], *cells[2];
    Workspace *spaces;
} Recurring;

/* 1 / (1 + e^-x). */
static inline float gate(float x) {
    const float at = -x * LOG2_E, most = 126.0f; /* larger powers have no place in a float, and the gate is shut */
    return 1.0f / (1.0f + exponential(at < most ? at : most));
}

static inline float tangent(float x) { return 2 * gate(2 * x) - 1; } /* hyperbolic */

/* One row: its gates (4, dim) and the cells before it to cells and what comes out. */
static void advance(const float *gates, int dim, float *restrict cells, float *restrict y) {
    for (int i = 0; i < dim; i++) {
        const float kept = gate(gates[dim + i]) * cells[i];
        cells[i] = kept + gate(gates[i]) * tangent(gates[2 * dim + i]);
        y[i] = gate(gates[3 * dim + i]) * tangent(cells[i]);
    }
}

/* What comes out for a sequence's row that is `step`-th in a direction; before the first, NULL. */
static float *output_of(const Recurring *w, int way, int b, int step) {
    const int length = w->starts[b + 1] - w->starts[b], row = way ? length - 1 - step : step;
    if (step < 0) return NULL;
    return w->y + (((size_t)b * w->size + row) * w->count + way) * w->ways->hidden.k;
}

/* The step-th rows of all sequences that have so many. */
static void take_step(const Recurring *w, const Workspace *space, int way, int step) {
    const size_t dim = w->ways->hidden.k;
    float *now = w->now[way], *before = w->before[way];
    int active = 0;
    for (int b = 0; b < w->batch; b++) {
        const int length = w->starts[b + 1] - w->starts[b], row = w->starts[b] + (way ? length - 1 - step : step);
        if (step >= length) continue;
        memcpy(now + active * 4 * dim, w->gates[way] + row * 4 * dim, 4 * dim * 4);
        if (step) memcpy(before + active * dim, output_of(w, way, b, step - 1), dim * 4);
        active++;
    }
    const Target added = {.out = now, .out_stride = 4 * dim, .add = now, .add_stride = 4 * dim};
    if (step) linear(space, &w->ways[way].hidden, before, dim, active, NULL, added);
    for (int b = 0; b < w->batch; b++) {
        if (step >= w->starts[b + 1] - w->starts[b]) continue;
        advance(now, (int)dim, w->cells[way] + b * dim, output_of(w, way, b, step));
        now += 4 * dim;
    }
}

/* One thread's part: every so many-th direction. */
static void recur(void *recurring, int part) {
    const Recurring *w = recurring;
    const Workspace *space = w->spaces + part;
    for (int way = part; way < w->count; way += space->team->parts) {
        const Linear *input = &w->ways[way].input;
        int longest = 0;
        for (int b = 0; b < w->batch; b++) {
            const int rows = w->starts[b + 1] - w->starts[b];
            const Target to_gates = {.out = w->gates[way] + (size_t)w->starts[b] * input->n, .out_stride = input->n};
            linear(space, input, w->x + (size_t)b * w->size * input->k, input->k, rows, NULL, to_gates);
            longest = larger(longest, rows);
        }
        memset(w->cells[way], 0, (size_t)w->batch * w->ways->hidden.k * 4);
        for (int step = 0; step < longest; step++) take_step(w, space, way, step);
    }
}

static int recurring_alloc(Recurring *w, Arena *arena, const Kernels *kernels, Team *team, const int64_t *lengths) {
    const size_t dim = w->ways->hidden.k;
    w->starts = starts_of(arena, lengths, w->batch);
    if (!w->starts) return 0;
    for (int way = 0; way < w->count; way++) {
        w->gates[way] = arena_alloc(arena, (size_t)w->starts[w->batch] * 4 * dim * 4);
        w->now[way] = arena_alloc(arena, (size_t)w->batch * 4 * dim * 4);
        w->before[way] = arena_alloc(arena, (size_t)w->batch * dim * 4);
        w->cells[way] = arena_alloc(arena, (size_t)w->batch * dim * 4);
    }
    const Most most = most_of(most_of((Most){0}, &w->ways->input, w->size), &w->ways->hidden, w->batch);
    w->spaces = workspaces_alloc(arena, kernels, team, 0, most, F32);
    return !arena->failed;
}

/* x (batch, size, k) of which lengths (batch) are rows -> y (batch, size, count * dim), zeroed by the caller: the direction from
 * the front, and where count is 2, that from each sequence's end. Threads and the result as in pf_encode. */
PF_EXPORT int pf_lstm(const Kernels *kernels, const Lstm *ways, int parts, int32_t *lent_to, int count, int batch, int size,
                      const float *x, const int64_t *lengths, float *y) {
    Team team;
    Arena arena = {0};
    Recurring w = {.ways = ways, .count = count, .batch = batch, .size = size, .x = x, .y = y};
    team_start(&team, parts < count ? parts : count, lent_to);
    const int ready = recurring_alloc(&w, &arena, kernels, &team, lengths);
    team_finish(&team, ready ? recur : NULL, &w);
    arena_free(&arena);
    return !ready;
}
