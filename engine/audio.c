/* audio.c - the audio tower, MODEL.md section 9: at most 30 s of 16 kHz mono samples to one soft token of the text
 * model's width for each 40 ms, at most 750. E2B and E4B. Two 3 x 3 convolutions of stride 2 over log-mel frames, with
 * a LayerNorm over channels and ReLU; conformer layers: half a feed-forward, attention over the last 12 tokens with
 * relative keys, light convolution, half a feed-forward; projection with bias; weightless norm; projection. A piece of
 * work is a tile of 64 tokens. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "towers.h"

#define G4_HEARING_EPS 1e-6f          /* of the norms that do not follow the configuration: Gemma4RMSNorm's default */
#define G4_HEARING_K_SCALE 1.8946361f /* ln(1 + e) / ln 2 */
/* Frequencies behind the first and behind the second convolution. */
#define G4_HEARING_BANDS0 (G4_MEL_BANDS / 2)
#define G4_HEARING_BANDS1 (G4_MEL_BANDS / 4)

/* ---- Weights by name ----------------------------------------------------------------------------- */

typedef struct {
    const float *norm, *post_norm; /* (hidden) */
    g4_linear up, down;            /* (4 * hidden, hidden), (hidden, 4 * hidden); no bias in any layer */
} g4_hearing_ff;

typedef struct {
    g4_hearing_ff ff1, ff2;
    const float *attn_norm, *attn_post_norm, *conv_norm, *conv_mid_norm, *norm; /* (hidden) */
    g4_linear q, k, v, post;                                                    /* (hidden, hidden) */
    const float *q_scale;        /* (head_dim): head_dim^-0.5 / ln 2 * softplus(per_dim_scale) */
    const float *rel_k;          /* (context, hidden): projected sin|cos of distance 0, 1, ... */
    g4_linear conv_in, conv_out; /* (2 * hidden, hidden), (hidden, hidden) */
    const float *conv;           /* (kernel, hidden): oldest tap first */
} g4_hearing_layer;

struct g4_hearing {
    const g4_config *config;
    const g4_compute *compute;
    const g4_allocator *a;
    const float *conv0, *conv0_norm, *conv1_norm; /* (9, conv0), (conv0), (conv1); LayerNorms without bias */
    g4_linear conv1, in, out, proj; /* (conv1, 9 * conv0), (hidden, 32 * conv1), (out, hidden), (text hidden, out) */
    const float *out_bias;          /* (out) */
    g4_hearing_layer *layers;       /* (a_layers) */
};

static void g4_hearing_bind_layer(g4_hearing_layer *l, g4_binder *b, const g4_config *c, int index)
{
    const uint64_t hidden = c->a_hidden;
    const float *bounds = g4_bind_array(b, "a", index, "bounds", 10, 4);
    const float *act = g4_bind_act(b, "a", index, 10);
    l->ff1.norm = g4_bind_vector(b, "a", index, "ff1_norm", hidden);
    l->ff1.up = g4_bind_clipped(b, "a", index, "ff1_up", 4 * hidden, hidden, bounds, act, 0);
    l->ff1.down = g4_bind_clipped(b, "a", index, "ff1_down", hidden, 4 * hidden, bounds, act, 1);
    l->ff1.post_norm = g4_bind_vector(b, "a", index, "ff1_post_norm", hidden);
    l->attn_norm = g4_bind_vector(b, "a", index, "attn_norm", hidden);
    l->q = g4_bind_clipped(b, "a", index, "q", hidden, hidden, bounds, act, 2);
    l->k = g4_bind_clipped(b, "a", index, "k", hidden, hidden, bounds, act, 3);
    l->v = g4_bind_clipped(b, "a", index, "v", hidden, hidden, bounds, act, 4);
    l->post = g4_bind_clipped(b, "a", index, "post", hidden, hidden, bounds, act, 5);
    l->q_scale = g4_bind_vector(b, "a", index, "q_scale", hidden / c->a_heads);
    l->rel_k = g4_bind_array(b, "a", index, "rel_k", c->a_context, hidden);
    l->attn_post_norm = g4_bind_vector(b, "a", index, "attn_post_norm", hidden);
    l->conv_norm = g4_bind_vector(b, "a", index, "conv_norm", hidden);
    l->conv_in = g4_bind_clipped(b, "a", index, "conv_in", 2 * hidden, hidden, bounds, act, 6);
    l->conv = g4_bind_array(b, "a", index, "conv", c->a_kernel, hidden);
    l->conv_mid_norm = g4_bind_vector(b, "a", index, "conv_mid_norm", hidden);
    l->conv_out = g4_bind_clipped(b, "a", index, "conv_out", hidden, hidden, bounds, act, 7);
    l->ff2.norm = g4_bind_vector(b, "a", index, "ff2_norm", hidden);
    l->ff2.up = g4_bind_clipped(b, "a", index, "ff2_up", 4 * hidden, hidden, bounds, act, 8);
    l->ff2.down = g4_bind_clipped(b, "a", index, "ff2_down", hidden, 4 * hidden, bounds, act, 9);
    l->ff2.post_norm = g4_bind_vector(b, "a", index, "ff2_post_norm", hidden);
    l->norm = g4_bind_vector(b, "a", index, "norm", hidden);
}

