/* pytext.c - text and values as Python sees them. The chat templates are Jinja: what they print, trim, sort and
 * upper-case follows Python's str, and so do the prompts. Lower case is the simple mapping of Unicode 14, plus the two
 * exceptions that Python's lower() has (capital sigma at the end of a word, I with dot); upper case is its inverse, and
 * is only ever applied to type names. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Upper and lower case ------------------------------------------------------------------------ */

typedef struct { /* code points first, first + step, .. last, whose lower case lies delta away */
    int32_t first, last, step, delta;
} g4_case_run;

/* Ascending; made by tools/make_case_table.py, which packs the lines. */
/* clang-format off */
static const g4_case_run g4_case_runs[] = {
    { 0x41, 0x5a, 1, 32 }, { 0xc0, 0xd6, 1, 32 }, { 0xd8, 0xde, 1, 32 }, { 0x100, 0x12e, 2, 1 }, { 0x132, 0x136, 2, 1 },
    { 0x139, 0x147, 2, 1 }, { 0x14a, 0x176, 2, 1 }, { 0x178, 0x178, 1, -121 }, { 0x179, 0x17d, 2, 1 },
    { 0x181, 0x181, 1, 210 }, { 0x182, 0x184, 2, 1 }, { 0x186, 0x186, 1, 206 }, { 0x187, 0x187, 1, 1 },
    { 0x189, 0x18a, 1, 205 }, { 0x18b, 0x18b, 1, 1 }, { 0x18e, 0x18e, 1, 79 }, { 0x18f, 0x18f, 1, 202 },
    { 0x190, 0x190, 1, 203 }, { 0x191, 0x191, 1, 1 }, { 0x193, 0x193, 1, 205 }, { 0x194, 0x194, 1, 207 },
    { 0x196, 0x196, 1, 211 }, { 0x197, 0x197, 1, 209 }, { 0x198, 0x198, 1, 1 }, { 0x19c, 0x19c, 1, 211 },
    { 0x19d, 0x19d, 1, 213 }, { 0x19f, 0x19f, 1, 214 }, { 0x1a0, 0x1a4, 2, 1 }, { 0x1a6, 0x1a6, 1, 218 },
    { 0x1a7, 0x1a7, 1, 1 }, { 0x1a9, 0x1a9, 1, 218 }, { 0x1ac, 0x1ac, 1, 1 }, { 0x1ae, 0x1ae, 1, 218 },
    { 0x1af, 0x1af, 1, 1 }, { 0x1b1, 0x1b2, 1, 217 }, { 0x1b3, 0x1b5, 2, 1 }, { 0x1b7, 0x1b7, 1, 219 },
    { 0x1b8, 0x1b8, 1, 1 }, { 0x1bc, 0x1bc, 1, 1 }, { 0x1c4, 0x1c4, 1, 2 }, { 0x1c5, 0x1c5, 1, 1 },
    { 0x1c7, 0x1c7, 1, 2 }, { 0x1c8, 0x1c8, 1, 1 }, { 0x1ca, 0x1ca, 1, 2 }, { 0x1cb, 0x1db, 2, 1 },
    { 0x1de, 0x1ee, 2, 1 }, { 0x1f1, 0x1f1, 1, 2 }, { 0x1f2, 0x1f4, 2, 1 }, { 0x1f6, 0x1f6, 1, -97 },
    { 0x1f7, 0x1f7, 1, -56 }, { 0x1f8, 0x21e, 2, 1 }, { 0x220, 0x220, 1, -130 }, { 0x222, 0x232, 2, 1 },
    { 0x23a, 0x23a, 1, 10795 }, { 0x23b, 0x23b, 1, 1 }, { 0x23d, 0x23d, 1, -163 }, { 0x23e, 0x23e, 1, 10792 },
    { 0x241, 0x241, 1, 1 }, { 0x243, 0x243, 1, -195 }, { 0x244, 0x244, 1, 69 }, { 0x245, 0x245, 1, 71 },
    { 0x246, 0x24e, 2, 1 }, { 0x370, 0x372, 2, 1 }, { 0x376, 0x376, 1, 1 }, { 0x37f, 0x37f, 1, 116 },
    { 0x386, 0x386, 1, 38 }, { 0x388, 0x38a, 1, 37 }, { 0x38c, 0x38c, 1, 64 }, { 0x38e, 0x38f, 1, 63 },
    { 0x391, 0x3a1, 1, 32 }, { 0x3a3, 0x3ab, 1, 32 }, { 0x3cf, 0x3cf, 1, 8 }, { 0x3d8, 0x3ee, 2, 1 },
    { 0x3f4, 0x3f4, 1, -60 }, { 0x3f7, 0x3f7, 1, 1 }, { 0x3f9, 0x3f9, 1, -7 }, { 0x3fa, 0x3fa, 1, 1 },
    { 0x3fd, 0x3ff, 1, -130 }, { 0x400, 0x40f, 1, 80 }, { 0x410, 0x42f, 1, 32 }, { 0x460, 0x480, 2, 1 },
    { 0x48a, 0x4be, 2, 1 }, { 0x4c0, 0x4c0, 1, 15 }, { 0x4c1, 0x4cd, 2, 1 }, { 0x4d0, 0x52e, 2, 1 },
    { 0x531, 0x556, 1, 48 }, { 0x10a0, 0x10c5, 1, 7264 }, { 0x10c7, 0x10c7, 1, 7264 }, { 0x10cd, 0x10cd, 1, 7264 },
    { 0x13a0, 0x13ef, 1, 38864 }, { 0x13f0, 0x13f5, 1, 8 }, { 0x1c90, 0x1cba, 1, -3008 }, { 0x1cbd, 0x1cbf, 1, -3008 },
    { 0x1e00, 0x1e94, 2, 1 }, { 0x1e9e, 0x1e9e, 1, -7615 }, { 0x1ea0, 0x1efe, 2, 1 }, { 0x1f08, 0x1f0f, 1, -8 },
    { 0x1f18, 0x1f1d, 1, -8 }, { 0x1f28, 0x1f2f, 1, -8 }, { 0x1f38, 0x1f3f, 1, -8 }, { 0x1f48, 0x1f4d, 1, -8 },
    { 0x1f59, 0x1f5f, 2, -8 }, { 0x1f68, 0x1f6f, 1, -8 }, { 0x1f88, 0x1f8f, 1, -8 }, { 0x1f98, 0x1f9f, 1, -8 },
    { 0x1fa8, 0x1faf, 1, -8 }, { 0x1fb8, 0x1fb9, 1, -8 }, { 0x1fba, 0x1fbb, 1, -74 }, { 0x1fbc, 0x1fbc, 1, -9 },
    { 0x1fc8, 0x1fcb, 1, -86 }, { 0x1fcc, 0x1fcc, 1, -9 }, { 0x1fd8, 0x1fd9, 1, -8 }, { 0x1fda, 0x1fdb, 1, -100 },
    { 0x1fe8, 0x1fe9, 1, -8 }, { 0x1fea, 0x1feb, 1, -112 }, { 0x1fec, 0x1fec, 1, -7 }, { 0x1ff8, 0x1ff9, 1, -128 },
    { 0x1ffa, 0x1ffb, 1, -126 }, { 0x1ffc, 0x1ffc, 1, -9 }, { 0x2126, 0x2126, 1, -7517 }, { 0x212a, 0x212a, 1, -8383 },
    { 0x212b, 0x212b, 1, -8262 }, { 0x2132, 0x2132, 1, 28 }, { 0x2160, 0x216f, 1, 16 }, { 0x2183, 0x2183, 1, 1 },
    { 0x24b6, 0x24cf, 1, 26 }, { 0x2c00, 0x2c2f, 1, 48 }, { 0x2c60, 0x2c60, 1, 1 }, { 0x2c62, 0x2c62, 1, -10743 },
    { 0x2c63, 0x2c63, 1, -3814 }, { 0x2c64, 0x2c64, 1, -10727 }, { 0x2c67, 0x2c6b, 2, 1 },
    { 0x2c6d, 0x2c6d, 1, -10780 }, { 0x2c6e, 0x2c6e, 1, -10749 }, { 0x2c6f, 0x2c6f, 1, -10783 },
    { 0x2c70, 0x2c70, 1, -10782 }, { 0x2c72, 0x2c72, 1, 1 }, { 0x2c75, 0x2c75, 1, 1 }, { 0x2c7e, 0x2c7f, 1, -10815 },
    { 0x2c80, 0x2ce2, 2, 1 }, { 0x2ceb, 0x2ced, 2, 1 }, { 0x2cf2, 0x2cf2, 1, 1 }, { 0xa640, 0xa66c, 2, 1 },
    { 0xa680, 0xa69a, 2, 1 }, { 0xa722, 0xa72e, 2, 1 }, { 0xa732, 0xa76e, 2, 1 }, { 0xa779, 0xa77b, 2, 1 },
    { 0xa77d, 0xa77d, 1, -35332 }, { 0xa77e, 0xa786, 2, 1 }, { 0xa78b, 0xa78b, 1, 1 }, { 0xa78d, 0xa78d, 1, -42280 },
    { 0xa790, 0xa792, 2, 1 }, { 0xa796, 0xa7a8, 2, 1 }, { 0xa7aa, 0xa7aa, 1, -42308 }, { 0xa7ab, 0xa7ab, 1, -42319 },
    { 0xa7ac, 0xa7ac, 1, -42315 }, { 0xa7ad, 0xa7ad, 1, -42305 }, { 0xa7ae, 0xa7ae, 1, -42308 },
    { 0xa7b0, 0xa7b0, 1, -42258 }, { 0xa7b1, 0xa7b1, 1, -42282 }, { 0xa7b2, 0xa7b2, 1, -42261 },
    { 0xa7b3, 0xa7b3, 1, 928 }, { 0xa7b4, 0xa7c2, 2, 1 }, { 0xa7c4, 0xa7c4, 1, -48 }, { 0xa7c5, 0xa7c5, 1, -42307 },
    { 0xa7c6, 0xa7c6, 1, -35384 }, { 0xa7c7, 0xa7c9, 2, 1 }, { 0xa7d0, 0xa7d0, 1, 1 }, { 0xa7d6, 0xa7d8, 2, 1 },
    { 0xa7f5, 0xa7f5, 1, 1 }, { 0xff21, 0xff3a, 1, 32 }, { 0x10400, 0x10427, 1, 40 }, { 0x104b0, 0x104d3, 1, 40 },
    { 0x10570, 0x1057a, 1, 39 }, { 0x1057c, 0x1058a, 1, 39 }, { 0x1058c, 0x10592, 1, 39 }, { 0x10594, 0x10595, 1, 39 },
    { 0x10c80, 0x10cb2, 1, 64 }, { 0x118a0, 0x118bf, 1, 32 }, { 0x16e40, 0x16e5f, 1, 32 }, { 0x1e900, 0x1e921, 1, 34 },
};
/* clang-format on */
#define G4_N_CASE_RUNS (sizeof g4_case_runs / sizeof g4_case_runs[0])

