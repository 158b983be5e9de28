/* gemma4.h - run Gemma 4 models on a CPU: the whole public interface of gemma4.c, and its manual.
 *
 *   g4_error err;  g4_engine *e;  g4_session *s;
 *   if (g4_engine_open(&e, &(g4_engine_options){ .model_path = "model.g4" }, &err)) return fail(&err);
 *   if (g4_session_open(&s, e, NULL, &err)) return fail(&err);
 *   if (g4_session_eval_text(s, "The capital of France is", 0, &err)) return fail(&err);
 *   if (g4_session_generate(s, &(g4_generate_options){ .output = print }, NULL, &err)) return fail(&err);
 *   g4_session_close(s);  g4_engine_close(e);
 *
 * BUILD    Link libgemma4.a, or write in exactly one .c file, before any other #include,
 *              #define GEMMA4_IMPLEMENTATION
 *              #include "gemma4.h"
 *          and link -lm -lpthread. The implementation is C11; the declarations serve C and C++.
 * ERRORS   A function that can fail returns g4_status (0 is success) and takes a g4_error last, which may be NULL.
 *          On failure *out is NULL and the objects passed in are as before, unless a comment says otherwise.
 *          The library never exits, aborts, prints or reads the environment.
 *          A NULL where an object or text is required is G4_ERR_ARGUMENT; functions without a status give 0 or NULL.
 * MEMORY   Each *_open has a *_close, which accepts NULL. Pointers passed in are borrowed for the call. A zeroed
 *          options struct is valid: zero always means "the default", and so does a NULL options pointer. Structs end
 *          in reserved room, to be left zero: later versions put new fields there, and nothing else moves.
 * THREADS  No mutable globals. An open engine is read-only and serves any number of sessions on any threads; their
 *          forward passes take turns on its workers. A session and its callbacks belong to one thread at a time; a
 *          call on a session that is in a call already fails with G4_ERR_ARGUMENT. For one isa and key/value type,
 *          results do not depend on n_threads, on chunking or on reuse: equal bits.
 * CALLBACKS  may call every function on other objects, and of the session whose call they serve
 *          g4_session_cancel, _n, _n_ctx, _tokens and _n_evaluated. They may not close what is in use. Taps run inside
 * a
 *          forward pass: what computes with their engine fails there with G4_ERR_ARGUMENT.
 * FORK     An engine's threads do not survive fork(): in the child all calls that compute with it or its sessions fail
 *          with G4_ERR_ARGUMENT; closing works.
 */
#if (defined(GEMMA4_IMPLEMENTATION) || defined(GEMMA4_IMPLEMENTED)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* mmap, madvise, clock_gettime, sched_getaffinity under -std=c11; must precede libc headers */
#endif

#ifndef GEMMA4_H
#define GEMMA4_H

#include <stddef.h>
#include <stdint.h>