void g4_hearing_bind(g4_hearing **out, g4_binder *b, const g4_compute *compute, const g4_allocator *a)
{
    const g4_config *c = &b->file->config;
    const uint64_t hidden = c->a_hidden, conv0 = c->a_conv0, conv1 = c->a_conv1;
    *out = NULL;
    if (c->a_layers == 0 || b->status) return;
    g4_hearing *tower = *out = g4_alloc(a, 1, sizeof *tower);
    if (tower) *tower = (g4_hearing) { .config = c, .compute = compute, .a = a };
    if (tower) tower->layers = g4_alloc(a, c->a_layers, sizeof *tower->layers);
    if (!tower || !tower->layers) {
        b->status = g4_fail(b->err, G4_ERR_MEMORY, "no memory for the audio tower");
        return;
    }
    tower->conv0 = g4_bind_array(b, "a.conv0", -1, "", 9, conv0);
    tower->conv0_norm = g4_bind_vector(b, "a.conv0_norm", -1, "", conv0);
    tower->conv1 = g4_bind_linear(b, "a.conv1", -1, "", conv1, 9 * conv0);
    tower->conv1_norm = g4_bind_vector(b, "a.conv1_norm", -1, "", conv1);
    tower->in = g4_bind_linear(b, "a.in", -1, "", hidden, G4_HEARING_BANDS1 * conv1);
    for (int i = 0; i < (int)c->a_layers; i++) g4_hearing_bind_layer(&tower->layers[i], b, c, i);
    tower->out = g4_bind_linear(b, "a.out", -1, "", c->a_out, hidden);
    tower->out_bias = g4_bind_vector(b, "a.out_bias", -1, "", c->a_out);
    tower->proj = g4_bind_linear(b, "a.proj", -1, "", c->hidden, c->a_out);
    const float *act = g4_bind_act(b, "a.", -1, 2);
    if (act) tower->in.w.act = act, tower->proj.w.act = act + 2;
}

void g4_hearing_close(g4_hearing *tower)
{
    if (!tower) return;
    g4_free(tower->a, tower->layers);
    g4_free(tower->a, tower);
}

/* ---- A block of sound on its way through the tower ----------------------------------------------- */

typedef struct { /* of one worker */
    g4_linear_work linear;
    g4_view inputs, outputs; /* (TILE, widest): what a linear reads and what it gives */
    g4_view taps;            /* (32, 9 * conv0): inputs of the second convolution, of one output time */
    float *conv0_out;        /* (2 * TILE + 1, 64, conv0): outputs of the first convolution that a tile reads */
} g4_hearing_work;