static uint32_t g4_py_lower_char(uint32_t cp)
{
    if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    size_t low = 0, high = G4_N_CASE_RUNS; /* the first run that ends at or after cp */
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if ((uint32_t)g4_case_runs[middle].last < cp)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == G4_N_CASE_RUNS) return cp;
    const g4_case_run *run = &g4_case_runs[low];
    const int64_t distance = (int64_t)cp - run->first;
    return distance >= 0 && distance % run->step == 0 ? (uint32_t)((int64_t)cp + run->delta) : cp;
}

static uint32_t g4_py_upper_char(uint32_t cp)
{
    if (cp < 0x80) return cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
    if (cp == 0x3c2) return 0x3a3; /* final sigma */
    for (size_t i = 0; i < G4_N_CASE_RUNS; i++) {
        const g4_case_run *run = &g4_case_runs[i];
        const int64_t upper = (int64_t)cp - run->delta;
        if (upper >= run->first && upper <= run->last && (upper - run->first) % run->step == 0) return (uint32_t)upper;
    }
    return cp;
}

static int g4_py_is_cased(uint32_t cp)
{
    return g4_py_lower_char(cp) != cp || g4_py_upper_char(cp) != cp || cp == 0xdf;
}

/* Accents, apostrophes and the like, which count neither as letters nor as the end of a word. */
static int g4_py_is_case_ignorable(uint32_t cp)
{
    return cp == '\'' || cp == '.' || cp == ':' || cp == '^' || cp == '`' || cp == 0xa8 || cp == 0xad || cp == 0xb7 ||
           (cp >= 0x2b0 && cp <= 0x36f) || cp == 0x2019;
}

