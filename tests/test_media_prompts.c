/* test_media_prompts.c - prompts with pictures, sound and video: logits against transformers (tests/data/media), equal
 * bits however they are evaluated, and what is remembered between turns. */
#include "towers.h"

#define G4_LOGIT_TOLERANCE 1e-3

enum { G4_MAX_MEDIA = 8, G4_MAX_PROMPT = 2048 };

typedef struct {
    g4_token tokens[G4_MAX_PROMPT];
    g4_medium media[G4_MAX_MEDIA];
    g4_prompt p; /* of the two above */
} g4_case;

static g4_engine *g4_open(const char *name, int n_threads, const char *isa)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/media/%s.g4", name);
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = n_threads, .isa = isa }, &err);
    G4_EXPECT(e != NULL, "%s: %s", path, err.message);
    return e;
}

/* Encode picture or frame `c` of the reference, or the first block of sound `c`. */
static g4_soft *g4_encode_case(g4_engine *e, const g4_ref_file *f, int kind, int c)
{
    g4_soft *soft = NULL;
    if (kind == 2) {
        const int32_t *sound = (const int32_t *)g4_ref_get(f, "sounds", 0, 0).data + 2 * c;
        float *samples = g4_sound((size_t)sound[0], sound[1], (uint32_t)c);
        g4_audio_encode(&soft, e, &(g4_audio) { .samples = samples, .n_samples = (size_t)sound[0] }, NULL);
        free(samples);
    } else {
        const int32_t *size = (const int32_t *)g4_ref_get(f, "pictures", 0, 0).data + 3 * c;
        uint8_t *pixels = g4_picture(size[0], size[1], (uint32_t)c);
        const g4_image image = { .pixels = pixels, .width = size[0], .height = size[1], .max_tokens = size[2] };
        if (kind == 0)
            g4_image_encode(&soft, e, &image, NULL);
        else
            g4_frame_encode(&soft, e, &image, NULL);
        free(pixels);
    }
    return soft;
}

/* Prompt i of the reference with its placeholders repeated. Returns 0 when there is none. */
static int g4_case_open(g4_case *k, g4_engine *e, const g4_ref_file *f, int i)
{
    g4_ref tokens = g4_ref_get(f, "tokens.%d", i, 0), media = g4_ref_get(f, "media.%d", i, 0);
    const int32_t *ids = tokens.data, *files = media.data;
    const int n_media = (int)media.head.dims[0];
    memset(k, 0, sizeof *k);
    k->p = (g4_prompt) { .tokens = k->tokens, .media = k->media };
    for (size_t t = 0; t < tokens.n; t++) {
        int n = 1;
        if (k->p.n_media < n_media && n_media > 0) {
            /* placeholders of pictures, sound and frames are 19, 22 and 23 in the tiny vocabulary */
            static const int placeholder[] = { 19, 23, 22 };
            if (ids[t] == placeholder[files[2 * k->p.n_media]]) {
                g4_soft *soft = g4_encode_case(e, f, files[2 * k->p.n_media], files[2 * k->p.n_media + 1]);
                if (!soft) return 0;
                k->media[k->p.n_media++] = (g4_medium) { k->p.n, soft };
                n = g4_soft_n(soft);
                G4_EXPECT(g4_soft_token(soft) == ids[t], "placeholder %d, expected %d", (int)g4_soft_token(soft),
                          ids[t]);
            }
        }
        for (int j = 0; j < n && k->p.n < G4_MAX_PROMPT; j++) k->tokens[k->p.n++] = ids[t];
    }
    const g4_ref total = g4_ref_get(f, "n.%d", i, 0);
    if (total.data)
        G4_EXPECT(k->p.n == *(const int32_t *)total.data, "prompt %d: %d positions, expected %d", i, k->p.n,
                  *(const int32_t *)total.data);
    return total.data != NULL;
}

static void g4_case_close(g4_case *k, g4_engine *e)
{
    for (int i = 0; i < k->p.n_media; i++) g4_soft_close(e, k->media[i].soft);
}

typedef struct {
    const int32_t *keep;
    const float *want;
    size_t n_keep, n_vocab, at;
    double worst, kl;
} g4_check;

