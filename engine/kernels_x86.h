/* kernels_x86.h - what the instruction sets of x86-64 share: asking the CPU. */
#ifndef GEMMA4_KERNELS_X86_H
#define GEMMA4_KERNELS_X86_H

#include "kernels_walks.h"

#include <cpuid.h>
#include <immintrin.h>

#define G4_HAS_AVX2 1u
#define G4_HAS_AVXVNNI 2u
#define G4_HAS_AVX512 4u
#define G4_HAS_AVX512VNNI 8u

/* A feature counts when the CPU has it and the operating system saves its registers (XCR0). */
static unsigned g4_x86_features(void)
{
    unsigned a, b, c, d, has = 0, xcr0_lo, xcr0_hi;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return 0;
    __asm__ volatile("xgetbv" : "=a"(xcr0_lo), "=d"(xcr0_hi) : "c"(0));
    if ((xcr0_lo & 0x06u) != 0x06u) return 0; /* xmm and ymm */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    if (!(b & avx2)) return 0;
    has |= G4_HAS_AVX2;
    if ((xcr0_lo & 0xe0u) == 0xe0u &&
        (b & (f | dq | bw | vl)) == (f | dq | bw | vl)) { /* k masks, upper halves, zmm16-31 */
        has |= G4_HAS_AVX512;
        if (c & vnni) has |= G4_HAS_AVX512VNNI;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4))) has |= G4_HAS_AVXVNNI;
    return has;
}

#endif /* GEMMA4_KERNELS_X86_H */
