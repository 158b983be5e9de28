/* media.h - what the files of media/ share: pictures, sound and video as people have them, to pixels, patches and
 * samples. They stand on the base floor and know nothing of models. Everything that comes out of a file is untrusted:
 * sizes are checked against the limits before memory is taken, and a file that is truncated or at odds with itself
 * gives G4_ERR_FORMAT with a message that says what was expected and what was found. */
#ifndef GEMMA4_MEDIA_H
#define GEMMA4_MEDIA_H

#include "../engine/base.h"

#include <stdio.h>

/* ---- Options, pixels, numbers (picture.c), frames (frames.c) --------------------------------- */

#define G4_AUDIO_RATE 16000 /* samples a second of all sound that is given out */

/* The options of a call with every default filled in, and what may end it. */
typedef struct {
    const g4_allocator *a;
    const char *ffmpeg;
    uint64_t max_pixels, max_samples, max_file_bytes;
    uint64_t max_scan_blocks, max_pixels_per_byte;
    uint64_t max_picture_bytes; /* max_file_bytes of a picture */
    uint64_t max_pipe_bytes;    /* of what is no regular file, so that its size is not known before */
    uint64_t max_program_bytes; /* of memory that a program may take; UINT64_MAX: any number */
    int max_program_seconds;    /* that it may take; 0: as its task asks for */
    int max_frames, n_frames, want_sound, frame_times;
    int frame_tokens, frame_side; /* frame_tokens 0: frames are not scaled */
    uint64_t max_video_pixels;    /* of all frames that are kept */
    double fps;
    g4_halt *halt;
} g4_media_limits;
/* Begin a call with these options, which may be NULL: fills *m and *halt, which m points to. */
g4_status g4_media_begin(g4_media_limits *m, g4_halt *halt, const g4_media_options *opt, g4_error *err);

/* How a loop asks its halt: it tells how much it did, in steps of a few nanoseconds (bytes, pixels, products), and the
 * halt is asked after each G4_PACE of them. That is well within a millisecond, and too seldom to be noticed. */
#define G4_PACE 65536
typedef struct {
    g4_halt *halt;
    size_t done; /* since the halt was asked */
} g4_pace;
static inline int g4_pace_ends(g4_pace *p, size_t n)
{
    p->done += n;
    if (p->done < G4_PACE) return 0;
    p->done = 0;
    return g4_halted(p->halt);
}
static inline size_t g4_piece(size_t left) { return left < G4_PACE ? left : G4_PACE; }

/* A picture that its holder owns and may change. */
typedef struct {
    uint8_t *rgb; /* (h, w, 3) */
    int w, h;
} g4_pixels;
/* Is a picture of that size within 1..INT32_MAX each way and within the limit? kind begins the message. */
g4_status g4_pixels_check(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, g4_error *err);
/* Memory for a picture, after that check. */
g4_status g4_pixels_alloc(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, g4_pixels *out,
                          g4_error *err);
void g4_pixels_free(const g4_media_limits *m, g4_pixels *p);
/* Above G4_PIXELS_FREE pixels, are there bytes enough for so many? A few could otherwise ask for all memory. */
#define G4_PIXELS_FREE 40000000
g4_status g4_pixels_check_bytes(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, uint64_t bytes,
                                g4_error *err);
/* How a picture is to be turned, as far as its file has said so: EXIF goes before XMP. */
typedef struct {
    int exif, xmp; /* 1..8; 0: nothing so far */
} g4_turn;
/* A TIFF block, which "Exif" and two zeros may stand before, as some writers put it where a format has its own place
 * for it; the first one that says it counts. */
void g4_turn_by_exif(g4_turn *t, const uint8_t *tiff, size_t size);
/* Bytes of a value of TIFF; 0: there is no such type. */
size_t g4_tiff_type_bytes(uint32_t type);
/* One as a whole number, of any type that has numbers; 0: it is none. */
int64_t g4_tiff_number(uint32_t type, const uint8_t *p, int big);
/* Is a TIFF file, or any other, compressed as ffmpeg can read it? */
g4_status g4_tiff_check(const uint8_t *tiff, size_t size, g4_error *err);
/* A text of XMP; of several texts the last one counts, and in it the first place. */
void g4_turn_by_xmp(g4_turn *t, const uint8_t *text, size_t size);
#define G4_XMP_MAX (1 << 20) /* bytes of XMP that are looked at */
int g4_orientation(const g4_turn *t);
/* The size of a picture of that orientation once it is upright. */
void g4_upright_size(int w, int h, int orientation, int *upright_w, int *upright_h);
/* Turn a picture of that orientation upright. */
g4_status g4_pixels_orient(const g4_media_limits *m, g4_pixels *p, int orientation, g4_error *err);
/* Free what a call gave out: its user sees it as const, but the library made it. */
void g4_free_given(const g4_allocator *a, const void *given);

