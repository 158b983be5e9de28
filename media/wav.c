/* wav.c - RIFF WAVE with integers of 8, 16, 24 or 32 bits or floats of 32 or 64, any rate from 1 to 768 kHz and any
 * number of channels, as 16 kHz mono float: integers are divided by 2^(bits - 1), channels averaged, then the rate is
 * converted. Other codings are left to ffmpeg. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

/* ---- Resampling ----------------------------------------------------------------------------- */

#define G4_SINC_ZEROS 64     /* zero crossings of the filter on each side */
#define G4_SINC_CUTOFF 0.947 /* of the lower Nyquist frequency: the transition band ends there or just beyond it */
#define G4_SINC_BETA 10.0    /* Kaiser window: side lobes about 100 dB down */
#define G4_SINC_STEPS 32     /* what a coefficient counts when the halt is to be asked */
#define G4_SINC_LANES 8      /* sums side by side: the compiler may keep them in vectors */

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
    const uint64_t r = a % b;
    return r ? g4_gcd(b, r) : b;
}

static double g4_sinc(double t)
{
    const double pi = 3.14159265358979323846;
    return t == 0 ? 1 : sin(pi * t) / (pi * t);
}

/* A Kaiser-windowed sinc. */
typedef struct {
    double cutoff, scale; /* cutoff of the input's Nyquist frequency; scale: 1 over the window's height */
    int half, taps;       /* inputs on each side, and of both */
    size_t padded;        /* taps with zeros up to a multiple of G4_SINC_LANES */
    double *weight;       /* (taps) of the present phase, before they are scaled to sum 1 */
    float *h;             /* (padded) of the present phase */
} g4_sinc_filter;

/* Coefficients for an output that lies `fraction` of an input behind input `half` - 1. */
static void g4_sinc_phase(g4_sinc_filter *f, double fraction)
{
    double sum = 0;
    for (int i = 0; i < f->taps; i++) {
        const double t = i - f->half + 1 - fraction, u = t / f->half;
        f->weight[i] = 0;
        if (u * u < 1) f->weight[i] = g4_sinc(t * f->cutoff) * g4_bessel_i0(G4_SINC_BETA * sqrt(1 - u * u)) * f->scale;
        sum += f->weight[i];
    }
    for (int i = 0; i < f->taps; i++) f->h[i] = (float)(f->weight[i] / sum);
}

/* sum_i x[start + i] h[i] over those of n_in inputs that are there. */
static float g4_sinc_apply(const g4_sinc_filter *f, const float *x, uint64_t n_in, int64_t start)
{
    float acc[G4_SINC_LANES] = { 0 };
    if (start >= 0 && (uint64_t)start + f->padded <= n_in) {
        const float *p = x + start;
        for (size_t i = 0; i < f->padded; i += G4_SINC_LANES)
            for (size_t k = 0; k < G4_SINC_LANES; k++) acc[k] += p[i + k] * f->h[i + k];
    } else {
        for (int i = 0; i < f->taps; i++) {
            const int64_t k = start + i;
            if (k >= 0 && (uint64_t)k < n_in) acc[i % G4_SINC_LANES] += x[k] * f->h[i];
        }
    }
    return ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
}

/* y[n] = sum_k x[k] h(n * rate / 16000 - k). With 16000 / rate = up / down in lowest terms, output n has phase
 * n * down mod up; the coefficients of each phase are made once. */