typedef enum { /* what taps see of a layer */
               G4_HEARING_FF1_NORM,
               G4_HEARING_FF1_OUT,
               G4_HEARING_ATTN_NORM,
               G4_HEARING_Q,
               G4_HEARING_K,
               G4_HEARING_V,
               G4_HEARING_ATTN_HEADS,
               G4_HEARING_ATTN_OUT,
               G4_HEARING_ATTN_POST_NORM,
               G4_HEARING_CONV_NORM,
               G4_HEARING_CONV_GATED,
               G4_HEARING_CONV_MID_NORM,
               G4_HEARING_CONV_OUT,
               G4_HEARING_FF2_NORM,
               G4_HEARING_FF2_OUT,
               G4_HEARING_LAYER_OUT,
               G4_HEARING_N_KEPT
} g4_hearing_kept;

typedef struct { /* shared by the pieces, each of which writes only its own tokens */
    const g4_hearing *tower;
    const g4_kernels *kernels;
    const g4_hearing_layer *layer;
    const g4_audio *block;
    g4_mel mel;
    int frames, times, n;                          /* log-mel frames; times behind the first convolution; tokens */
    float *log_mel;                                /* (frames, 128) */
    float *h;                                      /* (n, hidden): the residual stream */
    float *q, *k, *v;                              /* (n, hidden) */
    float *gated;                                  /* (n, hidden): what the depthwise convolution reads */
    float *rows;                                   /* (n, text hidden): the result */
    const g4_taps *taps;                           /* or NULL */
    g4_kept kept[G4_HEARING_N_KEPT], projected[2]; /* of a layer; behind the last one: projected, and its norm */
    g4_hearing_work *works;                        /* one per worker */
    g4_blocks memory;
} g4_hearing_run;

/* ---- Subsampling --------------------------------------------------------------------------------- */

static void g4_hearing_mel_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_view frames = g4_tower_tile(r->log_mel, G4_MEL_BANDS, r->frames, piece);
    for (size_t f = 0; f < frames.n; f++)
        g4_mel_frame(&r->mel, r->block->samples, r->block->n_samples, piece * G4_TOWER_TILE + (int)f,
                     g4_view_row(frames, f));
}

/* y = relu((y - mean) / sqrt(var + eps) * w) over n channels */
static void g4_layernorm_relu(float *y, const float *w, size_t n, float eps)
{
    float mean = 0, var = 0;
    for (size_t i = 0; i < n; i++) mean += y[i];
    mean /= (float)n;
    for (size_t i = 0; i < n; i++) var += (y[i] - mean) * (y[i] - mean);
    const float scale = 1.0f / sqrtf(var / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        const float v = (y[i] - mean) * scale * w[i];
        y[i] = v > 0 ? v : 0;
    }
}

/* One time of the first convolution: out (64, conv0) of mel frames 2 t - 1 .. 2 t + 1; zeros around and where t lies
 * outside. */
static void g4_hearing_conv0(const g4_hearing_run *r, int t, float *out)
{
    const g4_config *c = r->tower->config;
    const size_t channels = c->a_conv0;
    for (int f = 0; f < G4_HEARING_BANDS0; f++) {
        float *y = out + (size_t)f * channels;
        memset(y, 0, channels * sizeof *y);
        if (t < 0 || t >= r->times) continue;
        for (int tap = 0; tap < 9; tap++) {
            const int time = 2 * t - 1 + tap / 3, band = 2 * f - 1 + tap % 3;
            if (time < 0 || time >= r->frames || band < 0 || band >= G4_MEL_BANDS) continue;
            const float x = r->log_mel[(size_t)time * G4_MEL_BANDS + (size_t)band];
            const float *w = r->tower->conv0 + (size_t)tap * channels;
            for (size_t i = 0; i < channels; i++) y[i] += w[i] * x;
        }
        g4_layernorm_relu(y, r->tower->conv0_norm, channels, c->a_eps);
    }
}

