/* heif.c - AVIF and HEIC (ISO/IEC 23008-12 in the boxes of 14496-12): their container and their colours. The samples of
 * the picture, or of the tiles it is made of, go to ffmpeg as a bare stream (AV1 in IVF, HEVC with start codes), which
 * unpacks them to planes; transparency is a picture of its own. The planes become RGB here: chroma between two samples
 * is weighted 9, 3, 3, 1 of 16, as libavif does. What has no picture of that kind in it is left to ffmpeg whole. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>
#include <unistd.h>

/* ---- Boxes ----------------------------------------------------------------------------------- */

/* A box: its name, and where its content begins and ends. */
typedef struct {
    const uint8_t *name, *data, *end;
} g4_iso_box;

/* The box at *p, which goes behind it; 0: it is cut short. */
static int g4_iso_next(const uint8_t **p, const uint8_t *end, g4_iso_box *out)
{
    if (end - *p < 8) return 0;
    const uint32_t size = g4_be32(*p); /* 0: up to the end; 1, a 64-bit size, is for what holds the pixels */
    if (size == 1 || (size != 0 && (size < 8 || size > (size_t)(end - *p)))) return 0;
    *out = (g4_iso_box) { *p + 4, *p + 8, size ? *p + size : end };
    *p = out->end;
    return 1;
}

#define G4_ISO_BOXES 65536 /* that are looked at, one behind the other: a file may hold millions of empty ones */

/* The first box of that name from p on; out->data is NULL without one. */
static int g4_iso_find(const uint8_t *p, const uint8_t *end, const char *name, g4_iso_box *out)
{
    for (int i = 0; i < G4_ISO_BOXES && g4_iso_next(&p, end, out); i++)
        if (!memcmp(out->name, name, 4)) return 1;
    *out = (g4_iso_box) { NULL, NULL, NULL };
    return 0;
}

/* The content of a box from byte `at` on. */
static g4_reader g4_iso_reader(const g4_iso_box *box, size_t at)
{
    const size_t size = box->data ? (size_t)(box->end - box->data) : 0;
    return (g4_reader) { box->data, size, g4_min_size(at, size), 0 };
}

/* A number of n bytes, highest first; r->bad is set when they are not there. */
static uint64_t g4_iso_number(g4_reader *r, size_t n)
{
    uint64_t v = 0;
    const uint8_t *p = n <= 8 ? g4_read_bytes(r, n) : NULL;
    if (!p) r->bad = 1;
    for (size_t i = 0; p && i < n; i++) v = v << 8 | p[i];
    return v;
}

/* ---- Items ----------------------------------------------------------------------------------- */

typedef struct {
    const g4_media_limits *m;
    const uint8_t *data;
    size_t size;
    g4_iso_box places, infos, references, list, owners, idat; /* iloc, iinf, iref, ipco, ipma */
    uint32_t primary;                                         /* the item that is the picture */
    size_t taken;                                             /* bytes of items, which do not overlap */
    g4_turn turn;
    g4_pace pace;
} g4_heif;

/* What belongs to an item. */
typedef struct {
    uint32_t w, h;
    const uint8_t *config; /* content of av1C or hvcC, of config_bytes; NULL: not there */
    size_t config_bytes;
    const uint8_t *colours; /* of colr with numbers: primaries, transfer, matrix (16 bits each), is it full range */
    int angle, axis;        /* of irot and imir, plus 1 each */
    int is_alpha;
} g4_heif_properties;

static void g4_heif_property(g4_heif_properties *out, const g4_iso_box *box)
{
    static const char alpha[] = "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
                      hevc_alpha[] = "urn:mpeg:hevc:2015:auxid:1";
    const uint8_t *d = box->data;
    const size_t n = (size_t)(box->end - d);
    if (!memcmp(box->name, "ispe", 4) && n >= 12) {
        out->w = g4_be32(d + 4);
        out->h = g4_be32(d + 8);
    } else if (!memcmp(box->name, "av1C", 4) || !memcmp(box->name, "hvcC", 4)) {
        out->config = d;
        out->config_bytes = n;
    } else if (!memcmp(box->name, "colr", 4) && n >= 11 && !memcmp(d, "nclx", 4)) {
        out->colours = d + 4;
    } else if (!memcmp(box->name, "irot", 4) && n >= 1) {
        out->angle = (d[0] & 3) + 1;
    } else if (!memcmp(box->name, "imir", 4) && n >= 1) {
        out->axis = (d[0] & 1) + 1;
    } else if (!memcmp(box->name, "auxC", 4) && n > 4) {
        out->is_alpha = (n - 4 >= sizeof alpha && !memcmp(d + 4, alpha, sizeof alpha)) ||
                        (n - 4 >= sizeof hevc_alpha && !memcmp(d + 4, hevc_alpha, sizeof hevc_alpha));
    }
}

/* Property `index` of the list, counted from 1. */
static void g4_heif_property_at(g4_heif *h, g4_heif_properties *out, uint32_t index)
{
    const uint8_t *p = h->list.data;
    g4_iso_box box;
    for (uint32_t i = 1; i <= index && g4_iso_next(&p, h->list.end, &box); i++)
        if (i == index) g4_heif_property(out, &box);
    h->pace.done += index;
}

/* What the list of owners (ipma) gives to an item, which stands there once. */
static void g4_heif_item(g4_heif *h, uint32_t item, g4_heif_properties *out)
{
    *out = (g4_heif_properties) { .w = 0 };
    g4_reader r = g4_iso_reader(&h->owners, 0);
    const uint8_t *head = g4_read_bytes(&r, 8); /* version, flags, number of entries */
    if (!head) return;
    const size_t id_bytes = head[0] > 0 ? 4 : 2, index_bytes = head[3] & 1 ? 2 : 1;
    const uint32_t n = g4_be32(head + 4);
    for (uint32_t i = 0; i < n && !g4_pace_ends(&h->pace, 4); i++) {
        const int is_ours = g4_iso_number(&r, id_bytes) == item;
        const uint64_t count = g4_iso_number(&r, 1);
        for (uint64_t k = 0; k < count && !r.bad; k++) {
            const uint64_t index = g4_iso_number(&r, index_bytes); /* the first bit says that it is essential */
            if (is_ours) g4_heif_property_at(h, out, (uint32_t)index & (index_bytes == 2 ? 0x7fff : 0x7f));
        }
        if (is_ours || r.bad) return;
    }
}