/* Skip blanks and # comments, then read a decimal number of at most max_digits digits, up to 9; -1: there is none, or
 * the call is halted. */
int64_t g4_scan_number(g4_reader *r, int max_digits, g4_pace *pace);

/* The frames of a video as a reader gathers them: frame i of those kept is frame i * total / n_wanted of the file
 * (transformers, sample_frames of video_processing_utils.py), at that index / fps seconds. */
typedef struct {
    g4_image *frames; /* (n_wanted), the first n are there */
    double *seconds;  /* (n_wanted) */
    int n_wanted, n;
    int64_t total;   /* frames in the file */
    double fps;      /* of the file, on average */
    uint64_t pixels; /* of those that are there */
} g4_frames;
/* Choose how many frames are kept, and take memory for their list. */
g4_status g4_frames_open(const g4_media_limits *m, int64_t total, double fps, g4_frames *out, g4_error *err);
int64_t g4_frames_next(const g4_frames *f); /* index in the file of the frame that is wanted next */
/* Would that frame, and those behind it if they are as large, be within the limits? It asks before there is memory. */
g4_status g4_frames_check(const g4_media_limits *m, const g4_frames *f, uint64_t w, uint64_t h, g4_error *err);
/* That frame, scaled when the options say so. Takes its pixels, also when it fails. */
g4_status g4_frames_add(const g4_media_limits *m, g4_frames *f, g4_pixels *p, g4_error *err);
void g4_frames_free(const g4_media_limits *m, g4_frames *f);

static inline uint32_t g4_be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t g4_be32(const uint8_t *p) { return g4_be16(p) << 16 | g4_be16(p + 2); }
static inline uint32_t g4_le16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }
static inline uint32_t g4_le32(const uint8_t *p) { return g4_le16(p + 2) << 16 | g4_le16(p); }

