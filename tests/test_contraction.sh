#!/bin/sh
# The source alone forbids a compiler to fuse a * b + c, whatever the flags, and leaves the user's own code as it was:
# a library of one function, built in each promised way for this CPU; then the logits of the programs tests/use_*,
# equal bits however each got the library. usage: test_contraction.sh (G4_BUILD: the folder of the programs)
build=${G4_BUILD:-build}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0; failed=0; skipped=0
# ok NAME CONDITION...: the condition is a command.
ok() {
    name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "-- $name"; fi
}

# ---- The switch, with a library of one function ------------------------------------------------------------------
# Fused, (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24; with the product rounded first it is 0.
mkdir -p "$tmp/engine"
cp gemma4.h LICENSE "$tmp/"
cp engine/base.h "$tmp/engine/"
grep '^#include ".*\.c"' gemma4.h | sed 's/^#include "\(.*\)"/\1/' | while read -r source; do
    mkdir -p "$tmp/$(dirname "$source")"
    : > "$tmp/$source"
done
cat > "$tmp/engine/base.c" << 'END'
#define GEMMA4_IMPLEMENTED
#include "base.h"
int g4_fuses(float a, float b, float c);
int g4_fuses(float a, float b, float c) { return a * b + c != 0.0f; }
END
cat > "$tmp/user.c" << 'END'
#if defined(HEADER)
#define GEMMA4_IMPLEMENTATION
#include HEADER
#else
int g4_fuses(float a, float b, float c);
#endif
#include <stdio.h>
int user_fuses(float a, float b, float c);
int user_fuses(float a, float b, float c) { return a * b + c != 0.0f; }
int main(void)
{
    volatile float a = 1 + 0x1p-12f, c = -1 - 0x1p-11f;
    printf("library %d, user %d\n", g4_fuses(a, a, c), user_fuses(a, a, c));
    return 0;
}
END
(cd "$tmp" && sh "$OLDPWD/tools/single.sh" > gemma4_single.h)

compilers=
for cc in "${CC:-cc}" gcc clang; do
    case " $compilers " in *" $cc "*) ;; *) command -v "$cc" > /dev/null && compilers="$compilers $cc" ;; esac
done
for cc in $compilers; do
    for native in -march=native -mcpu=native ''; do
        "$cc" $native -E -x c /dev/null > /dev/null 2>&1 && break
    done
    flags="-O3 $native -std=gnu11"
    "$cc" $flags -c "$tmp/engine/base.c" -o "$tmp/base.o" &&
        "$cc" $flags "$tmp/user.c" "$tmp/base.o" -o "$tmp/objects" &&
        "$cc" $flags -DHEADER='"gemma4.h"' "$tmp/user.c" -o "$tmp/header" &&
        "$cc" $flags -DHEADER='"gemma4_single.h"' "$tmp/user.c" -o "$tmp/single"
    ok "$cc builds the switch" test $? -eq 0
    user=$("$tmp/objects" | sed -n 's/.*user //p')
    if [ "$user" = 1 ]; then
        for form in objects header single; do
            ok "$cc, $form: $("$tmp/$form")" test "$("$tmp/$form")" = "library 0, user 1"
        done
    else
        echo "skipped: $cc does not fuse for this CPU"
        skipped=$((skipped + 1))
    fi
done

# ---- The library itself --------------------------------------------------------------------------------------------
for model in tests/data/text_e2b.g4 tests/data/text_e2b.q4_0.g4; do
    for program in "$build"/use_*; do
        case $program in *.*) ;; *) "$program" "$model" | grep '^logits of' ;; esac
    done > "$tmp/logits"
    ok "every program prints logits of $model" test "$(wc -l < "$tmp/logits")" -ge 2
    sort -u "$tmp/logits" > "$tmp/distinct"
    cut -d: -f1 "$tmp/distinct" | sort -u > "$tmp/tables"
    ok "equal bits of $model: $(cat "$tmp/logits")" test "$(wc -l < "$tmp/distinct")" = "$(wc -l < "$tmp/tables")"
done

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
