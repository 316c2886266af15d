/* How the threads of a plan meet: a barrier and a gate, which need no operating system but to give way.
 *
 * Waiting is spinning, then letting others run between two looks: the machine may be shared. The 2,000 pauses before take
 * 90 us on Intel's processors since Skylake (140 cycles each), 44 us on AMD's Zen 5.
 * Where a compiler has no atomics, a plan has one thread, and none of this is called.
 */
#ifndef NNX_THREADS_H
#define NNX_THREADS_H

#if defined(__GNUC__) && (defined(__unix__) || defined(__APPLE__))
#include <sched.h>
#define THREADS_MEET 1

/* Allocated at a multiple of 64 bytes: each part that threads write at different times has a cache line of its own. */
typedef struct {
    int arrived; /* threads at the barrier */
    char apart_1[60];
    int passed; /* how often all have been there: what those who wait look at */
    char apart_2[60];
    long long open; /* of the gate: twice the run's number: wait; one more: go; anything else: leave */
    /* The run's number times 65536, and how many threads have come to the gate for it; -1: too late to come. */
    long long waiting;
    char apart_3[48];
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
static inline void open_gate(Meeting *m, long long how) { __atomic_store_n(&m->open, how, __ATOMIC_RELEASE); }
/* Come to the gate for a run; return which thread that is, from 1 on, or 0 if it is too late or `most` have come. */
static inline int come_to_gate(Meeting *m, long long run, int most) {
    long long n = __atomic_load_n(&m->waiting, __ATOMIC_RELAXED);
    do {
        if (n < 0 || n / 65536 != run || n % 65536 >= most) return 0;
    } while (!__atomic_compare_exchange_n(&m->waiting, &n, n + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return (int)(n % 65536) + 1;
}
static inline void expect_at_gate(Meeting *m, long long run) {
    __atomic_store_n(&m->waiting, run * 65536, __ATOMIC_RELEASE);
}
static inline int count_at_gate(Meeting *m) {
    const long long n = __atomic_load_n(&m->waiting, __ATOMIC_ACQUIRE);
    return n < 0 ? 0 : (int)(n % 65536);
}
/* Let no other thread come; return how many have come. */
static inline int close_gate(Meeting *m) {
    const long long n = __atomic_exchange_n(&m->waiting, -1, __ATOMIC_ACQ_REL);
    return n < 0 ? 0 : (int)(n % 65536);
}
/* Wait while the gate says so; return whether to go. */
static inline int wait_at_gate(Meeting *m, long long wait) {
    int looks = 0;
    long long how;
    while ((how = __atomic_load_n(&m->open, __ATOMIC_ACQUIRE)) == wait) look_again(&looks);
    return how == wait + 1;
}
/* Pass a cache line to and fro, as one of two sides; return whether the other was there all the time. */
static inline int pass_line(int *line, int side, int turns) {
    int turn, looks;
    for (turn = 0; turn < turns; turn++) {
        looks = 0;
        while (__atomic_load_n(line, __ATOMIC_ACQUIRE) != 2 * turn + side) {
            if (looks > 100000) return 0;
            look_again(&looks);
        }
        __atomic_store_n(line, 2 * turn + side + 1, __ATOMIC_RELEASE);
    }
    return 1;
}
#else
#define THREADS_MEET 0
typedef struct { long long open; } Meeting;
static inline void meet(Meeting *m, int threads) { (void)m; (void)threads; }
static inline void open_gate(Meeting *m, long long how) { m->open = how; }
static inline int come_to_gate(Meeting *m, long long run, int most) { (void)m; (void)run; (void)most; return 0; }
static inline void expect_at_gate(Meeting *m, long long run) { (void)m; (void)run; }
static inline int count_at_gate(Meeting *m) { (void)m; return 0; }
static inline int close_gate(Meeting *m) { (void)m; return 0; }
static inline int wait_at_gate(Meeting *m, long long wait) { return m->open == wait + 1; }
static inline int pass_line(int *line, int side, int turns) { (void)line; (void)side; (void)turns; return 0; }
#endif

/* For what several Python threads share, also where no GIL keeps them apart: a flag that one holds at a time, places
 * for pointers, and numbers that are handed out, each once. Compilers without atomics are taken for such as have a GIL. */
#ifdef __GNUC__
static inline int claim(int *flag) { return !__atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE); }
static inline void unclaim(int *flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
static inline char *take_out(char **place) { return __atomic_exchange_n(place, (char *)0, __ATOMIC_ACQ_REL); }
static inline int put_in(char **place, char *value) {
    char *none = 0;
    return __atomic_compare_exchange_n(place, &none, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
static inline long long next_number(long long *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }
#else
static inline int claim(int *flag) { return *flag ? 0 : (*flag = 1); }
static inline void unclaim(int *flag) { *flag = 0; }
static inline char *take_out(char **place) { char *value = *place; *place = 0; return value; }
static inline int put_in(char **place, char *value) { return *place ? 0 : (*place = value, 1); }
static inline long long next_number(long long *next) { return (*next)++; }
#endif

#endif