static int g4_on_row(void *user, int index, const float *logits)
{
    g4_check *c = user;
    if (c->at >= c->n_keep || index != c->keep[c->at]) return 0;
    const float *want = c->want + c->at++ * c->n_vocab;
    double d = g4_max_diff(logits, want, c->n_vocab), a = 0, b = 0, kl = 0;
    if (!(d <= c->worst)) c->worst = d;
    for (size_t i = 0; i < c->n_vocab; i++) {
        a += exp((double)want[i]);
        b += exp((double)logits[i]);
    }
    for (size_t i = 0; i < c->n_vocab; i++)
        kl += exp((double)want[i]) / a * ((double)want[i] - log(a) - (double)logits[i] + log(b));
    c->kl += kl;
    return 0;
}

/* Logits of every prompt; tolerance 0: print the divergence instead. */
static void g4_test_logits(const char *name, const char *ref, const char *isa, double tolerance)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/media/%s.ref", ref);
    g4_ref_file f = g4_ref_open(path);
    g4_engine *e = g4_open(name, 0, isa);
    g4_case *k = malloc(sizeof *k);
    double worst = 0, kl = 0;
    size_t rows = 0;
    int n = 0;
    for (; e && f.bytes && k && g4_case_open(k, e, &f, n); n++, g4_case_close(k, e)) {
        const g4_ref keep = g4_ref_get(&f, "keep.%d", n, 0), want = g4_ref_get(&f, "logits.%d", n, 0);
        g4_check c = { keep.data, want.data, keep.n, want.head.dims[1], 0, 0, 0 };
        g4_session *s = NULL;
        g4_error err = { G4_OK, "" };
        const int ok = !g4_session_open(&s, e, &(g4_session_options) { .n_ctx = G4_MAX_PROMPT }, &err) &&
                       !g4_session_eval_all(s, &k->p, g4_on_row, &c, &err);
        G4_EXPECT(ok && c.at == c.n_keep, "%s prompt %d: %zu of %zu rows %s", name, n, c.at, c.n_keep, err.message);
        if (tolerance > 0)
            G4_EXPECT(c.worst <= tolerance, "%s %s prompt %d: logits off by %g", name, isa ? isa : "", n, c.worst);
        if (!(c.worst <= worst)) worst = c.worst;
        kl += c.kl;
        rows += c.at;
        g4_session_close(s);
    }
    G4_EXPECT(n >= 5, "%s: %d prompts", name, n);
    kl /= rows > 0 ? (double)rows : 1;
    printf("%s%s%s: %d prompts with media, logits off by %.2g at most, KL divergence %.2g\n", name, isa ? " " : "",
           isa ? isa : "", n, worst, kl);
    if (tolerance <= 0) G4_EXPECT(kl < 0.1, "%s: KL divergence %g", name, kl);
    free(k);
    g4_engine_close(e);
    free(f.bytes);
}

/* Last logits of prompt i for a number of threads and a chunk; freed by the caller. */
static float *g4_last(const char *name, const g4_ref_file *f, int i, int n_threads, int chunk, const char *isa)
{
    g4_engine *e = g4_open(name, n_threads, isa);
    g4_case *k = malloc(sizeof *k);
    float *out = NULL;
    g4_session *s = NULL;
    if (e && k && g4_case_open(k, e, f, i)) {
        g4_engine_info info;
        g4_engine_get_info(e, &info);
        if (!g4_session_open(&s, e, &(g4_session_options) { .n_ctx = G4_MAX_PROMPT, .chunk = chunk }, NULL) &&
            !g4_session_eval_prompt(s, &k->p, NULL) && (out = malloc((size_t)info.n_vocab * sizeof *out)) != NULL)
            memcpy(out, g4_session_logits(s), (size_t)info.n_vocab * sizeof *out);
        g4_session_close(s);
        g4_case_close(k, e);
    }
    free(k);
    g4_engine_close(e);
    return out;
}