g4_status g4_resample(const g4_media_limits *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err)
{
    if (rate == G4_AUDIO_RATE) {
        out->samples = x;
        out->n_samples = (size_t)n_in;
        return G4_OK;
    }
    const uint64_t common = g4_gcd(G4_AUDIO_RATE, rate), up = G4_AUDIO_RATE / common, down = rate / common;
    if (n_in > (UINT64_MAX - down) / up) {
        g4_free(m->a, x);
        return g4_fail(err, G4_ERR_UNSUPPORTED, "resampling of %" PRIu64 " samples: too many", n_in);
    }
    const uint64_t n_out = (n_in * up + down - 1) / down;
    g4_sinc_filter f = { .scale = 1.0 / g4_bessel_i0(G4_SINC_BETA) };
    f.cutoff = G4_SINC_CUTOFF * (rate > G4_AUDIO_RATE ? (double)G4_AUDIO_RATE / rate : 1.0);
    f.half = (int)ceil(G4_SINC_ZEROS / f.cutoff);
    f.taps = 2 * f.half;
    f.padded = g4_round_up((size_t)f.taps, G4_SINC_LANES);
    f.weight = g4_alloc(m->a, (size_t)f.taps, sizeof *f.weight);
    f.h = g4_alloc(m->a, f.padded, sizeof *f.h);
    float *y = g4_alloc(m->a, (size_t)n_out, sizeof *y);
    g4_status s = G4_OK;
    if (y && f.h && f.weight) {
        g4_pace pace = { m->halt, 0 };
        int ends = 0;
        for (uint64_t first = 0; first < up && first < n_out && !ends; first++) {
            g4_sinc_phase(&f, (double)(first * down % up) / (double)up);
            ends = g4_pace_ends(&pace, G4_SINC_STEPS * (size_t)f.taps);
            for (uint64_t n = first; n < n_out && !ends; n += up) {
                y[n] = g4_sinc_apply(&f, x, n_in, (int64_t)(n * down / up) - f.half + 1);
                ends = g4_pace_ends(&pace, (size_t)f.taps);
            }
        }
        if (ends) s = g4_halt_check(m->halt, err);
    } else {
        s = g4_fail(err, G4_ERR_MEMORY, "resampling to %" PRIu64 " samples: out of memory", n_out);
    }
    g4_free(m->a, f.weight);
    g4_free(m->a, f.h);
    g4_free(m->a, x);
    if (s)
        g4_free(m->a, y);
    else
        *out = (g4_audio) { .samples = y, .n_samples = (size_t)n_out };
    return s;
}

/* ---- Chunks --------------------------------------------------------------------------------- */

enum { G4_WAV_INTEGER = 1, G4_WAV_FLOAT = 3, G4_WAV_EXTENSIBLE = 0xfffe }; /* tags */
#define G4_WAV_RATE_MIN 1000                                               /* samples a second */
#define G4_WAV_RATE_MAX 768000
#define G4_WAV_CHUNKS 12 /* offset of the first chunk: "RIFF", length, "WAVE" */

static g4_status g4_wav_fmt(g4_wav_format *f, const uint8_t *p, size_t n, g4_error *err)
{
    static const uint8_t guid[14] = {
        0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71
    }; /* KSDATAFORMAT_SUBTYPE_..., less its tag */
    if (n < 16) return g4_fail(err, G4_ERR_FORMAT, "WAV: fmt chunk of %zu bytes, expected 16 or more", n);
    f->tag = g4_le16(p);
    f->channels = g4_le16(p + 2);
    f->rate = g4_le32(p + 4);
    const uint32_t frame = g4_le16(p + 12), bits = g4_le16(p + 14); /* frame: bytes of a sample of all channels */
    if (f->tag == G4_WAV_EXTENSIBLE && n >= 40 && !memcmp(p + 26, guid, 14)) f->tag = g4_le16(p + 24);
    if (f->tag != G4_WAV_INTEGER && f->tag != G4_WAV_FLOAT) {
        f->foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: coding 0x%04x, expected integer (1) or float (3)",
                       (unsigned)f->tag);
    }
    if (f->channels == 0 || frame % f->channels != 0)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: %u bytes for %u channels", (unsigned)frame, (unsigned)f->channels);
    f->bytes = frame / f->channels;
    const int fits = f->tag == G4_WAV_INTEGER ? f->bytes >= 1 && f->bytes <= 4 : f->bytes == 4 || f->bytes == 8;
    if (bits == 0 || bits > 8 * f->bytes || !fits)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "WAV: %u bits in %u bytes: expected integers of 1 to 4 bytes or floats of 4 or 8",
                       (unsigned)bits, (unsigned)f->bytes);
    if (f->rate < G4_WAV_RATE_MIN || f->rate > G4_WAV_RATE_MAX)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: %u samples a second, expected %d to %d", (unsigned)f->rate,
                       G4_WAV_RATE_MIN, G4_WAV_RATE_MAX);
    return G4_OK;
}

int g4_wav_has_samples(const uint8_t *data, size_t size, const g4_wav_format *f, size_t pos)
{
    return pos <= size && size - pos >= G4_WAV_CHUNK_HEAD && memcmp(data + pos, "data", 4) == 0 && f->bytes > 0;
}

