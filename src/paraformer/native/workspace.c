#include "workspace.h"

#include <stdlib.h>
#ifdef _WIN32 /* whose C library has memory of its own for what is aligned */
#include <malloc.h>
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define aligned_free _aligned_free
#else
#define aligned_free free
#endif

enum { LEAST_CHUNK = 1 << 20 };

void *arena_alloc(Arena *arena, size_t bytes) {
    const size_t lines = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    if (arena->used + lines > arena->size) {
        const size_t size = CACHE_LINE + (lines > LEAST_CHUNK ? lines : LEAST_CHUNK);
        void **chunk = aligned_alloc(CACHE_LINE, size);
        if (!chunk) {
            arena->failed = 1;
            return NULL;
        }
        *chunk = arena->chunk;
        arena->chunk = chunk, arena->used = CACHE_LINE, arena->size = size;
    }
    void *found = (char *)arena->chunk + arena->used;
    arena->used += lines;
    return found;
}

void arena_free(Arena *arena) {
    for (void *chunk = arena->chunk, *before; chunk; chunk = before) {
        before = *(void **)chunk;
        aligned_free(chunk);
    }
}

Acts acts_alloc(Arena *arena, int format, int rows, int k) {
    const int words = words_for(format, k);
    return (Acts){arena_alloc(arena, (size_t)rows * words * 4), arena_alloc(arena, (size_t)rows * 4),
                  arena_alloc(arena, (size_t)rows * 4), arena_alloc(arena, (size_t)rows * 4), format, rows, words, 0, rows};
}

Acts acts_part(const Acts *acts, int from, int to) {
    return (Acts){acts->words + (size_t)from * acts->words_per_row, acts->scale + from, acts->zero + from,
                  acts->begin + from, acts->format, to - from, acts->words_per_row, acts->slice, acts->pitch};
}

Acts acts_as(const Acts *acts, int format, int rows, int k, int slice) {
    return (Acts){acts->words, acts->scale, acts->zero, acts->begin, format, rows, words_for(format, k), slice, rows};
}
