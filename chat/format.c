/* format.c - the formats that JSON Schema defines, as regular languages, each after the document that defines it. Where
 * that asks for more than a regular language can say in a reasonable size, the language is larger by a rule that stands
 * beside it; a valid value is never left out. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <string.h>

/* ---- Dates and times (RFC 3339) ------------------------------------------------------------------ */

#define G4_F_DATE                                                                                                      \
    "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|"  \
    "2[0-8]))|(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"

/* ---- Addresses (RFC 3986, 3987, 1123, 5321, 4291) ------------------------------------------------ */

#define G4_F_HEX "[0-9A-Fa-f]"
#define G4_F_PERCENT "%[0-9A-Fa-f]{2}"
#define G4_F_BYTE "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define G4_F_IPV4 G4_F_BYTE "(?:\\." G4_F_BYTE "){3}"
#define G4_F_16 "[0-9A-Fa-f]{1,4}"
#define G4_F_32 "(?:" G4_F_16 ":" G4_F_16 "|" G4_F_IPV4 ")"
#define G4_F_IPV6                                                                                                      \
    "(?:(?:" G4_F_16 ":){6}" G4_F_32 "|::(?:" G4_F_16 ":){5}" G4_F_32 "|(?:" G4_F_16 ")?::(?:" G4_F_16 ":){4}" G4_F_32 \
    "|(?:(?:" G4_F_16 ":)?" G4_F_16 ")?::(?:" G4_F_16 ":){3}" G4_F_32 "|(?:(?:" G4_F_16 ":){0,2}" G4_F_16              \
    ")?::(?:" G4_F_16 ":){2}" G4_F_32 "|(?:(?:" G4_F_16 ":){0,3}" G4_F_16 ")?::" G4_F_16 ":" G4_F_32 "|(?:(?:" G4_F_16 \
    ":){0,4}" G4_F_16 ")?::" G4_F_32 "|(?:(?:" G4_F_16 ":){0,5}" G4_F_16 ")?::" G4_F_16 "|(?:(?:" G4_F_16              \
    ":){0,6}" G4_F_16 ")?::)"

/* A label has no hyphens as its third and fourth character, unless it begins with xn--; what that stands for is not
 * looked at. */
#define G4_F_L "[A-Za-z0-9]"
#define G4_F_X "[A-Za-z0-9-]"
#define G4_F_LABEL                                                                                                     \
    "(?:" G4_F_L "(?:" G4_F_L "|" G4_F_X "(?:" G4_F_L "(?:" G4_F_X "{0,59}" G4_F_L ")?|-" G4_F_L "(?:" G4_F_X          \
    "{0,58}" G4_F_L ")?))?|[Xx][Nn]--" G4_F_X "{0,58}" G4_F_L ")"
#define G4_F_HOSTNAME G4_F_LABEL "(?:\\." G4_F_LABEL ")*"
#define G4_F_LITERAL "\\[(?:" G4_F_IPV4 "|IPv6:" G4_F_IPV6 ")\\]"
#define G4_F_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define G4_F_QUOTED "\"(?:[ !#-\\[\\]-~]|\\\\[ -~])*\""
#define G4_F_LOCAL G4_F_ATOM "(?:\\." G4_F_ATOM ")*|" G4_F_QUOTED

/* Labels of all that Unicode has of letters, marks, digits and what may become such: what IDNA says of their order and
 * neighbours is left out. I: any of them, S: at the start, E: no hyphen. */
#define G4_F_NOT_IDN                                                                                                   \
    "\\0-,./:-@\\[-`{-\\x7f\\p{Z}\\p{Cc}\\p{Co}\\p{Cn}\\p{Sm}\\p{Ps}\\p{Pe}\\p{Pi}\\p{Pf}\\p{Pc}\\u3002\\uff0e\\uff61"
#define G4_F_I "[^" G4_F_NOT_IDN "]"
#define G4_F_E "[^" G4_F_NOT_IDN "-]"
#define G4_F_S "[^" G4_F_NOT_IDN "\\p{M}-]"
#define G4_F_IDN_LABEL                                                                                                 \
    "(?:" G4_F_S "(?:" G4_F_E "|" G4_F_I "(?:" G4_F_E "(?:" G4_F_I "{0,59}" G4_F_E ")?|-" G4_F_E "(?:" G4_F_I          \
    "{0,58}" G4_F_E ")?))?|[Xx][Nn]--" G4_F_X "{0,58}" G4_F_L ")"