#define G4_VERSION "0.2.0"
#ifndef G4_API
#define G4_API extern /* override to export from a shared library */
#endif
#ifdef __cplusplus
extern "C" {
#endif
G4_API const char *g4_version(void); /* of the library that runs; G4_VERSION is that of this header */

/* ---- Errors --------------------------------------------------------------------------------- */

typedef enum {
    G4_OK = 0,
    G4_ERR_ARGUMENT = -1,    /* NULL or out of range */
    G4_ERR_MEMORY = -2,      /* an allocation failed, or a plan does not fit */
    G4_ERR_IO = -3,          /* open, map, read or write failed */
    G4_ERR_FORMAT = -4,      /* not such a file, truncated, or at odds with itself */
    G4_ERR_VERSION = -5,     /* a sound file of a version this library cannot read */
    G4_ERR_UNSUPPORTED = -6, /* for example audio, for a model without an audio tower */
    G4_ERR_CONTEXT = -7,     /* the input does not fit in the context window */
    G4_ERR_MISMATCH = -8,    /* saved state made for another model */
    G4_ERR_CANCELED = -9     /* cancelled, out of time, or a progress callback returned nonzero */
} g4_status;

typedef struct {
    g4_status code;
    char message[256]; /* names the file or tensor, and both values that disagree; NUL-terminated */
} g4_error;
G4_API const char *g4_status_name(g4_status code); /* "G4_ERR_FORMAT"; never NULL */

/* ---- Callbacks ------------------------------------------------------------------------------- */

typedef enum { G4_LOG_WARNING = 1, G4_LOG_INFO, G4_LOG_DEBUG } g4_log_level;
typedef void (*g4_log_fn)(void *user, g4_log_level level, const char *message);
typedef int (*g4_progress_fn)(void *user, uint64_t done, uint64_t total); /* tokens or bytes; nonzero cancels */
typedef int (*g4_read_fn)(void *user, void *data, size_t size);           /* nonzero is failure */
typedef int (*g4_write_fn)(void *user, const void *data, size_t size);    /* nonzero is failure */

typedef struct { /* called from threads inside g4_ functions, never from a worker */
    void *(*alloc_fn)(void *user, size_t size, size_t align);
    void (*free_fn)(void *user, void *ptr, size_t size);
    void *user;
} g4_allocator;

/* ---- Ending a call early ----------------------------------------------------------------------- */

/* A flag that ends calls: they return G4_ERR_CANCELED soon after it is set, within one piece of work. Zeroed it is not
 * set; only these two functions may touch it, from any thread and from signal handlers. It stays set until cleared. */
typedef struct {
    int is_set;
} g4_cancel;
G4_API void g4_cancel_set(g4_cancel *c);
G4_API void g4_cancel_clear(g4_cancel *c);

typedef struct {             /* when a call must end; zeroed: never */
    const g4_cancel *cancel; /* must outlive the calls; NULL: none */
    double seconds;          /* from the beginning of the call; 0: no limit; below 0 or NaN: it is late already */
    uint64_t reserved[2];
} g4_limits;

/* ---- Taps: every activation, by its name in MODEL.md ------------------------------------------- */

typedef struct {
    const char *name;    /* "layer_out", "vision.layer_out"; the sections of MODEL.md end with these names */
    int layer;           /* -1: of no layer */
    int pos;             /* of the first row: a position of the timeline; in towers a patch, frame or soft token */
    int n_rows, n_cols;  /* rows of positions that follow each other */
    size_t stride;       /* values from one row to the next */
    const float *values; /* (n_rows, stride); NULL: ids */
    const int32_t *ids;  /* (n_rows, stride): the experts that were chosen; else NULL */
    uint64_t reserved[4];
} g4_tap;
/* Called in the order of computation, from the thread that is inside the g4_ function and never from a worker. What it
 * is shown is valid during the call. It runs inside a forward pass: of the engine and its sessions it may call
 * g4_session_cancel and nothing else. */
typedef void (*g4_tap_fn)(void *user, const g4_tap *tap);

typedef struct {         /* what a matrix of the decoder is multiplied with: rows of tokens, before they are rounded */
    const char *name;    /* of its tensor, as g4_engine_get_tensor has it; gate and up are one */
    int matrix;          /* which of the tensor: of experts the id, else 0 */
    int n_rows, n_cols;  /* rows of tokens, of an expert those it was chosen for, in no order that is promised */
    size_t stride;       /* values from one row to the next */
    const float *values; /* (n_rows, stride) */
    uint64_t reserved[4];
} g4_inputs;
/* Called as taps are, with every product of the decoder with a matrix of the model file. */
typedef void (*g4_inputs_fn)(void *user, const g4_inputs *in);
typedef struct {
    g4_tap_fn fn; /* NULL: nobody looks */
    void *user;
    g4_inputs_fn inputs; /* sees what matrices are multiplied with, also where fn is NULL, and has the same `user`. Only
                            of sessions: towers do not call it. NULL: nobody looks */
    uint64_t reserved[1];
} g4_taps;

/* ---- Engine: the weights, read-only and shared ------------------------------------------------- */

typedef int32_t g4_token;
typedef struct g4_engine g4_engine;

typedef struct {
    const char *model_path; /* a .g4 file written by export.py, mapped and not copied; or ... */
    const void *model_data; /* ... its bytes, 64-byte aligned, valid until the engine closes */
    size_t model_size;
    int n_threads;                 /* 0: physical cores allowed by affinity and control-group quota */
    const char *isa;               /* NULL: the best here; else the name of a table, as g4_isa_name lists them */
    int lock_memory;               /* mlock what every token reads; G4_ERR_MEMORY when the system forbids it */
    int huge_pages;                /* copy what every token reads into huge pages: slower to open, faster to answer */
    const g4_allocator *allocator; /* NULL: malloc and free; copied */
    g4_log_fn log;                 /* NULL: silent */
    void *user;                    /* for log */
    g4_limits limits; /* of opening, and of each call without session and options of its own: encoding, grammars, ... */
    const g4_taps *taps; /* see what the towers compute, one picture or sound at a time, also of media that were
                            encoded before; copied. NULL: nobody looks */
    int no_mmap; /* nonzero: read the file into memory instead of mapping it: slower to open, and nobody who truncates
                    it later can end the program by a SIGBUS */
    int static_activations; /* nonzero: activations are rounded by the scales that a checkpoint in the mobile format
                               has for them, as its reference does; slower. 0: finer, by what is computed.
                               G4_ERR_ARGUMENT when the file has no such scales */
    uint64_t reserved[2];
} g4_engine_options;

typedef struct {
    const char *name, *isa; /* owned by the engine */
    int n_layers, hidden, n_vocab, n_threads, max_ctx;
    int is_chat; /* instruction tuned: has a chat template */
    int has_image, has_audio;
    uint64_t n_params; /* elements of all tensors */
    uint64_t file_bytes;
    uint64_t lookup_bytes;    /* tables read a row at a time (per-layer embeddings): mostly stay on disk */
    uint64_t decode_bytes;    /* weights one generated token reads */
    uint64_t decode_products; /* multiply-adds with weights for a generated token ... */
    uint64_t prompt_products; /* ... and for a token inside a prompt */
    g4_token bos, eos, pad;
    int n_heads, window;                             /* query heads; positions that a sliding layer sees */
    int ple_dim;                                     /* of per-layer embeddings; 0: none */
    int n_experts, n_experts_used, expert_dim;       /* 0: none; of them for each token; their width */
    int has_own_head;                                /* else the head is the embedding */
    float softcap;                                   /* 0: none */
    int vision_layers, vision_hidden, vision_tokens; /* 0: none; soft tokens of a picture by default */
    int audio_layers, audio_hidden;
    /* What export.py made the file of: a hub's id, or the name of a folder or file; and its SHA-256 as 64 hexadecimal
     * digits: that of the one file, or of what sha256sum prints of several in the order of their names. Owned by the
     * engine; "" when the file does not say. */
    const char *source, *source_sha256;
    int vision_side; /* pixels of a soft token's side; 0: it sees nothing */
    uint64_t reserved[5];
} g4_engine_info;

G4_API g4_status g4_engine_open(g4_engine **out, const g4_engine_options *opt, g4_error *err);
G4_API void g4_engine_close(g4_engine *e); /* after its sessions */
G4_API void g4_engine_get_info(const g4_engine *e, g4_engine_info *out);
/* The weights that every token reads, in bytes, and (an estimate) how many of them are in memory, not only on disk. */
G4_API void g4_engine_residence(const g4_engine *e, uint64_t *resident, uint64_t *total);
/* Bring them into memory, in file order; on any thread, beside sessions too. progress: bytes, every 16 MB. */
G4_API g4_status g4_engine_prefault(const g4_engine *e, g4_progress_fn progress, void *user, g4_error *err);
G4_API const char *g4_isa_name(int i); /* the i-th kernel table this CPU can run, best first; NULL past the last */

/* A tensor of the model file, for listings; returns 0 past the last. */
typedef struct {
    const char *name, *type, *layout; /* "l.0.q", "q4_0", "groups16" */
    int n_dims;
    uint64_t dims[3], bytes;
    uint64_t reserved[4];
} g4_tensor_info;
G4_API int g4_engine_get_tensor(const g4_engine *e, int i, g4_tensor_info *out);

/* ---- Tokens ----------------------------------------------------------------------------------- */

/* Token ids of text (UTF-8; malformed bytes become byte tokens), no BOS. Writes up to cap ids and sets *n to the full
 * number. specials nonzero: markers such as <|turn> become control tokens (trusted text only). */
G4_API g4_status g4_tokenize(const g4_engine *e, const char *text, size_t len, int specials, g4_token *out, size_t cap,
                             size_t *n, g4_error *err);
/* Bytes of one token into out (at least 256), returns their number; a control token gives its name, or nothing with
 * skip_special. An id outside the vocabulary gives 0 bytes. */
G4_API size_t g4_token_bytes(const g4_engine *e, g4_token id, int skip_special, char *out);

typedef enum {
    G4_TOKEN_UNUSED,  /* reserved by the vocabulary, or outside it */
    G4_TOKEN_TEXT,    /* text, or a part of it */
    G4_TOKEN_BYTE,    /* one byte of a character that the vocabulary has no token for */
    G4_TOKEN_CONTROL, /* a marker such as <|turn> */
    G4_TOKEN_MEDIA    /* the placeholder of soft tokens: of pictures, sound or video frames */
} g4_token_kind;
G4_API g4_token_kind g4_token_get_kind(const g4_engine *e, g4_token id);
G4_API int g4_token_is_stop(const g4_engine *e, g4_token id); /* one of the ids that end a reply of this model? */

/* Streaming text: feed bytes, get whole UTF-8 characters. Zero to start. g4_utf8_push copies to out (room for n + 4)
 * everything that is complete, keeping at most 3 bytes back; flush (n = 0, data = NULL) gives what is left, malformed
 * or not. */
typedef struct {
    unsigned char held[4];
    int n_held;
} g4_utf8;
G4_API size_t g4_utf8_push(g4_utf8 *u, const char *data, size_t n, char *out);

/* ---- Media ------------------------------------------------------------------------------------ */

typedef struct { /* 8-bit RGB; g4_image_load reads files into it */
    const uint8_t *pixels;
    int width, height;
    size_t stride;  /* bytes from row to row; 0: 3 * width */
    int max_tokens; /* 0: the model's default (280); else 70, 140, 280, 560 or 1120 */
    int64_t fitted; /* a frame that was scaled when it was loaded: for how many soft tokens; 0: it was not */
    uint64_t reserved[1];
} g4_image;
typedef struct {
    const float *samples;
    size_t n_samples;
    uint64_t reserved[2];
} g4_audio;      /* mono, 16 kHz, -1..1 */
typedef struct { /* frames in order; the model is told the time of each */
    const g4_image *frames;
    const double *seconds;
    int n_frames;
    const g4_audio *sound; /* NULL: silent */
    uint64_t reserved[2];
} g4_video;

/* Files to pixels, samples and frames (media/). PNG, JPEG, GIF, PNM, BMP, TIFF, TGA, ICO, DDS, PCX, SGI, QOI, XBM,
 * WAV and y4m are read here; all else by the ffmpeg program, which gets an open file and no names: what reads it is
 * chosen here, by the first bytes, and what begins like nothing that is known is refused. What a load or decode call
 * made is freed by the *_free of its kind with the same options; what a failed call was to make is all zeros. */
typedef struct {
    const g4_allocator *allocator; /* NULL: malloc and free */
    const char *ffmpeg;            /* program name or path; NULL: "ffmpeg"; "": start no program */
    uint64_t max_pixels;           /* of one picture or frame; 0: 178,956,970 (512 MiB of RGB) */
    uint64_t max_samples;          /* of sound, at 16 kHz; 0: 230,400,000, that is 4 hours */
    uint64_t max_file_bytes;       /* of the file of a picture or a sound, also through a pipe; 0: of a picture 8 for
                                      each of max_pixels and 64 MiB (1.4 GiB), else 4 GiB */
    int max_frames;                /* frames of a video that may be kept; 0: 1024 */
    int n_frames;                  /* video: frames to sample; 0: 32. A video with fewer gives all */
    double fps;                    /* video: above 0, sample so many frames a second instead of n_frames */
    int want_sound;                /* video: nonzero loads the sound track, if there is one */
    g4_limits limits;              /* of each call; a program that works for it is ended too */
    uint64_t max_scan_blocks;      /* of a JPEG: blocks of 8 x 8 samples, counted in each scan; 0: 60,000,000 */
    uint64_t max_pixels_per_byte;  /* of the file of a picture or frame of more than 40,000,000 pixels; 0: 256. Twice as
                                      many samples of a sound of more than 10,000,000, at its own rate or at 16 kHz */
    uint64_t max_program_bytes;    /* of memory that ffmpeg may take; 0: 4 GiB, UINT64_MAX: any number */
    int max_program_seconds;       /* that it may take; 0: 300 for a picture, 3600 for sound or a video */
    int frame_times;               /* video: nonzero gives frames the times that the file gives them */
    int frame_tokens;              /* video: as soon as a frame is there, scale it to the size that the vision tower
                                      gives it for so many soft tokens (70, 140, 280, 560 or 1120), where that is less:
                                      what is made of it is the same; 0: keep frames as they are */
    int frame_side;                /* pixels of a soft token's side then: vision_side of the model; 0: 48 */
    int max_video_megapixels;      /* of all frames that are kept, in the size they are kept in; 0: 1024 */
    int reserved;
} g4_media_options;

/* A picture as 8-bit RGB: transparency composited on white, EXIF orientation applied, 16-bit samples by their high
 * byte. */
G4_API g4_status g4_image_load(g4_image *out, const char *path, const g4_media_options *opt, g4_error *err);
G4_API g4_status g4_image_decode(g4_image *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err);
G4_API void g4_image_free(g4_image *image, const g4_media_options *opt);
/* Sound as 16 kHz mono: channels averaged, rate converted by a windowed sinc. */
G4_API g4_status g4_audio_load(g4_audio *out, const char *path, const g4_media_options *opt, g4_error *err);
G4_API g4_status g4_audio_decode(g4_audio *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err);
G4_API void g4_audio_free(g4_audio *audio, const g4_media_options *opt);
/* Frames i * total / n for i = 0..n-1, with seconds = index / average frame rate; only those are kept in memory, and
 * with frame_tokens no more of them than the model sees. */
G4_API g4_status g4_video_load(g4_video *out, const char *path, const g4_media_options *opt, g4_error *err);
G4_API g4_status g4_video_decode(g4_video *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err);
G4_API void g4_video_free(g4_video *video, const g4_media_options *opt);

/* What a file is, and how large, before it is decoded. Pictures of our formats and y4m are checked as far as their
 * headers say; of other files tells ffprobe, which comes with ffmpeg and is looked for beside it (in opt->ffmpeg the
 * last "ffmpeg" becomes "ffprobe"). A medium that loading would refuse for its size is refused here too, and what can
 * be read only once, such as a pipe, above 256 MiB. */
typedef enum { G4_MEDIA_UNKNOWN, G4_MEDIA_IMAGE, G4_MEDIA_AUDIO, G4_MEDIA_VIDEO } g4_media_kind;
typedef struct {
    g4_media_kind kind; /* a file of one frame without sound is a picture */
    char format[32];    /* "png", "jpeg", "avif", "wav", ... of what is read here, else ffprobe's name of it */
    int width, height;  /* of the picture once it is upright, or of a frame; 0: sound */
    int sample_rate;    /* of sound, in the file; 0: there is none */
    int channels;
    double seconds;   /* of sound or video; 0: the file does not say */
    int64_t n_frames; /* of a video: counted in y4m, else as the file says or its times suggest; 0: not known */
    double fps;       /* of a video, on average; 0: not known */
    uint64_t reserved[4];
} g4_media_info;
G4_API g4_status g4_media_probe(g4_media_info *out, const char *path, const g4_media_options *opt, g4_error *err);
G4_API g4_status g4_media_probe_data(g4_media_info *out, const void *data, size_t size, const g4_media_options *opt,
                                     g4_error *err);
/* Bytes that the file of a picture, or that of a sound or what comes through a pipe, may have: max_file_bytes or its
 * default. For who reads a medium himself before it is decoded. opt may be NULL. */
G4_API uint64_t g4_media_max_bytes(const g4_media_options *opt, int is_picture);

/* The size a picture is scaled to for a budget of soft tokens, and how many it becomes; 0 tokens when an argument is
 * out of range. */
G4_API int g4_image_tokens(int width, int height, int max_tokens, int *target_width, int *target_height);

/* A picture as the vision tower reads it: patches row by row, without padding. */
typedef struct {
    int n;              /* patches: grid_w * grid_h */
    int grid_w, grid_h; /* multiples of 3 */
    int n_tokens;       /* soft tokens that become of them: n / 9 */
    float *pixels;      /* (n, 16 rows, 16 columns, RGB): 0..1 */
    int32_t *pos;       /* (n, 2): x, y in the grid */
    uint64_t reserved[2];
} g4_patches;
/* For image->max_tokens soft tokens. */
G4_API g4_status g4_patches_make(g4_patches *out, const g4_image *image, const g4_media_options *opt, g4_error *err);
G4_API void g4_patches_close(g4_patches *p, const g4_media_options *opt);

/* Write a picture as PNG (8-bit RGB, compressed). */
G4_API g4_status g4_png_write(const g4_image *image, g4_write_fn write, void *user, const g4_media_options *opt,
                              g4_error *err);
/* Draw a frame of pixels [x0, x1) x [y0, y1) and a label (ASCII; NULL: none) into pixels that are the caller's to
 * change, as a loaded picture's are; what lies outside the picture is left out. box = { x0, y0, x1, y1 }. */
G4_API void g4_draw_box(uint8_t *pixels, int width, int height, size_t stride, const int box[4], const char *label,
                        const uint8_t rgb[3]);

/* The soft tokens of one picture, one video frame or one audio block of at most 30 s: what a tower makes of it. The
 * engine remembers the latest by a hash of their pixels or samples, so that the same picture is not encoded twice.
 * Close each one that was given out. */
typedef struct g4_soft g4_soft;
/* max_tokens 0: the model's default (280). */
G4_API g4_status g4_image_encode(g4_soft **out, g4_engine *e, const g4_image *image, g4_error *err);
/* A frame of a video; max_tokens 0: 70. */
G4_API g4_status g4_frame_encode(g4_soft **out, g4_engine *e, const g4_image *frame, g4_error *err);
/* One block of sound, of 161 to 480,000 samples (30 s). */
G4_API g4_status g4_audio_encode(g4_soft **out, g4_engine *e, const g4_audio *block, g4_error *err);
G4_API void g4_soft_close(g4_engine *e, g4_soft *soft);
G4_API int g4_soft_n(const g4_soft *soft);             /* soft tokens: the placeholders it takes in a prompt */
G4_API g4_token g4_soft_token(const g4_soft *soft);    /* the id of that placeholder */
G4_API const float *g4_soft_rows(const g4_soft *soft); /* (n, hidden) float32 */

/* Sound of any length to blocks: samples of the block that starts at sample `from`, 0 past the end. A rest of more than
 * 30 s is cut at the quietest place of the last 5 s before that limit, so nothing is lost. */
G4_API size_t g4_audio_block(const g4_audio *audio, size_t from);
/* Log-mel frames of one block as the audio tower reads them, (frames, 128), into out (NULL: only count). Returns the
 * frames: one per 160 samples, 2999 for 30 s; samples beyond 30 s are not read. */
G4_API int g4_audio_mel(const g4_audio *block, float *out);

typedef struct { /* a picture, frame or block of sound among tokens */
    int pos;     /* it stands at placeholders tokens[pos .. pos + its length) */
    g4_soft *soft;
} g4_medium;
#define g4_run g4_medium /* its name up to 0.1 */
typedef struct {         /* tokens, some of which are placeholders of soft tokens */
    const g4_token *tokens;
    int n;
    const g4_medium *media; /* by ascending pos; NULL when n_media is 0. The session keeps references of its own */
    int n_media;
    uint64_t reserved[2];
} g4_prompt;

/* ---- Session: one timeline of tokens and its keys and values ------------------------------------- */

typedef struct g4_session g4_session;
typedef enum {
    G4_KV_DEFAULT = 0,
    G4_KV_USE_F16 = 1,
    G4_KV_USE_F32 = 2,
    G4_KV_USE_Q8_0 = 3
} g4_kv_choice; /* default: f16; f32 where all weights are f32 */

typedef struct {
    int n_ctx; /* positions at most; 0: 8192, or max_ctx if that is less. Memory is taken as it fills */
    g4_kv_choice kv;
    int chunk;               /* prompt tokens evaluated together; 0: 256. Changes speed, never results */
    uint64_t snapshot_bytes; /* budget of what only snapshots keep; 0: 512 MB */
    g4_progress_fn progress; /* prompt evaluation */
    void *user;
    g4_limits limits; /* of each call, beside those of g4_generate_options */
    /* See what the decoder computes for every token that is evaluated: then prompts skip no layer, every token gets
     * logits, and nothing is guessed. Slower, with the same results. Copied, and a fork has them too; NULL: nobody
     * looks */
    const g4_taps *taps;
    uint64_t reserved[3];
} g4_session_options;

typedef struct {        /* bytes; what a session of that size needs at most, but for what snapshots keep and what
                           g4_session_sync and _rewind replace */
    uint64_t weights;   /* read for each token */
    uint64_t lookup;    /* per-layer table and untied embedding, read by row from disk */
    uint64_t kv;        /* keys and values at n_ctx */
    uint64_t work;      /* buffers of the session */
    uint64_t available; /* free memory now, within the limits of its control groups; 0 if the system does not say */
    uint64_t shared;    /* buffers of the engine, once for all its sessions */
    uint64_t reserved[3];
} g4_memory_plan;
G4_API void g4_session_plan(const g4_engine *e, const g4_session_options *opt, g4_memory_plan *out);
/* The same of n sessions together that are forks of one, itself among them, whose timeline had n_before positions:
 * these are counted once. */
G4_API void g4_session_plan_forks(const g4_engine *e, const g4_session_options *opt, int n, int n_before,
                                  g4_memory_plan *out);
G4_API uint64_t g4_session_bytes(const g4_engine *e, const g4_session_options *opt); /* kv + work */

G4_API g4_status g4_session_open(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_error *err);
G4_API void g4_session_close(g4_session *s);
/* End the call in progress on this session, else the next one, within one piece of work (50 ms on E2B); that call
 * returns G4_ERR_CANCELED and clears it. From any thread or signal handler. */
G4_API void g4_session_cancel(g4_session *s);
G4_API int g4_session_n(const g4_session *s); /* tokens in the timeline */
G4_API int g4_session_n_ctx(const g4_session *s);
G4_API const g4_token *g4_session_tokens(const g4_session *s); /* n of them, until the next call */
/* Tokens run through the model since the session was opened, for tests and statistics. */
G4_API uint64_t g4_session_n_evaluated(const g4_session *s);

/* Append tokens and evaluate them; the last one's logits are then ready. A failed or cancelled call leaves the session
 * as it was. */
G4_API g4_status g4_session_eval(g4_session *s, const g4_token *tokens, int n, g4_error *err);
/* The same with pictures and sound in it. */
G4_API g4_status g4_session_eval_prompt(g4_session *s, const g4_prompt *prompt, g4_error *err);
/* The same for raw text: BOS first if the session is empty; len 0: up to the NUL. */
G4_API g4_status g4_session_eval_text(g4_session *s, const char *text, size_t len, g4_error *err);
/* As g4_session_eval, and every appended token's softcapped logits go to `row(user, index, logits)`; nonzero stops
 * with G4_ERR_CANCELED. */
typedef int (*g4_logits_row_fn)(void *user, int index, const float *logits);
G4_API g4_status g4_session_eval_all(g4_session *s, const g4_prompt *prompt, g4_logits_row_fn row, void *user,
                                     g4_error *err);
/* n_vocab softcapped logits of the last token, until the next call; NULL when the timeline is empty, and when the call
 * was cancelled or failed, as it may where they must be computed first. */
G4_API const float *g4_session_logits(g4_session *s);

/* Make the timeline equal to the prompt, keeping the longest common prefix it can (ids and media keys are compared);
 * *reused, if not NULL, gets the number of leading positions that were not evaluated again. What is replaced is held
 * until the new is complete (so memory may hold twice its pages for a while): a call that fails leaves the timeline as
 * it was. One that is cancelled leaves a prefix of the prompt, g4_session_n long, or, where it had not begun to
 * evaluate, what was there. */
G4_API g4_status g4_session_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err);
/* Go back to the first n tokens (inside a picture or sound: to its start). What must be evaluated again, is; n may be
 * 0. A call that fails or is cancelled leaves the timeline as it was. */
