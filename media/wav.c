/* wav.c - RIFF WAVE, also as RIFX, RF64 and BW64, with integers of 1 to 8 bytes, floats of 4 or 8, A-law or mu-law, any
 * rate up to 16 MHz and any number of channels, as 16 kHz mono float: integers are divided by 2^(bits - 1), channels
 * averaged, then the rate is converted. Other codings are left to ffmpeg. */
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
#define G4_SINC_PHASES 640   /* of the usual rates at most: of 11,025 Hz. Each has a row of the table */
#define G4_SINC_ROWS 256     /* rows to a zero crossing for rates of more phases */
#define G4_SINC_STEPS 16     /* what a coefficient counts when the halt is to be asked */
#define G4_SINC_LANES 8      /* sums side by side: the compiler may keep them in vectors */
#define G4_SINC_BLOCK 32768  /* outputs for which a phase is made once, so that their inputs stay in the cache */

static double g4_bessel_i0(double square) /* modified Bessel function of order 0 at sqrt(square), by its series */
{
    double sum = 1, term = 1;
    for (int k = 1; fabs(term) > 1e-17 * sum; k++) {
        term *= square / (4.0 * k * k);
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
    double cutoff;    /* of the input's Nyquist frequency */
    int half, taps;   /* inputs on each side, and of both */
    size_t padded;    /* taps with zeros up to a multiple of G4_SINC_LANES */
    int rows;         /* of the table to an input */
    double *table;    /* (1 + rows + 2, padded): row 1 + r has the filter for an output r / rows behind an input */
    uint8_t *is_made; /* (1 + rows + 2): the rows that are there */
    double *weight;   /* (padded) of the present phase, before they are scaled to sum 1 */
    float *h;         /* (padded) of the present phase */
} g4_sinc_filter;

/* A row of the table, made when it is first asked for. */
static const double *g4_sinc_row(g4_sinc_filter *f, int r)
{
    double *row = f->table + (size_t)r * f->padded;
    if (f->is_made[r]) return row;
    const double beta = G4_SINC_BETA * G4_SINC_BETA, scale = 1 / g4_bessel_i0(beta);
    for (int i = 0; i < f->taps; i++) {
        const double t = i - f->half + 1 - (double)(r - 1) / f->rows, u = t / f->half;
        row[i] = g4_sinc(t * f->cutoff) * g4_bessel_i0(beta * (1 - u * u)) * scale;
    }
    f->is_made[r] = 1;
    return row;
}

/* Coefficients for an output that lies `fraction` of an input behind input `half` - 1: of each the cubic through the
 * four rows around it, which is off by less than 10^-9. */
static void g4_sinc_phase(g4_sinc_filter *f, double fraction)
{
    const int row = (int)(fraction * f->rows);
    const double x = fraction * f->rows - row, a = x + 1, b = x - 1, c = x - 2;
    const double c0 = -b * c * x / 6, c1 = a * b * c / 2, c2 = -x * c * a / 2, c3 = a * b * x / 6;
    const double *const p0 = g4_sinc_row(f, row), *const p1 = g4_sinc_row(f, row + 1);
    const double *const p2 = g4_sinc_row(f, row + 2), *const p3 = g4_sinc_row(f, row + 3);
    double sums[G4_SINC_LANES] = { 0 }, sum = 0;
    for (size_t i = 0; i < f->padded; i++) f->weight[i] = c0 * p0[i] + c1 * p1[i] + c2 * p2[i] + c3 * p3[i];
    if (fraction == 0) f->weight[f->taps - 1] = 0; /* it lies on the window's end */
    for (size_t i = 0; i < f->padded; i += G4_SINC_LANES)
        for (size_t k = 0; k < G4_SINC_LANES; k++) sums[k] += f->weight[i + k];
    for (size_t k = 0; k < G4_SINC_LANES; k++) sum += sums[k];
    for (size_t i = 0; i < f->padded; i++) f->h[i] = (float)(f->weight[i] / sum);
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

/* Outputs [from, to). With 16000 / rate = up / down in lowest terms, output n has phase n * down mod up. Nonzero: it is
 * halted. */
static int g4_sinc_block(g4_sinc_filter *f, const float *x, uint64_t n_in, uint64_t up, uint64_t down, uint64_t from,
                         uint64_t to, float *y, g4_pace *pace)
{
    for (uint64_t first = from; first < to && first - from < up; first++) {
        g4_sinc_phase(f, (double)(first * down % up) / (double)up);
        if (g4_pace_ends(pace, G4_SINC_STEPS * (size_t)f->taps)) return 1;
        for (uint64_t n = first; n < to; n += up) {
            y[n] = g4_sinc_apply(f, x, n_in, (int64_t)(n * down / up) - f->half + 1);
            if (g4_pace_ends(pace, (size_t)f->taps)) return 1;
        }
    }
    return 0;
}

/* y[n] = sum_k x[k] h(n * rate / 16000 - k). */
g4_status g4_resample(const g4_media_limits *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err)
{
    if (rate == G4_AUDIO_RATE) {
        out->samples = x;
        out->n_samples = (size_t)n_in;
        return G4_OK;
    }
    if (rate == 0) {
        g4_free(m->a, x);
        return g4_fail(err, G4_ERR_FORMAT, "sound of 0 samples a second");
    }
    const uint64_t common = g4_gcd(G4_AUDIO_RATE, rate), up = G4_AUDIO_RATE / common, down = rate / common;
    if (n_in > (UINT64_MAX - down) / up) {
        g4_free(m->a, x);
        return g4_fail(err, G4_ERR_UNSUPPORTED, "resampling of %" PRIu64 " samples: too many", n_in);
    }
    const uint64_t n_out = (n_in * up + down - 1) / down;
    g4_sinc_filter f = { .cutoff = G4_SINC_CUTOFF * (rate > G4_AUDIO_RATE ? (double)G4_AUDIO_RATE / rate : 1.0) };
    f.half = (int)ceil(G4_SINC_ZEROS / f.cutoff);
    f.taps = 2 * f.half;
    f.padded = g4_round_up((size_t)f.taps, G4_SINC_LANES);
    f.rows = up <= G4_SINC_PHASES ? (int)up : (int)ceil(G4_SINC_ROWS * f.cutoff);
    f.table = g4_alloc(m->a, (size_t)f.rows + 3, f.padded * sizeof *f.table);
    f.is_made = g4_alloc(m->a, (size_t)f.rows + 3, 1);
    f.weight = g4_alloc(m->a, f.padded, sizeof *f.weight);
    f.h = g4_alloc(m->a, f.padded, sizeof *f.h);
    float *y = g4_alloc(m->a, (size_t)n_out, sizeof *y);
    g4_status s = G4_OK;
    if (y && f.h && f.weight && f.table && f.is_made) {
        g4_pace pace = { m->halt, 0 };
        int ends = 0;
        for (uint64_t from = 0; from < n_out && !ends; from += G4_SINC_BLOCK)
            ends = g4_sinc_block(&f, x, n_in, up, down, from,
                                 n_out - from < G4_SINC_BLOCK ? n_out : from + G4_SINC_BLOCK, y, &pace);
        if (ends) s = g4_halt_check(m->halt, err);
    } else {
        s = g4_fail(err, G4_ERR_MEMORY, "resampling to %" PRIu64 " samples: out of memory", n_out);
    }
    g4_free(m->a, f.table);
    g4_free(m->a, f.is_made);
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

enum { G4_WAV_INTEGER = 1, G4_WAV_FLOAT = 3, G4_WAV_ALAW = 6, G4_WAV_MULAW = 7, G4_WAV_EXTENSIBLE = 0xfffe }; /* tags */
#define G4_WAV_RATE_MAX 16000000 /* samples a second */
#define G4_WAV_CHUNKS 12         /* offset of the first chunk: "RIFF", length, "WAVE" */

static uint32_t g4_wav_u16(const g4_wav_format *f, const uint8_t *p) { return f->is_big ? g4_be16(p) : g4_le16(p); }
static uint32_t g4_wav_u32(const g4_wav_format *f, const uint8_t *p) { return f->is_big ? g4_be32(p) : g4_le32(p); }

/* Can samples of that tag have so many bytes? */
static int g4_wav_fits(uint32_t tag, uint32_t bytes)
{
    if (tag == G4_WAV_FLOAT) return bytes == 4 || bytes == 8;
    return bytes >= 1 && bytes <= (tag == G4_WAV_INTEGER ? 8u : 1u);
}

static g4_status g4_wav_fmt(g4_wav_format *f, const uint8_t *p, size_t n, g4_error *err)
{
    static const uint8_t guid[14] = {
        0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71
    }; /* KSDATAFORMAT_SUBTYPE_..., less its tag */
    if (n < 16) return g4_fail(err, G4_ERR_FORMAT, "WAV: fmt chunk of %zu bytes, expected 16 or more", n);
    f->tag = g4_wav_u16(f, p);
    f->channels = g4_wav_u16(f, p + 2);
    f->rate = g4_wav_u32(f, p + 4);
    const uint32_t frame = g4_wav_u16(f, p + 12), bits = g4_wav_u16(f, p + 14);
    if (f->tag == G4_WAV_EXTENSIBLE && n >= 40 && !memcmp(p + 26, guid, 14)) f->tag = g4_wav_u16(f, p + 24);
    if (f->tag != G4_WAV_INTEGER && f->tag != G4_WAV_FLOAT && f->tag != G4_WAV_ALAW && f->tag != G4_WAV_MULAW) {
        f->foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "WAV: coding 0x%04x, expected integer (1), float (3), A-law (6) or mu-law (7)",
                       (unsigned)f->tag);
    }
    if (f->channels == 0 || frame % f->channels != 0)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: %u bytes for %u channels", (unsigned)frame, (unsigned)f->channels);
    f->bytes = frame / f->channels;
    if (bits == 0 || bits > 8 * f->bytes || !g4_wav_fits(f->tag, f->bytes))
        return g4_fail(
            err, G4_ERR_UNSUPPORTED,
            "WAV: %u bits in %u bytes: expected integers of 1 to 8 bytes, floats of 4 or 8, or a byte of a law",
            (unsigned)bits, (unsigned)f->bytes);
    if (f->rate == 0 || f->rate > G4_WAV_RATE_MAX)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: %u samples a second, expected 1 to %d", (unsigned)f->rate,
                       G4_WAV_RATE_MAX);
    return G4_OK;
}

/* The 64-bit lengths of RF64 and BW64: of the file, then of the samples. */
static void g4_wav_ds64(g4_wav_format *f, const uint8_t *p, size_t n)
{
    if (n >= 16) f->long_bytes = (uint64_t)g4_le32(p + 12) << 32 | g4_le32(p + 8);
}

int g4_wav_has_samples(const uint8_t *data, size_t size, const g4_wav_format *f, size_t pos)
{
    return pos <= size && size - pos >= G4_WAV_CHUNK_HEAD && memcmp(data + pos, "data", 4) == 0 && f->bytes > 0;
}

uint64_t g4_wav_bytes(const uint8_t *data, const g4_wav_format *f, size_t pos, uint64_t file_bytes)
{
    const uint64_t found = file_bytes - pos - G4_WAV_CHUNK_HEAD;
    uint64_t n = g4_wav_u32(f, data + pos + 4);
    if (n == 0xffffffffu && f->long_bytes > 0) n = f->long_bytes;
    /* what writers put there that cannot go back to write the length */
    const int is_unknown = n == 0 || n == 0x7ffff000 || n == 0x7fffffff || n == 0xffffffffu;
    return is_unknown || n > found ? found : n;
}

/* Bytes from a chunk of n bytes to the next: chunks are padded to even lengths, but some writers forget it. */
static size_t g4_wav_step(const uint8_t *chunk, size_t n, size_t left)
{
    const size_t end = G4_WAV_CHUNK_HEAD + n;
    if (n % 2 == 0 || end == left) return end;
    const int is_unpadded = left - end >= 4 && (!memcmp(chunk + end, "data", 4) || !memcmp(chunk + end, "fmt ", 4));
    return end + !is_unpadded;
}

g4_status g4_wav_chunks(const uint8_t *data, size_t size, g4_wav_format *f, size_t *pos, g4_halt *halt, g4_error *err)
{
    g4_pace pace = { halt, 0 };
    *pos = G4_WAV_CHUNKS;
    f->is_big = size >= 4 && data[3] == 'X';
    while (*pos <= size && size - *pos >= G4_WAV_CHUNK_HEAD && !g4_wav_has_samples(data, size, f, *pos)) {
        const uint8_t *name = data + *pos, *p = name + G4_WAV_CHUNK_HEAD;
        const size_t n = g4_wav_u32(f, name + 4);
        if (n > size - *pos - G4_WAV_CHUNK_HEAD) break;
        const g4_status s = memcmp(name, "fmt ", 4) == 0 ? g4_wav_fmt(f, p, n, err) : G4_OK;
        if (s) return s;
        if (memcmp(name, "ds64", 4) == 0) g4_wav_ds64(f, p, n);
        const g4_status halted = g4_pace_ends(&pace, G4_WAV_CHUNK_HEAD) ? g4_halt_check(halt, err) : G4_OK;
        if (halted) return halted;
        *pos += g4_wav_step(name, n, size - *pos);
    }
    return G4_OK;
}

/* ---- Samples -------------------------------------------------------------------------------- */

/* The bits of a sample at the top of 64. */
static uint64_t g4_wav_bits(const g4_wav_format *f, const uint8_t *p)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < f->bytes; i++) v |= (uint64_t)p[i] << (64 - 8 * (f->is_big ? i + 1 : f->bytes - i));
    return v;
}

