/* test_multipart.c - forms as cli/multipart.c reads them: what libraries send, what only looks like a delimiter, what
 * is malformed, and the corpus of the fuzzer. */
#define LLVMFuzzerTestOneInput g4_fuzz_multipart
#include "fuzz/fuzz_multipart.c"
#undef LLVMFuzzerTestOneInput

#include "replay.h"
#include "test.h"

#include <string.h>

#define TYPE "multipart/form-data; boundary=b"
#define PART(name) "Content-Disposition: form-data; name=\"" name "\"\r\n\r\n"

/* The parts as "name(file)=bytes;" into out, and how it ended: "." or "!". */
static void g4_read_form(const char *type, const char *text, size_t len, char *out, size_t size)
{
    multipart m;
    multipart_part p;
    char *body = malloc(len + 1); /* of its own, so that reading over its end is seen */
    size_t n = 0;
    int more;
    memcpy(body, text, len);
    if (!multipart_open(&m, type, body, len)) {
        snprintf(out, size, "?");
        free(body);
        return;
    }
    while ((more = multipart_next(&m, &p)) > 0)
        n += (size_t)snprintf(out + n, size - n, "%s(%s)=%.*s;", p.name, p.file, (int)p.len, p.data);
    snprintf(out + n, size - n, "%s", more == 0 ? "." : "!");
    free(body);
}

static void g4_expect_form(const char *want, const char *type, const char *text)
{
    char out[512];
    g4_read_form(type, text, strlen(text), out, sizeof out);
    G4_EXPECT(strcmp(out, want) == 0, "%s, expected %s: %s\n%s", out, want, type, text);
}

static void g4_test_forms(void)
{
    static const char usual[] =
        "--b\r\n" PART("model") "m\r\n--b\r\nContent-Type: audio/wav\r\n"
                                "content-disposition:form-data;filename=\"a \\\"b\\\".wav\" ; name=file\r\n"
                                "X: y\r\n\r\n\r\n--bx\r\n-- b\r\n--b\r\n" PART("empty") "\r\n--b--\r\n";
    char out[512];
    g4_expect_form("model()=m;file(a \"b\".wav)=\r\n--bx\r\n-- b;empty()=;.", TYPE, usual);
    for (size_t n = 0; n < strlen(usual) - 2; n++) { /* cut anywhere it is malformed */
        g4_read_form(TYPE, usual, n, out, sizeof out);
        G4_EXPECT(out[strlen(out) - 1] == '!', "cut at %zu: %s", n, out);
    }
    g4_expect_form("x()=1;.", TYPE, "preamble\r\n--b\t \r\n" PART("x") "1\r\n--b--");
    g4_expect_form("x()=1;.", "Multipart/Form-Data; charset=x; boundary=\"b\"", "--b\r\n" PART("x") "1\r\n--b-- end");
    g4_expect_form("x;y()=1;.", TYPE,
                   "--b\r\nContent-Disposition: form-data; filename*=UTF-8''z; name=\"x;y\"\r\n\r\n1\r\n--b--");
}

static void g4_test_wrong(void)
{
    static const char *const types[] = { "application/json",
                                         "multipart/form-data",
                                         "multipart/form-data; boundary=",
                                         "multipart/form-data; boundary=\"b",
                                         "multipart/form-data; boundary=b<",
                                         "multipart/form-data; boundary=0123456789012345678901234567890123456789"
                                         "0123456789012345678901234567890" };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        g4_expect_form("?", types[i], "--b\r\n" PART("x") "1\r\n--b--");
    G4_EXPECT(!multipart_open(&(multipart) { 0 }, NULL, "", 0), "no type");
    g4_expect_form("!", TYPE, "");
    g4_expect_form("!", TYPE, "--b--\r\n");
    g4_expect_form("!", TYPE, "--b\r\n\r\n1\r\n--b--");
    g4_expect_form("!", TYPE, "--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--");
    g4_expect_form("!", TYPE, "--b\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n1\r\n--b--");
    g4_expect_form("!", TYPE, "--b\r\nContent-Disposition: form-data; name=\"x\r\n\r\n1\r\n--b--");
    g4_expect_form("!", TYPE, "--b\nContent-Disposition: form-data; name=x\n\n1\n--b--");
    g4_expect_form("!", TYPE, "--b\r\n" PART("x") "1\r\n--c--");
    g4_expect_form("!", TYPE, "--b\r\n" PART("x") "1--b--");
}

int main(void)
{
    g4_test_forms();
    g4_test_wrong();
    const int n = g4_replay("tests/fuzz/corpus_multipart", g4_fuzz_multipart, 40);
    G4_EXPECT(n >= 5, "%d inputs in the corpus", n);
    return g4_test_end();
}