G4_API g4_status g4_session_rewind(g4_session *s, int n, g4_error *err);
/* Keep the present position cheap to come back to (a snapshot holds references, not copies). */
G4_API g4_status g4_session_mark(g4_session *s, g4_error *err);
/* A second session in the same state and with the same marks, sharing memory until they differ. */
G4_API g4_status g4_session_fork(g4_session **out, const g4_session *s, g4_error *err);
/* Timeline and caches, to go on later with the same model; load checks both. */
G4_API g4_status g4_session_save(const g4_session *s, g4_write_fn write, void *user, g4_error *err);
G4_API uint64_t g4_session_saved_bytes(const g4_session *s); /* what g4_session_save would write now */
G4_API g4_status g4_session_load(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_read_fn read,
                                 void *user, g4_error *err);

/* ---- Generation -------------------------------------------------------------------------------- */

typedef struct {
    g4_token token;
    float bias;
} g4_logit_bias;

/* Order: penalties and bias, mask, temperature, top-k, top-p, min-p; ties go to the lowest id; one random number per
 * position, from (seed, position). */
typedef struct {
    float temperature;    /* 0: greedy */
    int top_k;            /* 0: off */
    float top_p;          /* 0 or 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 0 or 1: off. Divides positive and multiplies negative logits of tokens in the timeline */
    float presence_penalty, frequency_penalty; /* subtracted, once or per occurrence in the reply */
    uint64_t seed;
    const g4_logit_bias *bias;
    int n_bias;
    uint64_t reserved[4];
} g4_sampling;
G4_API void g4_sampling_recommended(const g4_engine *e, g4_sampling *out); /* what the model file says */

