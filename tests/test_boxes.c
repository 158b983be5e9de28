/* Boxes and points of answers: fenced or not, alone or in lists, cut off, with prose around; nothing else is taken for
 * one. And the corpus of their fuzzer. */
#include <string.h>

#include "failing.h"
#include "fuzz/fuzz_boxes.c"
#include "replay.h"
#include "test.h"

static void g4_case(const char *text, const char *want)
{
    g4_box *b;
    int n;
    g4_error err = { 0 };
    g4_buf got = { 0 };
    G4_EXPECT(g4_boxes_read(&b, &n, text, strlen(text), 2000, 500, NULL, &err) == G4_OK, "%s", err.message);
    g4_buf_str(&got, "");
    for (int i = 0; i < n; i++)
        g4_buf_fmt(&got, "%s%d,%d,%d,%d:%s;", b[i].is_point ? "p" : "b", b[i].x0, b[i].y0, b[i].x1, b[i].y1,
                   b[i].label);
    G4_EXPECT(strcmp(got.data, want) == 0, "%s: got %s, want %s", text, got.data, want);
    g4_buf_free(&got);
    g4_boxes_free(b, n, NULL);
}

int main(void)
{
    g4_case("[{\"box_2d\": [100, 200, 300, 400], \"label\": \"cat\"}]", "b400,50,800,150:cat;");
    g4_case("Here:\n```json\n[\n  {\"box_2d\": [0, 0, 1000, 1000], \"label\": \"a \\\"q\\\" }\"},\n  {\"point\": [500, "
            "250], \"label\": \"p\"}\n]\n```\nDone.",
            "b0,0,2000,500:a \"q\" };p500,250,500,250:p;");
    g4_case("{\"label\": \"x\", \"box_2d\": [300, 400, 100, 200]}", "b400,50,800,150:x;");
    g4_case("{\"objects\": [{\"box_2d\": [1, 2, 3, 4]}, {\"box_2d\": [1, 2, 3]}]}", "b4,1,8,2:;");
    g4_case("[[100, 200, 300, 400], [500, 500]]", "b400,50,800,150:;p1000,250,1000,250:;");
    g4_case("[{\"box_2d\": [1, 2, 3, 4], \"label\": \"whole\"}, {\"box_2d\": [5, 6,", "b4,1,8,2:whole;");
    g4_case("[-5, 2000, 3.6, 1e9]", "b2000,0,2000,2:;");
    g4_case("It's [not] a {box} [1, 2, 3] [1, 2, 3, 4, 5] [\"1\", 2] \"[1, 2\"", "");
    g4_case("", "");
    g4_case("[1, 2", "");
    g4_box *b;
    int n;
    G4_EXPECT(g4_boxes_read(&b, &n, "", 0, 0, 5, NULL, NULL) == G4_ERR_ARGUMENT && b == NULL, "no picture");
    const char *text = "[{\"box_2d\": [1, 2, 3, 4], \"label\": \"a\"}, {\"box_2d\": [1, 2, 3, 4]}]";
    for (long k = 0; k < 100; k++) {
        g4_failing f = { 0, k, 0 };
        g4_allocator al = g4_failing_allocator(&f);
        g4_status st = g4_boxes_read(&b, &n, text, strlen(text), 100, 100, &al, NULL);
        g4_boxes_free(b, n, &al);
        G4_EXPECT(f.live == 0 && (st == G4_ERR_MEMORY) == (f.calls > k), "allocation %ld: status %d, %ld live", k, st,
                  f.live);
        if (f.calls <= k) break;
    }
    const int n_inputs = g4_replay("tests/fuzz/corpus_boxes", LLVMFuzzerTestOneInput, 20);
    G4_EXPECT(n_inputs > 20, "%d inputs in the corpus", n_inputs);
    return g4_test_end();
}
