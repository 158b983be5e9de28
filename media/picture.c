/* picture.c - what the readers of pictures, sound and video share: the options of a call with their defaults, limits,
 * the size of a budget of soft tokens, memory for pixels, the orientation of EXIF and XMP, numbers in text. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

/* ---- Options -------------------------------------------------------------------------------- */

#define G4_PIXELS_MAX 178956970     /* 512 MiB of RGB: Pillow refuses twice as many, and warns above half of them */
#define G4_PICTURE_BYTES (64 << 20) /* of a file, beside 8 for each pixel that a picture may have */
#define G4_VIDEO_MEGAPIXELS 1024    /* 3 GB of RGB: 493 frames of 1920 x 1080 */
#define G4_SCAN_BLOCKS_MAX 60000000 /* a picture of the most pixels takes 45 million in the usual ten scans */

g4_status g4_media_begin(g4_media_limits *m, g4_halt *halt, const g4_media_options *opt, g4_error *err)
{
    static const g4_media_options none = { 0 };
    int w, h;
    if (!opt) opt = &none;
    *m = (g4_media_limits) { .a = opt->allocator,
                             .ffmpeg = opt->ffmpeg ? opt->ffmpeg : "ffmpeg",
                             .max_pixels = opt->max_pixels ? opt->max_pixels : G4_PIXELS_MAX,
                             .max_samples = opt->max_samples ? opt->max_samples : (uint64_t)4 * 3600 * G4_AUDIO_RATE,
                             .max_file_bytes = opt->max_file_bytes ? opt->max_file_bytes : (uint64_t)4 << 30,
                             .max_pipe_bytes = opt->max_file_bytes ? opt->max_file_bytes : (uint64_t)4 << 30,
                             .max_scan_blocks = opt->max_scan_blocks ? opt->max_scan_blocks : G4_SCAN_BLOCKS_MAX,
                             .max_pixels_per_byte = opt->max_pixels_per_byte ? opt->max_pixels_per_byte : 256,
                             .max_program_bytes = opt->max_program_bytes ? opt->max_program_bytes : (uint64_t)4 << 30,
                             .max_program_seconds = opt->max_program_seconds,
                             .frame_times = opt->frame_times,
                             .frame_tokens = opt->frame_tokens,
                             .frame_side = opt->frame_side ? opt->frame_side : G4_IMAGE_SIDE,
                             .max_video_pixels = (uint64_t)(opt->max_video_megapixels ? opt->max_video_megapixels
                                                                                      : G4_VIDEO_MEGAPIXELS) *
                                                 1000000,
                             .max_frames = opt->max_frames ? opt->max_frames : 1024,
                             .n_frames = opt->n_frames ? opt->n_frames : 32,
                             .want_sound = opt->want_sound,
                             .fps = opt->fps,
                             .halt = halt };
    m->max_picture_bytes = opt->max_file_bytes                  ? opt->max_file_bytes
                           : m->max_pixels < UINT64_MAX / 8 / 2 ? G4_PICTURE_BYTES + 8 * m->max_pixels
                                                                : UINT64_MAX;
    g4_halt_open(halt);
    g4_halt_add(halt, &opt->limits);
    if (m->a && !m->a->alloc_fn != !m->a->free_fn)
        return g4_fail(err, G4_ERR_ARGUMENT, "media: an allocator needs both alloc_fn and free_fn");
    if (opt->n_frames < 0 || opt->max_frames < 0 || opt->max_program_seconds < 0 || !(opt->fps >= 0) || isinf(opt->fps))
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "media: n_frames %d, max_frames %d, max_program_seconds %d, fps %g: none may be below 0",
                       opt->n_frames, opt->max_frames, opt->max_program_seconds, opt->fps);
    if (opt->max_video_megapixels < 0 || opt->frame_side < 0 || opt->frame_side > G4_IMAGE_MAX_SIDE)
        return g4_fail(err, G4_ERR_ARGUMENT, "media: max_video_megapixels %d, frame_side %d: expected 0 or more, 0..%d",
                       opt->max_video_megapixels, opt->frame_side, G4_IMAGE_MAX_SIDE);
    if (opt->frame_tokens != 0 && !g4_target_size(1, 1, opt->frame_tokens, m->frame_side, &w, &h))
        return g4_fail(err, G4_ERR_ARGUMENT, "media: frame_tokens %d: expected 0, 70, 140, 280, 560 or 1120",
                       opt->frame_tokens);
    return g4_halt_check(halt, err);
}