typedef struct {
    g4_token token;
    float logprob;
} g4_candidate;

/* One new token. text holds the bytes that became complete UTF-8 with it (may be empty) and is valid during the
 * call. Text that was held back, because a stop string might have begun with it, comes at the end with token -1. */
typedef struct {
    g4_token token;
    const char *text;
    size_t text_len;
    int is_special; /* a control token; text is empty */
    float logprob;  /* natural logarithm, of the softcapped logits before penalties and temperature; if asked for */
    const g4_candidate *top; /* n_top most likely tokens, best first */
    int n_top;
    uint64_t reserved[4];
} g4_output;
typedef int (*g4_output_fn)(void *user, const g4_output *out); /* nonzero ends the reply after this token */

/* Which tokens may come next: set mask bits (bit id % 32 of word id / 32, all set on entry) or leave them; nonzero
 * return: no token fits, the reply ends. Called before each token is chosen; `accept` tells the one that was. */
typedef struct {
    int (*mask)(void *user, uint32_t *mask, int n_vocab);
    void (*accept)(void *user, g4_token token);
    void *user;
    const void *own; /* of the constraints that g4_guide_constraint gives; NULL in yours */
    uint64_t reserved[1];
} g4_constraint;

typedef struct {
    const g4_sampling *sampling; /* NULL: as recommended by the model file */
    int max_tokens;              /* 0: until the reply or the context ends */
    const char *const *stop;     /* strings that end the reply and are not output */
    int n_stop;
    int no_guard;             /* nonzero: do not end runaway repetition */
    int ignore_stop_ids;      /* nonzero: stop ids do not end the reply */
    int want_logprobs, n_top; /* log-probabilities of the chosen and of the n_top best tokens (at most 64) */
    const g4_constraint *constraint;
    g4_output_fn output;
    void *user;
    int no_lookup; /* nonzero: do not guess from the timeline what may follow. Changes speed, never the text */
    g4_limits limits;
    uint64_t reserved[8];
} g4_generate_options;

typedef enum {
    G4_STOP_END, /* a stop id of the model file (it is in stop_token) */
    G4_STOP_MAX_TOKENS,
    G4_STOP_STRING,
    G4_STOP_CALLBACK,
    G4_STOP_CONTEXT,    /* the context is full; the reply so far is kept */
    G4_STOP_REPEAT,     /* 64 equal tokens or 8 equal blocks in a row */
    G4_STOP_CONSTRAINT, /* the constraint allowed nothing more */
    G4_STOP_CANCELED    /* with G4_ERR_CANCELED */
} g4_stop;
/* "stop", "length", "stop_string", "callback", "context", "repetition", "constraint" or "canceled". */
G4_API const char *g4_stop_name(g4_stop stop);

typedef struct {
    g4_stop stop;
    g4_token stop_token; /* the stop id that ended it, or -1; it is not in the timeline */
    int n_tokens;        /* generated and kept in the timeline */
    int n_reused;        /* in a batch: leading positions of the prompt that were there already */
    double seconds;
    const char *stop_string; /* G4_STOP_STRING: which of those that were given; else NULL */
    uint64_t reserved[3];
} g4_result;

/* Continue the timeline. When this returns, every token that was output is in the timeline and evaluated, so that more
 * can follow. A call that fails leaves the timeline as it was. A cancelled one returns G4_ERR_CANCELED with *out
 * filled: what was generated and evaluated before stays, a token that was chosen and not yet evaluated does not. */
G4_API g4_status g4_session_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err);

/* Loops of one's own. This one writes the tokens that g4_session_generate writes (which besides looks for stop strings,
 * repetition and the end of the context):
 *
 *   g4_choose_options opt = { .reply_start = g4_session_n(s) };
 *   for (;;) {
 *       if (g4_session_choose(s, &opt, &token, &err)) return fail(&err);
 *       if (token < 0 || g4_token_is_stop(e, token)) break;
 *       if (g4_session_eval(s, &token, 1, &err)) return fail(&err);
 *   }
 */
typedef struct {
    const g4_sampling *sampling;     /* NULL: as recommended by the model file */
    const g4_constraint *constraint; /* NULL: none. Its `accept` is told the choice */
    int reply_start; /* position of the reply's first token: presence and frequency penalties count from there */
    uint64_t reserved[4];
} g4_choose_options;
/* The next token, from the logits of the last one, in the order of g4_sampling; the timeline stays as it is. -1: the
 * constraint allows none. */
G4_API g4_status g4_session_choose(g4_session *s, const g4_choose_options *opt, g4_token *out, g4_error *err);

/* What softcapped logits say, those of g4_session_logits or a row of g4_session_eval_all, before penalties and
 * temperature. */
G4_API g4_token g4_logits_argmax(const g4_engine *e, const float *logits); /* most likely; of equals the lowest id */
/* Natural logarithm of the probability of one token; -INFINITY for an id outside the vocabulary. */
G4_API float g4_logits_logprob(const g4_engine *e, const float *logits, g4_token id);
/* The n most likely, best first, into out; returns their number, which is n or all there are. */
G4_API int g4_logits_top(const g4_engine *e, const float *logits, int n, g4_candidate *out);

/* ---- Batches ---------------------------------------------------------------------------------------
 *
 * Several answers in one read of the weights: sessions of one engine share forward passes, and each gets the tokens,
 * logits and log-probabilities, bit for bit, that it would get alone. Sessions come and go between steps:
 *
 *   g4_batch_add(b, s1, &request1, &err), g4_batch_add(b, s2, &request2, &err);
 *   while (g4_batch_n(b) > 0 && !g4_batch_step(b, &err));
 *
 * Answers to one prompt: evaluate it in a session, g4_session_fork that, add the forks with a prompt of NULL. A batch
 * is used by one thread at a time; g4_session_cancel works from any. */

typedef struct g4_batch g4_batch;

typedef struct {
    int n_rows;       /* tokens in a forward pass at most; 0: as many as the engine can, 512 or more. What one answer
                        asks for at once (up to 39, with guesses) and a picture below may have a pass that is longer */
    int prompt_rows;  /* tokens of prompts in a pass that also answers, all prompts together: they delay the answers in
                        it; 0: as many as make it about 2.5 times as long (25 beside up to 4 answers of E2B). Every
                        prompt gets one at least, and a picture whose tokens see each other is read in one pass. Changes
                        times, never results */
    g4_limits limits; /* of each step */
    double encode_seconds; /* of encoding a picture or sound in g4_batch_respond before all others get a step; 0: 0.1;
                              less: as often as a tower can wait, some times a layer */
    uint64_t reserved[3];
} g4_batch_options;

typedef struct {
    const g4_prompt *prompt; /* what the timeline becomes first, as by g4_session_sync; NULL: the answer begins behind
                                what is there. Used by g4_batch_add only */
    const g4_generate_options *generate; /* what these point to must stay until `done`; NULL: defaults */
    /* The session has left the batch, as from g4_session_sync and g4_session_generate: what failed leaves it as it was,
     * a cancelled one keeps what was evaluated. err is NULL where status is G4_OK. It may add sessions, this one too,
     * and do all else with them; not NULL. */
    void (*done)(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err);
    void *user;
    uint64_t reserved[4];
} g4_batch_request;

/* The engine must outlive it. It holds 16 rows of logits, 17 MB for a vocabulary of 262,144. */
G4_API g4_status g4_batch_open(g4_batch **out, g4_engine *e, const g4_batch_options *opt, g4_error *err);
/* Those that are left are cancelled. Not from a callback of its own. */
G4_API void g4_batch_close(g4_batch *b);
/* From now on until `done` the session is in a call: others on it fail. Limits count from here. An error is the
 * session's own, which is not in the batch then, and leaves the others alone. */
