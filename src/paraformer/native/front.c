/* The front: convolutions over frames, as Whisper begins. What a convolution reads for one row stands at one place in memory
 * anyhow, so it is a linear layer over rows that overlap. */
#include <string.h>

#include "encoder.h"

/* A row of an utterance; before the first and after the last are zeros. */
static float *level_row(const Level *level, int b, int row) {
    return level->x + ((ptrdiff_t)level->starts[b] + (ptrdiff_t)(b + 1) * level->zeros + row) * level->width;
}

/* Windows of an utterance that stand before the audio, whose rows are zero whatever convolutions would make of them. */
static int silent(const Encoding *w, int b) {
    const int windows = w->starts[b + 1] - w->starts[b];
    return w->first[b] > 0 ? 0 : 1 - w->first[b] < windows ? (int)(1 - w->first[b]) : windows;
}

void front_alloc(Encoding *w, Arena *arena) {
    const Front *front = &w->encoder->front;
    int per_window = front->frames, width = front->bands;
    Level *levels = w->levels = arena_alloc(arena, (size_t)(front->count + 1) * sizeof(Level));
    for (int i = 0; levels && i < front->count; i++) {
        const Conv *conv = front->convs + i;
        levels[i] = (Level){.starts = starts_times(arena, w->starts, w->batch, per_window), .per_window = per_window,
                            .width = width, .zeros = conv->kernel - 1};
        if (!levels[i].starts) return;
        const size_t rows = (size_t)levels[i].starts[w->batch] + (size_t)(w->batch + 1) * levels[i].zeros;
        levels[i].x = arena_alloc(arena, rows * width * 4);
        per_window /= conv->stride, width = conv->layer.n;
    }
    if (levels) levels[front->count] = (Level){.x = w->rows.x, .starts = w->rows.starts, .per_window = per_window, .width = width};
}

Most front_most(const Encoding *w, Most most) {
    for (int i = 0; i < w->encoder->front.count; i++) {
        const int rows = most_rows(w->team, 0, w->levels[i + 1].starts[w->batch]);
        most = most_of(most, &w->encoder->front.convs[i].layer, rows);
    }
    return most;
}

void front_fill(const Encoding *w) {
    const Front *front = &w->encoder->front;
    const size_t bytes = (size_t)front->frames * front->bands * 4;
    for (int b = 0; b < w->batch; b++)
        for (int t = 0; t < w->starts[b + 1] - w->starts[b]; t++) {
            float *frames = level_row(w->levels, b, t * front->frames);
            if (t < silent(w, b))
                memset(frames, 0, bytes);
            else
                memcpy(frames, w->feats + ((size_t)b * w->size + t) * w->encoder->input, bytes);
        }
    for (const Level *level = w->levels; level < w->levels + front->count; level++)
        for (int b = 0; b <= w->batch; b++)
            memset(level_row(level, b, -level->zeros), 0, (size_t)level->zeros * level->width * 4);
}

/* One thread's part of what a convolution makes; to the last one's, places are added. */
static void convolve(const Encoding *w, int i, const Workspace *space) {
    const Conv *conv = w->encoder->front.convs + i;
    const Level *from = w->levels + i, *to = from + 1;
    const Rows share = own_rows(space, to->starts[w->batch]);
    for (int b = 0; b < w->batch; b++) {
        const Rows its = within(share, to->starts, b);
        const int start = to->starts[b], begin = start + silent(w, b) * to->per_window;
        const Rows empty = {its.from, its.to < begin ? its.to : begin}, full = {larger(its.from, begin), its.to};
        if (empty.from < empty.to)
            memset(level_row(to, b, empty.from - start), 0, (size_t)(empty.to - empty.from) * to->width * 4);
        if (full.from >= full.to) continue;
        const int row = full.from - start;
        Target target = {.out = level_row(to, b, row), .out_stride = to->width, .activation = GELU};
        if (i + 1 == w->encoder->front.count) {
            target.add = w->places + ((size_t)b * w->size * to->per_window + row) * to->width;
            target.add_stride = to->width;
        }
        linear(space, &conv->layer, level_row(from, b, row * conv->stride - (conv->kernel - 1) / 2),
               (size_t)conv->stride * from->width, full.to - full.from, NULL, target);
    }
}

void front_rows(const Encoding *w, const Workspace *space) {
    Workspace by_rows = *space; /* its weights are few, and what it reads of a row overlaps */
    by_rows.columns = 0;
    for (int i = 0; i < w->encoder->front.count; i++) {
        if (i) team_barrier(w->team);
        convolve(w, i, &by_rows);
    }
    if (w->encoder->front.count) meet(space); /* else the last one's rows are those that the same thread goes on with */
}