static int g4_py_letter_before(const char *s, size_t pos)
{
    while (pos > 0) {
        const size_t end = pos;
        uint32_t cp;
        do pos--;
        while (pos > 0 && g4_utf8_continues(s[pos]));
        if (g4_utf8_decode(s + pos, end - pos, &cp) == 0) return 0;
        if (g4_py_is_cased(cp)) return 1;
        if (!g4_py_is_case_ignorable(cp)) return 0;
    }
    return 0;
}

static int g4_py_letter_after(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t size; (size = g4_utf8_decode(s, n, &cp)) > 0; s += size, n -= size) {
        if (g4_py_is_cased(cp)) return 1;
        if (!g4_py_is_case_ignorable(cp)) return 0;
    }
    return 0;
}

/* str.lower(), appended. */
static void g4_py_lower(g4_buf *b, const char *s, size_t n)
{
    for (size_t i = 0, size; i < n; i += size) {
        uint32_t cp;
        char out[4];
        size = g4_utf8_decode(s + i, n - i, &cp);
        if (size == 0) {
            size = 1;
            g4_buf_add(b, s + i, 1);
        } else if (cp == 0x130) { /* i and a combining dot above */
            g4_buf_add(b, "i\xcc\x87", 3);
        } else if (cp == 0x3a3 && g4_py_letter_before(s, i) && !g4_py_letter_after(s + i + size, n - i - size)) {
            g4_buf_add(b, out, g4_utf8_encode(0x3c2, out)); /* final sigma */
        } else {
            g4_buf_add(b, out, g4_utf8_encode(g4_py_lower_char(cp), out));
        }
    }
}