G4_API g4_status g4_batch_add(g4_batch *b, g4_session *s, const g4_batch_request *r, g4_error *err);
/* Cancel a session of the batch at once, or, from a callback, at the end of the step; else nothing. */
G4_API void g4_batch_remove(g4_batch *b, g4_session *s);
G4_API int g4_batch_n(const g4_batch *b); /* sessions in it */
/* What one session reads serves others that begin alike. Both are for between steps, and say G4_ERR_ARGUMENT in one.
 *
 * The pass that reads position n - 1 of the session's prompt ends there, where the timeline is marked as by
 * g4_session_mark; where that is read already, or no part of a prompt, nothing. */
G4_API g4_status g4_batch_mark(g4_batch *b, const g4_session *s, int n, g4_error *err);
/* A session of its own that holds the first n tokens of one in the batch, of its prompt and answer as far as they are
 * evaluated, and shares their memory; or fewer, back to a mark or to none, where the windows of sliding layers have
 * moved on: g4_session_n says how many. */
G4_API g4_status g4_batch_fork(g4_batch *b, g4_session **out, const g4_session *s, int n, g4_error *err);
/* One forward pass: a token or more of each session that answers, and pieces of the prompts of the others. Outputs and
 * `done` are called from here. An error is one of the step itself, such as its own limits: nobody is lost by it, and
 * the next step goes on. What fails in one session ends that one. */
G4_API g4_status g4_batch_step(g4_batch *b, g4_error *err);
G4_API g4_status g4_batch_run(g4_batch *b, g4_error *err); /* steps until it is empty */

/* ---- Conversations -------------------------------------------------------------------------------
 *
 * Messages are plain data, borrowed for the call. Text in them is never read as a control token, whatever it says. A
 * g4_chat is a conversation rendered with the official chat template of the model: its text, byte for byte, and its
 * tokens. */

typedef enum {
    G4_ROLE_SYSTEM,    /* instructions; first message only */
    G4_ROLE_DEVELOPER, /* the same under another name */
    G4_ROLE_USER,
    G4_ROLE_MODEL,
    G4_ROLE_TOOL, /* answers the calls of the model message before it, with parts of kind TOOL_RESULT */
    G4_ROLE_OTHER /* role_name */
} g4_role;

typedef enum {
    G4_PART_TEXT, /* text */
    G4_PART_IMAGE,
    G4_PART_AUDIO,
    G4_PART_VIDEO,      /* the member of that name */
    G4_PART_THOUGHT,    /* text; from the model. Kept where the family keeps it, dropped elsewhere */
    G4_PART_TOOL_CALL,  /* name, id, and text: the arguments as one JSON object; from the model. An incomplete one is
                           left out of prompts */
    G4_PART_TOOL_RESULT /* name or id of the call, and text: what the function returned; a JSON object counts as one */
} g4_part_kind;

typedef struct {
    g4_part_kind kind;
    const char *text; /* UTF-8 */
    size_t text_len;  /* 0: text ends at its NUL */
    const char *name;
    const char *id; /* may be NULL: the order of calls and results tells */
    const g4_image *image;
    const g4_audio *audio;
    const g4_video *video;
    const char *raw; /* TOOL_CALL of a reply: what the model wrote between the markers; raw_len bytes. Of several calls
                        that it wrote as one list, the first has it */
    size_t raw_len;
    int incomplete; /* of a reply: the answer was cut off inside this part, or the call has no name. Such a call must
                       not be carried out: its arguments may be anybody's guess */
    uint64_t reserved[3];
} g4_part;

typedef struct {
    g4_role role;
    const g4_part *parts;
    int n_parts;
    const char *role_name; /* G4_ROLE_OTHER */
    uint64_t reserved[2];
} g4_message;

typedef struct {
    const char *tools;         /* JSON list of function declarations, also flat or as MCP lists them; NULL: none */
    size_t tools_len;          /* 0: up to the NUL */
    int thinking;              /* nonzero: let the model reason before it answers */
    int preserve_thinking;     /* nonzero: keep thoughts that belong to calls of earlier turns */
    int no_generation_prompt;  /* nonzero: do not open the model's turn at the end */
    const char *template_name; /* "31b-2026-07", "e2b-2026-07", "31b-2026-04"; NULL: the model file's */
    int openai;                /* g4_chat_parse only: OpenAI's format; see there */
    g4_limits limits; /* of making the chat, g4_chat_prompt, _beginning and _media, beside those of the engine */
    uint64_t reserved[4];
} g4_chat_options;

typedef struct g4_chat g4_chat;
/* e may be NULL when opt names a template; the chat can then show its text and nothing else. Media are borrowed until
 * the chat closes. Opening and parsing keep to the limits of the engine. */
G4_API g4_status g4_chat_open(g4_chat **out, g4_engine *e, const g4_message *messages, int n,
                              const g4_chat_options *opt, g4_error *err);
/* From JSON: a list of messages, or an object with messages, tools, enable_thinking, preserve_thinking,
 * add_generation_prompt (null is absent; what it says wins over opt). Without opt->openai it is exactly what the
 * template takes, and add_generation_prompt defaults to false. With it, messages and tools are read as g4_request_read
 * reads them, and the model's turn is opened at the end unless the document says no. */
G4_API g4_status g4_chat_parse(g4_chat **out, g4_engine *e, const char *json, size_t len, const g4_chat_options *opt,
                               g4_error *err);
G4_API void g4_chat_close(g4_chat *c); /* does nothing while a call on the chat is in progress */
/* The prompt with one placeholder for each medium, NUL-terminated. */
G4_API const char *g4_chat_text(const g4_chat *c, size_t *len);
G4_API int g4_chat_thinking(const g4_chat *c); /* is thinking on? */

/* Media of a parsed chat, in the order of the prompt: where each comes from. g4_chat_load_media loads them, or the
 * caller does (g4_image_load, g4_image_decode and so on) and sets them before the chat is used; their memory must live
 * until the chat closes. Setting NULL, a medium of another kind, or one in a callback of a call on the chat, fails and
 * leaves what was set. */
typedef struct {
    g4_part_kind kind;   /* G4_PART_IMAGE, _AUDIO or _VIDEO */
    int message;         /* index of its message */
    const char *source;  /* path or URL as the document gives it; NULL when data is given or the part names none */
    const uint8_t *data; /* decoded from a data: URL or from base64; until the media are loaded */
    size_t size;
    int is_set;
    const g4_image *image; /* what was set or loaded, one of the three; else NULL */
    const g4_audio *audio;
    const g4_video *video;
    uint64_t reserved[1];
} g4_chat_medium;
G4_API int g4_chat_n_media(const g4_chat *c);
G4_API g4_status g4_chat_media(g4_chat *c, int i, g4_chat_medium *out, g4_error *err);
G4_API g4_status g4_chat_set_image(g4_chat *c, int i, const g4_image *image, g4_error *err);
G4_API g4_status g4_chat_set_audio(g4_chat *c, int i, const g4_audio *audio, g4_error *err);
G4_API g4_status g4_chat_set_video(g4_chat *c, int i, const g4_video *video, g4_error *err);

/* Which file a conversation may read: write the path of the one that medium->source names into path, which has room for
 * `size` bytes with the NUL, or refuse with a status and a reason in err (never NULL). */
typedef g4_status (*g4_media_path_fn)(void *user, const g4_chat_medium *medium, char *path, size_t size, g4_error *err);
/* The same as a rule: a plain file below the folder `root`, whatever links, dots, file: addresses or absolute paths the
 * source is made of. Relative ones start in `root`, or else where the program was started. Everything else is refused
 * in the same words, so that nobody learns what lies elsewhere; web addresses are never fetched. */
G4_API g4_status g4_media_below(const char *root, const char *source, char *path, size_t size, g4_error *err);
typedef struct {
    const char *root;              /* files below this folder may be read, as g4_media_below says ... */
    g4_media_path_fn path;         /* ... or those that this function allows. Neither: data in the document, no file */
    void *user;                    /* for path */
    const g4_media_options *media; /* sizes, frames, ffmpeg; its allocator is not used. NULL: defaults */
    int image_tokens;              /* soft tokens of each picture; 0: the model's default */
    int frame_tokens;              /* of each frame of a video */
    uint64_t reserved[6];
} g4_chat_load_options;
/* Load the media of a parsed chat that are not set yet; the chat owns them. A call that fails leaves it as it was, and
 * names the message. */
G4_API g4_status g4_chat_load_media(g4_chat *c, const g4_chat_load_options *opt, g4_error *err);

/* The conversation's tokens with its media encoded; owned by the chat until a medium is set or this succeeds again. */
G4_API g4_status g4_chat_prompt(g4_chat *c, g4_prompt *out, g4_error *err);
/* Its first tokens, those before its first medium, which is not encoded and need not be set: what conversations that
 * begin alike have in common. Owned as above. */
G4_API g4_status g4_chat_beginning(g4_chat *c, g4_prompt *out, g4_error *err);

typedef struct {
    int prompt;    /* tokens of the whole conversation */
    int reused;    /* leading ones that were there already */
    int evaluated; /* run through the model by this call */
    uint64_t reserved[4];
} g4_sync_counts;
/* Make the session's timeline equal to the conversation, as a stateless server receives it, evaluating from the first
 * token that differs. What the model wrote keeps its tokens when the text is the same. Each start of a model turn is
 * marked, so that going back there is cheap. A call that fails leaves the timeline as it was. One that is cancelled
 * leaves a prefix of the conversation, g4_session_n long, and counts say what was done; where they are all 0 it had not
 * begun to evaluate, and what was there is there. */
G4_API g4_status g4_session_sync_chat(g4_session *s, g4_chat *c, g4_sync_counts *counts, g4_error *err);