/* The four letters of an item's type, and behind them, in the case of "mime", two texts; NULL: there is no such
 * item. */
static const uint8_t *g4_heif_type(g4_heif *h, uint32_t item, const uint8_t **end)
{
    if (!h->infos.data || h->infos.end - h->infos.data < 6) return NULL;
    const uint8_t *p = h->infos.data + (h->infos.data[0] > 0 ? 8 : 6);
    g4_iso_box box;
    if (p > h->infos.end) return NULL;
    for (int i = 0; i < G4_ISO_BOXES && g4_iso_next(&p, h->infos.end, &box); i++) {
        if (g4_pace_ends(&h->pace, 4)) return NULL;
        g4_reader r = g4_iso_reader(&box, 4);
        const size_t id_bytes = box.end > box.data && box.data[0] > 2 ? 4 : 2;
        const uint64_t id = g4_iso_number(&r, id_bytes);
        g4_iso_number(&r, 2); /* how it is protected */
        const uint8_t *type = g4_read_bytes(&r, 4);
        *end = box.end;
        if (type && id == item) return type;
    }
    return NULL;
}

/* Append the bytes of an item. */
static g4_status g4_heif_extents(g4_heif *h, g4_reader *r, size_t offset_bytes, size_t length_bytes, size_t index_bytes,
                                 int in_idat, uint64_t base, g4_buf *out, g4_error *err)
{
    const uint8_t *from = in_idat ? h->idat.data : h->data;
    const uint64_t size = !in_idat ? h->size : from ? (uint64_t)(h->idat.end - from) : 0;
    const uint64_t n = g4_iso_number(r, 2);
    for (uint64_t i = 0; i < n; i++) {
        g4_iso_number(r, index_bytes);
        const uint64_t offset = g4_iso_number(r, offset_bytes);
        uint64_t length = g4_iso_number(r, length_bytes);
        if (r->bad || base > size || offset > size - base || length > size - base - offset)
            return g4_fail(err, G4_ERR_FORMAT, "HEIF: truncated: bytes of the picture lie beyond the %zu of the file",
                           h->size);
        if (length == 0) length = size - base - offset;
        if (length > h->size - h->taken)
            return g4_fail(err, G4_ERR_FORMAT, "HEIF: its pictures take more bytes than the %zu of the file", h->size);
        h->taken += (size_t)length;
        if (length > 0) g4_buf_add(out, from + base + offset, (size_t)length);
    }
    return out->failed ? g4_fail(err, G4_ERR_MEMORY, "HEIF: %zu bytes: out of memory", h->size) : G4_OK;
}

static g4_status g4_heif_data(g4_heif *h, uint32_t item, g4_buf *out, g4_error *err)
{
    g4_reader r = g4_iso_reader(&h->places, 0);
    const uint8_t *head = g4_read_bytes(&r, 6); /* version, flags, bytes of the numbers */
    if (head) {
        const int version = head[0];
        const size_t offset_bytes = head[4] >> 4, length_bytes = head[4] & 15, base_bytes = head[5] >> 4;
        const size_t index_bytes = version > 0 ? head[5] & 15 : 0, id_bytes = version > 1 ? 4 : 2;
        const uint64_t n = g4_iso_number(&r, id_bytes);
        for (uint64_t i = 0; i < n && !r.bad && !g4_pace_ends(&h->pace, 8); i++) {
            const uint64_t id = g4_iso_number(&r, id_bytes), method = version > 0 ? g4_iso_number(&r, 2) & 15 : 0;
            g4_iso_number(&r, 2); /* another file: not supported by anybody */
            const uint64_t base = g4_iso_number(&r, base_bytes);
            if (id == item && method < 2)
                return g4_heif_extents(h, &r, offset_bytes, length_bytes, index_bytes, method == 1, base, out, err);
            const uint64_t extents = g4_iso_number(&r, 2);
            if (!g4_read_bytes(&r, (size_t)extents * (index_bytes + offset_bytes + length_bytes))) r.bad = 1;
        }
    }
    const g4_status s = g4_halt_check(h->pace.halt, err);
    return s ? s : g4_fail(err, G4_ERR_FORMAT, "HEIF: item %" PRIu32 " has no place in the file", item);
}

/* The references of a kind: from an item, to others, whose ids of id_bytes are at `to`. */
typedef struct {
    uint32_t from, n;
    const uint8_t *to;
    size_t id_bytes;
} g4_heif_reference;

static uint32_t g4_heif_id(const g4_heif_reference *ref, uint32_t i)
{
    const uint8_t *p = ref->to + i * ref->id_bytes;
    return ref->id_bytes == 4 ? g4_be32(p) : g4_be16(p);
}

/* The next box of that kind from *p on, which is NULL for the first; 0: there is none. */
static int g4_heif_next_reference(g4_heif *h, const uint8_t **p, const char *kind, g4_heif_reference *out)
{
    if (!h->references.data || h->references.end - h->references.data < 4) return 0;
    if (!*p) *p = h->references.data + 4;
    g4_iso_box box;
    while (!g4_pace_ends(&h->pace, 4) && g4_iso_next(p, h->references.end, &box)) {
        if (memcmp(box.name, kind, 4) != 0) continue;
        const size_t id_bytes = h->references.data[0] > 0 ? 4 : 2;
        g4_reader r = g4_iso_reader(&box, 0);
        out->id_bytes = id_bytes;
        out->from = (uint32_t)g4_iso_number(&r, id_bytes);
        out->n = (uint32_t)g4_iso_number(&r, 2);
        out->to = r.bad ? NULL : g4_read_bytes(&r, out->n * id_bytes);
        if (out->to) return 1;
    }
    return 0;
}

/* The item that refers so to another: its id, the one after the `after`-th; -1: none does. */
static int64_t g4_heif_referrer(g4_heif *h, const char *kind, uint32_t item, int after)
{
    const uint8_t *p = NULL;
    g4_heif_reference ref;
    while (g4_heif_next_reference(h, &p, kind, &ref)) {
        for (uint32_t i = 0; i < ref.n; i++)
            if (g4_heif_id(&ref, i) == item && after-- == 0) return ref.from;
    }
    return -1;
}