uint64_t g4_media_max_bytes(const g4_media_options *opt, int is_picture)
{
    g4_media_limits m;
    g4_halt halt;
    g4_media_begin(&m, &halt, opt, NULL); /* fills m, also from options that it refuses */
    return is_picture ? m.max_picture_bytes : m.max_file_bytes;
}

/* The same address without the const that public structs show to their users: its bytes, copied. */
void g4_free_given(const g4_allocator *a, const void *given)
{
    void *made;
    memcpy(&made, &given, sizeof made);
    g4_free(a, made);
}

/* ---- The size of a budget ------------------------------------------------------------------- */

/* float64 in the order of the reference: the floor depends on the last bit. */
int g4_target_size(int width, int height, int budget, int side, int *target_w, int *target_h)
{
    if (width <= 0 || height <= 0) return 0;
    if (budget != 70 && budget != 140 && budget != 280 && budget != 560 && budget != 1120) return 0;
    const double factor = sqrt((double)budget * side * side / ((double)height * width));
    const int64_t longest = (int64_t)budget * side;
    int64_t h = (int64_t)floor(factor * height / side) * side;
    int64_t w = (int64_t)floor(factor * width / side) * side;
    if (h == 0) { /* both cannot be 0: the area holds 70 squares or more */
        h = side;
        w = (int64_t)floor((double)width / height) * side;
        if (w > longest) w = longest;
    } else if (w == 0) {
        w = side;
        h = (int64_t)floor((double)height / width) * side;
        if (h > longest) h = longest;
    }
    *target_w = (int)w;
    *target_h = (int)h;
    return (int)(w / side * (h / side));
}

/* ---- Pixels --------------------------------------------------------------------------------- */

g4_status g4_pixels_check(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, g4_error *err)
{
    if (w == 0 && h == 0) return g4_fail(err, G4_ERR_FORMAT, "%s: there is no picture in it: its size is 0 x 0", kind);
    if (w == 0 || h == 0 || w > INT32_MAX || h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "%s: size %" PRIu64 " x %" PRIu64 ", expected 1..2147483647 each way", kind,
                       w, h);
    if (w * h > m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64, kind, w, h,
                       m->max_pixels);
    return G4_OK;
}

g4_status g4_pixels_check_bytes(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, uint64_t bytes,
                                g4_error *err)
{
    if (w * h <= G4_PIXELS_FREE || w * h / m->max_pixels_per_byte <= bytes) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED,
                   "%s: %" PRIu64 " x %" PRIu64 " pixels in %" PRIu64 " bytes are more than the limit of %" PRIu64
                   " a byte",
                   kind, w, h, bytes, m->max_pixels_per_byte);
}

g4_status g4_pixels_alloc(const g4_media_limits *m, const char *kind, uint64_t w, uint64_t h, g4_pixels *out,
                          g4_error *err)
{
    memset(out, 0, sizeof *out);
    const g4_status s = g4_pixels_check(m, kind, w, h, err);
    if (s) return s;
    uint8_t *rgb = w * h > SIZE_MAX / 3 ? NULL : g4_alloc(m->a, (size_t)(w * h), 3);
    if (!rgb) return g4_fail(err, G4_ERR_MEMORY, "%s: %" PRIu64 " x %" PRIu64 " pixels: out of memory", kind, w, h);
    *out = (g4_pixels) { rgb, (int)w, (int)h };
    return G4_OK;
}

void g4_pixels_free(const g4_media_limits *m, g4_pixels *p)
{
    g4_free(m->a, p->rgb);
    memset(p, 0, sizeof *p);
}

/* ---- Orientation ---------------------------------------------------------------------------- */

#define G4_TIFF_LONG8 16 /* the last type that EXIF may have; those behind it are of BigTIFF */

size_t g4_tiff_type_bytes(uint32_t type)
{
    static const uint8_t bytes[19] = { 0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8 };
    return type < sizeof bytes ? bytes[type] : 0;
}