/* Threads and chunks change no bit; nor does the tower's way of sharing work. */
static void g4_test_bits(const char *name, int prompt, const char *isa)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/media/%.3s.ref", name);
    g4_ref_file f = g4_ref_open(path);
    const size_t n_vocab = g4_ref_get(&f, "logits.%d", prompt, 0).head.dims[1];
    static const int ways[][2] = { { 1, 256 }, { 2, 64 }, { 3, 13 }, { 5, 512 } };
    float *first = NULL;
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        float *out = g4_last(name, &f, prompt, ways[w][0], ways[w][1], isa);
        G4_EXPECT(out != NULL, "%s: no logits", name);
        if (first && out)
            G4_EXPECT(memcmp(first, out, n_vocab * sizeof *out) == 0,
                      "%s prompt %d: %d threads, chunk %d give other bits", name, prompt, ways[w][0], ways[w][1]);
        if (!first)
            first = out;
        else
            free(out);
    }
    free(first);
    free(f.bytes);
}

/* A second question about the same picture encodes nothing and evaluates the question alone; going back never ends
 * inside a picture. */
static void g4_test_turns(const char *name, const char *ref)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/media/%s.ref", ref);
    g4_ref_file f = g4_ref_open(path);
    g4_engine *e = g4_open(name, 0, NULL);
    g4_case *k = malloc(sizeof *k);
    g4_session *s = NULL, *fresh = NULL;
    if (e && k && f.bytes && g4_case_open(k, e, &f, 0)) {
        const int at = k->media[0].pos, n_soft = g4_soft_n(k->media[0].soft), n = at + n_soft + 12;
        g4_soft *again = g4_encode_case(e, &f, 0, 0), *other = g4_encode_case(e, &f, 0, 1),
                *frame = g4_encode_case(e, &f, 1, 0);
        G4_EXPECT(again == k->media[0].soft, "%s: the same picture was encoded again", name);
        G4_EXPECT(other && other != again, "%s: another picture got the first one's tokens", name);
        G4_EXPECT(frame && frame != again && g4_soft_token(frame) != g4_soft_token(again),
                  "%s: a frame got a picture's tokens", name);
        g4_session_options opt = { .n_ctx = G4_MAX_PROMPT };
        G4_EXPECT(!g4_session_open(&s, e, &opt, NULL) && !g4_session_open(&fresh, e, &opt, NULL), "%s: sessions", name);
        k->p.n = n;
        int reused = -1;
        G4_EXPECT(!g4_session_sync(s, &k->p, &reused, NULL) && reused == 0, "%s: %d reused", name, reused);
        /* another question after the picture */
        for (int t = n - 6; t < n; t++) k->tokens[t] = k->tokens[t - 6];
        const uint64_t before = g4_session_n_evaluated(s);
        G4_EXPECT(!g4_session_sync(s, &k->p, &reused, NULL), "%s: sync", name);
        G4_EXPECT(g4_session_n_evaluated(s) - before <= 6 && reused >= n - 6, "%s: %d evaluated again, %d reused", name,
                  (int)(g4_session_n_evaluated(s) - before), reused);
        G4_EXPECT(!g4_session_eval_prompt(fresh, &k->p, NULL), "%s: eval", name);
        g4_engine_info info;
        g4_engine_get_info(e, &info);
        const size_t bytes = (size_t)info.n_vocab * sizeof(float);
        G4_EXPECT(memcmp(g4_session_logits(s), g4_session_logits(fresh), bytes) == 0, "%s: reuse gives other bits",
                  name);
        /* another picture of the same size at the same place is not the same prompt */
        float *first = malloc(bytes);
        if (first) memcpy(first, g4_session_logits(s), bytes);
        g4_soft *mine = k->media[0].soft;
        uint8_t *pixels = g4_picture(200, 150, 99);
        g4_soft *changed = NULL;
        g4_image_encode(&changed, e, &(g4_image) { .pixels = pixels, .width = 200, .height = 150, .max_tokens = 70 },
                        NULL);
        free(pixels);
        if (changed && g4_soft_n(changed) == n_soft) {
            k->media[0].soft = changed;
            G4_EXPECT(!g4_session_sync(s, &k->p, &reused, NULL) && reused <= at, "%s: %d reused behind another picture",
                      name, reused);
            G4_EXPECT(first && memcmp(first, g4_session_logits(s), bytes) != 0, "%s: another picture, the same answer",
                      name);
            k->media[0].soft = mine;
        }
        free(first);
        /* go back into the middle of the picture: it is evaluated whole */
        G4_EXPECT(!g4_session_sync(s, &k->p, NULL, NULL), "%s: sync", name);
        G4_EXPECT(!g4_session_rewind(s, at + n_soft + 3, NULL) && g4_session_n(s) == at + n_soft + 3, "%s: rewind",
                  name);
        const g4_prompt rest = { .tokens = k->tokens + at + n_soft + 3, .n = n - at - n_soft - 3 };
        G4_EXPECT(!g4_session_eval_prompt(s, &rest, NULL) &&
                      memcmp(g4_session_logits(s), g4_session_logits(fresh), bytes) == 0,
                  "%s: rewind gives other bits", name);
        g4_soft_close(e, again);
        g4_soft_close(e, other);
        g4_soft_close(e, frame);
        g4_soft_close(e, changed);
        g4_case_close(k, e);
    } else {
        G4_EXPECT(0, "%s: cannot be opened", name);
    }
    g4_session_close(s);
    g4_session_close(fresh);
    free(k);
    g4_engine_close(e);
    free(f.bytes);
}