#define G4_F_IDN_HOSTNAME G4_F_IDN_LABEL "(?:[.\\u3002\\uff0e\\uff61]" G4_F_IDN_LABEL ")*"
#define G4_F_IDN_ATOM "[^\\0- \"(),.:;<>@\\[-\\]\\x7f]+"
#define G4_F_IDN_QUOTED "\"(?:[^\\0-\\x1f\"\\\\\\x7f]|\\\\[^\\0-\\x1f\\x7f])*\""
#define G4_F_IDN_LOCAL G4_F_IDN_ATOM "(?:\\." G4_F_IDN_ATOM ")*|" G4_F_IDN_QUOTED

/* Of addresses. \x01 stands for the characters that IRIs have more than URIs, \x02 for those in their queries. */
#define G4_F_CHAR "(?:[A-Za-z0-9._~!$&'()*+,;=:@\x01-]|" G4_F_PERCENT ")"
#define G4_F_NO_COLON "(?:[A-Za-z0-9._~!$&'()*+,;=@\x01-]|" G4_F_PERCENT ")"
#define G4_F_USER "(?:[A-Za-z0-9._~!$&'()*+,;=:\x01-]|" G4_F_PERCENT ")"
#define G4_F_NAME "(?:[A-Za-z0-9._~!$&'()*+,;=\x01-]|" G4_F_PERCENT ")"
#define G4_F_IP "\\[(?:" G4_F_IPV6 "|[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]"
#define G4_F_AUTHORITY "(?:" G4_F_USER "*@)?(?:" G4_F_IP "|" G4_F_NAME "*)(?::\\d*)?"
#define G4_F_SEGMENTS "(?:/" G4_F_CHAR "*)*"
#define G4_F_SCHEME "[A-Za-z][A-Za-z0-9+.-]*:"
#define G4_F_ABSOLUTE "/(?:" G4_F_CHAR "+" G4_F_SEGMENTS ")?"
#define G4_F_SLASHES "//" G4_F_AUTHORITY G4_F_SEGMENTS
#define G4_F_TAIL                                                                                                      \
    "(?:\\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\x01\x02-]|" G4_F_PERCENT                                                    \
    ")*)?(?:#(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\x01-]|" G4_F_PERCENT ")*)?"
#define G4_F_URI G4_F_SCHEME "(?:" G4_F_SLASHES "|" G4_F_ABSOLUTE "|" G4_F_CHAR "+" G4_F_SEGMENTS "|)" G4_F_TAIL
#define G4_F_RELATIVE "(?:" G4_F_SLASHES "|" G4_F_ABSOLUTE "|" G4_F_NO_COLON "+" G4_F_SEGMENTS "|)" G4_F_TAIL
#define G4_F_PRIVATE "\\u{e000}-\\u{f8ff}\\u{f0000}-\\u{ffffd}\\u{100000}-\\u{10fffd}"
#define G4_F_UCS                                                                                                       \
    "\\u{a0}-\\u{d7ff}\\u{f900}-\\u{fdcf}\\u{fdf0}-\\u{ffef}\\u{10000}-\\u{1fffd}\\u{20000}-\\u{2fffd}"                \
    "\\u{30000}-\\u{3fffd}\\u{40000}-\\u{4fffd}\\u{50000}-\\u{5fffd}\\u{60000}-\\u{6fffd}\\u{70000}-\\u{7fffd}"        \
    "\\u{80000}-\\u{8fffd}\\u{90000}-\\u{9fffd}\\u{a0000}-\\u{afffd}\\u{b0000}-\\u{bfffd}\\u{c0000}-\\u{cfffd}"        \
    "\\u{d0000}-\\u{dfffd}\\u{e1000}-\\u{efffd}"

/* ---- The others ---------------------------------------------------------------------------------- */

