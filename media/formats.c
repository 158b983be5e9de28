/* formats.c - which of ffmpeg's demuxers reads a file. It is chosen here, by the first bytes, and never by the file's
 * name, by its extension or by ffmpeg: some of ffmpeg's demuxers read a text that names other files or devices, which
 * they then open (playlists, concat, image sequences, manifests, session descriptions). None of these is listed. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <unistd.h>

/* ---- Formats that are read here, and pictures that are turned here ----------------------------- */

int g4_is_png(const uint8_t *d, size_t n) { return n >= 8 && !memcmp(d, "\x89PNG\r\n\x1a\n", 8); }
int g4_is_jpeg(const uint8_t *d, size_t n) { return n >= 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff; }
int g4_is_gif(const uint8_t *d, size_t n) { return n >= 6 && (!memcmp(d, "GIF87a", 6) || !memcmp(d, "GIF89a", 6)); }
int g4_is_pnm(const uint8_t *d, size_t n)
{
    if (n >= 3 && d[0] == 'P' && d[1] == '7' && d[2] == ' ') return 0; /* a thumbnail of XV */
    return n >= 3 && d[0] == 'P' && d[1] >= '1' && d[1] <= '7' &&
           (d[2] == '#' || d[2] == ' ' || (d[2] >= '\t' && d[2] <= '\r'));
}
int g4_is_bmp(const uint8_t *d, size_t n) { return n >= 16 && d[0] == 'B' && d[1] == 'M' && d[15] == 0; }
int g4_is_webp(const uint8_t *d, size_t n) { return n >= 12 && !memcmp(d, "RIFF", 4) && !memcmp(d + 8, "WEBP", 4); }
int g4_is_tiff(const uint8_t *d, size_t n)
{
    return n >= 8 && (!memcmp(d, "II*\0", 4) || !memcmp(d, "MM\0*", 4) || !memcmp(d, "II+\0", 4) || /* BigTIFF */
                      !memcmp(d, "MM\0+", 4));
}
int g4_is_heif(const uint8_t *d, size_t n)
{
    static const char brands[][5] = { "avif", "avis", "heic", "heix", "mif1", "msf1" };
    for (size_t i = 0; n >= 12 && !memcmp(d + 4, "ftyp", 4) && i < sizeof brands / sizeof *brands; i++)
        if (!memcmp(d + 8, brands[i], 4)) return 1;
    return 0;
}
int g4_is_ico(const uint8_t *d, size_t n)
{
    if (n < 22 || memcmp(d, "\0\0", 2) != 0 || d[3] != 0) return n >= 6 && !memcmp(d, "\0\0\1\0", 4);
    const uint32_t count = g4_le16(d + 4); /* of a cursor, whose head may be one of TARGA */
    return d[2] == 1 || (d[2] == 2 && count > 0 && d[9] == 0 && g4_le32(d + 18) >= 6 + 16 * count);
}
int g4_is_dds(const uint8_t *d, size_t n) { return n >= 4 && !memcmp(d, "DDS ", 4); }
int g4_is_sgi(const uint8_t *d, size_t n) { return n >= 4 && d[0] == 1 && d[1] == 0xda; }
int g4_is_qoi(const uint8_t *d, size_t n) { return n >= 4 && !memcmp(d, "qoif", 4); }
int g4_is_dcx(const uint8_t *d, size_t n) { return n >= 4 && !memcmp(d, "\xb1\x68\xde\x3a", 4); }
int g4_is_wav(const uint8_t *d, size_t n)
{
    return n >= 12 && !memcmp(d + 8, "WAVE", 4) &&
           (!memcmp(d, "RIFF", 4) || !memcmp(d, "RIFX", 4) || !memcmp(d, "RF64", 4) || !memcmp(d, "BW64", 4));
}
int g4_is_y4m(const uint8_t *d, size_t n) { return n >= 10 && !memcmp(d, "YUV4MPEG2 ", 10); }

/* ---- Bytes at fixed places ------------------------------------------------------------------- */

typedef struct {
    const char *demuxer;
    uint16_t at; /* offset of the bytes; what stands before them is a length, or does not matter */
    uint8_t n;
    const char *bytes;
} g4_magic;

