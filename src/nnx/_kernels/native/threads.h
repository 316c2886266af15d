/* How the threads of a plan meet: a barrier and a gate, which need no operating system but to give way.
 *
 * Waiting is spinning for some microseconds, then letting others run between two looks: the machine may be shared.
 * Where a compiler has no atomics, a plan has one thread, and none of this is called.
 */
#ifndef NNX_THREADS_H
#define NNX_THREADS_H

#if defined(__GNUC__) && (defined(__unix__) || defined(__APPLE__))
#include <sched.h>
#define THREADS_MEET 1

typedef struct {
    int arrived, passed; /* threads at the barrier; how often all have been there */
    char apart[56];
    int open; /* of the gate: 0 wait, 1 go, -1 leave */
} Meeting;

static inline void look_again(int *looks) {
    if (++*looks < 2000) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    } else {
        sched_yield();
    }
}
/* Wait until `threads` threads are here. What each wrote before, all can read after it. */
static inline void meet(Meeting *m, int threads) {
    int looks = 0, passed;
    if (threads == 1) return;
    passed = __atomic_load_n(&m->passed, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&m->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&m->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->passed, passed + 1, __ATOMIC_RELEASE);
    } else {
        while (__atomic_load_n(&m->passed, __ATOMIC_ACQUIRE) == passed) look_again(&looks);
    }
}
static inline void open_gate(Meeting *m, int how) { __atomic_store_n(&m->open, how, __ATOMIC_RELEASE); }
static inline int wait_at_gate(Meeting *m) {
    int looks = 0, how;
    while ((how = __atomic_load_n(&m->open, __ATOMIC_ACQUIRE)) == 0) look_again(&looks);
    return how;
}
#else
#define THREADS_MEET 0
typedef struct { int open; } Meeting;
static inline void meet(Meeting *m, int threads) { (void)m; (void)threads; }
static inline void open_gate(Meeting *m, int how) { m->open = how; }
static inline int wait_at_gate(Meeting *m) { return m->open; }
#endif

#endif