int64_t g4_tiff_number(uint32_t type, const uint8_t *p, int big)
{
    enum { BYTE = 1, TEXT = 2, RATIO = 5, ANY_BYTES = 7, SIGNED_RATIO = 10, FLOAT = 11, DOUBLE = 12 };
    const size_t bytes = g4_tiff_type_bytes(type);
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++) v = v << 8 | p[big ? i : bytes - 1 - i];
    const uint32_t v32 = (uint32_t)v, top = (uint32_t)(big ? v >> 32 : v), bottom = (uint32_t)(big ? v : v >> 32);
    double real = 0;
    float real32 = 0;
    switch (type) {
    case BYTE:
    case TEXT:
    case ANY_BYTES: return 0;
    case RATIO:
    case SIGNED_RATIO: return bottom != 0 && top % bottom == 0 ? top / bottom : 0;
    case FLOAT:
        memcpy(&real32, &v32, sizeof real32);
        return real32 >= 1 && real32 <= 8 && real32 == (float)(int)real32 ? (int)real32 : 0;
    case DOUBLE: memcpy(&real, &v, sizeof real); return real >= 1 && real <= 8 && real == (int)real ? (int)real : 0;
    default: return v > INT64_MAX ? 0 : (int64_t)v;
    }
}

/* The number under a tag of a TIFF block's first picture; -1: there is none. */
static int64_t g4_tiff_value(const uint8_t *tiff, size_t size, uint32_t tag)
{
    if (size < 8) return -1;
    const int big = tiff[0] == 'M' && tiff[1] == 'M';
    if (!big && !(tiff[0] == 'I' && tiff[1] == 'I')) return -1;
    uint32_t (*const u16)(const uint8_t *) = big ? g4_be16 : g4_le16;
    uint32_t (*const u32)(const uint8_t *) = big ? g4_be32 : g4_le32;
    const size_t ifd = u32(tiff + 4); /* the list of entries: their number, then 12 bytes for each */
    if ((u16(tiff + 2) != 42 && u16(tiff + 2) != 42 << 8) || ifd > size - 2) return -1;
    const uint32_t n = u16(tiff + ifd);
    for (uint32_t i = 0; i < n && ifd + 2 + 12 * (size_t)(i + 1) <= size; i++) {
        const uint8_t *entry = tiff + ifd + 2 + 12 * (size_t)i; /* tag, type, count, value or where the values are */
        const uint32_t type = u16(entry + 2), at = u32(entry + 8);
        const uint64_t bytes = type > G4_TIFF_LONG8 ? 0 : (uint64_t)u32(entry + 4) * g4_tiff_type_bytes(type);
        if (u16(entry) != tag || bytes == 0 || (bytes > 4 && (at > size || bytes > size - at))) continue;
        return g4_tiff_number(type, bytes > 4 ? tiff + at : entry + 8, big);
    }
    return -1;
}

/* The orientation in a TIFF block, 1 when it makes no sense; 0: there is none. */
static int g4_tiff_orientation(const uint8_t *tiff, size_t size)
{
    const int64_t value = g4_tiff_value(tiff, size, 0x0112);
    return value < 0 ? 0 : value >= 1 && value <= 8 ? (int)value : 1;
}

/* ffmpeg reads JPEG data only in raw pictures of cameras (DNG); others it shows black, and calls that a success. */
g4_status g4_tiff_check(const uint8_t *tiff, size_t size, g4_error *err)
{
    const int64_t compression = g4_tiff_value(tiff, size, 0x0103); /* 6 is JPEG as of 1992, 7 as of 1995 */
    if ((compression != 6 && compression != 7) || g4_tiff_value(tiff, size, 0xc612) >= 0) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED, "TIFF: compression %d, JPEG inside of TIFF, is not read", (int)compression);
}

void g4_turn_by_exif(g4_turn *t, const uint8_t *tiff, size_t size)
{
    for (int i = 0; i < 2 && size >= 6 && !memcmp(tiff, "Exif\0", 6); i++, tiff += 6) size -= 6;
    if (!t->exif) t->exif = g4_tiff_orientation(tiff, size);
}

