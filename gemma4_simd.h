/* gemma4_simd.h - vector kernels and nothing else. */
#ifndef GEMMA4_SIMD_H
#define GEMMA4_SIMD_H
#endif