static const g4_magic g4_magics[] = {
    /* pictures */
    { "gif", 0, 6, "GIF87a" },
    { "gif", 0, 6, "GIF89a" },
    { "jpeg_pipe", 0, 3, "\xff\xd8\xff" },
    { "tiff_pipe", 0, 4, "II*\0" },
    { "tiff_pipe", 0, 4, "MM\0*" },
    { "tiff_pipe", 0, 4, "II+\0" }, /* BigTIFF */
    { "tiff_pipe", 0, 4, "MM\0+" },
    { "psd_pipe", 0, 6, "8BPS\0\1" },
    { "msp", 0, 4, "DanM" },
    { "msp", 0, 4, "LinS" },
    { "sgi_pipe", 0, 2, "\x01\xda" },
    { "sunrast_pipe", 0, 4, "\x59\xa6\x6a\x95" },
    { "xpm_pipe", 0, 9, "/* XPM */" },
    { "qoi_pipe", 0, 4, "qoif" },
    { "j2k_pipe", 0, 12, "\0\0\0\x0cjP  \r\n\x87\n" },
    { "j2k_pipe", 0, 4, "\xff\x4f\xff\x51" },
    { "jpegxl_pipe", 0, 12, "\0\0\0\x0cJXL \r\n\x87\n" },
    { "jpegxl_pipe", 0, 2, "\xff\x0a" },
    { "dds_pipe", 0, 4, "DDS " },
    { "dpx_pipe", 0, 4, "SDPX" },
    { "dpx_pipe", 0, 4, "XPDS" },
    { "exr_pipe", 0, 4, "\x76\x2f\x31\x01" },
    { "pfm_pipe", 0, 3, "PF\n" },
    { "pfm_pipe", 0, 3, "Pf\n" },
    { "xwd_pipe", 4, 4, "\0\0\0\7" },
    { "fits", 0, 9, "SIMPLE  =" },
    { "photocd_pipe", 2048, 7, "PCD_IPI" },
    { "flic", 4, 2, "\x11\xaf" },
    { "flic", 4, 2, "\x12\xaf" },
    /* sound and video; ISO media (MP4, MOV, 3GP, M4A, AVIF, HEIC) may begin with any of several boxes */
    { "mov", 4, 4, "ftyp" },
    { "mov", 4, 4, "moov" },
    { "mov", 4, 4, "mdat" },
    { "mov", 4, 4, "wide" },
    { "mov", 4, 4, "free" },
    { "mov", 4, 4, "skip" },
    { "mov", 4, 4, "pnot" },
    { "matroska", 0, 4, "\x1a\x45\xdf\xa3" },
    { "ogg", 0, 4, "OggS" },
    { "flv", 0, 4, "FLV\1" },
    { "asf", 0, 8, "\x30\x26\xb2\x75\x8e\x66\xcf\x11" },
    { "rm", 0, 4, ".RMF" },
    { "rm", 0, 4, ".ra\xfd" },
    { "mpeg", 0, 4, "\0\0\1\xba" },
    { "mpegvideo", 0, 4, "\0\0\1\xb3" },
    { "m4v", 0, 4, "\0\0\1\xb0" },
    { "h264", 0, 5, "\0\0\0\1\x67" },
    { "h264", 0, 5, "\0\0\0\1\x27" },
    { "h264", 0, 5, "\0\0\0\1\x09" },
    { "hevc", 0, 6, "\0\0\0\1\x40\1" },
    { "hevc", 0, 6, "\0\0\0\1\x46\1" },
    { "dv", 0, 3, "\x1f\7\0" },
    { "mxf", 0, 13, "\6\x0e\x2b\x34\2\5\1\1\x0d\1\2\1\1" },
    { "nut", 0, 25, "nut/multimedia container\0" },
    { "ivf", 0, 4, "DKIF" },
    { "swf", 0, 3, "FWS" },
    { "swf", 0, 3, "CWS" },
    { "wtv", 0, 8, "\xb7\xd8\x00\x20\x37\x49\xda\x11" },
    { "yuv4mpegpipe", 0, 10, "YUV4MPEG2 " },
    { "flac", 0, 4, "fLaC" },
    { "wav", 0, 4, "RIFX" },
    { "wav", 0, 4, "RF64" },
    { "wav", 0, 4, "BW64" },
    { "w64", 0, 16, "riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" },
    { "caf", 0, 4, "caff" },
    { "au", 0, 4, ".snd" },
    { "amr", 0, 6, "#!AMR\n" },
    { "amr", 0, 9, "#!AMR-WB\n" },
    { "wv", 0, 4, "wvpk" },
    { "tta", 0, 4, "TTA1" },
    { "ape", 0, 4, "MAC " },
    { "mpc", 0, 3, "MP+" },
    { "mpc8", 0, 4, "MPCK" },
    { "tak", 0, 4, "tBaK" },
    { "shn", 0, 4, "ajkg" },
    { "dsf", 0, 4, "DSD " },
    { "iff", 0, 4, "FRM8" },
    { "voc", 0, 20, "Creative Voice File\x1a" },
    { "nistsphere", 0, 8, "NIST_1A\n" },
    { "dts", 0, 4, "\x7f\xfe\x80\1" },
    { "truehd", 4, 4, "\xf8\x72\x6f\xba" },
    { "mlp", 4, 4, "\xf8\x72\x6f\xbb" },
    { "loas", 0, 2, "\x56\xe0" },
};

