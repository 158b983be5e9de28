/* test_media_foreign.c - what the ffmpeg program gets, and what it never gets: a file is known by its first bytes
 * alone, whatever its name. Texts that name other files are refused before any program starts, under every extension,
 * from a file, a pipe and from memory. The program reads its standard input, is told how, and has limits. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "chat/chat.h"

static int g4_save(const char *path, const void *data, size_t n, mode_t mode)
{
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const size_t written = fwrite(data, 1, n, f);
    return (fclose(f) == 0) & (written == n) && chmod(path, mode) == 0;
}

/* ---- What is refused ------------------------------------------------------------------------- */

/* They name a pipe, "canary", which would stop whoever opened it. */
static const struct {
    const char *name, *text;
} g4_refused[] = {
    { "text", "The quick brown fox\n" },
    { "a byte", "x" },
    { "HLS", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2.0,\ncanary\n#EXT-X-ENDLIST\n" },
    { "a playlist", "canary\n" },
    { "PLS", "[playlist]\nFile1=canary\nNumberOfEntries=1\n" },
    { "concat", "ffconcat version 1.0\nfile canary\n" },
    { "old concat", "file 'canary'\nfile 'canary'\n" },
    { "DASH", "<?xml version=\"1.0\"?>\n<MPD type=\"static\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\">"
              "<Period><AdaptationSet><Representation><BaseURL>canary</BaseURL></Representation></AdaptationSet></"
              "Period></MPD>" },
    { "SDP", "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 1 RTP/AVP 0\n" },
    { "SVG", "<svg xmlns:xlink=\"http://www.w3.org/1999/xlink\"><image xlink:href=\"canary\"/></svg>" },
    { "ASX", "<asx version=\"3.0\"><entry><ref href=\"canary\"/></entry></asx>" },
    { "SMIL", "<smil><body><video src=\"canary\"/></body></smil>" },
    { "VobSub", "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n" },
    { "SSA", "[Script Info]\nScriptType: v4.00+\n" },
    { "metadata", ";FFMETADATA1\ntitle=canary\n" },
    { "a description of a filter", "movie=canary" },
    { "MVG", "push graphic-context\nimage over 0,0 0,0 'canary'\n" },
    { "PostScript", "%!PS-Adobe-3.0\n(canary) run\n" },
    { "PDF", "%PDF-1.7\n" },
    { "a pattern", "canary%03d.png" },
    { "coloured text", "\x1b[31mcanary\x1b[0m\n" },
    { "C", "#define canary 1\n#include \"canary\"\n" },
    { "a thumbnail of XV", "P7 332\n#IMGINFO:128x128 RGB\n#END_OF_COMMENTS\n2 2 255\nabcd" },
    { "UTF-16", "\xff\xfeh\0e\0l\0l\0o\0" },
    { "zeros", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
};
static const size_t g4_refused_bytes[] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 20
};
enum { G4_N_REFUSED = sizeof g4_refused / sizeof *g4_refused };

static void g4_expect_refused(g4_status s, const g4_error *err, const char *what, const char *how)
{
    if (s != G4_ERR_UNSUPPORTED || err->code != s || !strstr(err->message, "begins with") || strchr(err->message, '\n'))
        G4_EXPECT(0, "%s %s: %s (%s)", what, how, g4_status_name(s), s ? err->message : "no failure");
    else
        g4_passed++;
}

/* Through every call, by that name or, if it is NULL, from memory. */
static void g4_refuse_all(const char *what, const void *data, size_t n, const char *path, const g4_media_options *opt)
{
    const char *how = path ? path : "in memory";
    g4_error err = { G4_OK, "" };
    g4_image image;
    g4_audio audio;
    g4_video video;
    g4_media_info info;
    g4_expect_refused(path ? g4_image_load(&image, path, opt, &err) : g4_image_decode(&image, data, n, opt, &err), &err,
                      what, how);
    g4_expect_refused(path ? g4_audio_load(&audio, path, opt, &err) : g4_audio_decode(&audio, data, n, opt, &err), &err,
                      what, how);
    g4_expect_refused(path ? g4_video_load(&video, path, opt, &err) : g4_video_decode(&video, data, n, opt, &err), &err,
                      what, how);
    g4_expect_refused(path ? g4_media_probe(&info, path, opt, &err) : g4_media_probe_data(&info, data, n, opt, &err),
                      &err, what, how);
}

typedef struct {
    const char *path;
    const void *data;
    size_t n;
} g4_written;

static void *g4_write_pipe(void *user)
{
    const g4_written *w = user;
    const int fd = open(w->path, O_WRONLY);
    if (fd < 0 || write(fd, w->data, w->n) != (ssize_t)w->n) exit(1);
    close(fd);
    return NULL;
}

/* A picture from a pipe, into which a thread writes. */
static g4_status g4_from_pipe(const void *data, size_t n, const g4_media_options *opt, g4_image *image, g4_error *err)
{
    g4_written w = { "build/foreign.fifo", data, n };
    pthread_t thread;
    unlink(w.path);
    if (mkfifo(w.path, 0600) || pthread_create(&thread, NULL, g4_write_pipe, &w)) exit(1);
    const g4_status s = g4_image_load(image, w.path, opt, err);
    pthread_join(thread, NULL);
    unlink(w.path);
    return s;
}

static void g4_test_refused(const char *program)
{
    static const char *const ends[] = { "png",      "jpg", "webp", "gif",  "mp4", "mkv", "avi",  "mov",  "ts",
                                        "wav",      "mp3", "ogg",  "flac", "m4a", "txt", "m3u",  "m3u8", "pls",
                                        "ffconcat", "mpd", "sdp",  "svg",  "idx", "tga", "%03d", "yuv",  "" };
    const g4_media_options opt = { .ffmpeg = program };
    g4_error err;
    g4_image image;
    for (size_t i = 0; i < G4_N_REFUSED; i++) {
        const char *text = g4_refused[i].text;
        const size_t n = g4_refused_bytes[i] ? g4_refused_bytes[i] : strlen(text);
        g4_refuse_all(g4_refused[i].name, text, n, NULL, &opt);
        g4_expect_refused(g4_from_pipe(text, n, &opt, &image, &err), &err, g4_refused[i].name, "in a pipe");
        for (size_t k = 0; k < sizeof ends / sizeof *ends; k++) {
            char path[64];
            snprintf(path, sizeof path, "build/foreign_text.%s", ends[k]);
            if (!g4_save(path, text, n, 0600)) exit(1);
            g4_refuse_all(g4_refused[i].name, text, n, path, &opt);
            unlink(path);
        }
    }
    g4_expect_refused(g4_image_load(&image, "/dev/zero", &opt, &err), &err, "/dev/zero", "");
    static const char *const cases[] = { "../shared/cases/pictures/concat-named.webp",
                                         "../shared/cases/pictures/playlist-named.webp" };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (access(cases[i], R_OK) == 0)
            g4_expect_refused(g4_image_load(&image, cases[i], &opt, &err), &err, cases[i], "");
        else
            G4_SKIP("no ../shared");
    }
}