void g4_py_upper(g4_buf *b, const char *s, size_t n)
{
    for (size_t i = 0, size; i < n; i += size) {
        uint32_t cp;
        char out[4];
        size = g4_utf8_decode(s + i, n - i, &cp);
        if (size == 0)
            g4_buf_add(b, s + i, 1);
        else if (cp == 0xdf)
            g4_buf_str(b, "SS");
        else
            g4_buf_add(b, out, g4_utf8_encode(g4_py_upper_char(cp), out));
        if (size == 0) size = 1;
    }
}

/* ---- White space --------------------------------------------------------------------------------- */

int g4_py_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

/* Whether all of the next 64 bytes are blanks of ASCII: a loop that compilers turn into vector instructions. */
static int g4_py_is_blank64(const char *s)
{
    int n = 0;
    for (int i = 0; i < 64; i++) {
        const unsigned char c = (unsigned char)s[i];
        n += (unsigned char)(c - 9) <= 4 || (unsigned char)(c - 0x1c) <= 4;
    }
    return n == 64;
}

void g4_py_strip(const char **s, size_t *n)
{
    uint32_t cp = 0;
    size_t size;
    for (; *n >= 64 && g4_py_is_blank64(*s); *n -= 64) *s += 64;
    while ((size = g4_utf8_decode(*s, *n, &cp)) > 0 && g4_py_is_space(cp)) {
        *s += size;
        *n -= size;
    }
    while (*n >= 64 && g4_py_is_blank64(*s + *n - 64)) *n -= 64;
    while (*n > 0) {
        size_t last = *n - 1;
        while (last > 0 && *n - last < 4 && g4_utf8_continues((*s)[last])) last--;
        if (g4_utf8_decode(*s + last, *n - last, &cp) != *n - last || !g4_py_is_space(cp)) break;
        *n = last;
    }
}

/* ---- Values as text ------------------------------------------------------------------------------ */