/* An answer, taken apart as its tokens come: thoughts, text and tool calls, without their markers. `part` gets each
 * piece as soon as it is whole characters: index of its part, and a delta whose text is new; a tool call comes in one
 * piece, with name, arguments (text, one JSON object, whatever the model wrote), raw, and whether it is incomplete, or
 * in several where g4_response_stream_calls asks for them.
 * Text or a thought that is cut off ends with a delta of no text that is incomplete. Nonzero asks to stop. Within
 * `part`, pushing to the answer it belongs to takes nothing and returns nonzero, finishing it is G4_ERR_ARGUMENT, and
 * closing it does nothing. */
typedef struct g4_response g4_response;
typedef int (*g4_part_fn)(void *user, int index, const g4_part *delta);
/* in_thought: the prompt ends inside an open thought channel. part may be NULL. */
G4_API g4_status g4_response_open(g4_response **out, const g4_engine *e, int in_thought, g4_part_fn part, void *user,
                                  g4_error *err);
/* Nonzero: the callback asks to stop, or there was no memory. Then nothing was taken: until the same token was pushed
 * again with success, no other is taken and g4_response_finish is G4_ERR_MEMORY. */
G4_API int g4_response_push(g4_response *r, g4_token token);
/* From now on calls are told while the model writes them, as far as it is sure what they say: first a delta with the
 * name and no text, then arguments, a text that grows; the name stands in all of them. The last one has `raw`, what is
 * left of the arguments, and whether the call is incomplete: only then is it known whether it may be carried out.
 * Together the deltas are the arguments of the finished part, byte for byte. A call that does not begin with its name
 * comes in one piece, and what there is no memory for comes at the end. */
G4_API void g4_response_stream_calls(g4_response *r);
/* Strings that end the answer where they stand in its text, not in thoughts and calls: they and what follows are not of
 * it, and pushing is nonzero from then on. What may be the beginning of one is told when it is none. Said before the
 * first token; empty ones are ignored, and they must outlive the response. */
G4_API g4_status g4_response_stop_at(g4_response *r, const char *const *stop, int n, g4_error *err);
G4_API const char *g4_response_stop_string(const g4_response *r); /* the one that has ended it; NULL: none */
/* What failed may be tried again. A call or thought without its end is incomplete: push the stop_token of g4_result
 * too, where the model ended the answer by itself. Whether text is incomplete only g4_session_respond knows. */
G4_API g4_status g4_response_finish(g4_response *r, g4_error *err);
G4_API const g4_part *g4_response_parts(const g4_response *r, int *n); /* of a finished answer, until it is closed */
/* Tokens of thoughts that were pushed so far, their markers left out. */
G4_API int g4_response_thought_tokens(const g4_response *r);
G4_API void g4_response_close(g4_response *r);

/* ---- Constrained output --------------------------------------------------------------------------
 *
 * A grammar says what text may be; while sampling it becomes a mask over the vocabulary. It keeps what it computed and
 * belongs to one thread at a time (G4_ERR_ARGUMENT when two meet in it); it may serve any number of answers. A mask
 * that failed or was cut short is forgotten, and the grammar serves the next answer as if nothing had happened. Making
 * one keeps to the limits of the engine and to its own, masks keep to those of the call that generates. */
typedef struct g4_grammar g4_grammar;
typedef struct {
    int strict; /* nonzero: what cannot be held exactly is an error that names the keyword and its place */
    int closed; /* nonzero: objects without additionalProperties have no members but those that are declared */
    /* What became looser than the schema says, a line each, with its place; NULL: nobody is told. */
    void (*warn)(void *user, const char *message);
    void *user;
    const g4_limits *limits; /* of making the grammar; not asked where a call that answers makes it. NULL: none */
    uint64_t reserved[3];
} g4_schema_options;
/* From a JSON Schema (2020-12, or the draft that $schema names), or OpenAI's envelope around one, whose `strict` closes
 * objects. Members have the order in which the schema first names them, undeclared ones stand last. What cannot be held
 * exactly is loosened: then some texts that the schema forbids are allowed too. opt may be NULL: loosened silently,
 * open. docs/structured-output.md lists what is exact. */
G4_API g4_status g4_grammar_from_schema(g4_grammar **out, const g4_engine *e, const char *schema, size_t len,
                                        const g4_schema_options *opt, g4_error *err);
/* From rules `name ::= expression`, the first being the start, or the one called root: "text", [a-z0-9], ., names, ( ),
 * |, * + ? {2,5}; # to the end of a line is a comment. limits: of making it; NULL: none. */
G4_API g4_status g4_grammar_from_rules(g4_grammar **out, const g4_engine *e, const char *rules, size_t len,
                                       const g4_limits *limits, g4_error *err);
/* Calls of declared tools (the JSON list of g4_chat_options), of all or of the one named `only`, in the family's call
 * syntax. A tool's own `strict` closes its objects. */
G4_API g4_status g4_grammar_from_tools(g4_grammar **out, const g4_engine *e, const char *tools, size_t len,
                                       const char *only, const g4_schema_options *opt, g4_error *err);
G4_API void g4_grammar_close(g4_grammar *g);

typedef enum {
    G4_TOOLS_AUTO,     /* the model decides */
    G4_TOOLS_NONE,     /* no call */
    G4_TOOLS_REQUIRED, /* at least one call, nothing else */
    G4_TOOLS_NAMED     /* one call of tool_name */
} g4_tool_choice;

typedef struct {
    g4_grammar *grammar; /* of the text, from the end of the thought on; NULL: free */
    g4_tool_choice tool_choice;
    const char *tool_name;
    int loose_tools;   /* nonzero: calls need not follow the declared parameters */
    g4_grammar *tools; /* g4_grammar_from_tools of the chat's tools, to make it once and not for each answer; NULL: made
                          when needed */
    int think_budget;  /* above 0: a thought of so many tokens is closed, cleanly */
    const g4_schema_options *schema; /* how the grammar of calls is made when it is made here; NULL: the defaults */
    uint64_t reserved[7];
} g4_guide_options;

/* A guide masks the tokens of one answer to a chat; its constraint goes into g4_generate_options (NULL when nothing is
 * asked for). One answer may take several calls of g4_session_generate; a call that fails leaves the guide where it
 * was, one that is cancelled behind the tokens that are in the timeline. Its grammars must outlive it. */
typedef struct g4_guide g4_guide;
G4_API g4_status g4_guide_open(g4_guide **out, const g4_chat *c, const g4_guide_options *opt, g4_error *err);
/* The same without a chat, for raw text and base models: the reply is exactly a text of the grammar, ended by a stop
 * id, or with G4_STOP_CONSTRAINT where the model has none. */
G4_API g4_status g4_guide_open_text(g4_guide **out, const g4_engine *e, g4_grammar *grammar, g4_error *err);
G4_API const g4_constraint *g4_guide_constraint(g4_guide *g);
G4_API void g4_guide_close(g4_guide *g);
G4_API int g4_chat_in_thought(const g4_chat *c); /* does the prompt end inside an open thought? */

typedef struct {
    const g4_generate_options *generate; /* sampling, limits, logprobs, output of tokens, which is told of each before
                                            `part` is, and stop strings, which count in the answer's text alone; NULL:
                                            defaults */
    g4_guide_options guide;
    g4_part_fn part; /* pieces of thought, text and calls as they come; may be NULL */
    void *user;
    int call_deltas; /* nonzero: calls come in pieces too, as g4_response_stream_calls says */
    uint64_t reserved[7];
} g4_respond_options;
/* The model's answer to a chat. The session must hold it, as g4_session_sync_chat leaves it, and perhaps a part of the
 * answer behind it, which *out holds too and `part` is not told again; else G4_ERR_ARGUMENT. *out is finished and the
 * caller's to close; result may be NULL. A call that fails leaves the session as it was. One that is cancelled, or out
 * of time, is G4_ERR_CANCELED and gives what there is: *out is the finished answer up to there (NULL when it had not
 * begun). result->n_tokens of its tokens are in the timeline; the last of those that were told may be missing there.
 * The session can go on. */
G4_API g4_status g4_session_respond(g4_session *s, const g4_chat *c, const g4_respond_options *opt, g4_response **out,
                                    g4_result *result, g4_error *err);

typedef struct {
    const g4_respond_options *respond; /* NULL: defaults. What its `generate` and `guide` point to must stay until
                                          `done` */
    /* The answer is finished, and the response yours to close; the rest as in g4_batch_request. What failed has no
     * response. Not NULL. */
    void (*done)(void *user, g4_session *s, g4_status status, g4_response *response, const g4_result *result,
                 const g4_error *err);
    void *user;
    uint64_t reserved[4];
} g4_batch_respond_request;
/* The answer to a chat as one of a batch: g4_session_sync_chat and g4_session_respond among others'. Media of the chat
 * are encoded here, and from time to time (encode_seconds) the batch steps meanwhile, unless this is called from a
 * callback of a step: the answers that are in it go on, and their `done` may come before this returns. The chat may be
 * closed, or go on, after that. */
G4_API g4_status g4_batch_respond(g4_batch *b, g4_session *s, g4_chat *c, const g4_batch_respond_request *r,
                                  g4_error *err);