/* ---- What a program gets --------------------------------------------------------------------- */

/* It says what it was told and what it reads, and shows a picture of one pixel. */
static const char g4_listener[] = "#!/bin/sh\n"
                                  "{ echo \"$@\"; head -c 6; } > build/foreign_heard\n"
                                  "printf 'P6 1 1 255\\nabc'\n";

static void g4_heard(char *out, size_t cap)
{
    FILE *f = fopen("build/foreign_heard", "rb");
    const size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    out[n] = 0;
    if (f) fclose(f);
}

static void g4_test_words(const char *program)
{
    const g4_media_options opt = { .ffmpeg = program };
    const char *const path = "build/foreign_-i concat:x.m3u8";
    char heard[1024];
    g4_error err = { G4_OK, "" };
    g4_image image;
    if (!g4_save_foreign(path)) exit(1);
    for (int way = 0; way < 3; way++) {
        unlink("build/foreign_heard");
        const g4_status s = way == 0   ? g4_image_load(&image, path, &opt, &err)
                            : way == 1 ? g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err)
                                       : g4_from_pipe(G4_FOREIGN, strlen(G4_FOREIGN), &opt, &image, &err);
        G4_EXPECT(s == G4_OK, "way %d: %s", way, err.message);
        g4_image_free(&image, &opt);
        g4_heard(heard, sizeof heard);
        G4_EXPECT(strstr(heard, "-protocol_whitelist file,pipe -nostdin -nofind_stream_info -max_pixels 42500000 -f "
                                "xpm_pipe -i file:/dev/fd/0 ") &&
                      strstr(heard, "\n/* XPM") && !strstr(heard, "foreign") && !strstr(heard, "concat"),
                  "way %d: %s", way, heard);
    }
    unlink(path);
    unlink("build/foreign_heard");
}

