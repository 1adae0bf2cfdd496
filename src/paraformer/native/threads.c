#include "threads.h"

#ifndef _WIN32
#include <signal.h>
#endif
#include <unistd.h>

/* Looks at a counter, some 40 ns each, before a thread goes to sleep: about what sleeping and waking cost on a virtual
 * machine. Where others want the processor every further look is taken from them, and from the thread that is waited for. */
enum { PATIENCE = 1000 };

/* Bytes of a helper's stack: what macOS gives, where musl gives a quarter. A kernel keeps up to 110 KB there. */
enum { STACK = 1 << 19 };

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *help(void *given) {
    const Helper *helper = given;
    Team *team = helper->team;
    pthread_mutex_lock(&team->mutex);
    while (!team->open) pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
    if (team->work) team->work(team->data, helper->part);
    return NULL;
}

/* Whether the helpers were free. A lease that a forked child inherited is nobody's there: the process has another number. */
static int borrow(int32_t *lent_to) {
    const int32_t self = (int32_t)getpid();
    int32_t holder = __atomic_load_n(lent_to, __ATOMIC_ACQUIRE);
    while (holder != self)
        if (__atomic_compare_exchange_n(lent_to, &holder, self, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return 1;
    return 0;
}

static int start_helper(Team *team, int part, const pthread_attr_t *attributes) {
    Helper *helper = team->helpers + part;
    helper->team = team, helper->part = part;
    return !pthread_create(&helper->thread, attributes, help, helper);
}

void team_start(Team *team, int parts, int32_t *lent_to) {
    team->parts = 1, team->work = NULL, team->data = NULL, team->open = 0, team->lent_to = NULL;
    atomic_init(&team->arrived, 0);
    atomic_init(&team->round, 0);
    if (parts <= 1 || !borrow(lent_to)) return;
    team->lent_to = lent_to;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->changed, NULL);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
#ifndef _WIN32
    sigset_t every, before; /* signals are for the threads of the program, not for helpers that it does not know of */
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
#endif
    while (team->parts < parts && team->parts < MOST_PARTS && start_helper(team, team->parts, &attributes)) team->parts++;
#ifndef _WIN32
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
    pthread_attr_destroy(&attributes);
}

void team_finish(Team *team, void (*work)(void *data, int part), void *data) {
    if (team->lent_to) {
        pthread_mutex_lock(&team->mutex);
        team->work = work, team->data = data, team->open = 1;
        pthread_cond_broadcast(&team->changed);
        pthread_mutex_unlock(&team->mutex);
    }
    if (work) work(data, 0);
    if (!team->lent_to) return;
    for (int part = 1; part < team->parts; part++) pthread_join(team->helpers[part].thread, NULL);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->mutex);
    __atomic_store_n(team->lent_to, 0, __ATOMIC_RELEASE);
}

void team_barrier(Team *team) {
    if (team->parts == 1) return;
    const int round = atomic_load(&team->round);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->parts) {
        atomic_store(&team->arrived, 0);
        pthread_mutex_lock(&team->mutex);
        atomic_store(&team->round, round + 1);
        pthread_cond_broadcast(&team->changed);
        pthread_mutex_unlock(&team->mutex);
        return;
    }
    for (int looked = 0; looked < PATIENCE; looked++) {
        if (atomic_load(&team->round) != round) return;
        relax();
    }
    pthread_mutex_lock(&team->mutex); /* asleep, so that a thread that waits for a processor can have this one */
    while (atomic_load(&team->round) == round) pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}