/* ---- Requests and answers in OpenAI's format, and others ------------------------------------------
 *
 * What clients send to POST /v1/chat/completions, as their libraries write it, to a conversation and options; and an
 * answer to what they read, whole or as it comes. Other dialects are those of g4_dialect. A request needs no engine, so
 * it can be read and refused before there is one:
 *
 *   if (g4_request_read(&r, body, len, NULL, &fault, &err)) return refuse(400, fault.param, err.message);
 *   if (g4_request_chat(&c, e, r, NULL, &fault, &err)) return refuse(400, fault.param, err.message);
 *   if (g4_chat_load_media(c, NULL, &err)) return refuse(400, "messages", err.message);
 *
 * Read are: messages (roles system, developer, user, assistant, tool; content text, null, or parts text, input_text,
 * output_text, refusal, image_url, input_image, image, input_audio, audio_url, audio, video_url, video); tools (also
 * flat, and as MCP lists them); tool_choice (none, auto, required, a function, allowed_tools), parallel_tool_calls;
 * response_format (text, json_object, json_schema); model, stream, stream_options, max_tokens, max_completion_tokens,
 * temperature, top_p, top_k, min_p, seed, stop, presence_penalty, frequency_penalty, repeat_penalty (or
 * repetition_penalty), logit_bias, logprobs, top_logprobs, n (1), reasoning_effort, enable_thinking and
 * preserve_thinking (also in chat_template_kwargs), continue_final_message, add_generation_prompt. Other members are
 * ignored, and null is the same as absent. A wrong type or value, a part of an unknown kind, and a result without its
 * call are G4_ERR_ARGUMENT, and so is an empty list of messages; what is no JSON is G4_ERR_FORMAT. Arguments of old
 * calls are passed on to the model as they are when they are no JSON object: it wrote them. */

typedef struct g4_request g4_request;

typedef struct {     /* what is wrong with a request, beside the words of g4_error */
    char param[128]; /* the member, as "temperature" or "messages[2].content[0].type"; empty: none in particular */
    uint64_t reserved[2];
} g4_fault;

typedef enum {                         /* whose words a request and its answer are in */
               G4_DIALECT_OPENAI,      /* /v1/chat/completions */
               G4_DIALECT_ANTHROPIC,   /* /v1/messages */
               G4_DIALECT_RESPONSES,   /* /v1/responses */
               G4_DIALECT_COMPLETIONS, /* /v1/completions: texts to continue, without a chat template */
               G4_DIALECT_TOKENS       /* /tokenize and /detokenize: whose tokens, or whose text, is asked */
} g4_dialect;

typedef struct {      /* what is to be continued, or what the user says */
    const char *text; /* NULL: tokens */
    size_t len;
    const g4_token *tokens; /* ids that may be any number from 0 on */
    int n_tokens;
    uint64_t reserved[2];
} g4_request_prompt;

typedef enum {
    G4_FORMAT_TEXT,
    G4_FORMAT_JSON,  /* any JSON object */
    G4_FORMAT_SCHEMA /* what the schema says */
} g4_format;

typedef struct {       /* texts are NUL-terminated and belong to the request */
    const char *model; /* NULL: not given */
    int stream, include_usage;
    int max_tokens;                                             /* 0: no limit */
    double temperature, top_p, min_p;                           /* NAN: not given */
    double repeat_penalty, presence_penalty, frequency_penalty; /* likewise */
    int top_k;                                                  /* -1: not given; 0: off */
    int has_seed;
    uint64_t seed;
    const char *const *stop; /* none is empty */
    int n_stop;
    const g4_logit_bias *bias;
    int n_bias;
    int want_logprobs, n_top; /* as in g4_generate_options */
    const char *tools;        /* all that are declared, a JSON list in the usual format; NULL: none */
    size_t tools_len;
    const char *callable; /* those of them that tool_choice allows, likewise: for g4_grammar_from_tools */
    size_t callable_len;
    g4_tool_choice tool_choice;
    const char *tool_name; /* G4_TOOLS_NAMED */
    int one_call;          /* nonzero: at most one call (parallel_tool_calls is false) */
    g4_format format;
    const char *schema; /* for g4_grammar_from_schema; of G4_FORMAT_JSON too. NULL: free text */
    size_t schema_len;
    const char *schema_name;
    int is_strict;      /* nonzero: the schema's objects are closed, as OpenAI's strict mode has it */
    int thinking;       /* 1 or 0; -1: not given */
    int think_budget;   /* tokens of a thought; 0: no limit. 256, 1024, 4096, 16384, 32768 for reasoning_effort minimal,
                           low, medium, high, xhigh; none for max */
    int continue_final; /* nonzero: the answer continues the last message, which is the model's */
    const char *prompt; /* in place of messages: what the user says, or the text to continue; NULL: messages, or
                           prompts that are not one text */
    size_t prompt_len;
    int is_completion;     /* nonzero: texts to continue, as /v1/completions does, without a chat template */
    const char *custom_id; /* of a line of a batch; NULL: none */
    g4_dialect dialect;
    const char *repeats;              /* members that an answer of G4_DIALECT_RESPONSES repeats, as JSON; else NULL */
    const g4_request_prompt *prompts; /* (n_prompts) all of them: each has an answer of its own. 0: messages */
    int n_prompts;
    int echo;                       /* nonzero: the answer begins with the prompt, and its tokens with the prompt's */
    int add_special, parse_special; /* G4_DIALECT_TOKENS: BOS stands in front; the names of control tokens are such */
    int with_pieces, with_strings;  /* likewise: the text of each is told beside its id, or in a list of its own */
    uint64_t reserved[6];
} g4_request_info;

/* json: the request, a list of messages, an object with a "prompt" in their place, or a line of a batch file, {
 * "custom_id", "method", "url", "body" }, whose body is one of these, or, as its url says, of another dialect; or {
 * "custom_id", "params" }, as Anthropic has it. a: NULL for malloc and free; it must outlive the
 * request. fault may be NULL. */
G4_API g4_status g4_request_read(g4_request **out, const char *json, size_t len, const g4_allocator *a, g4_fault *fault,
                                 g4_error *err);
/* The same in another dialect; faults name the members that the client has sent.
 *
 * G4_DIALECT_ANTHROPIC: model, max_tokens, system, messages (blocks text, image, tool_use, tool_result, thinking; what
 * stands last from the assistant is gone on with), stop_sequences, stream, temperature, top_p, top_k, tools (of the
 * client's own), tool_choice, thinking (budget_tokens is think_budget), output_config.format. A result with is_error
 * becomes the text {"error": ...}.
 *
 * G4_DIALECT_RESPONSES: model, input (text, or items message, function_call, function_call_output, reasoning),
 * instructions, max_output_tokens, stream, temperature, top_p, top_logprobs, include (message.output_text.logprobs),
 * tools (functions), tool_choice, parallel_tool_calls, text.format, reasoning.effort. Nothing is kept between requests:
 * previous_response_id, conversation, prompt and background are refused, store is ignored.
 *
 * G4_DIALECT_COMPLETIONS: prompt (a text, ids, or a list of either), echo, logprobs (a number), and what a chat has of
 * sampling, stop and response_format.
 *
 * G4_DIALECT_TOKENS: messages, or one of prompt, content (as llama.cpp has it, without BOS unless that is asked) and
 * tokens (ids), which becomes the only one of `prompts`; add_special_tokens or add_special, parse_special, with_pieces,
 * return_token_strs. */
G4_API g4_status g4_request_read_as(g4_request **out, g4_dialect dialect, const char *json, size_t len,
                                    const g4_allocator *a, g4_fault *fault, g4_error *err);
/* The same, which ends early when `limits` says so; NULL: never. */
G4_API g4_status g4_request_read_until(g4_request **out, g4_dialect dialect, const char *json, size_t len,
                                       const g4_limits *limits, const g4_allocator *a, g4_fault *fault, g4_error *err);
G4_API void g4_request_close(g4_request *r);                       /* after the chats that were made of it */
G4_API const g4_request_info *g4_request_get(const g4_request *r); /* until it is closed; NULL for NULL */
/* Change what the request gives, as in g4_sampling_recommended(e, &s), g4_request_sampling(r, &s). The bias stays the
 * request's. */
G4_API void g4_request_sampling(const g4_request *r, g4_sampling *sampling);
/* Its conversation. What the request does not say is as opt says: thinking, preserve_thinking, tools, template_name. */
G4_API g4_status g4_request_chat(g4_chat **out, g4_engine *e, const g4_request *r, const g4_chat_options *opt,
                                 g4_fault *fault, g4_error *err);

/* What a line of a batch file is called, and what a line of its answers, { "custom_id", "response": { "status_code",
 * "body" }, "error" }, tells. */
typedef struct {
    char *custom_id;   /* NULL: it has none */
    char *id;          /* likewise: what whoever answered calls it */
    int is_answer;     /* nonzero: it has a response and an error */
    int has_succeeded; /* nonzero: an answer, and no error */
    uint64_t reserved[1];
} g4_batch_line;
/* len bytes without the newline, as long as `limits` allow (NULL: none); to be closed with the same allocator (NULL:
 * malloc and free). */
G4_API g4_status g4_batch_line_read(g4_batch_line *out, const char *json, size_t len, const g4_limits *limits,
                                    const g4_allocator *a, g4_error *err);
G4_API void g4_batch_line_close(g4_batch_line *line, const g4_allocator *a);

typedef struct { /* one generated token, as g4_output has it */
    g4_token token;
    float logprob; /* NAN: there is none, as for the first token of a prompt */
    const g4_candidate *top;
    int n_top;
    uint64_t reserved[2];
} g4_token_logprob;