/* Kinds within the families of RIFF (its name at 8) and of IFF. */
static const g4_magic g4_riff_magics[] = {
    { "wav", 8, 4, "WAVE" }, { "avi", 8, 4, "AVI " },       { "avi", 8, 4, "AVIX" }, { "avi", 8, 4, "AVI\x19" },
    { "avi", 8, 4, "AMV " }, { "webp_pipe", 8, 4, "WEBP" }, { "qcp", 8, 4, "QLCM" },
};
static const g4_magic g4_iff_magics[] = {
    { "aiff", 8, 4, "AIFF" }, { "aiff", 8, 4, "AIFC" }, { "iff", 8, 4, "8SVX" },
    { "iff", 8, 4, "16SV" },  { "iff", 8, 4, "ILBM" },  { "iff", 8, 4, "PBM " },
};
static const g4_magic g4_pnm_magics[] = {
    { "pbm_pipe", 0, 2, "P1" }, { "pgm_pipe", 0, 2, "P2" }, { "ppm_pipe", 0, 2, "P3" }, { "pbm_pipe", 0, 2, "P4" },
    { "pgm_pipe", 0, 2, "P5" }, { "ppm_pipe", 0, 2, "P6" }, { "pam_pipe", 0, 2, "P7" },
};

static int g4_is_at(const g4_magic *magic, const uint8_t *d, size_t n)
{
    return n >= (size_t)magic->at + magic->n && !memcmp(d + magic->at, magic->bytes, magic->n);
}

/* The demuxer of the first that fits; NULL: none does. */
static const char *g4_magic_of(const g4_magic *list, size_t n_list, const uint8_t *d, size_t n)
{
    for (size_t i = 0; i < n_list; i++)
        if (g4_is_at(&list[i], d, n)) return list[i].demuxer;
    return NULL;
}
#define G4_MAGIC_OF(list, d, n) g4_magic_of(list, sizeof(list) / sizeof *(list), d, n)

/* ---- Frames of sound ------------------------------------------------------------------------- */

#define G4_FRAME_HEAD 7 /* bytes of a frame that tell its length */

