/* emulated.h - the 512-bit intrinsics that engine/kernels_avx512.h uses, as two halves of AVX2 or in plain C, and both
 * widths of vpdpbusd. tests/emulated.sh puts them in their place, so that the logic of the wide kernels is tested on
 * CPUs that lack them. A load that must be aligned traps when it is not. */
typedef struct {
    __m256i l, h;
} g4_v512i;
typedef struct {
    __m256 l, h;
} g4_v512;
#define G4_EMULATED static inline __attribute__((always_inline, target("avx2,fma,f16c")))
G4_EMULATED g4_v512i G4_512_set1_epi8(int v)
{
    __m256i x = _mm256_set1_epi8((char)v);
    return (g4_v512i) { x, x };
}
G4_EMULATED g4_v512i G4_512_set1_epi16(int v)
{
    __m256i x = _mm256_set1_epi16((short)v);
    return (g4_v512i) { x, x };
}
G4_EMULATED g4_v512i G4_512_set1_epi32(int v)
{
    __m256i x = _mm256_set1_epi32(v);
    return (g4_v512i) { x, x };
}
G4_EMULATED g4_v512 G4_512_set1_ps(float v)
{
    __m256 x = _mm256_set1_ps(v);
    return (g4_v512) { x, x };
}
G4_EMULATED g4_v512 G4_512_setzero_ps(void) { return G4_512_set1_ps(0); }
G4_EMULATED g4_v512i G4_512_setzero_si512(void) { return G4_512_set1_epi32(0); }
G4_EMULATED g4_v512 G4_512_loadu_ps(const float *p) { return (g4_v512) { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
G4_EMULATED g4_v512 G4_512_load_ps(const float *p)
{
    if ((uintptr_t)p % 64) __builtin_trap();
    return G4_512_loadu_ps(p);
}
G4_EMULATED void G4_512_storeu_ps(float *p, g4_v512 v)
{
    _mm256_storeu_ps(p, v.l);
    _mm256_storeu_ps(p + 8, v.h);
}
G4_EMULATED void G4_512_store_ps(float *p, g4_v512 v)
{
    if ((uintptr_t)p % 64) __builtin_trap();
    G4_512_storeu_ps(p, v);
}
G4_EMULATED g4_v512i G4_512_loadu_si512(const void *p)
{
    return (g4_v512i) { _mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1) };
}
G4_EMULATED g4_v512i G4_512_load_si512(const void *p)
{
    if ((uintptr_t)p % 64) __builtin_trap();
    return G4_512_loadu_si512(p);
}
#define G4_BOTH_HALVES(n, f)                                                                                           \
    G4_EMULATED g4_v512i G4_512_##n(g4_v512i a, g4_v512i b) { return (g4_v512i) { f(a.l, b.l), f(a.h, b.h) }; }

G4_BOTH_HALVES(and_si512, _mm256_and_si256)
G4_BOTH_HALVES(or_si512, _mm256_or_si256)
G4_BOTH_HALVES(xor_si512, _mm256_xor_si256)
G4_BOTH_HALVES(add_epi16, _mm256_add_epi16)
G4_BOTH_HALVES(add_epi32, _mm256_add_epi32)
G4_BOTH_HALVES(maddubs_epi16, _mm256_maddubs_epi16)
G4_BOTH_HALVES(madd_epi16, _mm256_madd_epi16)
G4_BOTH_HALVES(mullo_epi32, _mm256_mullo_epi32)
G4_EMULATED g4_v512i G4_512_slli_epi16(g4_v512i a, int n)
{
    return (g4_v512i) { _mm256_slli_epi16(a.l, n), _mm256_slli_epi16(a.h, n) };
}
G4_EMULATED g4_v512i G4_512_cvtepu8_epi32(__m128i v)
{
    return (g4_v512i) { _mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)) };
}
G4_EMULATED g4_v512i G4_512_srli_epi16(g4_v512i a, int n)
{
    return (g4_v512i) { _mm256_srli_epi16(a.l, n), _mm256_srli_epi16(a.h, n) };
}
G4_EMULATED g4_v512i G4_512_slli_epi32(g4_v512i a, int n)
{
    return (g4_v512i) { _mm256_slli_epi32(a.l, n), _mm256_slli_epi32(a.h, n) };
}
G4_EMULATED g4_v512i G4_512_abs_epi8(g4_v512i a) { return (g4_v512i) { _mm256_abs_epi8(a.l), _mm256_abs_epi8(a.h) }; }
G4_EMULATED uint64_t G4_512_movepi8_mask(g4_v512i a)
{
    return (uint32_t)_mm256_movemask_epi8(a.l) | (uint64_t)(uint32_t)_mm256_movemask_epi8(a.h) << 32;
}
G4_EMULATED g4_v512i G4_512_mask_sub_epi8(g4_v512i src, uint64_t k, g4_v512i a, g4_v512i b)
{
    unsigned char s[64], x[64], y[64];
    memcpy(s, &src, 64);
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    for (int i = 0; i < 64; i++)
        if (k >> i & 1) s[i] = (unsigned char)(x[i] - y[i]);
    g4_v512i r;
    memcpy(&r, s, 64);
    return r;
}
G4_EMULATED g4_v512i G4_512_dpbusd_epi32(g4_v512i acc, g4_v512i u, g4_v512i sx)
{
    int32_t r[16];
    unsigned char a[64];
    signed char b[64];
    memcpy(r, &acc, 64);
    memcpy(a, &u, 64);
    memcpy(b, &sx, 64);
    for (int i = 0; i < 64; i++) r[i / 4] += a[i] * b[i];
    g4_v512i o;
    memcpy(&o, r, 64);
    return o;
}
G4_EMULATED g4_v512i G4_512_dpwssd_epi32(g4_v512i acc, g4_v512i x, g4_v512i y)
{
    return (g4_v512i) { _mm256_add_epi32(acc.l, _mm256_madd_epi16(x.l, y.l)),
                        _mm256_add_epi32(acc.h, _mm256_madd_epi16(x.h, y.h)) };
}
G4_EMULATED __m256i G4_256_dpbusd(__m256i acc, __m256i u, __m256i sx)
{
    int32_t r[8];
    unsigned char a[32];
    signed char b[32];
    memcpy(r, &acc, 32);
    memcpy(a, &u, 32);
    memcpy(b, &sx, 32);
    for (int i = 0; i < 32; i++) r[i / 4] += a[i] * b[i];
    __m256i o;
    memcpy(&o, r, 32);
    return o;
}
G4_EMULATED g4_v512 G4_512_fmadd_ps(g4_v512 a, g4_v512 b, g4_v512 c)
{
    return (g4_v512) { _mm256_fmadd_ps(a.l, b.l, c.l), _mm256_fmadd_ps(a.h, b.h, c.h) };
}
G4_EMULATED g4_v512 G4_512_fmsub_ps(g4_v512 a, g4_v512 b, g4_v512 c)
{
    return (g4_v512) { _mm256_fmsub_ps(a.l, b.l, c.l), _mm256_fmsub_ps(a.h, b.h, c.h) };
}
G4_EMULATED g4_v512 G4_512_mul_ps(g4_v512 a, g4_v512 b)
{
    return (g4_v512) { _mm256_mul_ps(a.l, b.l), _mm256_mul_ps(a.h, b.h) };
}
G4_EMULATED g4_v512 G4_512_cvtepi32_ps(g4_v512i a)
{
    return (g4_v512) { _mm256_cvtepi32_ps(a.l), _mm256_cvtepi32_ps(a.h) };
}
G4_EMULATED g4_v512 G4_512_castsi512_ps(g4_v512i a)
{
    return (g4_v512) { _mm256_castsi256_ps(a.l), _mm256_castsi256_ps(a.h) };
}
G4_EMULATED g4_v512 G4_512_cvtph_ps(__m256i a)
{
    return (g4_v512) { _mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)) };
}
G4_EMULATED g4_v512i G4_512_cvtepi8_epi32(__m128i a)
{
    return (g4_v512i) { _mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)) };
}
G4_EMULATED g4_v512i G4_512_cvtepu16_epi32(__m256i a)
{
    return (g4_v512i) { _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                        _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)) };
}