typedef struct {
    uint64_t id;       /* of this answer: unique among those of the host. Names of answer and calls come from it */
    int64_t created;   /* seconds since 1970; 0: now */
    const char *model; /* as the request named it; NULL: "gemma4" */
    const char *fingerprint; /* of model and program; NULL: the library's version */
    const g4_part *parts;    /* as g4_response_parts gives them */
    int n_parts;
    g4_result result;
    int prompt_tokens, cached_tokens, thought_tokens; /* of the prompt, of it not evaluated again, of thoughts */
    double prompt_seconds;
    const g4_engine *engine; /* for the bytes of tokens; NULL where there are no logprobs */
    int want_logprobs;
    const g4_token_logprob *logprobs;
    int n_logprobs;
    int is_completion; /* nonzero, as with G4_DIALECT_COMPLETIONS: a text_completion, whose text is that of the parts */
    g4_dialect dialect;
    const g4_request_info *request; /* whose `repeats` the answer repeats; may be NULL */
    int choice;                     /* its index among the answers to one request */
    int has_more; /* of a stream: nonzero where another choice follows it, in a stream of its own with the same id: the
                     last one has the counts and the end of all */
    uint64_t reserved[5];
} g4_answer;
/* An answer as one chat.completion object with a newline behind it, in one call of `write`. message has content (null
 * when there are only calls), reasoning_content if there are thoughts, and tool_calls, whose arguments are text; a call
 * that is incomplete is left out. finish_reason is "tool_calls" when the model ended its answer with calls, "length" at
 * a limit, when cancelled, or when there is a call and none that is whole, else "stop"; beside it stands stop_reason
 * with g4_stop_name where that says more. usage has cached_tokens and reasoning_tokens, timings are named as
 * llama.cpp's.
 *
 * In the other dialects: a message of blocks thinking, text and tool_use, whose stop_reason is "end_turn",
 * "max_tokens", "stop_sequence" (beside it result.stop_string), "tool_use" or "model_context_window_exceeded", and
 * whose input_tokens leave out the cached ones; or a response of items reasoning, message and function_call, which is
 * "completed" or "incomplete". Their names begin with msg_, toolu_; resp_, rs_, msg_, fc_. */
G4_API g4_status g4_answer_write(const g4_answer *answer, g4_write_fn write, void *user, const g4_allocator *a,
                                 g4_error *err);

/* The same as it comes: server-sent events. A call of `write` gets whole ones, with the empty line behind each.
 *
 *   if (g4_stream_open(&stream, &(g4_stream_options){ .answer = &known, .write = send, .user = socket }, NULL, &err))
 *       return fail(&err);
 *   options = (g4_respond_options){ .part = g4_stream_part, .user = stream, .call_deltas = 1 };
 *   if (g4_session_respond(s, c, &options, &r, &result, &err)) return refuse(stream, &err);
 *   ... what is known now goes into `known`: parts, result, counts ...
 *   st = g4_stream_end(stream, &known, &err);
 *   g4_stream_close(stream);
 *
 * The first delta is the role, and opening writes it. Then each has one of content, reasoning_content or tool_calls,
 * never empty; a call's first has its index, id, type, name and arguments "", those that follow index and arguments.
 * The last delta is empty and has finish_reason; with include_usage a chunk without choices has the usage, and the
 * others have it null. `data: [DONE]` is the end. Ids are those that g4_answer_write gives. A call that is cut after
 * it was told in part (call_deltas) stays as it was told, and finish_reason is "length"; one that is told when it is
 * cut already is left out. An answer of is_completion becomes chunks of text_completion, with the text of the parts.
 *
 * The other dialects have events with names. G4_DIALECT_ANTHROPIC: message_start, for each part content_block_start,
 * content_block_delta, content_block_stop; message_delta with stop_reason and usage, message_stop.
 * G4_DIALECT_RESPONSES: response.created, response.in_progress, for each part response.output_item.added, its deltas
 * and what they sum up to, response.output_item.done; response.completed or response.incomplete with all of it; each
 * has its sequence_number. Neither has [DONE]. */
typedef struct g4_stream g4_stream;
typedef struct {
    const g4_answer *answer; /* what is known of it: id, created, model, fingerprint, is_completion, dialect, request,
                                prompt_tokens, and for log-probabilities engine and want_logprobs. Copied, but for
                                engine and request */
    int include_usage;
    g4_write_fn write; /* not NULL; when it fails, nothing more is written */
    void *user;
    uint64_t reserved[4];
} g4_stream_options;
G4_API g4_status g4_stream_open(g4_stream **out, const g4_stream_options *opt, const g4_allocator *a, g4_error *err);
/* A piece of the answer, as a g4_part_fn with the stream as its user. Nonzero: it could not be written. */
G4_API int g4_stream_part(void *stream, int index, const g4_part *delta);
/* A token with its log-probabilities, as a g4_output_fn likewise: it stands in the next chunk. Without want_logprobs
 * it does nothing. */
G4_API int g4_stream_token(void *stream, const g4_output *o);
/* The answer as g4_answer_write takes it, for how it ended and what it took; id, created and names stay those of the
 * opening. What failed before is told here. */
G4_API g4_status g4_stream_end(g4_stream *s, const g4_answer *answer, g4_error *err);

typedef struct {         /* why there is no answer */
    g4_status status;    /* what a call returned */
    int http;            /* the status of HTTP; 0: 400 or 500, as `status` says */
    const char *message; /* as g4_error has it */
    const char *param;   /* as g4_fault has it; NULL or empty: none */
    uint64_t reserved[3];
} g4_refusal;
/* An error behind the beginning of an answer, in place of its end. */
G4_API g4_status g4_stream_refuse(g4_stream *s, const g4_refusal *why, g4_error *err);
G4_API void g4_stream_close(g4_stream *s);
/* The error that a client reads in place of an answer: a JSON object with a newline behind it, in one call of `write`:
 * error has message, type, param and code, which is "context_length_exceeded" for G4_ERR_CONTEXT; of Anthropic's
 * dialect type and message. */
G4_API g4_status g4_refusal_write(g4_dialect dialect, const g4_refusal *why, g4_write_fn write, void *user,
                                  const g4_allocator *a, g4_error *err);

/* ---- Boxes and points --------------------------------------------------------------------------- */

typedef struct {
    int is_point;       /* then x0 == x1 and y0 == y1 */
    int x0, y0, x1, y1; /* pixels of the picture; x1 and y1 may be its width and height */
    char *label;        /* never NULL, may be empty */
    uint64_t reserved[2];
} g4_box;
/* Boxes and points of an answer (box_2d and point, y first, 0..1000), in pixels of a picture of that size. None is no
 * error. */
G4_API g4_status g4_boxes_read(g4_box **out, int *n, const char *text, size_t len, int width, int height,
                               const g4_allocator *a, g4_error *err);
G4_API void g4_boxes_free(g4_box *boxes, int n, const g4_allocator *a);

#ifdef __cplusplus
}
#endif
#endif /* GEMMA4_H */

/* Outside the guard on purpose: the header may have been included before, for its declarations. */
#if defined(GEMMA4_IMPLEMENTATION) && !defined(GEMMA4_IMPLEMENTED)
#ifdef __cplusplus
#error "the implementation of gemma4.h is C: define GEMMA4_IMPLEMENTATION in a .c file"
#endif
#define GEMMA4_IMPLEMENTED
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options /* the implementation changes them: engine/base.h */
#endif
#include "engine/base.c"
#include "engine/kernels.c"
#include "engine/types.c"
#include "engine/file.c"
#include "engine/threads.c"
#include "engine/sample.c"
#include "tokenizer.c"
#include "engine/vocabulary.c"
#include "media/picture.c"
#include "media/inflate.c"
#include "media/lzw.c"
#include "media/xz.c"
#include "media/patches.c"
#include "media/frames.c"
#include "media/png.c"
#include "media/jpeg.c"
#include "media/gif.c"
#include "media/pnm.c"
#include "media/bmp.c"
#include "media/xbm.c"
#include "media/tga.c"
#include "media/blocks.c"
#include "media/dds.c"
#include "media/fax.c"
#include "media/tiff.c"
#include "media/sgi.c"
#include "media/qoi.c"
#include "media/wav.c"
#include "media/y4m.c"
#include "media/child.c"
#include "media/formats.c"
#include "media/ffmpeg.c"
#include "media/pcx.c"
#include "media/ico.c"
#include "media/vp8l.c"
#include "media/vp8.c"
#include "media/webp.c"
#include "media/heif.c"
#include "media/load.c"
#include "media/probe.c"
#include "media/draw.c"
#include "engine/static.c"
#include "engine/matmul.c"
#include "engine/cache.c"
#include "engine/attend.c"
#include "engine/soft.c"
#include "gemma4.c"
#include "engine/tower.c"
#include "engine/vision.c"
#include "engine/mel.c"
#include "engine/audio.c"
#include "engine/residency.c"
#include "engine/engine.c"
#include "engine/encode.c"
#include "engine/timeline.c"
#include "engine/session.c"
#include "engine/state.c"
#include "engine/draft.c"
#include "engine/choose.c"
#include "engine/generate.c"
#include "engine/batch.c"
#include "chat/table.c"
#include "chat/json.c"
#include "chat/pytext.c"
#include "chat/control.c"
#include "chat/template.c"
#include "chat/messages.c"
#include "chat/sources.c"
#include "chat/openai.c"
#include "chat/lines.c"
#include "chat/answer.c"
#include "chat/anthropic.c"
#include "chat/responses.c"
#include "chat/stream.c"
#include "chat/request.c"
#include "chat/conversation.c"
#include "chat/reply.c"
#include "chat/regular.c"
#include "chat/unicode.c"
#include "chat/pattern.c"
#include "chat/number.c"
#include "chat/format.c"
#include "chat/network.c"
#include "chat/grammar.c"
#include "chat/notation.c"
#include "chat/refs.c"
#include "chat/claims.c"
#include "chat/shape.c"
#include "chat/distinct.c"
#include "chat/schema.c"
#include "chat/guide.c"
#include "chat/boxes.c"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#else
#pragma STDC FP_CONTRACT DEFAULT
#endif
#endif