/* What cannot be encoded is refused in words. */
static void g4_test_refusals(void)
{
    g4_engine *e2b = g4_open("e2b", 0, NULL), *large = g4_open("31b", 0, NULL);
    uint8_t pixels[3] = { 0 };
    float samples[161] = { 0 };
    g4_soft *soft = NULL;
    g4_error err;
    G4_EXPECT(g4_image_encode(&soft, e2b, &(g4_image) { .pixels = pixels, .width = 1, .height = 1, .max_tokens = 71 },
                              &err) == G4_ERR_ARGUMENT &&
                  !soft,
              "budget 71");
    G4_EXPECT(g4_image_encode(&soft, e2b, &(g4_image) { .pixels = pixels, .height = 1, .max_tokens = 70 }, &err) ==
                      G4_ERR_ARGUMENT &&
                  !soft,
              "an empty picture");
    G4_EXPECT(g4_image_encode(&soft, e2b, NULL, &err) == G4_ERR_ARGUMENT && !soft, "no picture");
    G4_EXPECT(g4_audio_encode(&soft, e2b, &(g4_audio) { .samples = samples, .n_samples = 160 }, &err) ==
                      G4_ERR_ARGUMENT &&
                  !soft,
              "160 samples");
    G4_EXPECT(g4_audio_encode(&soft, e2b, &(g4_audio) { .samples = samples, .n_samples = 480001 }, &err) ==
                      G4_ERR_ARGUMENT &&
                  !soft,
              "480001 samples");
    G4_EXPECT(g4_audio_encode(&soft, large, &(g4_audio) { .samples = samples, .n_samples = 161 }, &err) ==
                      G4_ERR_UNSUPPORTED &&
                  strstr(err.message, "audio"),
              "%s", err.message);
    G4_EXPECT(g4_audio_encode(&soft, e2b, &(g4_audio) { .samples = samples, .n_samples = 161 }, &err) == G4_OK &&
                  g4_soft_n(soft) == 1,
              "161 samples are one token");
    g4_soft_close(e2b, soft);
    G4_EXPECT(g4_audio_mel(&(g4_audio) { .samples = samples, .n_samples = 160 }, NULL) == 0 &&
                  g4_audio_mel(&(g4_audio) { .samples = samples, .n_samples = 161 }, NULL) == 1 &&
                  g4_audio_mel(&(g4_audio) { .samples = samples, .n_samples = 480000 }, NULL) == 2999,
              "counts of frames");
    const g4_audio silence = { .samples = samples };
    const g4_part part = { .kind = G4_PART_AUDIO, .audio = &silence };
    const g4_message message = { .role = G4_ROLE_USER, .parts = &part, .n_parts = 1 };
    const g4_chat_options opt = { .template_name = "e2b-2026-07" };
    g4_chat *chat = NULL;
    g4_prompt prompt;
    G4_EXPECT(g4_chat_open(&chat, e2b, &message, 1, &opt, &err) == G4_OK &&
                  g4_chat_prompt(chat, &prompt, &err) == G4_ERR_ARGUMENT && strstr(err.message, "empty"),
              "a sound of 0 samples: %s", err.message);
    g4_chat_close(chat);
    g4_engine_close(e2b);
    g4_engine_close(large);
}