/* ---- Orientation ----------------------------------------------------------------------------- */

#define G4_HEIF_TEXTS 16 /* items that describe the picture, and are looked at */

/* What texts about the picture say on its orientation: properties of the file go before EXIF, which therefore says
 * nothing but that XMP is not asked, as in Pillow. */
static g4_status g4_heif_texts(g4_heif *h, g4_error *err)
{
    static const char xmp[] = "application/rdf+xml";
    for (int i = 0; i < G4_HEIF_TEXTS; i++) {
        const int64_t from = g4_heif_referrer(h, "cdsc", h->primary, i);
        const uint8_t *end, *type = from < 0 ? NULL : g4_heif_type(h, (uint32_t)from, &end);
        if (!type) return G4_OK;
        if (!memcmp(type, "Exif", 4)) h->turn.exif = 1;
        if (memcmp(type, "mime", 4) != 0) continue;
        const uint8_t *name_end = memchr(type, 0, g4_min_size((size_t)(end - type), G4_XMP_MAX));
        if (!name_end || end - name_end < (ptrdiff_t)sizeof xmp || memcmp(name_end + 1, xmp, sizeof xmp - 1) != 0)
            continue;
        g4_buf text = { h->m->a, NULL, 0, 0, 0 };
        const g4_status s = g4_heif_data(h, (uint32_t)from, &text, err);
        if (!s) g4_turn_by_xmp(&h->turn, (const uint8_t *)text.data, g4_min_size(text.len, G4_XMP_MAX));
        g4_buf_free(&text);
        if (s) return s;
    }
    return G4_OK;
}

/* All that is known without reading pictures. 0: there is no picture as an item. */
static int g4_heif_open(const g4_media_limits *m, g4_heif *h, const uint8_t *data, size_t size)
{
    g4_iso_box meta, primary, properties;
    *h = (g4_heif) { .m = m, .data = data, .size = size, .pace = { m->halt, 0 } };
    if (!g4_iso_find(data, data + size, "meta", &meta) || meta.end - meta.data < 4) return 0;
    const uint8_t *in = meta.data + 4; /* behind version and flags */
    if (!g4_iso_find(in, meta.end, "pitm", &primary) || !g4_iso_find(in, meta.end, "iprp", &properties)) return 0;
    g4_iso_find(in, meta.end, "iloc", &h->places);
    g4_iso_find(in, meta.end, "iinf", &h->infos);
    g4_iso_find(in, meta.end, "iref", &h->references);
    g4_iso_find(in, meta.end, "idat", &h->idat);
    g4_iso_find(properties.data, properties.end, "ipco", &h->list);
    g4_iso_find(properties.data, properties.end, "ipma", &h->owners);
    g4_reader r = g4_iso_reader(&primary, 4);
    h->primary = (uint32_t)g4_iso_number(&r, primary.end > primary.data && primary.data[0] > 0 ? 4 : 2);
    return !r.bad && h->list.data;
}

static void g4_heif_turn(g4_turn *t, const g4_heif_properties *p)
{
    /* By angle (quarter turns to the left) and, behind it, axis (0: none, 1: top and bottom change places, 2: left and
     * right). */
    static const uint8_t orientation[4][3] = { { 1, 4, 2 }, { 8, 5, 7 }, { 3, 2, 4 }, { 6, 7, 5 } };
    if (p->angle || p->axis) t->exif = orientation[p->angle ? p->angle - 1 : 0][p->axis];
}

void g4_turn_by_heif(const g4_media_limits *m, g4_turn *t, const uint8_t *data, size_t size)
{
    g4_heif h;
    g4_heif_properties p;
    if (!g4_heif_open(m, &h, data, size)) return;
    g4_heif_item(&h, h.primary, &p);
    g4_heif_turn(t, &p);
}

/* ---- Coding ---------------------------------------------------------------------------------- */

#define G4_HEIF_TILES 4096 /* of a picture at most */

/* A picture: one item, or columns x rows of them. */
typedef struct {
    uint32_t w, h;           /* of all */
    uint32_t tile_w, tile_h; /* of one item */
    uint32_t columns, rows;
    uint32_t item;           /* the only one */
    g4_heif_reference tiles; /* of several */
    int is_hevc;
    g4_heif_properties first;        /* of the first item */
    int n_planes, by_x, by_y, depth; /* by: how many samples of luma share one of chroma */
    int matrix, is_full;             /* of ITU-T H.273 */
    int range_is_known;              /* else ffmpeg is asked for the full range */
    uint8_t *samples;                /* planes (h, w) and twice (h / by_y, w / by_x), of 1 or 2 bytes, lowest first */
} g4_heif_picture;

static uint32_t g4_heif_tile(const g4_heif_picture *p, uint32_t i)
{
    return p->columns * p->rows > 1 ? g4_heif_id(&p->tiles, i) : p->item;
}

/* A grid (23008-12, 6.6.2.3): version, flags, rows - 1, columns - 1, width, height. 0: it makes no sense. */
static int g4_heif_grid(g4_heif *h, g4_heif_picture *p, const uint8_t *d, size_t n)
{
    const uint8_t *at = NULL;
    const int is_long = n > 1 && d[1] & 1;
    if (n < (is_long ? 12 : 8)) return 0;
    p->rows = d[2] + 1u;
    p->columns = d[3] + 1u;
    p->w = is_long ? g4_be32(d + 4) : g4_be16(d + 4);
    p->h = is_long ? g4_be32(d + 8) : g4_be16(d + 6);
    while (g4_heif_next_reference(h, &at, "dimg", &p->tiles))
        if (p->tiles.from == p->item) return p->tiles.n == p->rows * p->columns && p->tiles.n <= G4_HEIF_TILES;
    return 0;
}