static inline void g4_store_le(uint8_t *p, size_t n, uint64_t v) /* as n bytes, the lowest first */
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static inline int16_t g4_wrap_16(int32_t v) { return (int16_t)(uint16_t)(uint32_t)v; }
static inline uint8_t g4_clamp_u8(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* v with coverage alpha over white, rounded as Pillow's alpha_composite does (AlphaComposite.c, 7 extra bits). */
static inline uint8_t g4_over_white(uint32_t v, uint32_t alpha)
{
    const uint32_t t = (v * alpha + 255 * (255 - alpha) + 0x80) << 7;
    return (uint8_t)((((t >> 8) + t) >> 8) >> 7);
}

/* Bytes from row to row of a picture of the user's. */
static inline size_t g4_image_stride(const g4_image *image)
{
    return image->stride ? image->stride : (size_t)image->width * 3;
}
/* Is it a picture: with pixels, a size, and rows that memory can hold? */
g4_status g4_image_check(const g4_image *image, g4_error *err);

/* ---- Streams (inflate.c, lzw.c, xz.c) ------------------------------------------------------- */

/* The next piece of a stream is *p up to *end, and may be empty; 0: there is none. */
typedef int (*g4_next_piece_fn)(void *ctx, const uint8_t **p, const uint8_t **end);
/* Unpack the zlib stream into out, of which *n bytes are there then, up to its end or until out is full: what stands
 * behind that is not asked for. Returns NULL or what is wrong with it: anything, when the call is halted. */
const char *g4_inflate(g4_next_piece_fn next, void *ctx, uint8_t *out, size_t size, size_t *n, g4_halt *halt);
/* The same in pieces, for whom all of it is more than is wanted at once: each goes to the drain, which tells when it
 * has all. A checksum counts when the drain was given no more than that. window: room for G4_INFLATE_WINDOW bytes. */
typedef int (*g4_drain_fn)(void *ctx, const uint8_t *data, size_t n); /* 0: go on; 1: it has all; 2: more */
#define G4_INFLATE_WINDOW 131072
const char *g4_inflate_rows(g4_next_piece_fn next, void *ctx, uint8_t *window, g4_drain_fn drain, void *drain_ctx,
                            g4_halt *halt);
/* The same for LZW (lzw.c) with values of so many bits, 11 at most: what ends before out is full is wrong.
 * is_low_first: as GIF has it, and TIFF of old; else as TIFF has it. */
const char *g4_lzw(g4_next_piece_fn next, void *ctx, int value_bits, int is_low_first, uint8_t *out, size_t size,
                   g4_pace *pace);
/* The same for an xz stream (xz.c) that is all there. */
const char *g4_xz(const uint8_t *p, size_t n, uint8_t *out, size_t size, g4_pace *pace);
/* Append raw (below 4 GiB) to out as a zlib stream. Nonzero: out of memory, or halted. */
int g4_deflate(const g4_media_limits *m, const uint8_t *raw, size_t size, g4_buf *out);

/* ---- Pictures to patches (patches.c) -------------------------------------------------------- */

#define G4_IMAGE_PATCH 16                              /* pixels of a patch's side, ... */
#define G4_IMAGE_POOL 3                                /* ... patches of a soft token's, ... */
#define G4_IMAGE_SIDE (G4_IMAGE_PATCH * G4_IMAGE_POOL) /* ... and its pixels, in the family */
#define G4_IMAGE_MAX_SIDE 4096                         /* of any model */
/* Soft tokens of a picture scaled to the largest multiples of `side` whose area is at most that of `budget` squares,
 * keeping the aspect ratio; 0 when an argument is out of range. */
int g4_target_size(int width, int height, int budget, int side, int *target_w, int *target_h);
/* Scale a picture as the reference does. */
g4_status g4_pixels_resize(const g4_media_limits *m, g4_pixels *p, int w, int h, g4_error *err);
/* The patches of a picture, for any size of them; g4_patches_make is this for the size that the family has. budget: 70,
 * 140, 280, 560 or 1120, or 0 for img->max_tokens or 280; anything else is G4_ERR_ARGUMENT. */
g4_status g4_image_patches(const g4_allocator *a, const g4_image *img, int budget, int patch, int pool, g4_halt *halt,
                           g4_patches *out, g4_error *err);
void g4_patches_free(const g4_allocator *a, g4_patches *p);

/* ---- Pictures (png.c, jpeg.c, gif.c, pnm.c, bmp.c, ico.c, xbm.c, tga.c, dds.c, sgi.c, qoi.c, pcx.c, tiff.c) -- */

/* Each takes a file that begins with its signature. The *_size functions read only its headers, and give the size of
 * the picture once it is upright. */
g4_status g4_png_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_jpeg_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_gif_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_pnm_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_bmp_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_ico_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_xbm_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_tga_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_dds_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_sgi_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_qoi_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_pcx_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_png_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_jpeg_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_gif_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_pnm_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_bmp_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_ico_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_xbm_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_tga_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_dds_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_sgi_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_qoi_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
g4_status g4_pcx_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
/* Has it more than one frame? */
int g4_gif_is_animated(const g4_media_limits *m, const uint8_t *data, size_t size);
/* A bitmap inside of an icon, without its file's head. *has_alpha: its fourth byte is alpha; 0 then, if it has none. */
g4_status g4_bmp_part_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_bmp_part(const g4_media_limits *m, const uint8_t *data, size_t size, int *has_alpha, g4_pixels *out,
                      g4_error *err);
/* *foreign is set when it fails for a kind that ffmpeg may be able to read. */
g4_status g4_tiff_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, int *foreign,
                       g4_error *err);
g4_status g4_tiff_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, int *foreign,
                         g4_error *err);

/* JPEG data inside of another file. */
typedef struct {
    const uint8_t *tables; /* a stream of tables, which hold unless the data have their own; NULL: none */
    size_t n_tables;
    const uint8_t *data;
    size_t size;
    int w, h, max_h; /* its width, the rows that are wanted, and the most that there may be */
    int channels;    /* components */
    int is_ycc;      /* three of YCbCr, which become RGB; else they are given out as they are */
    int is_plain;    /* chroma is repeated between its samples, not weighted */
} g4_jpeg_stream;
g4_status g4_jpeg_part(const g4_media_limits *m, const g4_jpeg_stream *in, uint8_t *out, g4_error *err);

/* Blocks of 4 x 4 pixels of textures (blocks.c), as Direct3D numbers them. */
enum { G4_BC1 = 1, G4_BC2, G4_BC3, G4_BC4, G4_BC5, G4_BC6, G4_BC7, G4_BC5_SIGNED, G4_BC6_SIGNED };
size_t g4_block_bytes(int coding);
void g4_block_decode(int coding, const uint8_t *p, uint8_t rgba[16][4]);