/* Inputs of the second convolution for one output time, a row each of its frequencies; conv0 (3, 64, conv0). */
static g4_view g4_hearing_taps(const g4_hearing_run *r, g4_view taps, const float *conv0)
{
    const size_t channels = r->tower->config->a_conv0;
    memset(taps.data, 0, taps.n * taps.stride * sizeof(float));
    for (int f = 0; f < G4_HEARING_BANDS1; f++)
        for (int tap = 0; tap < 9; tap++) {
            const int band = 2 * f - 1 + tap % 3;
            if (band < 0) continue; /* band 2 * 31 + 1 is the last there is */
            memcpy(g4_view_row(taps, (size_t)f) + (size_t)tap * channels,
                   conv0 + (size_t)(tap / 3 * G4_HEARING_BANDS0 + band) * channels, channels * sizeof *conv0);
        }
    return taps;
}

/* Log-mel to h: both convolutions and the input projection, whose inputs are (frequency, channel), channel fastest. */
static void g4_hearing_subsample_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_hearing_work *w = &r->works[task->worker];
    const g4_hearing *tower = r->tower;
    const g4_config *c = tower->config;
    const size_t channels = c->a_conv1, time = G4_HEARING_BANDS0 * (size_t)c->a_conv0; /* floats of one time of conv0 */
    const g4_view h = g4_tower_tile(r->h, c->a_hidden, r->n, piece);
    const g4_view flat = g4_view_as(w->inputs, h.n, G4_HEARING_BANDS1 * channels);
    const g4_view room = { w->outputs.data, G4_HEARING_BANDS1, channels, g4_round_up(channels, 16) };
    for (size_t i = 0; i < 2 * h.n + 1; i++)
        g4_hearing_conv0(r, 2 * piece * G4_TOWER_TILE - 1 + (int)i, w->conv0_out + i * time);
    for (size_t t = 0; t < h.n; t++) {
        const g4_view taps = g4_hearing_taps(r, w->taps, w->conv0_out + 2 * t * time);
        const g4_view y = g4_linear_apply(&w->linear, &tower->conv1, room, taps);
        for (size_t f = 0; f < y.n; f++) {
            g4_layernorm_relu(g4_view_row(y, f), tower->conv1_norm, channels, c->a_eps);
            memcpy(g4_view_row(flat, t) + f * channels, g4_view_row(y, f), channels * sizeof(float));
        }
    }
    g4_view_copy(h, g4_linear_apply(&w->linear, &tower->in, w->outputs, flat));
}

/* ---- Feed-forward -------------------------------------------------------------------------------- */

/* y = rmsnorm(clamp(x)) */
static g4_view g4_hearing_norm(const g4_hearing_run *r, g4_view y, g4_view x, const float *weight)
{
    const float clip = r->tower->config->a_clip;
    const g4_view clamped = g4_view_copy(y, x);
    g4_view_clamp(clamped, -clip, clip);
    return g4_view_norm(r->kernels, clamped, clamped, weight, G4_HEARING_EPS);
}

/* y = x * sigmoid(gate), n values; y is neither of the two. 1 / (1 + exp(-g)) = 1/2 + tanh(g / 2) / 2, by the kernel
 * for 2 tanh(g / 2). */
static void g4_hearing_gate(const g4_kernels *kernels, float *y, const float *x, const float *gate, size_t n)
{
    memcpy(y, gate, n * sizeof *y);
    kernels->softcap(y, (int)n, 2.0f);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * (0.5f + 0.25f * y[i]);
}

/* y = silu(x) = x * sigmoid(x) */
static g4_view g4_hearing_silu(const g4_hearing_run *r, g4_view y, g4_view x)
{
    for (size_t t = 0; t < x.n; t++)
        g4_hearing_gate(r->kernels, g4_view_row(y, t), g4_view_row(x, t), g4_view_row(x, t), x.cols);
    return g4_view_as(y, x.n, x.cols);
}

/* h = h + residual_weight * rmsnorm(clamp(down(silu(up(rmsnorm(clamp(h)))))))      Gemma4AudioFeedForward
 * kept: of the norm, and of what down gives. */