static double g4_wav_float(uint64_t bits, uint32_t bytes)
{
    const uint32_t high = (uint32_t)(bits >> 32);
    float single;
    double v;
    memcpy(&single, &high, sizeof single);
    memcpy(&v, &bits, sizeof v);
    return bytes == 4 ? (double)single : v;
}

/* Both laws of G.711: a sign, 3 bits of exponent, 4 of mantissa; of 16 bits. */
static double g4_wav_law(uint32_t tag, uint32_t code)
{
    const uint32_t turned = code ^ (tag == G4_WAV_ALAW ? 0x55 : 0xff), exponent = turned >> 4 & 7,
                   mantissa = turned & 15;
    double v;
    if (tag == G4_WAV_MULAW)
        v = (double)(((2 * mantissa + 33) << exponent) - 33) * 4;
    else
        v = (double)(exponent ? (2 * mantissa + 33) << (exponent - 1) : 2 * mantissa + 1) * 8;
    /* the sign bit means above zero in A-law, and in mu-law once it is turned, below */
    const int is_above = tag == G4_WAV_ALAW ? (turned & 0x80) != 0 : (turned & 0x80) == 0;
    return (is_above ? v : -v) / 32768;
}

static double g4_wav_sample(const g4_wav_format *f, const uint8_t *p)
{
    if (f->tag == G4_WAV_ALAW || f->tag == G4_WAV_MULAW) return g4_wav_law(f->tag, *p);
    if (f->tag == G4_WAV_FLOAT) return g4_wav_float(g4_wav_bits(f, p), f->bytes);
    if (f->bytes == 1) return (p[0] - 128) / 128.0; /* the only unsigned one */
    return (double)(int64_t)g4_wav_bits(f, p) / 9223372036854775808.0;
}

