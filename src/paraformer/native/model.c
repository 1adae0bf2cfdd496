#include "model.h"

/* What Python must agree with before it calls anything: the ABI's number, then the size of each structure; 0 past the end. */
PF_EXPORT int64_t pf_layout(int which) {
    const size_t layout[] = {PF_ABI,          sizeof(Linear),       sizeof(Acts),    sizeof(Target),
                             sizeof(Attended), sizeof(Filter),       sizeof(Fbank),   sizeof(Kernels),
                             sizeof(EncoderBlock), sizeof(Encoder), sizeof(DecoderBlock), sizeof(Decoder)};
    return which < (int)(sizeof(layout) / sizeof(*layout)) ? (int64_t)layout[which] : 0;
}

/* A family of processors' kernels by number, the fastest first; NULL past the end. */
extern const Kernels kernels_plain;
#if defined(__x86_64__) || defined(__i386__)
extern const Kernels kernels_avx2, kernels_avx512;
#define FAMILIES &kernels_avx512, &kernels_avx2, &kernels_plain
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

Widest wider(Widest widest, const Linear *layer) {
    return (Widest){larger(widest.words, words_for(layer->format, layer->k)), larger(widest.numbers, layer->k)};
}

Workspace *workspaces_alloc(Arena *arena, const Kernels *kernels, int parts, int rows, Widest widest, int format,
                            int width, int keys) {
    Workspace *spaces = arena_alloc(arena, (size_t)parts * sizeof(Workspace));
    const int most = (rows + parts - 1) / parts;
    for (int part = 0; spaces && part < parts; part++)
        spaces[part] = (Workspace){.kernels = kernels,
                                   .acts = acts_alloc(arena, F32, most, widest.words),
                                   .normed = arena_alloc(arena, (size_t)widest.numbers * 4),
                                   .attention = attention_alloc(arena, format, width, most, keys)};
    return spaces;
}

void linear(const Workspace *space, const Linear *layer, const float *x, size_t stride, int rows, const Norm *norm,
            Target target) {
    const Kernels *kernels = space->kernels;
    Acts acts = acts_as(&space->acts, layer->format, rows, layer->k);
    const int asymmetric = layer->sum != NULL;
    if (!norm) kernels->acts_fill(&acts, x, stride, layer->k, asymmetric);
    for (int row = 0; norm && row < rows; row++) { /* one row at a time, which then is still in the nearest cache */
        Acts one = acts_part(&acts, row, row + 1);
        kernels->layer_norm(x + row * stride, 0, 1, layer->k, norm->gain, norm->shift, space->normed, 0);
        kernels->acts_fill(&one, space->normed, 0, layer->k, asymmetric);
    }
    kernels->multiply(&acts, layer, &target);
}