/* Bytes of the frame of MPEG audio (layers I to III; ISO/IEC 11172-3, 13818-3) that begins at p; 0: none does. */
static size_t g4_mpeg_frame(const uint8_t *p)
{
    static const uint16_t kbits[5][15] = {
        { 0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448 }, /* MPEG-1, layer I */
        { 0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384 },    /* layer II */
        { 0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320 },     /* layer III */
        { 0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256 },    /* MPEG-2 and 2.5, layer I */
        { 0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160 },         /* layers II and III */
    };
    static const uint16_t rates[3] = { 44100, 48000, 32000 };
    const int version = p[1] >> 3 & 3, layer = 4 - (p[1] >> 1 & 3), bits = p[2] >> 4, rate = p[2] >> 2 & 3;
    if (p[0] != 0xff || (p[1] & 0xe0) != 0xe0 || version == 1 || layer == 4 || bits == 15 || rate == 3) return 0;
    const int is_first = version == 3, padding = p[2] >> 1 & 1;
    const int row = is_first ? layer - 1 : layer == 1 ? 3 : 4;
    const uint32_t hertz = rates[rate] >> (is_first ? 0 : version == 2 ? 1 : 2);
    const uint32_t samples = layer == 1 ? 384 : layer == 3 && !is_first ? 576 : 1152;
    const uint32_t slot = layer == 1 ? 4 : 1; /* bytes that padding adds */
    return (samples / 8 * 1000 * kbits[row][bits] / hertz / slot + (uint32_t)padding) * slot;
}

/* The same of AAC (ADTS, ISO/IEC 13818-7). */
static size_t g4_adts_frame(const uint8_t *p)
{
    const size_t bytes = (size_t)(p[3] & 3) << 11 | (size_t)p[4] << 3 | p[5] >> 5;
    return p[0] == 0xff && (p[1] & 0xf6) == 0xf0 && (p[2] >> 2 & 15) < 13 && bytes > 7 ? bytes : 0;
}

/* Do `count` frames follow each other from the start, or fewer up to the end of all n bytes? */
static int g4_frames_follow(size_t (*frame)(const uint8_t *p), const uint8_t *d, size_t n, int count)
{
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && at == n) return 1;
        const size_t bytes = n - at < G4_FRAME_HEAD ? 0 : frame(d + at);
        if (bytes == 0 || bytes > n - at) return 0;
        at += bytes;
    }
    return 1;
}

#define G4_FRAME_SEARCH 4096 /* bytes in which the first frame of a stream that was cut is looked for */

static const char *g4_stream_of_frames(const uint8_t *d, size_t n)
{
    for (size_t at = 0; at < n && at < G4_FRAME_SEARCH; at++) {
        const int count = at == 0 ? 2 : 4; /* chance has more places, too */
        if (d[at] != 0xff) continue;
        if (g4_frames_follow(g4_adts_frame, d + at, n - at, count)) return "aac";
        if (g4_frames_follow(g4_mpeg_frame, d + at, n - at, count)) return "mp3";
    }
    return NULL;
}

/* ---- Other signs ----------------------------------------------------------------------------- */

/* An MPEG transport stream: a byte 0x47 begins each packet of 188 bytes, which may have 4 before or 16 behind it. */
static int g4_is_mpegts(const uint8_t *d, size_t n)
{
    static const size_t sizes[] = { 188, 192, 204 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t at = 0; at < sizes[i]; at++) {
            size_t packets = 0;
            while (packets < 5 && at + packets * sizes[i] < n && d[at + packets * sizes[i]] == 0x47) packets++;
            if (packets == 5 || (packets > 1 && at < 5 && at + packets * sizes[i] >= n)) return 1;
        }
    }
    return 0;
}

/* TARGA has no signature. Its head: length of a text, whether there is a colour map, kind of pixels, 5 bytes of the
 * map, x, y, width, height, bits of a pixel, flags. */
static int g4_is_like_tga(const uint8_t *d, size_t n)
{
    if (n < 18 || d[1] > 1 || (d[2] & ~8) < 1 || (d[2] & ~8) > 3 || d[17] & 0xc0) return 0;
    const int kind = d[2] & 7, depth = d[16], map_depth = d[7];
    if (g4_le16(d + 12) == 0 || g4_le16(d + 14) == 0) return 0;
    if (kind == 1) return d[1] == 1 && depth == 8 && (map_depth == 15 || map_depth == 16 || map_depth >= 24);
    if (kind == 3) return depth == 8 || depth == 16 || (depth == 1 && d[2] == 3);
    return depth == 15 || depth == 16 || depth == 24 || depth == 32;
}