/* What not every program has: a decoder for JPEG 2000, and an option. */
static void g4_test_old_programs(void)
{
    static const char *const program = "build/foreign_decoder.sh";
    static const struct {
        const char *of, *said, *shown; /* what the program does when its words hold `of`; NULL: it fails */
    } ways[] = {
        { "-c:v libopenjpeg", "printf 'P6 1 1 255\\nabc'; exit 0", "abc" },
        { "-c:v libopenjpeg", "echo \"Unknown decoder 'libopenjpeg'\" >&2; exit 1", "def" },
        { "-c:v libopenjpeg", "echo broken >&2; exit 1", NULL },
        { "-nofind_stream_info", "printf 'P6 1 1 255\\nabc'; exit 0", "abc" },
        { "-nofind_stream_info", "echo \"Unrecognized option 'nofind_stream_info'.\" >&2; exit 1", "def" },
        { "-nofind_stream_info", "echo broken >&2; exit 1", NULL },
        { "find_stream_info",
          "case \"$*\" in *libopen*) echo \"Unknown decoder 'libopenjpeg'\" >&2;; *) echo"
          " \"Unrecognized option 'nofind_stream_info'.\" >&2;; esac; exit 1",
          "def" },
        { "-c:v libopenjpeg", "exit 1", "def" }, /* it is not asked for */
    };
    char jp2[46] = "\xff\x4f\xff\x51";
    jp2[41] = 1; /* a component, of 8 bits */
    jp2[42] = 7;
    const g4_media_options opt = { .ffmpeg = program };
    const int n = sizeof ways / sizeof *ways;
    for (int way = 0; way < n; way++) {
        char text[512];
        g4_error err = { G4_OK, "" };
        g4_image image;
        snprintf(text, sizeof text, "#!/bin/sh\ncase \"$*\" in *'%s'*' -f j2k_pipe'*) %s;; esac\n%s\n", ways[way].of,
                 ways[way].said, "printf 'P6 1 1 255\\ndef'");
        if (!g4_save(program, text, strlen(text), 0700)) exit(1);
        if (way == n - 1) jp2[42] = 8;
        const g4_status s = g4_image_decode(&image, jp2, sizeof jp2 - 1, &opt, &err);
        G4_EXPECT(s == (ways[way].shown ? G4_OK : G4_ERR_FORMAT), "way %d: %s", way, err.message);
        if (!s) G4_EXPECT(!memcmp(image.pixels, ways[way].shown, 3), "way %d: another run's pixels", way);
        if (s) G4_EXPECT(strstr(err.message, "broken") != NULL, "%s", err.message);
        g4_image_free(&image, &opt);
    }
    unlink(program);
}

/* A picture arrives in pieces of any size, as PPM or PAM, which is blended over white. What is no such picture, or not
 * all of one, is an error, and so is one that is more than the limits say. */