/* The shortest decimal digits that read back as the finite x, without trailing zeros, into digits; returns their
 * number. The value is 0.d1d2d3.. * 10^(*exponent + 1). */
static int g4_py_digits(double x, char digits[32], int *exponent)
{
    char s[64];
    int precision = 0, n = 0;
    do snprintf(s, sizeof s, "%.*e", precision, x);
    while (strtod(s, NULL) != x && ++precision < 17);
    const char *e = strchr(s, 'e');
    for (const char *p = s; p < e; p++)
        if (g4_is_digit(*p)) digits[n++] = *p; /* skips the sign and whatever the decimal point is here */
    *exponent = atoi(e + 1);
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

/* A float as repr() writes it: with an exponent below 1e-4 and from 1e16 on, else with a point and a digit after. */
static void g4_py_float(g4_buf *b, double x)
{
    char digits[32];
    int exponent;
    if (x - x != 0.0) { /* beyond the range of double */
        g4_buf_str(b, x < 0 ? "-inf" : "inf");
        return;
    }
    const int n = g4_py_digits(x, digits, &exponent);
    if (signbit(x)) g4_buf_str(b, "-");
    if (exponent < -4 || exponent >= 16) {
        g4_buf_add(b, digits, 1);
        if (n > 1) g4_buf_str(b, ".");
        g4_buf_add(b, digits + 1, (size_t)(n - 1));
        g4_buf_fmt(b, "e%c%02d", exponent < 0 ? '-' : '+', exponent < 0 ? -exponent : exponent);
    } else if (exponent < 0) {
        g4_buf_str(b, "0.");
        for (int i = -1; i > exponent; i--) g4_buf_str(b, "0");
        g4_buf_add(b, digits, (size_t)n);
    } else {
        for (int i = 0; i < n || i <= exponent; i++) {
            if (i == exponent + 1) g4_buf_str(b, ".");
            g4_buf_add(b, i < n ? digits + i : "0", 1);
        }
        if (n <= exponent + 1) g4_buf_str(b, ".0");
    }
}

/* Integers digit by digit, as they stand in the document; the rest as a float. */
static void g4_py_number(g4_buf *b, const g4_json *v)
{
    if (strcspn(v->text, ".eE") != v->text_len)
        g4_py_float(b, v->number);
    else
        g4_buf_str(b, strcmp(v->text, "-0") == 0 ? "0" : v->text);
}

/* Code points that repr() escapes: spaces, control and format characters, private use. (Python also escapes what its
 * version of Unicode has not assigned; those are kept here.) */
static int g4_py_is_unprintable(uint32_t cp)
{
    return cp != ' ' && (g4_py_is_space(cp) || cp < 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0xad ||
                         (cp >= 0x600 && cp <= 0x605) || cp == 0x61c || cp == 0x6dd || cp == 0x70f || cp == 0x180e ||
                         (cp >= 0x200b && cp <= 0x200f) || (cp >= 0x202a && cp <= 0x202e) ||
                         (cp >= 0x2060 && cp <= 0x206f) || (cp >= 0xe000 && cp <= 0xf8ff) || cp == 0xfeff ||
                         (cp >= 0xfff9 && cp <= 0xfffb) || (cp & 0xfffe) == 0xfffe || cp >= 0xe0001);
}

/* repr() of a string: quoted. */
static void g4_py_repr_text(g4_buf *b, const char *s, size_t n)
{
    const char quote = memchr(s, '\'', n) != NULL && memchr(s, '"', n) == NULL ? '"' : '\'';
    g4_buf_add(b, &quote, 1);
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        size_t size = g4_utf8_decode(s + i, n - i, &cp);
        if (size == 0) size = 1;
        if (cp == '\n')
            g4_buf_str(b, "\\n");
        else if (cp == '\r')
            g4_buf_str(b, "\\r");
        else if (cp == '\t')
            g4_buf_str(b, "\\t");
        else if (cp == '\\' || cp == (uint32_t)quote)
            g4_buf_fmt(b, "\\%c", (int)cp);
        else if (!g4_py_is_unprintable(cp))
            g4_buf_add(b, s + i, size);
        else if (cp < 0x100)
            g4_buf_fmt(b, "\\x%02x", (unsigned)cp);
        else if (cp < 0x10000)
            g4_buf_fmt(b, "\\u%04x", (unsigned)cp);
        else
            g4_buf_fmt(b, "\\U%08x", (unsigned)cp);
        i += size;
    }
    g4_buf_add(b, &quote, 1);
}

