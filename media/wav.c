/* wav.c - reading WAV, and resampling to 16 kHz. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

/* ---- WAV and resampling -------------------------------------------------------------------------------
 *
 * In: RIFF WAVE with integer PCM of 8, 16, 24 or 32 bits or float of 32 or 64, any rate from 1 to 768 kHz, any number
 * of channels. Out: 16 kHz mono float: integers divided by 2^(bits - 1), channels averaged, then resampled. Other
 * codings go to ffmpeg. */

#define G4_SINC_ZEROS 64     /* zero crossings of the filter on each side */
#define G4_SINC_CUTOFF 0.947 /* of the lower Nyquist frequency: the transition band ends there or just beyond it */
#define G4_SINC_BETA 10.0    /* Kaiser window: side lobes about 100 dB down */

static double g4_bessel_i0(double x) /* modified Bessel function of order 0, by its series */
{
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-17 * sum; k++) {
        term *= x / 2 / k * (x / 2 / k);
        sum += term;
    }
    return sum;
}

static uint64_t g4_gcd(uint64_t a, uint64_t b) /* b > 0 */
{
    uint64_t r = a % b;
    return r ? g4_gcd(b, r) : b;
}

/* y[n] = sum_k x[k] h(n * rate / 16000 - k), h a Kaiser-windowed sinc at 0.947 of the lower Nyquist frequency. With
 * 16000 / rate = L / M in lowest terms, output n has phase n * M mod L; each phase's coefficients are made once and
 * scaled to sum 1. Takes x (n_in) and frees it. */
g4_status g4_resample(const g4_media *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err)
{
    uint64_t g = g4_gcd(G4_RATE, rate), up = G4_RATE / g, down = rate / g;
    uint64_t n_out = (n_in * up + down - 1) / down; /* n_in < 2^34, up <= 16000 */
    if (rate == G4_RATE) {
        out->samples = x;
        out->n_samples = (size_t)n_in;
        return G4_OK;
    }
    double cutoff =
        G4_SINC_CUTOFF * (rate > G4_RATE ? (double)G4_RATE / rate : 1.0); /* of the input's Nyquist frequency */
    int half = (int)ceil(G4_SINC_ZEROS / cutoff), taps = 2 * half, padded = (taps + 7) & ~7;
    float *y = g4_alloc(m->a, (size_t)n_out, sizeof *y), *h = g4_alloc(m->a, (size_t)padded, sizeof *h);
    if (!y || !h) {
        g4_free(m->a, x);
        g4_free(m->a, y);
        g4_free(m->a, h);
        return g4_fail(err, G4_ERR_MEMORY, "resampling to %" PRIu64 " samples: out of memory", n_out);
    }
    double scale = 1.0 / g4_bessel_i0(G4_SINC_BETA);
    for (uint64_t first = 0; first < up && first < n_out; first++) {
        double frac = (double)(first * down % up) / (double)up, sum = 0;
        for (int pass = 0; pass < 2; pass++) { /* the sum, then the coefficients */
            for (int i = 0; i < taps; i++) {
                double t = (i - half + 1 - frac) * cutoff, u = (i - half + 1 - frac) / half, v = 0;
                if (u * u < 1)
                    v = (t == 0 ? 1 : sin(3.14159265358979323846 * t) / (3.14159265358979323846 * t)) *
                        g4_bessel_i0(G4_SINC_BETA * sqrt(1 - u * u)) * scale;
                if (pass == 0)
                    sum += v;
                else
                    h[i] = (float)(v / sum);
            }
        }
        for (uint64_t n = first; n < n_out; n += up) {
            int64_t start = (int64_t)(n * down / up) - half + 1;
            float acc[8] = { 0 }; /* eight sums side by side: the compiler may keep them in vectors */
            if (start >= 0 && (uint64_t)start + (uint64_t)padded <= n_in) {
                const float *p = x + start;
                for (int i = 0; i < padded; i += 8) {
                    for (int k = 0; k < 8; k++) acc[k] += p[i + k] * h[i + k];
                }
            } else {
                for (int i = 0; i < taps; i++) {
                    int64_t k = start + i;
                    if (k >= 0 && (uint64_t)k < n_in) acc[i & 7] += x[k] * h[i];
                }
            }
            y[n] = ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
        }
    }
    g4_free(m->a, x);
    g4_free(m->a, h);
    out->samples = y;
    out->n_samples = (size_t)n_out;
    return G4_OK;
}