static void g4_test_arrival(void)
{
    static const char *const program = "build/foreign_pieces.sh";
    static const struct {
        const char *shows, *want; /* words of printf; pixels, or what the message says */
    } ways[] = {
        { "'P7\\nWIDTH 2\\nHEIGHT 1\\nDEPTH 4\\nMAXVAL 255\\nTUPLTYPE RGB_ALPHA\\nENDHDR\\nabc\\377def\\000'",
          "abc\xff\xff\xff" },
        { "'P7\\nWIDTH 2\\nHEIG' 'HT 1\\nDEPTH 4\\nMAXVAL 255\\nTUPLTYPE RGB_ALPHA\\nENDHDR\\nab' c '\\377\\377\\000'"
          " '\\000\\200'",
          "abc\xff\x7f\x7f" },
        { "'P7\\nWIDTH 1\\nHEIGHT 2\\nDEPTH 3\\nMAXVAL 255\\nTUPLTYPE RGB\\nENDHDR\\n' a bcde f", "abcdef" },
        { "'P6\\n2 1\\n255\\nabc' def", "abcdef" },
        { "'P6\\n2 1\\n255\\nabc' de", "5 of the picture's 6 bytes" },
        { "'P7\\nWIDTH 2\\nHEIGHT 1\\nDEPTH 4\\nMAXVAL 255\\nTUPLTYPE RGB_ALPHA\\nENDHDR\\nabc\\377def'",
          "3 of the picture's 6 bytes" },
        { "'P6\\n2 1\\n25'", "found no picture" },
        { "''", "found no picture" },
        { "'P6\\n0 1\\n255\\n'", "0 x 1 samples of 255, 3 a pixel" },
        { "'P6\\n2 1\\n15\\nabcdef'", "2 x 1 samples of 15" },
        { "'P7\\nWIDTH 2\\nHEIGHT 1\\nDEPTH 2\\nMAXVAL 255\\nTUPLTYPE GRAYSCALE_ALPHA\\nENDHDR\\nabcd'",
          "255, 2 a pixel" },
        { "'P6\\n9999 9999\\n255\\nabc'", "9999 x 9999 pixels are more than the limit" },
        { "'%0200d' 0", "does not start as expected" },
    };
    const g4_media_options opt = { .ffmpeg = program, .max_pixels = 90000000 };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char text[1024];
        g4_error err = { G4_OK, "" };
        g4_image image = { .pixels = NULL };
        snprintf(text, sizeof text, "#!/bin/sh\nset -- %s\nfor p in \"$@\"; do printf \"$p\"; sleep 0.02; done\n",
                 ways[i].shows);
        if (!g4_save(program, text, strlen(text), 0700)) exit(1);
        const g4_status s = g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err);
        if (s)
            G4_EXPECT(strstr(err.message, ways[i].want) != NULL, "way %zu: %s", i, err.message);
        else
            G4_EXPECT(image.width * image.height == 2 && !memcmp(image.pixels, ways[i].want, 6), "way %zu", i);
        g4_image_free(&image, &opt);
    }
    unlink(program);
}

static void g4_test_limits(void)
{
    static const char *const slow = "build/foreign_slow.sh", *const limits = "build/foreign_limits.sh";
    const char *text = "#!/bin/sh\nexec sleep 1000\n";
    const char *told = "#!/bin/sh\necho \"memory $(ulimit -d) core $(ulimit -c)\" >&2\nexit 1\n";
    g4_media_options opt = { .ffmpeg = slow, .max_program_seconds = 1 };
    g4_error err = { G4_OK, "" };
    g4_image image;
    if (!g4_save(slow, text, strlen(text), 0700) || !g4_save(limits, told, strlen(told), 0700)) exit(1);
    const g4_status s = g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err);
    G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "more than the limit of 1 seconds"), "%s", err.message);
    opt = (g4_media_options) { .ffmpeg = limits };
    G4_EXPECT(g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err) == G4_ERR_FORMAT &&
                  strstr(err.message, "memory 4194304 core 0"),
              "%s", err.message);
    opt.max_program_bytes = (uint64_t)100 << 20;
    G4_EXPECT(g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err) == G4_ERR_FORMAT &&
                  strstr(err.message, "memory 102400 core 0"),
              "%s", err.message);
    unlink(slow);
    unlink(limits);
}