#define G4_F_VARIABLE "(?:\\w|" G4_F_PERCENT ")(?:\\.?(?:\\w|" G4_F_PERCENT "))*(?::[1-9]\\d{0,3}|\\*)?"
#define G4_F_TEMPLATE                                                                                                  \
    "(?:[!#$&-;=?-\\[\\]_a-z~" G4_F_UCS G4_F_PRIVATE "]|" G4_F_PERCENT "|\\{[+#./;?&=,!@|]?" G4_F_VARIABLE             \
    "(?:," G4_F_VARIABLE ")*\\})*"
#define G4_F_POINTER "(?:/(?:[^/~]|~[01])*)*"
#define G4_F_TIMES "(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S)"
#define G4_F_DAYS "(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)"
#define G4_F_DURATION "P(?:\\d+W|" G4_F_DAYS "(?:T" G4_F_TIMES ")?|T" G4_F_TIMES ")"
/* Of a regular expression: a character, an escape, a class. Letters that mean nothing behind a backslash are left out.
 */
#define G4_F_ESCAPE "\\\\(?:[^A-Za-z]|[bBcdDfknpPrsStuvwWx])"
#define G4_F_PIECE "(?:[^\\\\\\[()]|" G4_F_ESCAPE "|\\[(?:[^\\]\\\\]|" G4_F_ESCAPE ")*\\])"

#define G4_F_MAX_LOCAL 64 /* RFC 5321, 4.5.3.1 */
#define G4_F_MAX_NAME 253 /* of a host: 255 bytes with the lengths of its labels, RFC 1035 */

typedef struct {
    const char *name, *pattern;
    int is_exact;
    int longest; /* characters; 0: no limit */
} g4_known_format;

static const g4_known_format g4_formats[] = {
    { "date", G4_F_DATE, 1, 0 },
    { "duration", G4_F_DURATION, 1, 0 },
    { "hostname", G4_F_HOSTNAME, 1, G4_F_MAX_NAME },
    { "idn-hostname", G4_F_IDN_HOSTNAME, 0, G4_F_MAX_NAME },
    { "ipv4", G4_F_IPV4, 1, 0 },
    { "ipv6", G4_F_IPV6, 1, 0 },
    { "uuid", G4_F_HEX "{8}(?:-" G4_F_HEX "{4}){3}-" G4_F_HEX "{12}", 1, 0 },
    { "uri", G4_F_URI, 1, 0 },
    { "uri-reference", G4_F_URI "|" G4_F_RELATIVE, 1, 0 },
    { "iri", G4_F_URI, 1, 0 },
    { "iri-reference", G4_F_URI "|" G4_F_RELATIVE, 1, 0 },
    { "uri-template", G4_F_TEMPLATE, 1, 0 },
    { "json-pointer", G4_F_POINTER, 1, 0 },
    { "relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|" G4_F_POINTER ")", 1, 0 },
};

/* All that a pattern says, from the first to the last character. */
static g4_re g4_format_pattern(g4_regular *r, const char *pattern, g4_spelling spelling, int is_iri)
{
    g4_buf whole = { .a = g4_regular_allocator(r) };
    g4_re x = G4_RE_NONE;
    g4_buf_str(&whole, "^(?:");
    for (const char *s = pattern; *s != '\0'; s++) {
        if (*s != '\x01' && *s != '\x02')
            g4_buf_add(&whole, s, 1);
        else if (is_iri)
            g4_buf_str(&whole, *s == '\x01' ? G4_F_UCS : G4_F_PRIVATE);
    }
    g4_buf_str(&whole, ")$");
    if (whole.failed) g4_regular_fail(r, G4_NET_NO_MEMORY);
    if (!g4_regular_stops(r)) g4_pattern_re(r, &x, whole.data, whole.len, spelling, "format", NULL);
    g4_buf_free(&whole);
    return x;
}

/* The same of so many characters at most. */
static g4_re g4_format_short(g4_regular *r, const char *pattern, g4_spelling spelling, int is_iri, int longest)
{
    const g4_re length = g4_re_repeat(r, g4_format_pattern(r, "[^]", spelling, 0), 0, longest);
    return g4_re_and(r, g4_format_pattern(r, pattern, spelling, is_iri), length);
}

