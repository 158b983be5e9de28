/* mel.c - sound to log-mel frames, MODEL.md section 8 (feature_extraction_gemma4.py), and long sound to blocks of at
 * most 30 s. Samples are 16 kHz mono, -1..1; a frame of 20 ms stands every 10 ms. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "towers.h"

#define G4_MEL_HOP 160         /* samples from frame to frame */
#define G4_MEL_CUT_FROM 400000 /* a longer sound is cut in the last 5 s before G4_MEL_MAX_SAMPLES */
#define G4_MEL_REACH 1600      /* samples each way of a cut whose energy is compared: 200 ms together */

/* ---- Tables -------------------------------------------------------------------------------------- */

/* Triangles of height 1 over the bins of the FFT; corners equally spaced from 0 to 8000 Hz on the HTK scale,
 * mel = 2595 log10(1 + f / 700). */
static void g4_mel_triangles(g4_mel *m)
{
    const double hz = 16000.0 / G4_MEL_FFT; /* between bins */
    const double top = 2595.0 * log10(1.0 + 8000.0 / 700.0);
    double edge[G4_MEL_BANDS + 2]; /* Hz: band b is the triangle over edge[b], edge[b + 1], edge[b + 2] */
    for (int i = 0; i < G4_MEL_BANDS + 2; i++)
        edge[i] = 700.0 * (pow(10.0, top * i / (G4_MEL_BANDS + 1) / 2595.0) - 1.0);
    float *weight = m->weight;
    for (int b = 0; b < G4_MEL_BANDS; b++) {
        const double lo = edge[b], mid = edge[b + 1], hi = edge[b + 2];
        m->first[b] = (int)ceil(lo / hz);
        m->count[b] = 0;
        for (int k = m->first[b]; k < G4_MEL_BINS && k * hz < hi; k++) {
            const double up = (k * hz - lo) / (mid - lo), down = (hi - k * hz) / (hi - mid);
            *weight++ = (float)(up < down ? up : down);
            m->count[b]++;
        }
    }
}

void g4_mel_open(g4_mel *m)
{
    const double pi = 3.14159265358979323846;
    for (int i = 0; i < G4_MEL_FRAME; i++) m->window[i] = (float)(0.5 - 0.5 * cos(2 * pi * i / G4_MEL_FRAME));
    for (int i = 0; i < G4_MEL_FFT / 2; i++) {
        m->cos_t[i] = cos(2 * pi * i / G4_MEL_FFT);
        m->sin_t[i] = sin(2 * pi * i / G4_MEL_FFT);
    }
    g4_mel_triangles(m);
}

/* ---- Frames -------------------------------------------------------------------------------------- */

/* A frame needs 321 samples to exist, the 160 zeros in front among them (one more than it reads: the reference's
 * pre-emphasis). */
int g4_mel_frames(size_t n_samples)
{
    if (n_samples > G4_MEL_MAX_SAMPLES) n_samples = G4_MEL_MAX_SAMPLES;
    return n_samples == 0 ? 0 : (int)((n_samples - 1) / G4_MEL_HOP);
}

/* The window over frame f, in the bit-reversed order in which g4_mel_fft takes it. */
static void g4_mel_gather(const g4_mel *m, const float *samples, size_t n, int f, double *re)
{
    for (int i = 0; i < G4_MEL_FRAME; i++) {
        const long pos = (long)f * G4_MEL_HOP + i - G4_MEL_HOP; /* 160 zeros stand before the first sample */
        unsigned reversed = 0;
        for (unsigned bit = 0; bit < 9; bit++) reversed |= ((unsigned)i >> bit & 1u) << (8 - bit);
        re[reversed] = pos >= 0 && (size_t)pos < n ? (double)(samples[pos] * m->window[i]) : 0.0;
    }
}

/* FFT in place, radix 2, decimation in time. */
static void g4_mel_fft(const g4_mel *m, double *re, double *im)
{
    for (int half = 1; half < G4_MEL_FFT; half *= 2) {
        const int step = G4_MEL_FFT / 2 / half;
        for (int start = 0; start < G4_MEL_FFT; start += 2 * half) {
            for (int i = 0; i < half; i++) {
                const int a = start + i, b = a + half;
                const double c = m->cos_t[i * step], s = m->sin_t[i * step];
                const double x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
        }
    }
}

/* out[b] = ln(0.001 + sum_k weight[b][k] |FFT(window * x)[k]|) */
void g4_mel_frame(const g4_mel *m, const float *samples, size_t n, int f, float *out)
{
    double re[G4_MEL_FFT] = { 0 }, im[G4_MEL_FFT] = { 0 }, magnitude[G4_MEL_BINS];
    g4_mel_gather(m, samples, n, f, re);
    g4_mel_fft(m, re, im);
    for (int k = 0; k < G4_MEL_BINS; k++) magnitude[k] = sqrt(re[k] * re[k] + im[k] * im[k]);
    const float *weight = m->weight;
    for (int b = 0; b < G4_MEL_BANDS; b++) {
        double sum = 0;
        for (int k = 0; k < m->count[b]; k++) sum += *weight++ * magnitude[m->first[b] + k];
        out[b] = (float)log(sum + 1e-3);
    }
}

int g4_audio_mel(const g4_audio *block, float *out)
{
    const int frames = block && block->samples ? g4_mel_frames(block->n_samples) : 0;
    if (!out || frames == 0) return frames;
    g4_mel m;
    g4_mel_open(&m);
    for (int f = 0; f < frames; f++)
        g4_mel_frame(&m, block->samples, block->n_samples, f, out + (size_t)f * G4_MEL_BANDS);
    return frames;
}

/* ---- Blocks -------------------------------------------------------------------------------------- */

static double g4_mel_energy(const float *samples, size_t first, size_t end)
{
    double energy = 0;
    for (size_t i = first; i < end; i++) energy += (double)samples[i] * (double)samples[i];
    return energy;
}

size_t g4_audio_block(const g4_audio *audio, size_t from)
{
    if (!audio || !audio->samples || from >= audio->n_samples) return 0;
    const size_t rest = audio->n_samples - from, reach = G4_MEL_REACH;
    if (rest <= G4_MEL_MAX_SAMPLES) return rest;
    /* The quietest 200 ms, by energy, whose middle lies before the limit and leaves the next block at least as much:
     * the rest must not be too short to be heard. On a tie the later one. */
    const size_t last = rest - reach < G4_MEL_MAX_SAMPLES ? rest - reach : G4_MEL_MAX_SAMPLES;
    size_t quietest = last;
    double lowest = INFINITY;
    for (size_t cut = G4_MEL_CUT_FROM; cut <= last; cut += G4_MEL_HOP) {
        const double energy = g4_mel_energy(audio->samples + from, cut - reach, cut + reach);
        if (energy <= lowest) {
            lowest = energy;
            quietest = cut;
        }
    }
    return quietest;
}