/* JPEG data in a TIFF file that are not read here (samples of one bit) are refused before a program starts, which would
 * show them black, but for raw pictures of cameras. What is read here is no program's either. */
static void g4_test_tiff(const char *program)
{
    static const char *const path = "build/foreign_jpeg.tif";
    const g4_media_options opt = { .ffmpeg = program };
    for (int i = 0; i < 12; i++) {
        const int big = i & 1, compression = 5 + i / 2 % 3, is_raw = i >= 6;
        const int is_refused = compression >= 6 && !is_raw;
        uint8_t tiff[] = "II*\0\10\0\0\0\2\0\3\1\3\0\1\0\0\0\0\0\0\0\0\0\1\0\4\0\0\0\1\4\0\0\0\0\0\0";
        static const uint8_t motorola[] = "MM\0*\0\0\0\10\0\2\1\3\0\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\4\1\4\0\0";
        if (big) memcpy(tiff, motorola, sizeof motorola);
        tiff[big ? 19 : 18] = (uint8_t)compression;
        if (is_raw) memcpy(tiff + 22, big ? "\xc6\x12" : "\x12\xc6", 2);
        g4_error err = { G4_OK, "" };
        g4_image image;
        g4_video video;
        g4_media_info info;
        g4_status s = g4_image_decode(&image, tiff, sizeof tiff, &opt, &err);
        if (!s) g4_image_free(&image, &opt);
        G4_EXPECT(is_refused ? s == G4_ERR_UNSUPPORTED && strstr(err.message, "JPEG inside of TIFF")
                  : is_raw
                      ? !s
                      : s == G4_ERR_FORMAT && strstr(err.message, "TIFF: there is no picture in it: its size is 0 x 0"),
                  "%d: %s", i, err.message);
        if (!is_refused) continue;
        if (!g4_save(path, tiff, sizeof tiff, 0600)) exit(1);
        s = g4_image_load(&image, path, &opt, &err);
        G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "JPEG inside of TIFF"), "%d: %s", i, err.message);
        s = g4_video_load(&video, path, &opt, &err);
        G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "JPEG inside of TIFF"), "%d: %s", i, err.message);
        s = g4_media_probe(&info, path, &opt, &err);
        G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "JPEG inside of TIFF"), "%d: %s", i, err.message);
        unlink(path);
    }
}

/* A program's words hold no addresses, and a stream that is not there is named. */
static void g4_test_messages(void)
{
    static const char *const program = "build/foreign_says.sh";
    static const struct {
        const char *said, *want;
    } cases[] = {
        { "[mp3 @ 0x55d0a2c4f0] Header missing @ 0x12: end", ": [mp3] Header missing: end" },
        { "a @ 0x1 @ 0x2f @ 3", ": a @ 3" },
        { "Stream map '0:v:0' matches no streams.", "there is no picture in it" },
        { "Stream map '0:V:0' matches no streams.", "there is no video in it" },
        { "[out#0/wav @ 0x7f] Stream map '0:a:0' matches no streams.", "there is no sound in it" },
    };
    const g4_media_options opt = { .ffmpeg = program };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "#!/bin/sh\necho \"%s\" >&2\nexit 1\n", cases[i].said);
        if (!g4_save(program, text, strlen(text), 0700)) exit(1);
        g4_error err = { G4_OK, "" };
        g4_image image;
        const g4_status s = g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err);
        const size_t n = strlen(err.message), n_want = strlen(cases[i].want);
        G4_EXPECT(s == G4_ERR_FORMAT && n >= n_want && !strcmp(err.message + n - n_want, cases[i].want), "%s: %s",
                  cases[i].said, err.message);
    }
    unlink(program);
}