/* What an item is made of. *foreign: of nothing that is known here. */
static g4_status g4_heif_plan(g4_heif *h, uint32_t item, g4_heif_picture *p, int *foreign, g4_error *err)
{
    const uint8_t *end, *type = g4_heif_type(h, item, &end);
    *p = (g4_heif_picture) { .columns = 1, .rows = 1, .item = item };
    if (type && !memcmp(type, "grid", 4)) {
        g4_buf grid = { h->m->a, NULL, 0, 0, 0 };
        g4_status s = g4_heif_data(h, item, &grid, err);
        if (!s && !g4_heif_grid(h, p, (const uint8_t *)grid.data, grid.len))
            s = g4_fail(err, G4_ERR_FORMAT,
                        "HEIF: a grid of %" PRIu32 " x %" PRIu32 " pictures and %" PRIu32 " of them", p->columns,
                        p->rows, p->tiles.n);
        g4_buf_free(&grid);
        if (s) return s;
        type = g4_heif_type(h, g4_heif_tile(p, 0), &end);
    }
    g4_heif_item(h, g4_heif_tile(p, 0), &p->first);
    p->is_hevc = type && !memcmp(type, "hvc1", 4);
    if (!type || !p->first.config || (!p->is_hevc && memcmp(type, "av01", 4) != 0)) *foreign = 1;
    p->tile_w = p->first.w;
    p->tile_h = p->first.h;
    if (p->w == 0) {
        p->w = p->tile_w;
        p->h = p->tile_h;
    }
    if (*foreign) return G4_ERR_UNSUPPORTED;
    g4_status s = g4_pixels_check(h->m, "HEIF", p->w, p->h, err);
    if (!s) s = g4_pixels_check_bytes(h->m, "HEIF", p->w, p->h, h->size, err);
    if (!s) s = g4_pixels_check(h->m, "HEIF", (uint64_t)p->tile_w * p->columns, (uint64_t)p->tile_h * p->rows, err);
    if (!s && ((uint64_t)p->tile_w * p->columns < p->w || (uint64_t)p->tile_h * p->rows < p->h))
        s = g4_fail(err, G4_ERR_FORMAT,
                    "HEIF: %" PRIu32 " x %" PRIu32 " pictures of %" PRIu32 " x %" PRIu32 " do not cover %" PRIu32
                    " x %" PRIu32,
                    p->columns, p->rows, p->tile_w, p->tile_h, p->w, p->h);
    return s;
}

/* Bits of an AV1 header, the highest first. */
typedef struct {
    g4_reader in;
    int left; /* bits of the byte before pos */
} g4_av1_bits;

static uint32_t g4_av1_get(g4_av1_bits *b, int n) /* n <= 32 */
{
    uint32_t v = 0;
    for (; n > 0 && !b->in.bad; n--) {
        if (b->left == 0) {
            if (!g4_read_bytes(&b->in, 1)) b->in.bad = 1;
            b->left = 8;
        }
        if (!b->in.bad) v = v << 1 | (b->in.data[b->in.pos - 1] >> --b->left & 1u);
    }
    return v;
}

/* The operating points of a sequence header, and the times before them (AV1, 5.5.1). */
static void g4_av1_pass_points(g4_av1_bits *b)
{
    int delay_bits = 0;
    if (g4_av1_get(b, 1)) { /* times */
        g4_av1_get(b, 32);
        g4_av1_get(b, 32);
        if (g4_av1_get(b, 1)) { /* a number with as many bits as there are zeros before its first one */
            int zeros = 0;
            while (zeros < 32 && !b->in.bad && !g4_av1_get(b, 1)) zeros++;
            g4_av1_get(b, zeros);
        }
        if (g4_av1_get(b, 1)) { /* a model of the decoder */
            delay_bits = (int)g4_av1_get(b, 5) + 1;
            g4_av1_get(b, 32);
            g4_av1_get(b, 10);
        }
    }
    const uint32_t has_delay = g4_av1_get(b, 1), n = g4_av1_get(b, 5) + 1;
    for (uint32_t i = 0; i < n; i++) {
        g4_av1_get(b, 12);
        if (g4_av1_get(b, 5) > 7) g4_av1_get(b, 1);
        if (delay_bits && g4_av1_get(b, 1)) {
            g4_av1_get(b, delay_bits);
            g4_av1_get(b, delay_bits);
            g4_av1_get(b, 1);
        }
        if (has_delay && g4_av1_get(b, 1)) g4_av1_get(b, 4);
    }
}

/* Tools of frames that follow others. */
static void g4_av1_pass_tools(g4_av1_bits *b)
{
    g4_av1_get(b, 4); /* interintra, masked, warped, dual */
    const uint32_t has_order = g4_av1_get(b, 1);
    if (has_order) g4_av1_get(b, 2);
    const uint32_t screen = g4_av1_get(b, 1) ? 2 : g4_av1_get(b, 1);
    if (screen > 0 && !g4_av1_get(b, 1)) g4_av1_get(b, 1); /* whole motion vectors */
    if (has_order) g4_av1_get(b, 3);
}

/* The samples and their colours, from a sequence header (AV1, 5.5.1 and 5.5.2). */
static void g4_av1_sequence(g4_av1_bits *b, g4_heif_picture *p)
{
    const uint32_t profile = g4_av1_get(b, 3);
    g4_av1_get(b, 1);
    const uint32_t is_reduced = g4_av1_get(b, 1);
    if (is_reduced)
        g4_av1_get(b, 5);
    else
        g4_av1_pass_points(b);
    const int w_bits = (int)g4_av1_get(b, 4) + 1, h_bits = (int)g4_av1_get(b, 4) + 1;
    g4_av1_get(b, w_bits);
    g4_av1_get(b, h_bits);
    if (!is_reduced && g4_av1_get(b, 1)) g4_av1_get(b, 7); /* numbers of frames */
    g4_av1_get(b, 3);
    if (!is_reduced) g4_av1_pass_tools(b);
    g4_av1_get(b, 3);
    const uint32_t is_deep = g4_av1_get(b, 1), is_deeper = profile == 2 && is_deep && g4_av1_get(b, 1);
    const uint32_t is_grey = profile == 1 ? 0 : g4_av1_get(b, 1), has_colours = g4_av1_get(b, 1);
    const uint32_t colours = has_colours ? g4_av1_get(b, 24) : 0x020202; /* 2: not specified */
    const int is_rgb = !is_grey && colours == 0x010d00;                  /* sRGB, as it is */
    p->depth = is_deeper ? 12 : is_deep ? 10 : 8;
    p->n_planes = is_grey ? 1 : 3;
    p->matrix = (int)(colours & 255);
    p->is_full = is_rgb || g4_av1_get(b, 1);
    p->range_is_known = 1;
    p->by_x = is_rgb || profile == 1 ? 1 : is_deeper ? (int)g4_av1_get(b, 1) + 1 : 2;
    p->by_y = is_rgb || profile == 1 ? 1 : is_deeper ? p->by_x == 2 && g4_av1_get(b, 1) ? 2 : 1 : profile == 0 ? 2 : 1;
}