static void g4_hearing_feed_forward(const g4_hearing_run *r, const g4_hearing_work *w, const g4_hearing_ff *ff,
                                    g4_view h, const g4_kept kept[2], int piece)
{
    const g4_view x = g4_hearing_norm(r, w->inputs, h, ff->norm);
    g4_keep(&kept[0], piece, x);
    const g4_view up = g4_linear_apply(&w->linear, &ff->up, w->outputs, x);
    const g4_view y = g4_linear_apply(&w->linear, &ff->down, w->outputs, g4_hearing_silu(r, w->inputs, up));
    g4_keep(&kept[1], piece, y);
    g4_view_add(h, r->tower->config->a_residual_weight, g4_hearing_norm(r, y, y, ff->post_norm));
}

/* ---- Attention ----------------------------------------------------------------------------------- */

/* The first half of the feed-forward; q, k, v of the layer's attention. */
static void g4_hearing_qkv_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_hearing_work *w = &r->works[task->worker];
    const g4_hearing_layer *l = r->layer;
    const size_t hidden = r->tower->config->a_hidden, dim = hidden / r->tower->config->a_heads;
    const g4_view h = g4_tower_tile(r->h, hidden, r->n, piece);
    const g4_view q = g4_tower_tile(r->q, hidden, r->n, piece);
    const g4_view k = g4_tower_tile(r->k, hidden, r->n, piece);
    const g4_view v = g4_tower_tile(r->v, hidden, r->n, piece);
    g4_hearing_feed_forward(r, w, &l->ff1, h, &r->kept[G4_HEARING_FF1_NORM], piece);
    const g4_view x = g4_hearing_norm(r, w->inputs, h, l->attn_norm);
    g4_keep(&r->kept[G4_HEARING_ATTN_NORM], piece, x);
    g4_view_copy(q, g4_linear_apply(&w->linear, &l->q, w->outputs, x));
    for (size_t t = 0; t < q.n; t++)
        for (size_t i = 0; i < hidden; i++) g4_view_row(q, t)[i] *= l->q_scale[i % dim];
    g4_keep(&r->kept[G4_HEARING_Q], piece, q);
    g4_view_copy(k, g4_linear_apply_next(&w->linear, &l->k, w->outputs, x, &l->q));
    for (size_t i = 0; i < k.n * hidden; i++) k.data[i] *= G4_HEARING_K_SCALE; /* rows stand side by side */
    g4_keep(&r->kept[G4_HEARING_K], piece, k);
    g4_view_copy(v, g4_linear_apply_next(&w->linear, &l->v, w->outputs, x, &l->k));
    g4_keep(&r->kept[G4_HEARING_V], piece, v);
}