/* The codings of fax machines (fax.c). */
enum { G4_FAX_BYTES = 2, G4_FAX_GROUP_3, G4_FAX_GROUP_4, G4_FAX_WORDS = 32771 }; /* as TIFF numbers them */
typedef struct g4_fax g4_fax;
/* For rows of w pixels, whose data are at most size bytes. is_2d: Group 3 of two dimensions. NULL: out of memory. */
g4_fax *g4_fax_open(const g4_media_limits *m, int coding, int is_2d, uint32_t w, size_t size);
/* Rows of bits from the data of a strip. Returns NULL or what is wrong: anything, when the call is halted. */
const char *g4_fax_decode(g4_fax *f, const uint8_t *data, size_t size, uint32_t rows, uint8_t *out);
void g4_fax_close(const g4_media_limits *m, g4_fax *f);

/* ---- Sound (wav.c) -------------------------------------------------------------------------- */

#define G4_WAV_CHUNK_HEAD 8 /* bytes of a chunk before its data: name and length */

typedef struct {
    uint32_t tag, channels, rate; /* tag: 1 integer, 3 float, 6 A-law, 7 mu-law */
    uint32_t bytes;               /* of one sample of one channel; 0: no fmt chunk was read yet */
    int is_big;                   /* numbers have their highest byte first */
    uint64_t long_bytes;          /* of all samples, where 32 bits do not say it; 0: they do */
    int foreign;                  /* sound of another tag, which ffmpeg may be able to read */
    int more;                     /* the samples begin behind what is there */
} g4_wav_format;
/* Read the chunks of a file of which `size` bytes are there, from its start up to the samples. *pos becomes the offset
 * of the chunk that holds them, or of the first that cannot be passed yet. */
g4_status g4_wav_chunks(const uint8_t *data, size_t size, g4_wav_format *f, size_t *pos, g4_halt *halt, g4_error *err);
/* Is the chunk at pos there, and the one that holds the samples? */
int g4_wav_has_samples(const uint8_t *data, size_t size, const g4_wav_format *f, size_t pos);
/* Bytes of samples in the chunk at pos of a file of so many bytes: as many as it says, or as there are if it says more
 * or that its length was not known. */
uint64_t g4_wav_bytes(const uint8_t *data, const g4_wav_format *f, size_t pos, uint64_t file_bytes);
/* Where the samples of a file of file_bytes begin, of which `size` are there, and how many of each channel there are: 1
 * or more, within the limit. */
g4_status g4_wav_find(const g4_media_limits *m, const uint8_t *data, size_t size, uint64_t file_bytes, g4_wav_format *f,
                      size_t *at, uint64_t *n, g4_error *err);
/* Samples of each channel that a file of so many bytes may have. A few bytes could otherwise ask for hours of sound, at
 * a rate so low that there are many samples at 16 kHz, or so high that there were many before. */
uint64_t g4_wav_limit(const g4_media_limits *m, const g4_wav_format *f, uint64_t file_bytes);
g4_status g4_wav_too_long(const g4_media_limits *m, const g4_wav_format *f, uint64_t file_bytes, g4_error *err);
float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame); /* the mean of a sample of all channels */
/* Sound of any rate to G4_AUDIO_RATE. Takes x (n_in) and frees it, or gives it out as it is. */
g4_status g4_resample(const g4_media_limits *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err);
/* *foreign is set when it fails for a coding that ffmpeg may be able to read. */
g4_status g4_wav_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_audio *out, int *foreign,
                        g4_error *err);

/* ---- Video (y4m.c) -------------------------------------------------------------------------- */

typedef struct {         /* bytes of a file in memory, or of one that is open and seekable */
    const uint8_t *data; /* NULL: read file */
    FILE *file;
    uint64_t size, pos;
    g4_halt *halt;
} g4_source;
/* Its size, rate and number of frames, which are all checked to be there. */
g4_status g4_y4m_size(const g4_media_limits *m, g4_source *src, g4_media_info *out, int *foreign, g4_error *err);
/* *foreign is set when it fails for a colour format that ffmpeg may be able to read. */
g4_status g4_y4m_decode(const g4_media_limits *m, g4_source *src, g4_video *out, int *foreign, g4_error *err);

/* ---- Other programs (child.c) --------------------------------------------------------------- */

