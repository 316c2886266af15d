/* The floating-point mode that compiled kernels run in: subnormal numbers count as zero and become zero, results are
 * rounded to nearest, and nothing is trapped. docs/internals/plan.md says why, with figures.
 *
 * The mode belongs to a thread. A caller of kernels sets it, and then restores the old one, so that nothing outside
 * notices. That includes the flags that record overflow and the like, so kernels do not change those.
 */
#ifndef NNX_FLOAT_MODE_H
#define NNX_FLOAT_MODE_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define FLUSHES_SUBNORMALS 1
/* MXCSR: all exceptions masked (bits 7 to 12), denormals-are-zeros (6) and flush-to-zero (15). */
static inline uint64_t enter_kernels(void) {
    const uint64_t before = _mm_getcsr();
    _mm_setcsr(0x1F80u | 0x0040u | 0x8000u);
    return before;
}
static inline void leave_kernels(uint64_t before) { _mm_setcsr((unsigned)before); }

#elif defined(__aarch64__) && defined(__GNUC__)
#define FLUSHES_SUBNORMALS 1
/* FPCR: flush-to-zero (24), which applies to operands and to results. */
static inline uint64_t enter_kernels(void) {
    const uint64_t mode = UINT64_C(1) << 24;
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before)::"memory");
    __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
    return before;
}
static inline void leave_kernels(uint64_t before) { __asm__ volatile("msr fpcr, %0" ::"r"(before) : "memory"); }

#else
#define FLUSHES_SUBNORMALS 0
static inline uint64_t enter_kernels(void) { return 0; }
static inline void leave_kernels(uint64_t before) { (void)before; }
#endif

#endif