/* repr() of a value, as it stands inside lists and maps. */
static void g4_py_repr(g4_buf *b, const g4_json *v, g4_halt *halt)
{
    if (v->kind == G4_JSON_STRING)
        g4_py_repr_text(b, v->text, v->text_len);
    else
        g4_py_str(b, v, halt);
}

void g4_py_str(g4_buf *b, const g4_json *v, g4_halt *halt)
{
    if (v == NULL) return;
    switch (v->kind) {
    case G4_JSON_NULL: g4_buf_str(b, "None"); break;
    case G4_JSON_FALSE: g4_buf_str(b, "False"); break;
    case G4_JSON_TRUE: g4_buf_str(b, "True"); break;
    case G4_JSON_NUMBER: g4_py_number(b, v); break;
    case G4_JSON_STRING: g4_buf_add(b, v->text, v->text_len); break;
    case G4_JSON_ARRAY:
    case G4_JSON_OBJECT:
        g4_buf_str(b, v->kind == G4_JSON_ARRAY ? "[" : "{");
        for (const g4_json *c = v->child; c != NULL && !b->failed; c = c->next) {
            if (g4_halted(halt)) b->failed = 1;
            if (c != v->child) g4_buf_str(b, ", ");
            if (v->kind == G4_JSON_OBJECT) {
                g4_py_repr_text(b, c->key, c->key_len);
                g4_buf_str(b, ": ");
            }
            g4_py_repr(b, c, halt);
        }
        g4_buf_str(b, v->kind == G4_JSON_ARRAY ? "]" : "}");
        break;
    }
}

int g4_py_truthy(const g4_json *v)
{
    if (v == NULL) return 0;
    switch (v->kind) {
    case G4_JSON_TRUE: return 1;
    case G4_JSON_NUMBER: return v->number != 0.0;
    case G4_JSON_STRING: return v->text_len > 0;
    case G4_JSON_ARRAY:
    case G4_JSON_OBJECT: return v->child != NULL;
    default: return 0;
    }
}

/* ---- Sorted maps --------------------------------------------------------------------------------- */

int g4_sorted_compare(const void *pa, const void *pb)
{
    const g4_sorted *a = pa, *b = pb;
    const int c = g4_bytes_compare(a->text, a->len, b->text, b->len);
    return c != 0 ? c : a->order > b->order ? 1 : -1;
}

int g4_dictsort_open(g4_dictsort *d, const g4_allocator *a, const g4_json *map, g4_halt *halt)
{
    size_t n = 0;
    *d = (g4_dictsort) { .lowered = { .a = a } };
    for (const g4_json *c = map->child; c != NULL; c = c->next) n++;
    if (n == 0) return 1;
    d->members = g4_alloc(a, n, sizeof *d->members);
    if (d->members == NULL) return 0;
    g4_asker asker = { .halt = halt };
    for (const g4_json *c = map->child; c != NULL; c = c->next) {
        if (g4_ask(&asker)) return 0;
        const size_t before = d->lowered.len, order = d->n++;
        g4_py_lower(&d->lowered, c->key, c->key_len);
        d->members[order] = (g4_sorted) { .node = c, .len = d->lowered.len - before, .order = order };
    }
    if (d->lowered.failed) return 0;
    const char *text = d->lowered.data == NULL ? "" : d->lowered.data; /* it has stopped moving */
    for (size_t i = 0; i < n; text += d->members[i++].len) d->members[i].text = text;
    return g4_sort(a, d->members, n, sizeof *d->members, g4_sorted_compare, halt);
}

void g4_dictsort_close(g4_dictsort *d)
{
    g4_free(d->lowered.a, d->members);
    g4_buf_free(&d->lowered);
}