/* Sum of a[i] * b[i] in eight running sums, which a compiler can keep in registers. */
static float g4_dot(const float *a, const float *b, size_t n)
{
    float sum[8] = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum[0] += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* Token t looks at itself and the a_context - 1 tokens before it:
 *   score(d) = cap tanh((q . k[t - d] + q . rel[d]) / cap);  out = sum_d softmax(score)(d) v[t - d]
 * Gemma4AudioAttention */
static void g4_hearing_attend(const g4_hearing_run *r, size_t t, float *out)
{
    const g4_config *c = r->tower->config;
    const size_t hidden = c->a_hidden, dim = hidden / c->a_heads, keys = t < c->a_context ? t + 1 : c->a_context;
    float score[G4_MAX_AUDIO_CONTEXT];
    for (size_t head = 0; head < hidden; head += dim) {
        const float *q = r->q + t * hidden + head;
        float max = -INFINITY, sum = 0, *y = out + head;
        for (size_t d = 0; d < keys; d++) {
            const float s =
                g4_dot(q, r->k + (t - d) * hidden + head, dim) + g4_dot(q, r->layer->rel_k + d * hidden + head, dim);
            score[d] = tanhf(s / c->a_logit_cap) * c->a_logit_cap;
            if (score[d] > max) max = score[d];
        }
        memset(y, 0, dim * sizeof *y);
        for (size_t d = 0; d < keys; d++) {
            const float p = expf(score[d] - max), *v = r->v + (t - d) * hidden + head;
            sum += p;
            for (size_t i = 0; i < dim; i++) y[i] += p * v[i];
        }
        for (size_t i = 0; i < dim; i++) y[i] /= sum;
    }
}

/* h = h + rmsnorm(clamp(post(attention)));  the light convolution up to its gate:
 * c = conv_in(rmsnorm(h));  gated = c[:hidden] * sigmoid(c[hidden:]) */
static void g4_hearing_attention_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_hearing_work *w = &r->works[task->worker];
    const g4_hearing_layer *l = r->layer;
    const size_t hidden = r->tower->config->a_hidden;
    const g4_view h = g4_tower_tile(r->h, hidden, r->n, piece);
    const g4_view gated = g4_tower_tile(r->gated, hidden, r->n, piece);

    const g4_view attended = g4_view_as(w->inputs, h.n, hidden);
    for (size_t t = 0; t < h.n; t++) g4_hearing_attend(r, (size_t)piece * G4_TOWER_TILE + t, g4_view_row(attended, t));
    g4_keep(&r->kept[G4_HEARING_ATTN_HEADS], piece, attended);
    const g4_view y = g4_linear_apply(&w->linear, &l->post, w->outputs, attended);
    g4_keep(&r->kept[G4_HEARING_ATTN_OUT], piece, y);
    g4_hearing_norm(r, y, y, l->attn_post_norm);
    g4_keep(&r->kept[G4_HEARING_ATTN_POST_NORM], piece, y);
    g4_view_add(h, 1, y);

    const g4_view x = g4_view_norm(r->kernels, w->inputs, h, l->conv_norm, r->tower->config->a_eps);
    g4_keep(&r->kept[G4_HEARING_CONV_NORM], piece, x);
    const g4_view c = g4_linear_apply(&w->linear, &l->conv_in, w->outputs, x);
    for (size_t t = 0; t < c.n; t++) {
        const float *row = g4_view_row(c, t);
        g4_hearing_gate(r->kernels, g4_view_row(gated, t), row, row + hidden, hidden);
    }
    g4_keep(&r->kept[G4_HEARING_CONV_GATED], piece, gated);
}

/* ---- Light convolution and the end of a layer ---------------------------------------------------- */

/* y = depthwise(gated) of token t, causal: zeros stand before the first token. */
static void g4_hearing_depthwise(const g4_hearing_run *r, int t, float *y)
{
    const int kernel = (int)r->tower->config->a_kernel;
    const size_t hidden = r->tower->config->a_hidden;
    memset(y, 0, hidden * sizeof *y);
    for (int tap = 0; tap < kernel; tap++) {
        const int from = t - (kernel - 1) + tap;
        if (from < 0) continue;
        const float *x = r->gated + (size_t)from * hidden, *w = r->layer->conv + (size_t)tap * hidden;
        for (size_t i = 0; i < hidden; i++) y[i] += w[i] * x[i];
    }
}

/* c = rmsnorm(clamp(depthwise(gated)));  h = h + conv_out(silu(c));  the second half of the feed-forward;
 * h = rmsnorm(clamp(h)) */
static void g4_hearing_conv_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_hearing_work *w = &r->works[task->worker];
    const g4_hearing_layer *l = r->layer;
    const g4_config *config = r->tower->config;
    const g4_view h = g4_tower_tile(r->h, config->a_hidden, r->n, piece);
    const g4_view c = g4_view_as(w->outputs, h.n, h.cols);
    for (size_t t = 0; t < c.n; t++) g4_hearing_depthwise(r, piece * G4_TOWER_TILE + (int)t, g4_view_row(c, t));
    g4_view_clamp(c, -config->a_clip, config->a_clip);
    g4_view_norm(r->kernels, c, c, l->conv_mid_norm, config->a_eps);
    g4_keep(&r->kept[G4_HEARING_CONV_MID_NORM], piece, c);
    const g4_view y = g4_linear_apply(&w->linear, &l->conv_out, w->outputs, g4_hearing_silu(r, w->inputs, c));
    g4_keep(&r->kept[G4_HEARING_CONV_OUT], piece, y);
    g4_view_add(h, 1, y);
    g4_hearing_feed_forward(r, w, &l->ff2, h, &r->kept[G4_HEARING_FF2_NORM], piece);
    g4_hearing_norm(r, h, h, l->norm);
    g4_keep(&r->kept[G4_HEARING_LAYER_OUT], piece, h);
}