/* From the first sequence header in n bytes of AV1. 0: there is none. */
static int g4_heif_describe_av1(g4_heif_picture *p, const uint8_t *data, size_t n)
{
    g4_reader r = { data, n, 0, 0 };
    for (;;) {
        const uint8_t *head = g4_read_bytes(&r, 1);
        uint64_t size = 0;
        if (!head || !(*head & 2)) return 0; /* without its size */
        if (*head & 4) g4_read_bytes(&r, 1);
        for (int i = 0; i < 8; i++) { /* 7 bits a byte, lowest first */
            const uint8_t *byte = g4_read_bytes(&r, 1);
            if (!byte) return 0;
            size |= (uint64_t)(*byte & 127) << (7 * i);
            if (*byte < 128) break;
        }
        if (size > n - r.pos) return 0;
        g4_av1_bits bits = { { data + r.pos, (size_t)size, 0, 0 }, 0 };
        if ((*head >> 3 & 15) == 1) {
            g4_av1_sequence(&bits, p);
            return !bits.in.bad;
        }
        r.pos += (size_t)size;
    }
}

/* From hvcC (14496-15, 8.3.3.1): the kind of chroma in byte 16, bits of luma - 8 in byte 17. Range and matrix stand
 * deep in the stream. 0: it makes no sense. */
static int g4_heif_describe_hevc(g4_heif_picture *p)
{
    static const uint8_t by[4][2] = { { 1, 1 }, { 2, 2 }, { 2, 1 }, { 1, 1 } };
    if (p->first.config_bytes < 23) return 0;
    const int chroma = p->first.config[16] & 3;
    p->n_planes = chroma ? 3 : 1;
    p->by_x = by[chroma][0];
    p->by_y = by[chroma][1];
    p->depth = 8 + (p->first.config[17] & 7);
    p->matrix = 2;
    p->is_full = 1;
    return p->depth <= 12;
}

/* What the file says goes before what the stream says. */
static void g4_heif_describe_colours(g4_heif_picture *p)
{
    const uint8_t *d = p->first.colours;
    if (!d) return;
    p->matrix = (int)g4_be16(d + 4);
    p->is_full = d[6] >> 7;
    p->range_is_known = 1;
}

/* ---- The stream ------------------------------------------------------------------------------ */

/* HEVC units with start codes instead of lengths of length_bytes. 0: they are cut short. */
static int g4_hevc_units(g4_buf *out, const uint8_t *data, size_t n, size_t length_bytes)
{
    g4_reader r = { data, n, 0, 0 };
    while (r.pos < n) {
        const uint64_t size = g4_iso_number(&r, length_bytes);
        const uint8_t *unit = r.bad || size > n - r.pos ? NULL : g4_read_bytes(&r, (size_t)size);
        if (!unit) return 0;
        g4_buf_add(out, "\0\0\0\1", 4);
        g4_buf_add(out, unit, (size_t)size);
    }
    return 1;
}

/* The parameter sets of hvcC: arrays of units with 16-bit lengths. */
static int g4_hevc_parameters(g4_buf *out, const uint8_t *config, size_t n)
{
    g4_reader r = { config, n, 22, 0 };
    const uint64_t arrays = g4_iso_number(&r, 1);
    for (uint64_t i = 0; i < arrays && !r.bad; i++) {
        g4_iso_number(&r, 1);
        const uint64_t units = g4_iso_number(&r, 2);
        for (uint64_t k = 0; k < units && !r.bad; k++) {
            const size_t start = r.pos, size = (size_t)g4_iso_number(&r, 2);
            if (!g4_read_bytes(&r, size) || !g4_hevc_units(out, config + start, 2 + size, 2)) return 0;
        }
    }
    return !r.bad;
}

/* An IVF file for AV1 pictures of that size: "DKIF", version, bytes of this head, codec, size, rate, number. */
static void g4_ivf_head(g4_buf *out, uint32_t w, uint32_t h, uint32_t n)
{
    uint8_t head[32] = "DKIF\0\0\x20\0AV01";
    g4_store_le(head + 12, 2, w);
    g4_store_le(head + 14, 2, h);
    g4_store_le(head + 16, 4, 25);
    g4_store_le(head + 20, 4, 1);
    g4_store_le(head + 24, 4, n);
    g4_buf_add(out, head, sizeof head);
}

static g4_status g4_heif_stream_add(g4_heif *h, g4_heif_picture *p, uint32_t i, g4_buf *out, g4_error *err)
{
    const uint8_t *end, *type = g4_heif_type(h, g4_heif_tile(p, i), &end);
    g4_buf data = { h->m->a, NULL, 0, 0, 0 };
    if (!type || memcmp(type, p->is_hevc ? "hvc1" : "av01", 4) != 0)
        return g4_fail(err, G4_ERR_FORMAT, "HEIF: picture %" PRIu32 " of the grid is of another kind", i);
    const g4_status s = g4_heif_data(h, g4_heif_tile(p, i), &data, err);
    const uint8_t *bytes = (const uint8_t *)data.data;
    int is_good = !s && data.len > 0;
    if (is_good && p->is_hevc) {
        is_good = g4_hevc_units(out, bytes, data.len, (p->first.config[21] & 3) + 1u);
    } else if (is_good) {
        uint8_t head[12]; /* bytes of the frame, its time */
        g4_store_le(head, 4, data.len);
        g4_store_le(head + 4, 8, i);
        g4_buf_add(out, head, sizeof head);
        g4_buf_add(out, bytes, data.len);
        if (i == 0) is_good = g4_heif_describe_av1(p, bytes, data.len);
    }
    g4_buf_free(&data);
    if (s) return s;
    return is_good ? G4_OK : g4_fail(err, G4_ERR_FORMAT, "HEIF: the data of picture %" PRIu32 " make no sense", i);
}