/* An address of mail: what stands before the @, then a name or an address in brackets. */
static g4_re g4_format_mail(g4_regular *r, const char *local, const char *name, g4_spelling spelling)
{
    const g4_re host = g4_format_short(r, name, spelling, 0, G4_F_MAX_NAME);
    const g4_re behind = g4_re_or(r, host, g4_format_pattern(r, G4_F_LITERAL, spelling, 0));
    const g4_re at = g4_re_concat(r, g4_re_range(r, '@', '@'), behind);
    return g4_re_concat(r, g4_format_short(r, local, spelling, 0, G4_F_MAX_LOCAL), at);
}

/* A text, of digits and signs, the same in both spellings. */
static g4_re g4_format_text(g4_regular *r, const char *fmt, ...) G4_PRINTF(2, 3);
static g4_re g4_format_text(g4_regular *r, const char *fmt, ...)
{
    char text[32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return g4_re_text(r, text, strlen(text));
}

typedef struct {                           /* parts of times */
    g4_re hour, minute, not_last, seconds; /* not_last: minutes but 59; seconds: the leap second and its fraction */
} g4_time_parts;

/* The hours here are those of 23:59:60 in UTC as far as the offset's hours say, whatever the minutes are. */
static g4_re g4_format_leap_hours(g4_regular *r, const g4_time_parts *t)
{
    g4_re hours[24];
    for (int h = 0; h < 24; h++) {
        const g4_re east = g4_re_concat(r, g4_format_text(r, "+%02d:", h), t->minute);
        const g4_re west = g4_re_concat(r, g4_format_text(r, "-%02d:", 23 - h), t->minute);
        const g4_re even_tail = g4_re_concat(r, t->seconds, g4_format_text(r, "+%02d:00", (h + 1) % 24));
        const g4_re behind[3] = { g4_re_concat(r, t->not_last, g4_re_concat(r, t->seconds, east)),
                                  g4_re_concat(r, g4_format_text(r, "59"), even_tail),
                                  g4_re_concat(r, t->minute, g4_re_concat(r, t->seconds, west)) };
        hours[h] = g4_re_concat(r, g4_format_text(r, "%02d:", h), g4_re_any_of(r, behind, 3));
    }
    return g4_re_any_of(r, hours, 24);
}

/* The same of the minutes, whatever the hours are. */
static g4_re g4_format_leap_minutes(g4_regular *r, const g4_time_parts *t)
{
    const g4_re plus = g4_re_concat(r, g4_format_text(r, "+"), t->hour);
    const g4_re minus = g4_re_concat(r, g4_format_text(r, "-"), t->hour);
    g4_re minutes[60];
    for (int m = 0; m < 60; m++) {
        const g4_re east = g4_re_concat(r, plus, g4_format_text(r, ":%02d", (m + 1) % 60));
        const g4_re west = g4_re_concat(r, minus, g4_format_text(r, ":%02d", 59 - m));
        const g4_re behind = g4_re_concat(r, t->seconds, g4_re_or(r, east, west));
        minutes[m] = g4_re_concat(r, g4_format_text(r, "%02d", m), behind);
    }
    return g4_re_concat(r, g4_re_concat(r, t->hour, g4_format_text(r, ":")), g4_re_any_of(r, minutes, 60));
}

/* Times, and leap seconds where they may be: at 23:59:60 in UTC. */
static g4_re g4_format_time(g4_regular *r)
{
    const g4_re digit = g4_re_range(r, '0', '9'), colon = g4_format_text(r, ":");
    const g4_re early = g4_re_concat(r, g4_re_range(r, '0', '1'), digit);
    const g4_re late = g4_re_concat(r, g4_format_text(r, "2"), g4_re_range(r, '0', '3'));
    const g4_re before_50 = g4_re_concat(r, g4_re_range(r, '0', '4'), digit);
    const g4_re before_59 = g4_re_concat(r, g4_format_text(r, "5"), g4_re_range(r, '0', '8'));
    const g4_re point = g4_re_concat(r, g4_format_text(r, "."), g4_re_repeat(r, digit, 1, -1));
    const g4_re fraction = g4_re_optional(r, point);
    g4_time_parts t = { .hour = g4_re_or(r, early, late), .not_last = g4_re_or(r, before_50, before_59) };
    t.minute = g4_re_concat(r, g4_re_range(r, '0', '5'), digit);
    t.seconds = g4_re_concat(r, g4_format_text(r, ":60"), fraction);
    const g4_re sign = g4_re_or(r, g4_format_text(r, "+"), g4_format_text(r, "-"));
    const g4_re utc = g4_re_or(r, g4_format_text(r, "Z"), g4_format_text(r, "z"));
    const g4_re two = g4_re_concat(r, colon, t.minute);
    const g4_re offset = g4_re_or(r, utc, g4_re_concat(r, sign, g4_re_concat(r, t.hour, two)));
    const g4_re usual =
        g4_re_concat(r, t.hour, g4_re_concat(r, g4_re_repeat(r, two, 2, 2), g4_re_concat(r, fraction, offset)));
    const g4_re leap[3] = { usual, g4_re_concat(r, g4_format_text(r, "23:59"), g4_re_concat(r, t.seconds, utc)),
                            g4_re_agree(r, g4_format_leap_hours(r, &t), g4_format_leap_minutes(r, &t)) };
    return g4_re_any_of(r, leap, 3);
}

/* Brackets are paired up to so many that stand in each other, and further in they may stand as they like; what may be
 * repeated is not looked at, but that the first piece is no quantifier. */
#define G4_F_NESTED 4

static g4_re g4_format_regex(g4_regular *r, g4_spelling spelling)
{
    const g4_re piece = g4_format_pattern(r, G4_F_PIECE, spelling, 0);
    const g4_re open = g4_format_text(r, "("), close = g4_format_text(r, ")");
    const g4_re first = g4_re_and(r, piece, g4_re_not(r, g4_format_pattern(r, "[*+?]", spelling, 0)));
    g4_re inner = g4_re_repeat(r, g4_re_or(r, piece, g4_re_or(r, open, close)), 0, -1), group = G4_RE_NONE;
    for (int i = 0; i < G4_F_NESTED; i++) {
        group = g4_re_concat(r, open, g4_re_concat(r, inner, close));
        inner = g4_re_repeat(r, g4_re_or(r, piece, group), 0, -1);
    }
    return g4_re_optional(r, g4_re_concat(r, g4_re_or(r, first, group), inner));
}

g4_format_kind g4_format_re(g4_regular *r, const char *name, size_t n, g4_spelling spelling, g4_re *out)
{
    *out = G4_RE_NONE;
    if (n == 4 && memcmp(name, "time", n) == 0) {
        *out = g4_format_time(r);
        return G4_FORMAT_EXACT;
    }
    if (n == 9 && memcmp(name, "date-time", n) == 0) {
        const g4_re date = g4_format_pattern(r, G4_F_DATE "[Tt]", spelling, 0);
        *out = g4_re_concat(r, date, g4_format_time(r));
        return G4_FORMAT_EXACT;
    }
    if (n == 5 && memcmp(name, "email", n) == 0) {
        *out = g4_format_mail(r, G4_F_LOCAL, G4_F_HOSTNAME, spelling);
        return G4_FORMAT_EXACT;
    }
    if (n == 9 && memcmp(name, "idn-email", n) == 0) {
        *out = g4_format_mail(r, G4_F_IDN_LOCAL, G4_F_IDN_HOSTNAME, spelling);
        return G4_FORMAT_LOOSE;
    }
    if (n == 5 && memcmp(name, "regex", n) == 0) {
        *out = g4_format_regex(r, spelling);
        return G4_FORMAT_LOOSE;
    }
    for (size_t i = 0; i < sizeof g4_formats / sizeof g4_formats[0]; i++) {
        const g4_known_format *f = &g4_formats[i];
        if (strlen(f->name) != n || memcmp(f->name, name, n) != 0) continue;
        *out = f->longest > 0 ? g4_format_short(r, f->pattern, spelling, name[0] == 'i', f->longest)
                              : g4_format_pattern(r, f->pattern, spelling, name[0] == 'i');
        return f->is_exact ? G4_FORMAT_EXACT : G4_FORMAT_LOOSE;
    }
    return G4_FORMAT_UNKNOWN;
}