float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame)
{
    double sum = 0;
    for (uint32_t c = 0; c < f->channels; c++, frame += f->bytes) sum += g4_wav_sample(f, frame);
    return (float)(sum / f->channels);
}

#define G4_SAMPLES_FREE 10000000 /* in any file: ten minutes at 16 kHz */

/* Samples that may be for each at 16 kHz, of n; UINT64_MAX: any number. */
static uint64_t g4_wav_at_rate(const g4_wav_format *f, uint64_t n)
{
    return n > UINT64_MAX / f->rate ? UINT64_MAX : n * f->rate / G4_AUDIO_RATE;
}

/* Samples that a byte of the file may hold: those of silence in FLAC are 270. */
static uint64_t g4_wav_per_byte(const g4_media_limits *m)
{
    return m->max_pixels_per_byte < UINT64_MAX / 2 ? 2 * m->max_pixels_per_byte : UINT64_MAX;
}

/* Those for which the file's bytes are enough, whichever rate has more. */
static uint64_t g4_wav_held(const g4_media_limits *m, const g4_wav_format *f, uint64_t file_bytes)
{
    const uint64_t by = g4_wav_per_byte(m), n = file_bytes < UINT64_MAX / by ? file_bytes * by : UINT64_MAX;
    const uint64_t held = n > G4_SAMPLES_FREE ? n : G4_SAMPLES_FREE, slow = g4_wav_at_rate(f, held);
    return slow < held ? slow : held;
}

