/* test_format.c - JSON Schema's formats: values that are right and values that are wrong, written out. */
#include <string.h>

#include "chat/chat.h"
#include "failing.h"
#include "test.h"

/* texts: valid ones, NULL, invalid ones, NULL. */
static void check(const char *name, g4_format_kind kind, const char *const *texts)
{
    g4_re x;
    g4_regular *r = g4_regular_open(NULL, NULL);
    G4_EXPECT(g4_format_re(r, name, strlen(name), G4_RAW, &x) == kind, "%s", name);
    for (int is_valid = 1; is_valid >= 0; is_valid--, texts++)
        for (; *texts != NULL; texts++)
            G4_EXPECT(g4_re_matches(r, x, *texts, strlen(*texts)) == is_valid, "%s: %s", name, *texts);
    G4_EXPECT(g4_regular_failed(r) == G4_NET_FINE, "%s: failed", name);
    g4_regular_close(r);
}
#define YES(...) __VA_ARGS__, NULL
#define NO(...) __VA_ARGS__, NULL
#define EXACT(name, ...) check(name, G4_FORMAT_EXACT, (const char *const[]) { __VA_ARGS__ })
#define LOOSE(name, ...) check(name, G4_FORMAT_LOOSE, (const char *const[]) { __VA_ARGS__ })

#define LONG(s) s s s s s s s s s s s s s s s s
#define LABEL LONG("aaa") "aaaaaaaaaaaaaaa"

static void test_times(void)
{
    EXACT("date", YES("2024-02-29", "2000-02-29", "0000-02-29", "1999-12-31", "2023-04-30"),
          NO("2023-02-29", "1900-02-29", "2023-04-31", "2023-13-01", "2023-00-10", "2023-1-1", "12023-01-01",
             "2023-01-00"));
    EXACT("time",
          YES("00:00:00Z", "23:59:59.123456789z", "08:30:06+23:59", "23:59:60Z", "01:29:60.5+01:30", "15:59:60-08:00",
              "00:29:60+00:30"),
          NO("24:00:00Z", "08:30", "08:30:06", "22:59:60Z", "23:58:60Z", "23:59:60+01:00", "08:30:06.Z",
             "08:30:06+24:00", "23:59:61Z", "01:28:60+01:30"));
    EXACT("date-time", YES("1985-04-12T23:20:50.52Z", "1990-12-31T15:59:60-08:00", "2024-02-29t00:00:00+05:30"),
          NO("1985-04-31T00:00:00Z", "1985-04-12 23:20:50Z", "1985-04-12T23:20:50", "1985-04-12"));
    EXACT("duration", YES("P4DT12H30M5S", "P1Y2M3D", "PT0S", "P4W", "P1M", "PT36H"),
          NO("P", "PT", "4D", "P1D2W", "P2D1Y", "PT1D", "P1.5D", "p1d"));
}