/* A megabyte of boxes, each in the one before: what reads them keeps its place and its time. */
static void g4_test_nested(void)
{
    static const char *const brands[] = { "isom", "avif", "heic" }, *const names[] = { "moov", "meta", "trak", "ipco" };
    const g4_media_options opt = { .max_program_seconds = 30 };
    if (system("ffmpeg -version > /dev/null 2>&1") != 0) {
        G4_SKIP("no ffmpeg program");
        return;
    }
    for (size_t k = 0; k < sizeof brands / sizeof *brands; k++) {
        g4_bytes b = { 0 };
        g4_error err = { G4_OK, "" };
        g4_image image;
        g4_put(&b,
               "\0\0\0\x10"
               "ftyp",
               8);
        g4_put(&b, brands[k], 4);
        g4_put(&b, "\0\0\0\0", 4);
        for (size_t left = 1 << 20; left >= 8; left -= 8) {
            for (int i = 3; i >= 0; i--) g4_put(&b, &(uint8_t) { (uint8_t)(left >> 8 * i) }, 1);
            g4_put(&b, names[left == 1 << 20 ? k > 0 : left / 8 % 4], 4);
        }
        const g4_status s = g4_image_decode(&image, b.data, b.n, &opt, &err);
        G4_EXPECT(s == G4_ERR_FORMAT, "%s: %s", brands[k], s ? err.message : "no failure");
        free(b.data);
    }
}

/* ---- What is known --------------------------------------------------------------------------- */

/* Frames of that head, each of n bytes. */
static g4_bytes g4_frames_of(const char *head, size_t n_head, size_t n, int count, size_t before)
{
    g4_bytes b = { 0 };
    for (size_t i = 0; i < before; i++) g4_put(&b, "\x55", 1);
    for (int i = 0; i < count; i++) {
        g4_put(&b, head, n_head);
        for (size_t k = n_head; k < n; k++) g4_put(&b, "", 1);
    }
    return b;
}

static void g4_expect_demuxer(const char *what, const g4_bytes *b, const char *want)
{
    const char *found = g4_demuxer_of(b->data, b->n);
    G4_EXPECT(want ? found && !strcmp(found, want) : !found, "%s: %s, expected %s", what, found ? found : "none",
              want ? want : "none");
}