g4_status g4_wav_chunks(const uint8_t *data, size_t size, g4_wav_format *f, size_t *pos, g4_halt *halt, g4_error *err)
{
    g4_pace pace = { halt, 0 };
    *pos = G4_WAV_CHUNKS;
    while (*pos <= size && size - *pos >= G4_WAV_CHUNK_HEAD && !g4_wav_has_samples(data, size, f, *pos)) {
        const uint8_t *name = data + *pos, *p = name + G4_WAV_CHUNK_HEAD;
        const size_t n = g4_le32(name + 4);
        if (n > size - *pos - G4_WAV_CHUNK_HEAD) break;
        const g4_status s = memcmp(name, "fmt ", 4) == 0 ? g4_wav_fmt(f, p, n, err) : G4_OK;
        if (s) return s;
        const g4_status halted = g4_pace_ends(&pace, G4_WAV_CHUNK_HEAD) ? g4_halt_check(halt, err) : G4_OK;
        if (halted) return halted;
        *pos += G4_WAV_CHUNK_HEAD + n;
        if (n & 1 && *pos < size) ++*pos; /* chunks are padded to even lengths */
    }
    return G4_OK;
}

/* ---- Samples -------------------------------------------------------------------------------- */

static double g4_wav_float(const uint8_t *p, uint32_t bytes)
{
    const uint32_t low = g4_le32(p);
    if (bytes == 4) {
        float v;
        memcpy(&v, &low, sizeof v);
        return (double)v;
    }
    const uint64_t bits = (uint64_t)g4_le32(p + 4) << 32 | low;
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double g4_wav_integer(const uint8_t *p, uint32_t bytes)
{
    if (bytes == 1) return (p[0] - 128) / 128.0; /* the only unsigned one */
    uint32_t v = 0;
    for (uint32_t i = 0; i < bytes; i++) v |= (uint32_t)p[i] << (32 - 8 * (bytes - i)); /* to the top of 32 bits */
    return (int32_t)v / 2147483648.0;
}

float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame)
{
    double sum = 0;
    for (uint32_t c = 0; c < f->channels; c++, frame += f->bytes)
        sum += f->tag == G4_WAV_FLOAT ? g4_wav_float(frame, f->bytes) : g4_wav_integer(frame, f->bytes);
    return (float)(sum / f->channels);
}

uint64_t g4_wav_limit(const g4_media_limits *m, const g4_wav_format *f)
{
    return m->max_samples > UINT64_MAX / f->rate ? UINT64_MAX : m->max_samples * f->rate / G4_AUDIO_RATE;
}

/* The samples in n bytes at p. */
static g4_status g4_wav_samples(const g4_media_limits *m, const g4_wav_format *f, const uint8_t *p, uint64_t n,
                                g4_audio *out, g4_error *err)
{
    const uint64_t frame = (uint64_t)f->bytes * f->channels, n_in = n / frame;
    if (n_in > g4_wav_limit(m, f))
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "WAV: %" PRIu64 " samples at %u Hz are more than the limit of %" PRIu64 " at 16 kHz", n_in,
                       (unsigned)f->rate, m->max_samples);
    if (n_in == 0) return g4_fail(err, G4_ERR_FORMAT, "WAV: no samples");
    float *x = g4_alloc(m->a, (size_t)n_in, sizeof *x);
    if (!x) return g4_fail(err, G4_ERR_MEMORY, "WAV: %" PRIu64 " samples: out of memory", n_in);
    g4_pace pace = { m->halt, 0 };
    g4_status s = G4_OK;
    for (uint64_t i = 0; i < n_in && !s; i++) {
        x[i] = g4_wav_mono(f, p + i * frame);
        if (!isfinite(x[i])) s = g4_fail(err, G4_ERR_FORMAT, "WAV: sample %" PRIu64 " is not a finite number", i);
        if (g4_pace_ends(&pace, f->channels)) s = g4_halt_check(m->halt, err);
    }
    if (!s) return g4_resample(m, x, n_in, f->rate, out, err);
    g4_free(m->a, x);
    return s;
}

g4_status g4_wav_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_audio *out, int *foreign,
                        g4_error *err)
{
    g4_wav_format f = { 0 };
    size_t pos;
    const g4_status s = g4_wav_chunks(data, size, &f, &pos, m->halt, err);
    *foreign = f.foreign;
    if (s) return s;
    if (size - pos < G4_WAV_CHUNK_HEAD)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: no %s chunk in %zu bytes", f.tag ? "data" : "fmt", size);
    if (!g4_wav_has_samples(data, size, &f, pos))
        return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated in the chunk at byte %zu of %zu", pos, size);
    uint64_t n = g4_le32(data + pos + 4);
    const size_t found = size - pos - G4_WAV_CHUNK_HEAD;
    if (n == 0xffffffffu) n = found; /* written to a pipe: the length was not known */
    if (n > found) return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: data of %" PRIu64 " bytes, found %zu", n, found);
    return g4_wav_samples(m, &f, data + pos + G4_WAV_CHUNK_HEAD, n, out, err);
}