/* PCX: version, whether rows are packed, bits of a sample. */
int g4_is_pcx(const uint8_t *d, size_t n)
{
    return g4_is_dcx(d, n) ||
           (n >= 128 && d[0] == 10 && d[1] <= 5 && d[2] <= 1 && (d[3] == 1 || d[3] == 2 || d[3] == 4 || d[3] == 8));
}

/* XBM: a C program whose first line, but for comments, says how wide the picture is. */
int g4_is_xbm(const uint8_t *d, size_t n)
{
    static const char begin[] = "#define ", width[] = "_width ";
    size_t at = 0;
    while (n - at >= 2 && (d[at] == '\n' || d[at] == '\r' || !memcmp(d + at, "/*", 2))) {
        if (d[at++] != '/') continue;
        while (n - at >= 2 && memcmp(d + at, "*/", 2) != 0) at++;
        at += 2;
        if (at > n) return 0;
    }
    if (n - at < sizeof begin || memcmp(d + at, begin, sizeof begin - 1) != 0) return 0;
    for (size_t i = at + sizeof begin - 1; i + sizeof width <= n && d[i] > ' '; i++)
        if (!memcmp(d + i, width, sizeof width - 1)) return 1;
    return 0;
}

/* An animated PNG says so before its pixels. */
static int g4_is_animated_png(const uint8_t *d, size_t n)
{
    for (size_t at = 8; at + 8 <= n && memcmp(d + at + 4, "IDAT", 4) != 0;) {
        if (!memcmp(d + at + 4, "acTL", 4)) return 1;
        const uint32_t size = g4_be32(d + at);
        if (size > n - at - 8) return 0;
        at += 8 + (size_t)size + 4;
    }
    return 0;
}

/* ---- The choice ------------------------------------------------------------------------------ */

size_t g4_id3_bytes(const uint8_t *d, size_t n)
{
    if (n < 10 || memcmp(d, "ID3", 3) != 0 || d[3] == 0xff || d[4] == 0xff) return 0;
    const size_t bytes =
        (size_t)(d[6] & 127) << 21 | (size_t)(d[7] & 127) << 14 | (size_t)(d[8] & 127) << 7 | (d[9] & 127);
    return 10 + bytes + (d[5] & 0x10 ? 10 : 0); /* with a foot */
}

static const char g4_tga_demuxer[] = "image2pipe"; /* told which decoder */

const char *g4_demuxer_of(const uint8_t *d, size_t n)
{
    const char *found = NULL;
    if (g4_is_png(d, n)) return g4_is_animated_png(d, n) ? "apng" : "png_pipe";
    if (g4_is_pnm(d, n)) return G4_MAGIC_OF(g4_pnm_magics, d, n);
    if (g4_is_bmp(d, n)) return "bmp_pipe";
    if (n >= 12 && !memcmp(d, "RIFF", 4)) return G4_MAGIC_OF(g4_riff_magics, d, n);
    if (n >= 12 && !memcmp(d, "FORM", 4)) return G4_MAGIC_OF(g4_iff_magics, d, n);
    if (n >= 6 && d[0] == 0x0b && d[1] == 0x77) return d[5] >> 3 > 10 ? "eac3" : "ac3"; /* by its version */
    found = G4_MAGIC_OF(g4_magics, d, n);
    if (found) return found;
    if (g4_is_ico(d, n)) return "ico";
    if (g4_is_pcx(d, n)) return "pcx_pipe";
    if (g4_is_xbm(d, n)) return "xbm_pipe";
    if (g4_is_mpegts(d, n)) return "mpegts";
    if (g4_is_like_tga(d, n)) return g4_tga_demuxer;
    return g4_stream_of_frames(d, n);
}

int g4_is_tga(const uint8_t *d, size_t n) { return g4_demuxer_of(d, n) == g4_tga_demuxer; }

