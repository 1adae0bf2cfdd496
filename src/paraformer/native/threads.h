/* Threads that share one call, and live no longer than it does.
 *
 * So there is nothing for a signal to interrupt in the middle, since the caller waits in C until all have ended, and
 * nothing that a forked child would have to do without. Starting one takes some 10 us, handing work to one that sleeps
 * as long. */
#ifndef PARAFORMER_THREADS_H
#define PARAFORMER_THREADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { MOST_PARTS = 256 };

typedef struct Team Team;

typedef struct {
    Team *team;
    int part;
    pthread_t thread;
} Helper;

struct Team {
    int parts; /* threads that take part, the caller's included */
    void (*work)(void *data, int part);
    void *data;
    atomic_int arrived, round; /* of the barrier */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int open;            /* whether the work may begin */
    int32_t *lent_to;    /* the process whose call has the helpers, or NULL */
    Helper helpers[MOST_PARTS];
};

/* Up to `parts` threads, fewer where the system has no more, or just the caller where another call of this process has
 * helpers already: two calls at once that each use all processors would take turns on them and wait for each other.
 * lent_to: 0 at first, shared by all calls that should not. They wait until the work begins. */
void team_start(Team *team, int parts, int32_t *lent_to);
/* Do the work of all parts, or with work NULL nothing, and end the helpers. */
void team_finish(Team *team, void (*work)(void *data, int part), void *data);
/* Wait until all parts have come here. */
void team_barrier(Team *team);

#endif
