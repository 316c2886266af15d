/* What this processor offers, and what the system lets this process use. Only the binding layer uses it: it is compiled
 * for every processor, and asks before it uses a variant (see setup.py). */
#ifndef NNX_PROCESSOR_H
#define NNX_PROCESSOR_H

#include <string.h>
#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__)
#define MAY_HAVE_MATRIX_UNITS 1
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Whether the processor has AMX with bfloat16 (CPUID), and the system keeps its registers (XCR0). Both are asked for without
 * touching the units. */
static inline int has_matrix_units(void) {
#ifdef MAY_HAVE_MATRIX_UNITS
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* xgetbv may be executed */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return 0; /* tiles: their configuration and their data */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0; /* AMX-BF16, AMX-TILE */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1); /* AVX512-BF16, which converts */
#else
    return 0;
#endif
}

static inline int processor_offers(const char *variant) {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(variant, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(variant, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    if (strcmp(variant, "amx") == 0) return processor_offers("avx512") && has_matrix_units();
#endif
    return strcmp(variant, "baseline") == 0;
}

/* Ask Linux for the units. It gives them only to a process that asks; otherwise their first use would end the process.
 * It refuses if a signal stack is too small for their registers, or a filter of system calls forbids the question. */
static inline int ask_for_matrix_units(void) {
#ifdef MAY_HAVE_MATRIX_UNITS
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return has_matrix_units() && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return 0;
#endif
}

#endif