/* ---- Out ----------------------------------------------------------------------------------------- */

/* rows = proj(rmsnorm(out(h) + bias)) */
static void g4_hearing_out_piece(const g4_task *task, int piece)
{
    const g4_hearing_run *r = task->job;
    const g4_hearing_work *w = &r->works[task->worker];
    const g4_config *c = r->tower->config;
    const g4_view h = g4_tower_tile(r->h, c->a_hidden, r->n, piece);
    const g4_view rows = g4_tower_tile(r->rows, c->hidden, r->n, piece);
    const g4_view y = g4_linear_apply(&w->linear, &r->tower->out, w->outputs, h);
    for (size_t t = 0; t < y.n; t++)
        for (size_t i = 0; i < y.cols; i++) g4_view_row(y, t)[i] += r->tower->out_bias[i];
    g4_keep(&r->projected[0], piece, y);
    const g4_view x = g4_view_norm(r->kernels, w->inputs, y, NULL, c->a_eps);
    g4_keep(&r->projected[1], piece, x);
    g4_view_copy(rows, g4_linear_apply(&w->linear, &r->tower->proj, w->outputs, x));
}

/* ---- The tower ----------------------------------------------------------------------------------- */

static void g4_hearing_work_open(g4_hearing_work *w, g4_blocks *b, const g4_hearing *tower)
{
    const g4_config *c = tower->config;
    const size_t flat = G4_HEARING_BANDS1 * (size_t)c->a_conv1, taps = 9 * (size_t)c->a_conv0;
    const size_t widest = g4_max_size(g4_max_size(4 * (size_t)c->a_hidden, flat), g4_max_size(c->a_out, c->hidden));
    w->inputs = g4_tower_room(b, widest);
    w->outputs = g4_tower_room(b, widest);
    w->taps = (g4_view) { g4_blocks_add(b, G4_HEARING_BANDS1, taps, sizeof(float)), G4_HEARING_BANDS1, taps, taps };
    w->conv0_out =
        g4_blocks_add(b, 2 * G4_TOWER_TILE + 1, G4_HEARING_BANDS0 * (size_t)c->a_conv0, sizeof *w->conv0_out);
    g4_linear_work_open(&w->linear, b, tower->compute, g4_max_size(widest, taps));
}

/* Room for what taps see, if there are any. */
static void g4_hearing_kept_open(g4_hearing_run *r)
{
    static const char *const names[G4_HEARING_N_KEPT] = {
        [G4_HEARING_FF1_NORM] = "audio.ff1_norm",
        [G4_HEARING_FF1_OUT] = "audio.ff1_out",
        [G4_HEARING_ATTN_NORM] = "audio.attn_norm",
        [G4_HEARING_Q] = "audio.q",
        [G4_HEARING_K] = "audio.k",
        [G4_HEARING_V] = "audio.v",
        [G4_HEARING_ATTN_HEADS] = "audio.attn_heads",
        [G4_HEARING_ATTN_OUT] = "audio.attn_out",
        [G4_HEARING_ATTN_POST_NORM] = "audio.attn_post_norm",
        [G4_HEARING_CONV_NORM] = "audio.conv_norm",
        [G4_HEARING_CONV_GATED] = "audio.conv_gated",
        [G4_HEARING_CONV_MID_NORM] = "audio.conv_mid_norm",
        [G4_HEARING_CONV_OUT] = "audio.conv_out",
        [G4_HEARING_FF2_NORM] = "audio.ff2_norm",
        [G4_HEARING_FF2_OUT] = "audio.ff2_out",
        [G4_HEARING_LAYER_OUT] = "audio.layer_out",
    };
    const g4_config *c = r->tower->config;
    for (int i = 0; i < G4_HEARING_N_KEPT; i++) r->kept[i] = (g4_kept) { .name = names[i], .cols = c->a_hidden };
    r->projected[0] = (g4_kept) { .name = "audio.projected", .cols = c->a_out };
    r->projected[1] = (g4_kept) { .name = "audio.norm", .cols = c->a_out };
    g4_kept_open(r->kept, G4_HEARING_N_KEPT, &r->memory, r->taps, r->n);
    g4_kept_open(r->projected, 2, &r->memory, r->taps, r->n);
}