g4_status g4_format_unknown(const uint8_t *d, size_t n, g4_error *err)
{
    char text[3 * 12 + 1] = "", bytes[3 * 12 + 1] = "";
    size_t printable = 0;
    for (size_t i = 0; i < n && i < 12; i++) {
        printable += d[i] >= 32 && d[i] < 127;
        snprintf(text + i, 2, "%c", d[i] >= 32 && d[i] < 127 ? d[i] : '?');
        snprintf(bytes + (i ? 3 * i - 1 : 0), 4, i ? " %02x" : "%02x", d[i]);
    }
    const int is_text = printable + 3 > (n < 12 ? n : 12);
    return g4_fail(err, G4_ERR_UNSUPPORTED,
                   "it is no picture, sound or video of a kind that is read: it begins with %s%s%s",
                   is_text ? "\"" : "", is_text ? text : bytes, is_text ? "\"" : "");
}

/* The box of that name among those of n bytes at d; NULL: it is not there. *size: bytes of its data. */
static const uint8_t *g4_jp2_box(const uint8_t *d, size_t n, const char *name, size_t *size)
{
    for (size_t at = 0; n - at >= 8;) {
        const size_t bytes = g4_be32(d + at);
        if (bytes < 8) return NULL;
        *size = g4_min_size(bytes, n - at) - 8;
        if (!memcmp(d + at + 4, name, 4)) return d + at + 8;
        at += g4_min_size(bytes, n - at);
    }
    return NULL;
}

/* Are these colours of JPEG 2000 that ffmpeg shows as they are? It takes CMYK for RGB with transparency, and full YCbCr
 * for that of television. */
static g4_status g4_jp2_check(const uint8_t *d, size_t n, g4_error *err)
{
    enum { CMYK = 12, SYCC = 18, EYCC = 24 };
    size_t size = 0;
    const uint8_t *head = n < 8 || memcmp(d + 4, "jP  ", 4) != 0 ? NULL : g4_jp2_box(d, n, "jp2h", &size);
    const uint8_t *colours = head ? g4_jp2_box(head, size, "colr", &size) : NULL;
    const uint32_t kind = colours && size >= 7 && colours[0] == 1 ? g4_be32(colours + 3) : 0;
    if (kind != CMYK && kind != SYCC && kind != EYCC) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG 2000: colours of %s are not read", kind == CMYK ? "CMYK" : "YCbCr");
}

/* Has JPEG 2000 samples of 8 bits? Those of 9 to 15 bits come out of ffmpeg's use of OpenJPEG at odd values. */
static int g4_jp2_is_of_bytes(const uint8_t *d, size_t n)
{
    enum { COUNT = 40, DEPTHS = 42 }; /* places in the head of the stream, of 3 bytes for each component */
    size_t at = 0;
    while (n - at >= DEPTHS && memcmp(d + at, "\xff\x4f\xff\x51", 4) != 0) at++;
    const size_t count = n - at < DEPTHS ? 0 : g4_be16(d + at + COUNT);
    if (count == 0 || count > (n - at - DEPTHS) / 3) return 0;
    for (size_t i = 0; i < count; i++)
        if (d[at + DEPTHS + 3 * i] != 7) return 0;
    return 1;
}

#define G4_ID3_TAGS 16 /* of a file that are passed over at most */

g4_status g4_format_find(int fd, g4_media_format *out, g4_error *err)
{
    uint8_t head[G4_HEAD_BYTES];
    ssize_t n = 0;
    off_t at = 0;
    for (int tags = 0; tags < G4_ID3_TAGS; tags++) {
        do n = pread(fd, head, sizeof head, at);
        while (n < 0 && errno == EINTR);
        if (n < 0) return g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
        const size_t tag = g4_id3_bytes(head, (size_t)n);
        if (tag == 0) break;
        at += (off_t)tag;
    }
    *out = (g4_media_format) { .demuxer = g4_demuxer_of(head, (size_t)n) };
    if (!out->demuxer && at > 0) out->demuxer = "mp3"; /* what else has such a tag is listed */
    if (!out->demuxer) return g4_format_unknown(head, (size_t)n, err);
    if (out->demuxer == g4_tga_demuxer) out->decoder = "targa";
    if (!strcmp(out->demuxer, "j2k_pipe") && g4_jp2_is_of_bytes(head, (size_t)n))
        out->better = "libopenjpeg"; /* as Pillow has, and twice as fast as ffmpeg's own */
    return g4_jp2_check(head, (size_t)n, err);
}
