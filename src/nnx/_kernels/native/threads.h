/* How the threads of a plan wait for each other: a barrier and a latch. They need the operating system only to yield.
 *
 * A waiting thread spins, then yields between two checks, because the machine may be shared. The 2,000 pauses before
 * take 90 us on Intel's processors since Skylake (140 cycles each), 44 us on AMD's Zen 5.
 * Where a compiler has no atomics, a plan has one thread, and none of this is called.
 */
#ifndef NNX_THREADS_H
#define NNX_THREADS_H

/* Numbers that several threads read and write. If a thread reads such a number, it can read all that the writer wrote
 * before it. `add_int` returns the sum, `add_number` the old value. */
#ifdef __GNUC__
#define HAS_ATOMICS 1
#define read_int(from) __atomic_load_n(from, __ATOMIC_ACQUIRE)
#define read_number(from) __atomic_load_n(from, __ATOMIC_ACQUIRE)
#define write_int(to, value) __atomic_store_n(to, value, __ATOMIC_RELEASE)
#define write_number(to, value) __atomic_store_n(to, value, __ATOMIC_RELEASE)
#define add_int(to, value) __atomic_add_fetch(to, value, __ATOMIC_ACQ_REL)
#define add_number(to, value) __atomic_fetch_add(to, value, __ATOMIC_RELAXED)
#define exchange_int(to, value) __atomic_exchange_n(to, value, __ATOMIC_ACQ_REL)
#define exchange_number(to, value) __atomic_exchange_n(to, value, __ATOMIC_ACQ_REL)
#define exchange_pointer(to, value) __atomic_exchange_n(to, value, __ATOMIC_ACQ_REL)
static inline int replace_number(long long *to, long long *expected, long long value) {
    return __atomic_compare_exchange_n(to, expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
static inline int replace_pointer(char **to, char *expected, char *value) {
    return __atomic_compare_exchange_n(to, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
#elif defined(_MSC_VER) && defined(_M_X64)
/* This processor's plain reads and writes keep that order. The barrier makes the compiler keep it, too. */
#define HAS_ATOMICS 1
#include <emmintrin.h> /* _mm_pause */
#include <intrin.h>
static inline int read_int(const int *from) {
    const int value = *(const volatile int *)from;
    _ReadWriteBarrier();
    return value;
}
static inline long long read_number(const long long *from) {
    const long long value = *(const volatile long long *)from;
    _ReadWriteBarrier();
    return value;
}
static inline void write_int(int *to, int value) {
    _ReadWriteBarrier();
    *(volatile int *)to = value;
}
static inline void write_number(long long *to, long long value) {
    _ReadWriteBarrier();
    *(volatile long long *)to = value;
}
#define add_int(to, value) ((int)_InterlockedExchangeAdd((volatile long *)(to), value) + (value))
#define add_number(to, value) _InterlockedExchangeAdd64(to, value)
#define exchange_int(to, value) ((int)_InterlockedExchange((volatile long *)(to), value))
#define exchange_number(to, value) _InterlockedExchange64(to, value)
#define exchange_pointer(to, value) ((char *)_InterlockedExchangePointer((void *volatile *)(to), value))
static inline int replace_number(long long *to, long long *expected, long long value) {
    const long long found = _InterlockedCompareExchange64(to, value, *expected), as_expected = found == *expected;
    *expected = found;
    return (int)as_expected;
}
static inline int replace_pointer(char **to, char *expected, char *value) {
    return _InterlockedCompareExchangePointer((void *volatile *)to, value, expected) == expected;
}
#else
#define HAS_ATOMICS 0
#endif

#if HAS_ATOMICS && (defined(__unix__) || defined(__APPLE__) || defined(_MSC_VER))
#define THREADS_MEET 1
#ifdef _MSC_VER
__declspec(dllimport) int __stdcall SwitchToThread(void); /* as in <windows.h>, which defines many more names */
#define give_way() SwitchToThread()
#define take_a_breath() _mm_pause()
#else
#include <sched.h>
#define give_way() sched_yield()
#if defined(__x86_64__) || defined(__i386__)
#define take_a_breath() __builtin_ia32_pause()
#else
#define take_a_breath() ((void)0)
#endif
#endif

/* Allocated at a multiple of 64 bytes: each part that threads write at different times has a cache line of its own. */
typedef struct {
    int arrived; /* threads at the barrier */
    char apart_1[60];
    int passed; /* how often all have arrived; waiting threads read this */
    char apart_2[60];
    long long open; /* the latch: twice the run's number means wait, one more means go, anything else means leave */
    /* The run's number times 65536, plus the number of threads at the latch for it; -1: too late to come. */
    long long waiting;
    char apart_3[48];
} Meeting;

static inline void look_again(int *looks) {
    if (++*looks < 2000) {
        take_a_breath();
    } else {
        give_way();
    }
}
/* Wait until `threads` threads are here. After that, all can read what each wrote before. */
static inline void meet(Meeting *m, int threads) {
    int looks = 0, passed;
    if (threads == 1) return;
    passed = read_int(&m->passed);
    if (add_int(&m->arrived, 1) == threads) {
        write_int(&m->arrived, 0);
        write_int(&m->passed, passed + 1);
    } else {
        while (read_int(&m->passed) == passed) look_again(&looks);
    }
}
static inline void open_gate(Meeting *m, long long how) { write_number(&m->open, how); }
/* Come to the latch for a run. Return this thread's number, from 1 on, or 0 if it is too late or `most` have come. */
static inline int come_to_gate(Meeting *m, long long run, int most) {
    long long n = read_number(&m->waiting);
    do {
        if (n < 0 || n / 65536 != run || n % 65536 >= most) return 0;
    } while (!replace_number(&m->waiting, &n, n + 1));
    return (int)(n % 65536) + 1;
}
static inline void expect_at_gate(Meeting *m, long long run) { write_number(&m->waiting, run * 65536); }
static inline int count_at_gate(Meeting *m) {
    const long long n = read_number(&m->waiting);
    return n < 0 ? 0 : (int)(n % 65536);
}
/* Let no other thread come. Return how many have come. */
static inline int close_gate(Meeting *m) {
    const long long n = exchange_number(&m->waiting, -1);
    return n < 0 ? 0 : (int)(n % 65536);
}
/* Wait until the latch opens. Return whether to go. */
static inline int wait_at_gate(Meeting *m, long long wait) {
    int looks = 0;
    long long how;
    while ((how = read_number(&m->open)) == wait) look_again(&looks);
    return how == wait + 1;
}
/* Pass a cache line to and fro, as one of two sides. Return whether the other side was there all the time. */
static inline int pass_line(int *line, int side, int turns) {
    int turn, looks;
    for (turn = 0; turn < turns; turn++) {
        looks = 0;
        while (read_int(line) != 2 * turn + side) {
            if (looks > 100000) return 0;
            look_again(&looks);
        }
        write_int(line, 2 * turn + side + 1);
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

/* For data that several Python threads share, also without a GIL: a flag that one thread holds at a time, places
 * for pointers, and numbers that are given out once each. Without atomics, Python is taken to have a GIL. */
#if HAS_ATOMICS
static inline int claim(int *flag) { return !exchange_int(flag, 1); }
static inline void unclaim(int *flag) { write_int(flag, 0); }
static inline char *take_out(char **place) { return exchange_pointer(place, (char *)0); }
static inline int put_in(char **place, char *value) { return replace_pointer(place, (char *)0, value); }
static inline long long next_number(long long *next) { return add_number(next, 1); }
#else
static inline int claim(int *flag) { return *flag ? 0 : (*flag = 1); }
static inline void unclaim(int *flag) { *flag = 0; }
static inline char *take_out(char **place) { char *value = *place; *place = 0; return value; }
static inline int put_in(char **place, char *value) { return *place ? 0 : (*place = value, 1); }
static inline long long next_number(long long *next) { return (*next)++; }
#endif

#endif