/* An attribute or an element: tiff:Orientation="6", tiff:Orientation>6. */
void g4_turn_by_xmp(g4_turn *t, const uint8_t *text, size_t size)
{
    static const char name[] = "tiff:Orientation";
    const size_t n = sizeof name - 1;
    for (size_t i = 0; i + n + 2 <= size; i++) {
        if (text[i] != 't' || memcmp(text + i, name, n) != 0) continue;
        const uint8_t *value = text + i + n;
        if (*value == '>')
            value++;
        else if (i + n + 3 <= size && value[0] == '=' && value[1] == '"')
            value += 2;
        else
            continue;
        if (*value < '0' || *value > '9') continue;
        t->xmp = *value >= '1' && *value <= '8' ? *value - '0' : 1;
        return;
    }
}

int g4_orientation(const g4_turn *t)
{
    const int said = t->exif ? t->exif : t->xmp;
    return said ? said : 1;
}

void g4_upright_size(int w, int h, int orientation, int *upright_w, int *upright_h)
{
    const int swap = orientation >= 5;
    *upright_w = swap ? h : w;
    *upright_h = swap ? w : h;
}

/* 2 mirror, 3 half turn, 4 upside down, 5 transpose, 6 turn right, 7 transverse, 8 turn left. */
g4_status g4_pixels_orient(const g4_media_limits *m, g4_pixels *p, int orientation, g4_error *err)
{
    if (orientation <= 1) return G4_OK;
    const int swap = orientation >= 5;
    const int mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const int mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const size_t src_w = (size_t)p->w, src_h = (size_t)p->h, w = swap ? src_h : src_w, h = swap ? src_w : src_h;
    uint8_t *rgb = g4_alloc(m->a, w * h, 3);
    if (!rgb) return g4_fail(err, G4_ERR_MEMORY, "turning a picture of %zu x %zu: out of memory", src_w, src_h);
    g4_pace pace = { m->halt, 0 };
    int ends = 0;
    for (size_t y = 0; y < h && !ends; y++) {
        for (size_t x = 0; x < w && !ends; x++) {
            size_t src_x = swap ? y : x, src_y = swap ? x : y;
            if (mirror_x) src_x = src_w - 1 - src_x;
            if (mirror_y) src_y = src_h - 1 - src_y;
            memcpy(rgb + 3 * (y * w + x), p->rgb + 3 * (src_y * src_w + src_x), 3);
            ends = g4_pace_ends(&pace, 4); /* a transposed read is slow */
        }
    }
    if (ends) {
        g4_free(m->a, rgb);
        return g4_halt_check(m->halt, err);
    }
    g4_free(m->a, p->rgb);
    *p = (g4_pixels) { rgb, (int)w, (int)h };
    return G4_OK;
}

g4_status g4_image_check(const g4_image *image, g4_error *err)
{
    if (!image || !image->pixels || image->width <= 0 || image->height <= 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "a picture needs pixels and a size above 0, got %d x %d",
                       image ? image->width : 0, image ? image->height : 0);
    if ((size_t)image->width > PTRDIFF_MAX / 3)
        return g4_fail(err, G4_ERR_ARGUMENT, "a row of %d pixels is more than memory can hold", image->width);
    const size_t row = (size_t)image->width * 3, stride = g4_image_stride(image);
    if (stride < row)
        return g4_fail(err, G4_ERR_ARGUMENT, "stride %zu is less than the %zu bytes of a row", stride, row);
    if (stride > PTRDIFF_MAX / (size_t)image->height)
        return g4_fail(err, G4_ERR_ARGUMENT, "%d rows with a stride of %zu bytes are more than memory can hold",
                       image->height, stride);
    return G4_OK;
}

/* ---- Numbers in text ------------------------------------------------------------------------ */

static void g4_pass_blanks(g4_reader *r, g4_pace *pace)
{
    int in_comment = 0;
    for (; r->pos < r->size && !g4_pace_ends(pace, 1); r->pos++) {
        const uint8_t c = r->data[r->pos];
        if (in_comment) {
            in_comment = c != '\n' && c != '\r';
        } else if (c == '#') {
            in_comment = 1;
        } else if (c != ' ' && (c < '\t' || c > '\r')) {
            return;
        }
    }
}

int64_t g4_scan_number(g4_reader *r, int max_digits, g4_pace *pace)
{
    g4_pass_blanks(r, pace);
    int64_t v = 0;
    int digits = 0;
    for (; digits < max_digits && r->pos < r->size; digits++, r->pos++) {
        const uint8_t c = r->data[r->pos];
        if (c < '0' || c > '9') break;
        v = 10 * v + (c - '0');
    }
    return digits ? v : -1;
}