uint64_t g4_wav_limit(const g4_media_limits *m, const g4_wav_format *f, uint64_t file_bytes)
{
    const uint64_t most = g4_wav_at_rate(f, m->max_samples), held = g4_wav_held(m, f, file_bytes);
    return most < held ? most : held;
}

g4_status g4_wav_too_long(const g4_media_limits *m, const g4_wav_format *f, uint64_t file_bytes, g4_error *err)
{
    const uint64_t held = g4_wav_held(m, f, file_bytes);
    if (g4_wav_at_rate(f, m->max_samples) > held)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "sound: more than %" PRIu64 " samples at %u Hz in %" PRIu64 " bytes: the limit is %" PRIu64
                       " samples a byte, also at 16 kHz",
                       held, (unsigned)f->rate, file_bytes, g4_wav_per_byte(m));
    return g4_fail(err, G4_ERR_UNSUPPORTED,
                   "sound: the samples at %u Hz are more than the limit of %" PRIu64 " at 16 kHz", (unsigned)f->rate,
                   m->max_samples);
}

g4_status g4_wav_find(const g4_media_limits *m, const uint8_t *data, size_t size, uint64_t file_bytes, g4_wav_format *f,
                      size_t *at, uint64_t *n, g4_error *err)
{
    size_t pos = 0;
    *f = (g4_wav_format) { 0 };
    const g4_status s = g4_wav_chunks(data, size, f, &pos, m->halt, err);
    if (s) return s;
    f->more = !g4_wav_has_samples(data, size, f, pos);
    if (f->more && size - pos < G4_WAV_CHUNK_HEAD)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: no %s chunk in %zu bytes", f->tag ? "data" : "fmt", size);
    if (f->more) return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated in the chunk at byte %zu of %zu", pos, size);
    *at = pos + G4_WAV_CHUNK_HEAD;
    *n = g4_wav_bytes(data, f, pos, file_bytes) / ((uint64_t)f->bytes * f->channels);
    if (*n > g4_wav_limit(m, f, file_bytes)) return g4_wav_too_long(m, f, file_bytes, err);
    return *n > 0 ? G4_OK : g4_fail(err, G4_ERR_FORMAT, "WAV: no samples");
}

/* n_in samples at p. */
static g4_status g4_wav_samples(const g4_media_limits *m, const g4_wav_format *f, const uint8_t *p, uint64_t n_in,
                                g4_audio *out, g4_error *err)
{
    const uint64_t frame = (uint64_t)f->bytes * f->channels;
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
    g4_wav_format f;
    size_t at = 0;
    uint64_t n = 0;
    const g4_status s = g4_wav_find(m, data, size, size, &f, &at, &n, err);
    *foreign = f.foreign;
    return s ? s : g4_wav_samples(m, &f, data + at, n, out, err);
}
