/* The corpora of the fuzzers of schemas and grammars, each input as it is and with a few bytes changed. The entries end
 * the program when something is wrong. */
#define LLVMFuzzerTestOneInput g4_fuzz_schema
#include "fuzz/fuzz_schema.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_rules
#include "fuzz/fuzz_rules.c"
#undef LLVMFuzzerTestOneInput

#include "replay.h"
#include "test.h"

int main(void)
{
    const int n_schemas = g4_replay("tests/fuzz/corpus_schema", g4_fuzz_schema, 1);
    const int n_rules = g4_replay("tests/fuzz/corpus_rules", g4_fuzz_rules, 1);
    G4_EXPECT(n_schemas > 50, "%d schemas in the corpus", n_schemas);
    G4_EXPECT(n_rules > 50, "%d rules in the corpus", n_rules);
    return g4_test_end();
}