typedef int (*g4_sink_fn)(void *ctx, const uint8_t *data, size_t n); /* nonzero: stop, no more is wanted */
typedef struct {
    int reason;     /* the errno for which it could not be started, or 0 */
    int is_stopped; /* the sink had enough */
    int is_late;    /* it took longer than it may */
    int status;     /* its exit status, or 128 + the signal that ended it; -1: not known */
    char said[161]; /* the first line of its messages, which says most */
} g4_child_end;
/* Run a program (its name or path, its arguments, NULL) with an open file, or nothing if in is -1, as its input, for so
 * many seconds at most. What it writes goes to the sink. In every case it has ended and is reaped when this returns. */
g4_status g4_child_run(const g4_media_limits *m, const char *const *words, int in, int seconds, g4_sink_fn sink,
                       void *ctx, g4_child_end *end, g4_error *err);
/* The same open file where it is in no child's way, close-on-exec; the old one is closed. -1: failed, or it was -1. */
int g4_fd_raise(int fd);
int g4_fd_copy(int fd); /* one more descriptor for it, likewise */
/* Put bytes into a nameless temporary file, in which ffmpeg can seek. Close it. */
g4_status g4_media_spill(const g4_media_limits *m, const uint8_t *data, size_t size, int *fd, g4_error *err);

/* ---- First bytes (formats.c) ----------------------------------------------------------------- */

int g4_is_png(const uint8_t *d, size_t n);
int g4_is_jpeg(const uint8_t *d, size_t n);
int g4_is_gif(const uint8_t *d, size_t n);
int g4_is_pnm(const uint8_t *d, size_t n);
int g4_is_bmp(const uint8_t *d, size_t n);
int g4_is_webp(const uint8_t *d, size_t n);
int g4_is_tiff(const uint8_t *d, size_t n);
int g4_is_heif(const uint8_t *d, size_t n); /* ISO media with a picture's brand */
int g4_is_ico(const uint8_t *d, size_t n);
int g4_is_sgi(const uint8_t *d, size_t n);
int g4_is_qoi(const uint8_t *d, size_t n);
int g4_is_pcx(const uint8_t *d, size_t n); /* or DCX */
int g4_is_dcx(const uint8_t *d, size_t n);
int g4_is_dds(const uint8_t *d, size_t n);
int g4_is_xbm(const uint8_t *d, size_t n);
int g4_is_tga(const uint8_t *d, size_t n); /* it has no signature: it is like one, and like nothing else */
int g4_is_wav(const uint8_t *d, size_t n);
int g4_is_y4m(const uint8_t *d, size_t n);
size_t g4_id3_bytes(const uint8_t *d, size_t n); /* of the ID3 tag that the file begins with; 0: it does not */

#define G4_HEAD_BYTES 16384 /* of a file, that tell what it is */
/* What reads a file. */
typedef struct {
    const char *demuxer; /* of ffmpeg; none that opens other files */
    const char *decoder; /* NULL: the file says it */
    const char *better;  /* one for pictures that is used where the program has it; NULL: there is none */
} g4_media_format;
/* The demuxer for a file that begins so, but for a tag; NULL: there is none. */
const char *g4_demuxer_of(const uint8_t *d, size_t n);
/* Choose for an open file. */
g4_status g4_format_find(int fd, g4_media_format *out, g4_error *err);
/* The failure for a file that begins so. */
g4_status g4_format_unknown(const uint8_t *d, size_t n, g4_error *err);

/* ---- Files (load.c) ------------------------------------------------------------------------- */

/* A file is opened once, by the name that was given, and known by its descriptor from then on. */
typedef struct {
    int fd, is_regular;
    uint64_t size;               /* of a regular one */
    uint8_t head[G4_HEAD_BYTES]; /* its first bytes */
    size_t n_head;
} g4_media_file;
/* Open it and look at it: it begins like something that can be read. */
g4_status g4_media_open(const g4_media_limits *m, const char *path, g4_media_file *out, g4_error *err);
void g4_media_close(g4_media_file *f);
/* Is it as short as a picture's file must be, or any other's that is read whole? */
g4_status g4_media_check_size(const g4_media_limits *m, const g4_media_file *f, int is_picture, g4_error *err);
/* Its first bytes, `most` of them if it is a regular file and so long; all of anything else. */
g4_status g4_media_read(const g4_media_limits *m, const g4_media_file *f, uint64_t most, uint8_t **out, size_t *size,
                        g4_error *err);