static void g4_test_frames(void)
{
    static const struct {
        const char *what, *head, *want;
        size_t n_head, n, before;
        int count;
    } cases[] = {
        { "MPEG-1 layer III, 128 kbit/s, 44.1 kHz", "\xff\xfb\x90\x00", "mp3", 4, 417, 0, 3 },
        { "the same with padding", "\xff\xfb\x92\x00", "mp3", 4, 418, 0, 3 },
        { "one frame is all", "\xff\xfb\x90\x00", "mp3", 4, 417, 0, 1 },
        { "cut in a frame", "\xff\xfb\x90\x00", "mp3", 4, 417, 300, 5 },
        { "lengths that do not fit", "\xff\xfb\x90\x00", NULL, 4, 400, 0, 5 },
        { "MPEG-2 layer III, 64 kbit/s, 22.05 kHz", "\xff\xf3\x80\x00", "mp3", 4, 208, 0, 3 },
        { "MPEG-2.5 layer III, 32 kbit/s, 8 kHz", "\xff\xe3\x48\x00", "mp3", 4, 288, 0, 3 },
        { "MPEG-1 layer II, 192 kbit/s, 48 kHz", "\xff\xfd\xa4\x00", "mp3", 4, 576, 0, 3 },
        { "MPEG-1 layer I, 384 kbit/s, 44.1 kHz", "\xff\xff\xc0\x00", "mp3", 4, 416, 0, 3 },
        { "ADTS", "\xff\xf1\x50\x80\x10\x1f\xfc", "aac", 7, 128, 0, 3 },
        { "ADTS, cut", "\xff\xf1\x50\x80\x10\x1f\xfc", "aac", 7, 128, 1000, 6 },
        { "MPEG-TS", "\x47\x40\x00\x10", "mpegts", 4, 188, 0, 6 },
        { "MPEG-TS, cut", "\x47\x40\x00\x10", "mpegts", 4, 188, 100, 7 },
        { "MPEG-TS of 192 bytes", "\x01\x02\x03\x04\x47\x40\x00\x10", "mpegts", 8, 192, 0, 6 },
        { "AC-3", "\x0b\x77\x00\x00\x00\x40", "ac3", 6, 256, 0, 2 },
        { "E-AC-3", "\x0b\x77\x00\x00\x00\x80", "eac3", 6, 256, 0, 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        g4_bytes b = g4_frames_of(cases[i].head, cases[i].n_head, cases[i].n, cases[i].count, cases[i].before);
        g4_expect_demuxer(cases[i].what, &b, cases[i].want);
        free(b.data);
    }
}

/* A file behind ID3 tags that are larger than what is looked at. */
static void g4_test_tags(void)
{
    static const char *const path = "build/foreign_tag.bin";
    static const struct {
        const char *behind, *want;
    } cases[] = { { "fLaC", "flac" }, { "TTA1", "tta" }, { "anything", "mp3" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        g4_bytes b = { 0 };
        g4_error err = { G4_OK, "" };
        g4_media_format format = { .demuxer = "" };
        for (int tags = 0; tags < 2; tags++) {
            g4_put(&b, "ID3\4\0\0\0\2\0\0", 10); /* 32 KiB */
            for (int k = 0; k < 32768; k++) g4_put(&b, "\xff", 1);
        }
        g4_put_text(&b, cases[i].behind);
        if (!g4_save(path, b.data, b.n, 0600)) exit(1);
        const int fd = open(path, O_RDONLY);
        G4_EXPECT(!g4_format_find(fd, &format, &err) && !strcmp(format.demuxer, cases[i].want), "%s: %s (%s)",
                  cases[i].behind, format.demuxer, err.message);
        close(fd);
        free(b.data);
    }
    unlink(path);
}

/* Nothing that opens other files can be chosen: each beginning is tried with all that may follow it. */
static void g4_test_choices(void)
{
    static const char *const never[] = {
        "concat", "hls", "applehttp",          "dash",       "image2",  "tty", "sdp", "rtsp", "vobsub", "svg_pipe",
        "lavfi",  "imf", "webm_dash_manifest", "ffmetadata", "rawvideo"
    };
    uint32_t x = 1;
    long n_known = 0;
    for (long i = 0; i < 200000; i++) {
        uint8_t d[32];
        for (size_t k = 0; k < sizeof d; k++) {
            x = x * 1664525u + 1013904223u;
            d[k] = k < 4 && x >> 31 ? (uint8_t) "\0\0\1\xba\xff\xfb\x0bRIMG#B"[(x >> 20) % 13] : (uint8_t)(x >> 24);
        }
        const char *found = g4_demuxer_of(d, sizeof d);
        n_known += found != NULL;
        for (size_t k = 0; found && k < sizeof never / sizeof *never; k++)
            if (!strcmp(found, never[k])) G4_EXPECT(0, "%s was chosen", found);
    }
    G4_EXPECT(n_known > 0, "none was known");
}

int main(void)
{
    static const char *const program = "build/foreign_listener.sh";
    if (!g4_save(program, g4_listener, strlen(g4_listener), 0700)) exit(1);
    unlink("build/foreign_heard");
    g4_test_refused(program);
    G4_EXPECT(access("build/foreign_heard", F_OK) != 0, "the program was started for a file that is refused");
    g4_test_words(program);
    g4_test_tiff(program);
    unlink("build/foreign_heard");
    unlink(program);
    g4_test_messages();
    g4_test_old_programs();
    g4_test_arrival();
    g4_test_limits();
    g4_test_nested();
    g4_test_frames();
    g4_test_tags();
    g4_test_choices();
    return g4_test_end();
}