static void test_names(void)
{
    EXACT("email",
          YES("joe.bloggs@example.com", "A+b_c@Sub.Example.PHOTOGRAPHY", "\"joe \\\"x\\\" bloggs\"@example.com",
              "x@[127.0.0.1]", "x@[IPv6:2001:db8::1]", "!#$%&'*+/=?^_`{|}~-@localhost"),
          NO("2962", ".a@b.com", "a.@b.com", "a..b@c.com", "a b@c.com", "a@b..com", "a@-b.com", "a@b_c.com", "a@", "@b",
             "a@[127.0.0.300]", "\xc3\xa9@b.com"));
    /* 64 characters before the @, 253 behind it */
    EXACT("email", YES(LONG("aaaa") "@b.c", "a@" LABEL "." LABEL "." LABEL "." LONG("aaa") "aaaaaaaaaaaaa"),
          NO(LONG("aaaa") "a@b.c", "a@" LABEL "." LABEL "." LABEL "." LONG("aaa") "aaaaaaaaaaaaaa"));
    LOOSE("idn-email",
          YES("\xec\x8b\xa4\xeb\xa1\x80@\xec\x8b\xa4\xeb\xa1\x80.\xed\x85\x8c\xec\x8a\xa4\xed\x8a\xb8", "a@b.c"),
          NO("2962", "a b@c.d"));
    EXACT("hostname",
          YES("www.example.com", "xn--4gbwdl.xn--wgbh1c", "a", "1.2", "A-B--c.d",
              "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
          NO("", "-a", "a-", "a_b", "a..b", ".a", "a.", "ab--c",
             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    LOOSE("idn-hostname",
          YES("\xec\x8b\xa4\xeb\xa1\x80.com",
              "stra\xc3\x9f"
              "e",
              "a.b"),
          NO("", "-a", "a b", "\xcc\x80x"));
    EXACT("uuid", YES("2EB8AA08-aa98-11ea-b4aa-73b441d16380", "00000000-0000-0000-0000-000000000000"),
          NO("2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98-11ea-b4aa-73b441d1638",
             "2eb8aa08-aa98-11ea-b4aa-73b441d1638g"));
}

static void test_addresses(void)
{
    EXACT("ipv4", YES("0.0.0.0", "192.168.255.1"), NO("256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5", "1.2.3.4 "));
    EXACT(
        "ipv6",
        YES("::", "::1", "1::", "2001:DB8::8:800:200c:417a", "::ffff:192.168.0.1", "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::"),
        NO("1:2:3:4:5:6:7", "12345::", ":::", "1::2::3", "::1%eth0", "1:2:3:4:5:6:7:8:9", "::g", "1:2:3:4:5:6:7::8:9"));
    EXACT("uri",
          YES("http://foo.bar/?baz=qux#quux", "urn:x:y", "mailto:a@b.c", "ldap://[2001:db8::7]/c=GB?one",
              "x://u:p@h:80/a%20b", "a:"),
          NO("//foo.bar", "/abc", "abc", ":// x", "http:// x", "http://a\\b", "1a:b", "http://[::1", "a:%zz",
             "http://\xc3\xa9"));
    EXACT("uri-reference", YES("", "#a", "?q", "/abc", "//foo/x", "a/b:c", "http://x"),
          NO("\\\\WIN", "#a\\b", "1:b", "a b"));
    EXACT("iri", YES("http://\xc6\x92\xc3\xb8\xc3\xb8.b\xc3\xa5r/?q#\xc3\xa9", "a:b"), NO("/abc", "http://a b"));
    EXACT("iri-reference", YES("\xc3\xa9", "#\xc3\xa9", "//\xc3\xa9/x"), NO("\\\\x", "a b"));
    EXACT("uri-template", YES("http://x/{a}/{+b,c*}{?d:3}", "a'b", ""), NO("http://x/{a", "{}", "a b", "}", "{a:0}"));
}

static void test_others(void)
{
    EXACT("json-pointer", YES("", "/", "/a~0b/~1c/0", "/\xc3\xa9 x"), NO("a", "/~", "/~2", "#/a"));
    EXACT("relative-json-pointer", YES("0", "1/a", "12#", "0/"), NO("", "-1/a", "01/a", "/a", "0##", "1a"));
    LOOSE("regex", YES("", "^(a|b)[^c\\]]*\\d+$", "((((((x))))))", "a{2}\\u{1F600}"),
          NO("^(abc]", "a\\", "[a", "*a", "\\a", "(", ")"));
    check("int32", G4_FORMAT_UNKNOWN, (const char *const[]) { NULL, NULL });
    check("DATE", G4_FORMAT_UNKNOWN, (const char *const[]) { NULL, NULL });
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_re x;
    g4_format_re(r, "json-pointer", 12, G4_ESCAPED, &x);
    G4_EXPECT(g4_re_matches(r, x, "/\\\"\\\\\\n", 7) && !g4_re_matches(r, x, "/\"", 2), "within a JSON string");
    g4_regular_close(r);
}

/* Each allocation fails once: nothing is lost, and the set says so. */
static void test_memory(void)
{
    static const char *const names[] = { "date-time", "hostname", "iri", "regex" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int n_failed = 0, wrong = 0, failed = 1;
        for (long at = 0; failed; at++) {
            g4_failing f = { .fail_at = at };
            const g4_allocator a = g4_failing_allocator(&f);
            g4_regular *r = g4_regular_open(&a, NULL);
            g4_re x = G4_RE_NONE;
            if (r != NULL) g4_format_re(r, names[i], strlen(names[i]), G4_ESCAPED, &x);
            failed = r == NULL || g4_regular_failed(r) == G4_NET_NO_MEMORY;
            wrong += failed ? x != G4_RE_NONE : x == G4_RE_NONE;
            g4_regular_close(r);
            wrong += f.live != 0;
            n_failed += failed;
        }
        G4_EXPECT(n_failed > 5 && wrong == 0, "%s: %d failures, %d wrong", names[i], n_failed, wrong);
    }
}

int main(void)
{
    test_times();
    test_names();
    test_addresses();
    test_others();
    test_memory();
    return g4_test_end();
}
