/* Conversations of any messages become prompts that have the control tokens of their template and no others: the corpus
 * of tests/fuzz/fuzz_template.c, as it is and changed. */
#include "fuzz/fuzz_template.c"
#include "replay.h"
#include "test.h"

int main(void)
{
    const int n = g4_replay("tests/fuzz/corpus_template", LLVMFuzzerTestOneInput, 4);
    G4_EXPECT(n > 30, "%d inputs in the corpus", n);
    return g4_test_end();
}