g4_status g4_wav_fmt(g4_wav_format *f, const uint8_t *p, size_t n, int *foreign, g4_error *err)
{
    static const uint8_t guid[14] = {
        0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71
    }; /* KSDATAFORMAT_SUBTYPE_..., less its tag */
    if (n < 16) return g4_fail(err, G4_ERR_FORMAT, "WAV: fmt chunk of %zu bytes, expected 16 or more", n);
    f->tag = g4_le16(p);
    f->channels = g4_le16(p + 2);
    f->rate = g4_le32(p + 4);
    uint32_t align = g4_le16(p + 12), bits = g4_le16(p + 14);
    if (f->tag == 0xfffe && n >= 40 && !memcmp(p + 26, guid, 14)) f->tag = g4_le16(p + 24); /* WAVE_FORMAT_EXTENSIBLE */
    if (f->tag != 1 && f->tag != 3) {
        *foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: coding 0x%04x, expected integer (1) or float (3)",
                       (unsigned)f->tag);
    }
    if (f->channels == 0 || align % f->channels != 0)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: %u bytes for %u channels", (unsigned)align, (unsigned)f->channels);
    f->bytes = align / f->channels;
    if (bits == 0 || bits > 8 * f->bytes ||
        (f->tag == 1 ? f->bytes < 1 || f->bytes > 4 : f->bytes != 4 && f->bytes != 8))
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "WAV: %u bits in %u bytes: expected integers of 1 to 4 bytes or floats of 4 or 8",
                       (unsigned)bits, (unsigned)f->bytes);
    if (f->rate < 1000 || f->rate > 768000)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: %u samples a second, expected 1000 to 768000", (unsigned)f->rate);
    return G4_OK;
}

static double g4_wav_sample(const g4_wav_format *f, const uint8_t *p)
{
    if (f->tag == 3) {
        union {
            uint32_t u;
            float v;
        } a;
        union {
            uint64_t u;
            double v;
        } b;
        a.u = g4_le32(p);
        if (f->bytes == 4) return (double)a.v;
        b.u = (uint64_t)g4_le32(p + 4) << 32 | g4_le32(p);
        return b.v;
    }
    if (f->bytes == 1) return (p[0] - 128) / 128.0; /* the only unsigned one */
    uint32_t v = 0;
    for (uint32_t i = 0; i < f->bytes; i++)
        v |= (uint32_t)p[i] << (32 - 8 * (f->bytes - i)); /* to the top of 32 bits */
    return (int32_t)v / 2147483648.0;
}

float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame) /* the mean of the channels */
{
    double sum = 0;
    for (uint32_t c = 0; c < f->channels; c++) sum += g4_wav_sample(f, frame + (size_t)c * f->bytes);
    return (float)(sum / f->channels);
}

/* *foreign is set when the file is sound that ffmpeg may be able to read. */
g4_status g4_wav_decode(const g4_media *m, const uint8_t *data, size_t size, g4_audio *out, int *foreign, g4_error *err)
{
    g4_wav_format f = { 0, 0, 0, 0 };
    size_t at = 12;
    for (;;) {
        if (size - at < 8)
            return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: no %s chunk in %zu bytes", f.tag ? "data" : "fmt",
                           size);
        const uint8_t *name = data + at;
        uint64_t n = g4_le32(data + at + 4);
        at += 8;
        if (!memcmp(name, "data", 4) && f.bytes && f.channels) {
            if (n == 0xffffffffu) n = size - at; /* written to a pipe: the length was not known */
            if (n > size - at)
                return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: data of %" PRIu64 " bytes, found %zu", n,
                               size - at);
            uint64_t frame = (uint64_t)f.bytes * f.channels, n_in = n / frame;
            if (n_in > m->max_samples * (uint64_t)f.rate / G4_RATE)
                return g4_fail(err, G4_ERR_UNSUPPORTED,
                               "WAV: %" PRIu64 " samples at %u Hz are more than the limit of %" PRIu64 " at 16 kHz",
                               n_in, (unsigned)f.rate, m->max_samples);
            if (n_in == 0) return g4_fail(err, G4_ERR_FORMAT, "WAV: no samples");
            float *x = g4_alloc(m->a, (size_t)n_in, sizeof *x);
            if (!x) return g4_fail(err, G4_ERR_MEMORY, "WAV: %" PRIu64 " samples: out of memory", n_in);
            for (uint64_t i = 0; i < n_in; i++) {
                x[i] = g4_wav_mono(&f, data + at + i * frame);
                if (!isfinite(x[i])) {
                    g4_free(m->a, x);
                    return g4_fail(err, G4_ERR_FORMAT, "WAV: sample %" PRIu64 " is not a finite number", i);
                }
            }
            return g4_resample(m, x, n_in, f.rate, out, err);
        }
        if (n > size - at)
            return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated in the chunk at byte %zu of %zu", at - 8, size);
        if (!memcmp(name, "fmt ", 4)) {
            g4_status s = g4_wav_fmt(&f, data + at, (size_t)n, foreign, err);
            if (s) return s;
        }
        at += (size_t)n;
        if (n & 1 && at < size) at++; /* chunks are padded to even lengths */
    }
}