/* Everything a block of that length needs; zero when memory is out, and then r->memory is to be freed all the same. */
static int g4_hearing_run_open(g4_hearing_run *r)
{
    g4_blocks *b = &r->memory;
    const size_t n = (size_t)r->n, hidden = r->tower->config->a_hidden;
    const int threads = g4_pool_size(r->tower->compute->pool);
    r->frames = g4_mel_frames(r->block->n_samples);
    r->times = (r->frames + 1) / 2;
    r->log_mel = g4_blocks_add(b, (size_t)r->frames, G4_MEL_BANDS, sizeof *r->log_mel);
    r->h = g4_blocks_add(b, n, hidden, sizeof *r->h);
    r->q = g4_blocks_add(b, n, hidden, sizeof *r->q);
    r->k = g4_blocks_add(b, n, hidden, sizeof *r->k);
    r->v = g4_blocks_add(b, n, hidden, sizeof *r->v);
    r->gated = g4_blocks_add(b, n, hidden, sizeof *r->gated);
    r->works = g4_blocks_add(b, (size_t)threads, 1, sizeof *r->works);
    for (int i = 0; i < threads && r->works; i++) g4_hearing_work_open(&r->works[i], b, r->tower);
    g4_hearing_kept_open(r);
    return !b->failed;
}

int g4_hearing_tokens(size_t n_samples) { return (g4_mel_frames(n_samples) + 3) / 4; }

g4_status g4_hearing_forward(const g4_hearing *tower, const g4_audio *block, int n, float *rows, const g4_taps *taps,
                             g4_error *err)
{
    const g4_config *c = tower->config;
    const g4_compute *compute = tower->compute;
    g4_pool *pool = compute->pool;
    g4_hearing_run r = {
        .tower = tower, .kernels = compute->kernels, .block = block, .n = n, .rows = rows, .taps = taps
    };
    r.memory.a = tower->a;
    if (!g4_hearing_run_open(&r)) {
        g4_blocks_free(&r.memory);
        return g4_fail(err, G4_ERR_MEMORY, "encoding %zu samples: out of memory", block->n_samples);
    }
    g4_mel_open(&r.mel);
    const int tiles = g4_tower_tiles(n);
    g4_parallel_for(pool, g4_tower_tiles(r.frames), g4_hearing_mel_piece, &r);
    g4_tower_show(taps, compute, "audio.mel", -1, r.log_mel, r.frames, G4_MEL_BANDS);
    g4_parallel_for(pool, tiles, g4_hearing_subsample_piece, &r);
    g4_tower_show(taps, compute, "audio.subsample", -1, r.h, n, c->a_hidden);
    for (uint32_t i = 0; i < c->a_layers; i++) {
        r.layer = &tower->layers[i];
        g4_pool_rest(pool);
        g4_parallel_for(pool, tiles, g4_hearing_qkv_piece, &r);
        g4_parallel_for(pool, tiles, g4_hearing_attention_piece, &r);
        g4_parallel_for(pool, tiles, g4_hearing_conv_piece, &r);
        g4_kept_show(r.kept, G4_HEARING_N_KEPT, taps, compute, (int)i);
    }
    g4_pool_rest(pool);
    g4_parallel_for(pool, tiles, g4_hearing_out_piece, &r);
    g4_kept_show(r.projected, 2, taps, compute, -1);
    g4_tower_show(taps, compute, "audio.out", -1, rows, n, c->hidden);
    g4_blocks_free(&r.memory);
    return G4_OK;
}
