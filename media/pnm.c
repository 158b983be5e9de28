/* pnm.c - reading PPM, PGM, PBM and PAM. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

/* ---- PPM, PGM, PBM, PAM ---------------------------------------------------------------------------
 *
 * In: Netpbm files P1 to P7, the first picture of each. Out: RGB, samples scaled to round(v / maxval * 255) as Pillow
 * does (halves to even), alpha of PAM over white. */

/* Skip blanks and # comments, then read a decimal number of at most 9 digits; -1: none. */
int64_t g4_pnm_number(g4_pnm *p, int max_digits)
{
    while (p->at < p->size) {
        uint8_t c = p->data[p->at];
        if (c == '#') {
            while (p->at < p->size && p->data[p->at] != '\n' && p->data[p->at] != '\r') p->at++;
        } else if (c == ' ' || (c >= 9 && c <= 13)) {
            p->at++;
        } else {
            break;
        }
    }
    int64_t v = 0;
    int digits = 0;
    for (; p->at < p->size && p->data[p->at] >= '0' && p->data[p->at] <= '9' && digits < max_digits; digits++)
        v = 10 * v + (p->data[p->at++] - '0');
    return digits ? v : -1;
}

/* Fields of a PAM header: lines "NAME value" up to ENDHDR. */
static g4_status g4_pam_header(g4_pnm *p, int64_t field[4], g4_error *err)
{
    static const char *const names[4] = { "WIDTH", "HEIGHT", "DEPTH", "MAXVAL" };
    p->at = 3;
    while (p->at < p->size) {
        const uint8_t *line = p->data + p->at, *nl = memchr(line, '\n', p->size - p->at);
        if (!nl) break;
        size_t n = (size_t)(nl - line);
        if (n == 6 && !memcmp(line, "ENDHDR", 6)) {
            p->at += n + 1;
            return G4_OK;
        }
        for (int i = 0; i < 4; i++) {
            size_t k = strlen(names[i]);
            if (n > k && !memcmp(line, names[i], k) && line[k] == ' ') {
                g4_pnm value = { line + k, n - k, 0 };
                field[i] = g4_pnm_number(&value, 9);
            }
        }
        p->at += n + 1;
    }
    return g4_fail(err, G4_ERR_FORMAT, "PAM: truncated: no ENDHDR in %zu bytes", p->size);
}

g4_status g4_pnm_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                        g4_error *err)
{
    g4_pnm p = { data, size, 2 };
    int kind = data[1] - '0', bitmap = kind == 1 || kind == 4;
    int64_t f[4] = { -1, -1, kind == 3 || kind == 6 ? 3 : 1, 1 }; /* width, height, channels, maxval */
    *pixels = NULL;
    if (kind == 7) {
        g4_status s = g4_pam_header(&p, f, err);
        if (s) return s;
    } else {
        f[0] = g4_pnm_number(&p, 9);
        f[1] = g4_pnm_number(&p, 9);
        if (!bitmap) f[3] = g4_pnm_number(&p, 9);
        if (p.at >= size) return g4_fail(err, G4_ERR_FORMAT, "PNM: truncated header of %zu bytes", size);
        p.at++; /* exactly one blank before the pixels */
    }
    if (f[0] < 1 || f[1] < 1 || f[2] < 1 || f[2] > 4 || f[3] < 1 || f[3] > 65535)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: width %lld, height %lld, channels %lld, maxval %lld: expected 1.., 1.., 1..4, 1..65535",
                       (long long)f[0], (long long)f[1], (long long)f[2], (long long)f[3]);
    uint64_t pw = (uint64_t)f[0], ph = (uint64_t)f[1], channels = (uint64_t)f[2],
             wide = f[3] > 255 ? 2 : 1; /* < 10^9 each */
    uint64_t need = kind == 4   ? ph * ((pw + 7) / 8)
                    : kind == 1 ? ph * pw
                    : kind <= 3 ? ph * pw * channels * 2 - 1
                                : ph * pw * channels * wide;
    if (need > size - p.at)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: truncated: %" PRIu64 " x %" PRIu64 " pixels need %" PRIu64 " bytes, found %zu", pw, ph,
                       need, size - p.at);
    g4_status s = g4_pixels_alloc(m, "PNM", pw, ph, pixels, err);
    uint8_t *lut = s ? NULL : g4_alloc(m->a, 65536, 1);
    if (!s && !lut) s = g4_fail(err, G4_ERR_MEMORY, "PNM: out of memory");
    if (s || !lut) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
        return s;
    }
    for (int64_t v = 0; v < 65536; v++) lut[v] = v >= f[3] ? 255 : (uint8_t)rint((double)v / (double)f[3] * 255);
    if (bitmap) {
        lut[0] = 255; /* 1 is black */
        lut[1] = 0;
    }
    uint8_t *d = *pixels;
    const uint8_t *q = data + p.at;
    for (uint64_t y = 0; !s && y < ph; y++) {
        for (uint64_t x = 0; !s && x < pw; x++, d += 3) {
            uint8_t v[4] = { 0 };
            for (uint64_t c = 0; c < channels; c++) {
                int64_t sample;
                if (kind == 4) {
                    sample = q[x >> 3] >> (7 - (x & 7)) & 1;
                } else if (kind <= 3) {
                    sample = g4_pnm_number(&p, kind == 1 ? 1 : 5);
                    if (sample < 0 || sample > f[3]) {
                        s = g4_fail(err, G4_ERR_FORMAT, "PNM: byte %zu: expected a sample of 0 to %lld", p.at,
                                    (long long)f[3]);
                        break;
                    }
                } else {
                    sample = wide == 2 ? (int64_t)g4_be16(q) : *q;
                    q += wide;
                }
                v[c] = lut[sample];
            }
            uint8_t alpha = channels == 2 ? v[1] : channels == 4 ? v[3] : 255;
            for (uint64_t c = 0; c < 3; c++) d[c] = g4_over_white(v[channels >= 3 ? c : 0], alpha);
        }
        if (kind == 4) q += (pw + 7) / 8;
    }
    g4_free(m->a, lut);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
        return s;
    }
    *w = (int)pw;
    *h = (int)ph;
    return G4_OK;
}