/* All tiles as a stream, and how they are coded. */
static g4_status g4_heif_stream(g4_heif *h, g4_heif_picture *p, g4_buf *out, g4_error *err)
{
    const uint32_t n = p->columns * p->rows;
    if (!p->is_hevc)
        g4_ivf_head(out, p->tile_w, p->tile_h, n);
    else if (!g4_heif_describe_hevc(p) || !g4_hevc_parameters(out, p->first.config, p->first.config_bytes))
        return g4_fail(err, G4_ERR_FORMAT, "HEIF: an hvcC of %zu bytes makes no sense", p->first.config_bytes);
    g4_status s = G4_OK;
    for (uint32_t i = 0; i < n && !s; i++) s = g4_heif_stream_add(h, p, i, out, err);
    if (!s && out->failed) s = g4_fail(err, G4_ERR_MEMORY, "HEIF: %zu bytes: out of memory", h->size);
    g4_heif_describe_colours(p);
    return s;
}

/* ---- Planes ---------------------------------------------------------------------------------- */

/* Columns and rows of plane i of a picture of w x h, and bytes of the planes before it. */
static size_t g4_heif_plane(const g4_heif_picture *p, int i, size_t w, size_t h, size_t *plane_w, size_t *plane_h)
{
    const size_t wide = p->depth > 8 ? 2 : 1, by_x = (size_t)p->by_x, by_y = (size_t)p->by_y;
    const size_t chroma_w = (w + by_x - 1) / by_x, chroma_h = (h + by_y - 1) / by_y;
    *plane_w = i ? chroma_w : w;
    *plane_h = i ? chroma_h : h;
    return wide * ((i > 0 ? w * h : 0) + (i > 1 ? chroma_w * chroma_h * (size_t)(i - 1) : 0));
}

static size_t g4_heif_bytes(const g4_heif_picture *p, size_t w, size_t h)
{
    size_t plane_w, plane_h;
    return g4_heif_plane(p, p->n_planes, w, h, &plane_w, &plane_h); /* where one more plane would begin */
}

/* The tiles, one behind the other, to one picture. */
static int g4_heif_join(g4_heif *h, const g4_heif_picture *p, const uint8_t *tiles, uint8_t *out)
{
    const size_t wide = p->depth > 8 ? 2 : 1, bytes = g4_heif_bytes(p, p->tile_w, p->tile_h);
    for (uint32_t t = 0; t < p->columns * p->rows; t++) {
        for (int i = 0; i < p->n_planes; i++) {
            size_t w, rows, from_w, from_h;
            uint8_t *const dst = out + g4_heif_plane(p, i, p->w, p->h, &w, &rows);
            const uint8_t *src = tiles + t * bytes + g4_heif_plane(p, i, p->tile_w, p->tile_h, &from_w, &from_h);
            const size_t x = t % p->columns * from_w, y = t / p->columns * from_h;
            const size_t n_w = x < w ? g4_min_size(from_w, w - x) : 0,
                         n_h = y < rows ? g4_min_size(from_h, rows - y) : 0;
            for (size_t k = 0; k < n_h; k++) {
                memcpy(dst + wide * ((y + k) * w + x), src + wide * k * from_w, wide * n_w);
                if (g4_pace_ends(&h->pace, wide * n_w)) return 1;
            }
        }
    }
    return 0;
}

/* The samples of a picture. */
static g4_status g4_heif_unpack(g4_heif *h, g4_heif_picture *p, g4_error *err)
{
    int fd = -1;
    g4_buf stream = { h->m->a, NULL, 0, 0, 0 };
    g4_status s = g4_heif_stream(h, p, &stream, err);
    if (!s) s = g4_media_spill(h->m, (const uint8_t *)stream.data, stream.len, &fd, err);
    g4_buf_free(&stream);
    if (s) return s;
    const uint32_t n = p->columns * p->rows;
    const size_t one = g4_heif_bytes(p, p->tile_w, p->tile_h), all = g4_heif_bytes(p, p->w, p->h);
    p->samples = one > SIZE_MAX / n ? NULL : g4_alloc(h->m->a, n, one);
    if (!p->samples)
        s = g4_fail(err, G4_ERR_MEMORY, "HEIF: %" PRIu32 " x %" PRIu32 " pixels: out of memory", p->w, p->h);
    const g4_input in = { fd, { .demuxer = p->is_hevc ? "hevc" : "ivf" } };
    if (!s) s = g4_ffmpeg_raw(h->m, &in, p->range_is_known ? NULL : "scale=out_range=pc", n, p->samples, n * one, err);
    close(fd);
    if (s || n == 1) return s;
    uint8_t *joined = g4_alloc(h->m->a, all, 1);
    if (!joined)
        s = g4_fail(err, G4_ERR_MEMORY, "HEIF: %" PRIu32 " x %" PRIu32 " pixels: out of memory", p->w, p->h);
    else if (g4_heif_join(h, p, p->samples, joined))
        s = g4_halt_check(h->pace.halt, err);
    g4_free(h->m->a, p->samples);
    p->samples = joined;
    return s;
}

/* ---- Colours --------------------------------------------------------------------------------- */

/* Bits of a sample that count: in colours the highest 8, as in libavif. */
static int g4_heif_kept(const g4_heif_picture *p) { return p->n_planes == 3 ? 8 : p->depth; }

/* RGB = luma(Y) + u * (U - c0) + v * (V - c0), by ITU-T H.273, with `bits` bits of a fraction. */
typedef struct {
    uint32_t y;
    int32_t bias, u[3], v[3], c0;
    int y_shift, bits;
} g4_heif_factors;

static inline int32_t g4_heif_luma(const g4_heif_factors *f, uint16_t y)
{
    return (int32_t)(f->y * y >> f->y_shift) + f->bias;
}

/* What libyuv makes of the usual matrices, which libavif leaves to it, unless it is grey without transparency: 6 bits
 * of a fraction, and none above 2. */