/* As g4_wav_find, of a regular file of which no more is read than what stands before the samples. */
g4_status g4_wav_file_find(const g4_media_limits *m, const g4_media_file *file, g4_wav_format *f, size_t *at,
                           uint64_t *n, g4_error *err);
/* A y4m file that stays on disk, since all of it may be more than memory holds. Close its file. */
g4_status g4_y4m_file_open(const g4_media_limits *m, const g4_media_file *f, g4_source *out, g4_error *err);
/* A reader of pictures that need nothing else of ffmpeg. */
typedef struct {
    const char *name; /* as g4_media_info has it */
    int (*is)(const uint8_t *d, size_t n);
    g4_status (*size)(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
    g4_status (*decode)(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
} g4_picture_reader;
/* For a file that begins so; NULL: there is none. */
const g4_picture_reader *g4_picture_reader_of(const uint8_t *d, size_t n);
/* Has it one, or is it TIFF or HEIF, of which ffmpeg reads some whole? */
int g4_is_read_whole(const uint8_t *d, size_t n);
/* What a call that ends with s returns: when it was halted, that is why it failed. */
g4_status g4_media_end(const g4_media_limits *m, g4_status s, g4_error *err);
/* Put the end of a path in front of the message of a failure. */
g4_status g4_media_name_failure(g4_error *err, const char *path, g4_status s);

/* ---- The ffmpeg program (ffmpeg.c) ---------------------------------------------------------- */

typedef struct {
    int fd; /* an open file, which becomes the program's standard input: it gets no names */
    g4_media_format format;
} g4_input;
/* turn: how to turn the picture; NULL: as ffmpeg finds. */
g4_status g4_ffmpeg_image(const g4_media_limits *m, const g4_input *in, const g4_turn *turn, g4_image *out,
                          g4_error *err);
/* The first n pictures as raw samples, which fill out. filter: of ffmpeg; NULL: as its decoder gives them. */
g4_status g4_ffmpeg_raw(const g4_media_limits *m, const g4_input *in, const char *filter, uint32_t n, uint8_t *out,
                        size_t size, g4_error *err);
g4_status g4_ffmpeg_audio(const g4_media_limits *m, const g4_input *in, g4_audio *out, g4_error *err);
g4_status g4_ffmpeg_video(const g4_media_limits *m, const g4_input *in, g4_video *out, g4_error *err);
/* By ffprobe, which comes with ffmpeg. */
g4_status g4_ffmpeg_probe(const g4_media_limits *m, const g4_input *in, g4_media_info *out, g4_error *err);

/* ---- Pictures of halved chroma (vp8l.c, vp8.c, webp.c), some of which ffmpeg unpacks (heif.c) ---- */

/* Where rows of chroma are half as many as the h of the picture: row y lies nearest to number y / 2 of them, and next
 * to this one, which is the same at the edges. */
static inline size_t g4_chroma_beside(size_t y, size_t h)
{
    const size_t near = y / 2;
    if (y & 1) return near + 1 < (h + 1) / 2 ? near + 1 : near;
    return near > 0 ? near - 1 : near;
}

/* Pixels of lossless WebP behind their head, as alpha, red, green, blue from the highest byte on. */
g4_status g4_vp8l_decode(const g4_media_limits *m, const uint8_t *data, size_t size, uint32_t w, uint32_t h,
                         uint32_t *out, g4_error *err);
/* The samples of a lossy one, in whole macroblocks of 16 x 16 pixels; U and V are halved each way. Free y. */
typedef struct {
    uint8_t *y, *u, *v;
    size_t stride; /* of Y; of U and V, half of it */
} g4_vp8_planes;
g4_status g4_vp8_decode(const g4_media_limits *m, const uint8_t *data, size_t size, uint32_t w, uint32_t h,
                        g4_vp8_planes *out, g4_error *err);
g4_status g4_webp_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err);
g4_status g4_webp_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err);
/* *foreign is set when it fails for a kind that ffmpeg may be able to read whole. */
g4_status g4_heif_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, int *foreign,
                       g4_error *err);
g4_status g4_heif_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, int *foreign,
                         g4_error *err);
/* How such a file says that its picture is to be turned. */
void g4_turn_by_heif(const g4_media_limits *m, g4_turn *t, const uint8_t *data, size_t size);
/* How ffmpeg's picture of a file is to be turned; 0: another kind of file, whose pictures ffmpeg turns. */
int g4_foreign_orientation(const g4_media_limits *m, const uint8_t *data, size_t size, g4_turn *out);

#endif /* GEMMA4_MEDIA_H */
