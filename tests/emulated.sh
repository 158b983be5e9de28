#!/bin/sh
# Test the AVX-512 and AVX-VNNI kernels without such a CPU: tests/test_kernels.c on a copy of the kernels whose
# intrinsics are those of tests/emulated.h. Needs AVX2. usage: emulated.sh BUILD_FOLDER
set -eu
out=$1/emulated
cc=${CC:-cc}
mkdir -p "$out/engine"
for f in engine/kernels_*.h; do
    sed -e 's/_mm512_/G4_512_/g; s/__m512i/g4_v512i/g; s/__m512\b/g4_v512/g; s/__mmask64/uint64_t/g' \
        -e 's/_mm256_dpbusd_avx_epi32/G4_256_dpbusd/g' \
        -e 's/^#define G4_AVXVNNI .*/#define G4_AVXVNNI G4_AVX2/; s/^#define G4_AVX512 .*/#define G4_AVX512 G4_AVX2/' \
        -e 's/^#define G4_AVX512VNNI .*/#define G4_AVX512VNNI G4_AVX2/' \
        -e 's/return (g4_x86_features() & G4_HAS_AVX[A-Z0-9]*) != 0;/return g4_x86_features() != 0;/' \
        -e 's/^#define G4_KEEP(v).*/#define G4_KEEP(v) ((void)0)/' \
        -e 's/^#include <immintrin.h>/#include <immintrin.h>\n#include "emulated.h"/' \
        "$f" > "$out/$f"
done
cp gemma4.h "$out/"
cp engine/kernels.c engine/parts.h engine/base.h tests/emulated.h "$out/engine/"
"$cc" -std=gnu11 -O1 -pthread -c "$out/engine/kernels.c" -o "$out/kernels.o"
"$cc" -std=gnu11 -O1 -pthread -I. -Itests tests/test_kernels.c "$out/kernels.o" "$1/libgemma4.a" \
    -o "$out/test_kernels" -lm
"$out/test_kernels"