static void g4_heif_factors_coarse(const g4_heif_picture *p, const double u[3], const double v[3], g4_heif_factors *f)
{
    const double one = p->is_full ? 64 : 64 * 255.0 / 224;
    *f = (g4_heif_factors) { .y = 0x101u * (p->is_full       ? 16320
                                            : p->matrix == 9 ? 19003
                                                             : 18997),
                             .bias = p->is_full ? 32 : -1160,
                             .c0 = 128,
                             .y_shift = 16,
                             .bits = 6 };
    for (int c = 0; c < 3; c++) {
        f->u[c] = g4_min_int((int)rint(u[c] * one), 128);
        f->v[c] = g4_min_int((int)rint(v[c] * one), 128);
    }
}

static void g4_heif_factors_make(const g4_heif_picture *p, int has_alpha, g4_heif_factors *f)
{
    enum { BITS = 14 };
    const int m = p->matrix, deep = g4_heif_kept(p) - 8, top = (256 << deep) - 1;
    const double kr = m == 1 ? 0.2126 : m == 4 ? 0.30 : m == 7 ? 0.212 : m == 9 || m == 10 ? 0.2627 : 0.299;
    const double kb = m == 1 ? 0.0722 : m == 4 ? 0.11 : m == 7 ? 0.087 : m == 9 || m == 10 ? 0.0593 : 0.114;
    const double one = (1 << BITS) * 255.0, luma = one / (p->is_full ? top : 219 << deep);
    const double chroma = m == 0 ? luma : one / (p->is_full ? top : 224 << deep);
    double u[3] = { 0, -2 * kb * (1 - kb) / (1 - kr - kb), 2 * (1 - kb) };
    double v[3] = { 2 * (1 - kr), -2 * kr * (1 - kr) / (1 - kr - kb), 0 };
    if (!p->is_hevc && (p->n_planes == 3 || (has_alpha && p->depth == 8)) &&
        (m == 1 || m == 2 || m == 5 || m == 6 || m == 9)) {
        g4_heif_factors_coarse(p, u, v, f);
        return;
    }
    const int32_t y0 = p->is_full ? 0 : 16 << deep;
    *f = (g4_heif_factors) { .y = (uint32_t)rint(luma), .bits = BITS, .c0 = m == 0 ? y0 : 128 << deep };
    f->bias = (1 << (BITS - 1)) - y0 * (int32_t)f->y;
    if (m == 8) { /* YCgCo */
        const double cg[3] = { -1, 1, -1 }, co[3] = { 1, 0, -1 };
        memcpy(u, cg, sizeof u);
        memcpy(v, co, sizeof v);
    }
    for (int c = 0; c < 3; c++) {
        f->u[c] = m == 0 ? 0 : (int32_t)rint(u[c] * chroma);
        f->v[c] = m == 0 ? 0 : (int32_t)rint(v[c] * chroma);
    }
}

static void g4_heif_rgb(const g4_heif_factors *f, const uint16_t *y, const uint16_t *u, const uint16_t *v, int n,
                        uint8_t *restrict rgb)
{
    for (int x = 0; x < n; x++, rgb += 3) {
        const int32_t luma = g4_heif_luma(f, y[x]), du = u[x] - f->c0, dv = v[x] - f->c0;
        for (int c = 0; c < 3; c++) rgb[c] = g4_clamp_u8((luma + f->u[c] * du + f->v[c] * dv) >> f->bits);
    }
}

/* Green, blue and red as they are. */
static void g4_heif_gbr(const g4_heif_factors *f, const uint16_t *const plane[3], int n, uint8_t *restrict rgb)
{
    for (int c = 0; c < 3; c++) {
        const uint16_t *p = plane[(c + 2) % 3];
        for (int x = 0; x < n; x++) rgb[3 * x + c] = g4_clamp_u8(g4_heif_luma(f, p[x]) >> f->bits);
    }
}

/* Row y of plane i. */
static void g4_heif_row(const g4_heif_picture *p, int i, size_t y, uint16_t *restrict out)
{
    size_t w, h;
    const uint8_t *plane = p->samples + g4_heif_plane(p, i, p->w, p->h, &w, &h);
    const uint8_t *row = plane + (p->depth > 8 ? 2 : 1) * y * w;
    const int shift = p->depth - g4_heif_kept(p);
    for (size_t x = 0; x < w; x++) out[x] = (uint16_t)(p->depth > 8 ? g4_le16(row + 2 * x) >> shift : row[x]);
}

/* Row y of a picture that is grey, or of which nothing else is wanted, each level `copies` times. row: room for (w). */
static void g4_heif_grey_row(const g4_heif_picture *p, const g4_heif_factors *f, size_t y, uint16_t *row, int copies,
                             uint8_t *restrict out)
{
    g4_heif_row(p, 0, y, row);
    for (size_t x = 0; x < p->w; x++) {
        const uint8_t level = g4_clamp_u8(g4_heif_luma(f, row[x]) >> f->bits);
        for (int c = 0; c < copies; c++) *out++ = level;
    }
}

/* n columns from a row of half as many samples and the one next to it, which is the same where there is none. */
static void g4_heif_widen(const uint16_t *near, const uint16_t *far, size_t n, uint16_t *restrict out)
{
    const size_t pairs = (n - 1) / 2;
    out[0] = (uint16_t)((3 * near[0] + far[0] + 2) >> 2);
    for (size_t x = 1; x <= pairs; x++) {
        const int left = 3 * near[x - 1] + far[x - 1], right = 3 * near[x] + far[x];
        out[2 * x - 1] = (uint16_t)((3 * left + right + 8) >> 4);
        out[2 * x] = (uint16_t)((left + 3 * right + 8) >> 4);
    }
    out[n - 1] = (uint16_t)((3 * near[pairs] + far[pairs] + 2) >> 2); /* of an odd number too, as in libyuv */
}

/* Row y of chroma plane i, as wide as the picture. rows: room for (2, w). */
static void g4_heif_chroma(const g4_heif_picture *p, int i, size_t y, uint16_t *rows, uint16_t *out)
{
    const size_t near = p->by_y == 2 ? y / 2 : y, far = p->by_y == 2 ? g4_chroma_beside(y, p->h) : near;
    if (p->by_x == 1) {
        g4_heif_row(p, i, near, out);
        return;
    }
    g4_heif_row(p, i, near, rows);
    g4_heif_row(p, i, far, rows + p->w);
    g4_heif_widen(rows, rows + p->w, p->w, out);
}