/* What stands before the first medium is the beginning of the prompt, and nothing is encoded for it. */
static void g4_test_beginning(void)
{
    g4_engine *e = g4_open("e2b", 0, NULL);
    uint8_t *pixels = g4_picture(96, 96, 7);
    const g4_image image = { .pixels = pixels, .width = 96, .height = 96, .max_tokens = 70 };
    const double seconds = 0;
    const g4_video video = { .frames = &image, .seconds = &seconds, .n_frames = 1 };
    const g4_audio silence = { 0 }; /* cannot be encoded */
    const g4_part parts[] = {
        { .kind = G4_PART_TEXT, .text = "What is in it, and where?" },
        { .kind = G4_PART_IMAGE, .image = &image },
        { .kind = G4_PART_VIDEO, .video = &video },
        { .kind = G4_PART_AUDIO, .audio = &silence },
        { .kind = G4_PART_TEXT, .text = "Say it." },
    };
    for (int kind = 0; kind < 4; kind++) { /* text alone, or text and a medium of that kind */
        const g4_part said[] = { parts[0], kind > 0 ? parts[kind] : parts[4], parts[4] };
        const g4_message message = { .role = G4_ROLE_USER, .parts = said, .n_parts = 3 };
        const g4_chat_options opt = { .template_name = "e2b-2026-07" };
        g4_chat *a = NULL, *b = NULL;
        g4_prompt begin, whole;
        g4_error err;
        G4_EXPECT(!g4_chat_open(&a, e, &message, 1, &opt, &err) && !g4_chat_beginning(a, &begin, &err) && begin.n > 0 &&
                      begin.n_media == 0,
                  "kind %d: %s", kind, err.message);
        if (kind < 3) {
            G4_EXPECT(!g4_chat_open(&b, e, &message, 1, &opt, &err) && !g4_chat_prompt(b, &whole, &err), "kind %d: %s",
                      kind, err.message);
            G4_EXPECT(begin.n <= whole.n && memcmp(begin.tokens, whole.tokens, (size_t)begin.n * sizeof(g4_token)) == 0,
                      "kind %d: other tokens", kind);
            if (kind == 0) G4_EXPECT(begin.n == whole.n, "%d of %d tokens", begin.n, whole.n);
            if (kind == 1)
                G4_EXPECT(begin.n == whole.media[0].pos - 1, "%d, picture at %d", begin.n, whole.media[0].pos);
        } else {
            G4_EXPECT(g4_chat_prompt(a, &whole, &err) == G4_ERR_ARGUMENT, "a sound of 0 samples was encoded");
        }
        g4_chat_close(a);
        g4_chat_close(b);
    }
    free(pixels);
    g4_engine_close(e);
}

int main(void)
{
    const char *isa;
    if (getenv("G4_RUNNER") != NULL) { /* an emulated CPU: the model that also hears, the best table */
        g4_test_logits("e2b", "e2b", NULL, G4_LOGIT_TOLERANCE);
        g4_test_refusals();
        g4_test_beginning();
        return g4_test_end();
    }
    for (int i = 0; (isa = g4_isa_name(i)) != NULL; i++) {
        g4_test_logits("e2b", "e2b", isa, G4_LOGIT_TOLERANCE);
        g4_test_logits("26b", "26b", isa, G4_LOGIT_TOLERANCE);
    }
    g4_test_logits("e4b", "e4b", NULL, G4_LOGIT_TOLERANCE);
    g4_test_logits("31b", "31b", NULL, G4_LOGIT_TOLERANCE);
    g4_test_logits("e2b-q8_0", "e2b", NULL, 0);
    g4_test_bits("e2b", 6, NULL);
    g4_test_bits("26b", 1, NULL);
    g4_test_bits("e2b-q8_0", 6, NULL);
    g4_test_turns("e2b", "e2b");
    g4_test_turns("31b", "31b");
    g4_test_refusals();
    g4_test_beginning();
    return g4_test_end();
}