/* Room for the rows of a picture. */
#define G4_HEIF_ROWS 5

static void g4_heif_rgb_row(const g4_heif_picture *p, const g4_heif_factors *f, size_t y, uint16_t *rows, uint8_t *rgb)
{
    const size_t w = p->w;
    uint16_t *const plane[3] = { rows, rows + w, rows + 2 * w };
    if (p->n_planes == 1) {
        g4_heif_grey_row(p, f, y, rows, 3, rgb);
        return;
    }
    g4_heif_row(p, 0, y, plane[0]);
    for (int i = 1; i < 3; i++) g4_heif_chroma(p, i, y, rows + 3 * w, plane[i]);
    if (p->matrix == 0)
        g4_heif_gbr(f, (const uint16_t *const *)plane, (int)w, rgb);
    else
        g4_heif_rgb(f, plane[0], plane[1], plane[2], (int)w, rgb);
}

/* A row over white. Colours of a premultiplied one are darker already. */
static void g4_heif_blend(uint8_t *rgb, const uint8_t *alpha, size_t n, int is_premultiplied)
{
    for (size_t x = 0; x < n; x++) {
        const uint8_t a = alpha[x];
        for (size_t c = 3 * x; c < 3 * x + 3; c++)
            rgb[c] = is_premultiplied ? g4_clamp_u8(rgb[c] + 255 - a) : g4_over_white(rgb[c], a);
    }
}

/* alpha: NULL, or the picture of transparency, in grey. */
static g4_status g4_heif_put(g4_heif *h, const g4_heif_picture *p, const g4_heif_picture *alpha, g4_pixels *out,
                             g4_error *err)
{
    const size_t w = p->w;
    g4_heif_factors factors, alpha_factors;
    uint16_t *rows = g4_alloc(h->m->a, w, G4_HEIF_ROWS * sizeof *rows);
    uint8_t *alpha_row = g4_alloc(h->m->a, w, 1);
    const int is_premultiplied = alpha && g4_heif_referrer(h, "prem", alpha->item, 0) == p->item;
    g4_heif_factors_make(p, alpha != NULL, &factors);
    if (alpha) g4_heif_factors_make(alpha, 0, &alpha_factors);
    g4_status s = rows && alpha_row ? g4_pixels_alloc(h->m, "HEIF", p->w, p->h, out, err)
                                    : g4_fail(err, G4_ERR_MEMORY, "HEIF: out of memory");
    for (size_t y = 0; y < p->h && !s; y++) {
        uint8_t *rgb = out->rgb + 3 * w * y;
        g4_heif_rgb_row(p, &factors, y, rows, rgb);
        if (alpha) {
            g4_heif_grey_row(alpha, &alpha_factors, y, rows, 1, alpha_row);
            g4_heif_blend(rgb, alpha_row, w, is_premultiplied);
        }
        if (g4_pace_ends(&h->pace, 12 * w)) s = g4_halt_check(h->pace.halt, err);
    }
    g4_free(h->m->a, rows);
    g4_free(h->m->a, alpha_row);
    return s;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

/* The picture of transparency that belongs to the primary one, if there is one: p->w is 0 without. */
static g4_status g4_heif_alpha(g4_heif *h, const g4_heif_picture *of, g4_heif_picture *p, g4_error *err)
{
    *p = (g4_heif_picture) { .w = 0 };
    for (int i = 0; i < G4_HEIF_TEXTS; i++) {
        const int64_t item = g4_heif_referrer(h, "auxl", h->primary, i);
        g4_heif_properties properties;
        int foreign = 0;
        if (item < 0) return G4_OK;
        g4_heif_item(h, (uint32_t)item, &properties);
        if (!properties.is_alpha) continue;
        g4_status s = g4_heif_plan(h, (uint32_t)item, p, &foreign, err);
        if (foreign) s = g4_fail(err, G4_ERR_UNSUPPORTED, "HEIF: transparency of another kind than the picture");
        if (!s && (p->w != of->w || p->h != of->h))
            s = g4_fail(err, G4_ERR_FORMAT,
                        "HEIF: transparency of %" PRIu32 " x %" PRIu32 " for %" PRIu32 " x %" PRIu32, p->w, p->h, of->w,
                        of->h);
        if (!s) s = g4_heif_unpack(h, p, err);
        p->n_planes = 1; /* of others, if it has them, nothing is wanted */
        return s;
    }
    return G4_OK;
}

/* All that comes before the samples. */
static g4_status g4_heif_begin(const g4_media_limits *m, g4_heif *h, const uint8_t *data, size_t size,
                               g4_heif_picture *p, int *foreign, g4_error *err)
{
    g4_heif_properties properties;
    *p = (g4_heif_picture) { .w = 0 };
    if (!g4_heif_open(m, h, data, size)) {
        *foreign = 1;
        return G4_ERR_UNSUPPORTED;
    }
    g4_status s = g4_heif_plan(h, h->primary, p, foreign, err);
    if (!s) s = g4_heif_texts(h, err);
    g4_heif_item(h, h->primary, &properties);
    g4_heif_turn(&h->turn, &properties);
    return s;
}

g4_status g4_heif_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, int *foreign,
                       g4_error *err)
{
    g4_heif file;
    g4_heif_picture p;
    const g4_status s = g4_heif_begin(m, &file, data, size, &p, foreign, err);
    if (!s) g4_upright_size((int)p.w, (int)p.h, g4_orientation(&file.turn), w, h);
    return s;
}

g4_status g4_heif_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, int *foreign,
                         g4_error *err)
{
    g4_heif h;
    g4_heif_picture p, alpha = { .w = 0 };
    memset(out, 0, sizeof *out);
    g4_status s = g4_heif_begin(m, &h, data, size, &p, foreign, err);
    if (!s) s = g4_heif_unpack(&h, &p, err);
    if (!s) s = g4_heif_alpha(&h, &p, &alpha, err);
    if (!s) s = g4_heif_put(&h, &p, alpha.w ? &alpha : NULL, out, err);
    g4_free(m->a, p.samples);
    g4_free(m->a, alpha.samples);
    if (!s) s = g4_pixels_orient(m, out, g4_orientation(&h.turn), err);
    if (s) g4_pixels_free(m, out);
    return s;
}
