#!/bin/sh
# House rules that a machine can check. Ends with "N passed, N failed". usage: lint.sh   (from the repository root)
lib="engine/base.c engine/kernels.c engine/threads.c tokenizer.c media.c gemma4.c chat/json.c chat/pytext.c chat/control.c chat/template.c chat/messages.c chat/openai.c chat/conversation.c chat/reply.c chat/network.c chat/grammar.c chat/pattern.c chat/range.c chat/schema.c chat/guide.c chat/boxes.c"
forbidden="exit|_exit|_Exit|quick_exit|abort|(__)?v?printf(_chk)?|puts|putchar|perror|stdin|stdout|stderr|__assert_fail"
forbidden="$forbidden|getenv|secure_getenv|system|popen|setlocale|strtok|s?rand|signal|sigaction"
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
out=build/lint
skipped=0
mkdir -p "$out"
: > "$out/score"

# check NAME: stdin is a list of offences; empty is a pass. It runs in a subshell, so the score goes to a file.
check() {
    list=$(cat)
    if [ -z "$list" ]; then
        echo passed >> "$out/score"
    else
        echo failed >> "$out/score"
        echo "-- $1:"
        echo "$list" | head -n 20
    fi
}

# ---- Warnings: every file alone, and all in one translation unit, under both compilers ----------
compilers=
for cc in gcc clang; do
    if command -v "$cc" > /dev/null; then compilers="$compilers $cc"; else echo "no $cc"; skipped=$((skipped + 1)); fi
done
printf '#define GEMMA4_IMPLEMENTATION\n#include "gemma4.h"\n' > "$out/one.c"
printf '#include "gemma4.h"\nint main(void) { return 0; }\n' > "$out/head.c"
for cc in $compilers; do
    mkdir -p "$out/$cc"
    for c in $lib run.c "$out/one.c" "$out/head.c"; do
        "$cc" -std=c11 -O2 -fPIC -ffp-contract=off -pthread $warn -I. -c "$c" -o "$out/$cc/$(basename "$c" .c).o" 2>&1 |
            check "$cc warnings in $c"
    done
    "$cc" -std=c11 -O2 -ffp-contract=off -DG4_SCALAR_ONLY $warn -I. -c "$out/one.c" -o "$out/$cc/scalar.o" 2>&1 |
        check "$cc warnings with G4_SCALAR_ONLY"
    "$cc" -x c++ -std=c++11 $warn -I. -fsyntax-only "$out/head.c" 2>&1 | check "$cc warnings in gemma4.h as C++11"
done

# ---- Symbols of the library: prefix, forbidden calls, no state ------------------------------------
# Compilers add suffixes after a dot (.part.0, .constprop.0); a static inside a function is NAME.0 in gcc; clang
# names tables of its own reltable.FUNCTION.
for cc in $compilers; do
    for o in base kernels threads tokenizer media gemma4 json pytext control template messages openai conversation reply network grammar pattern range schema guide boxes one; do
        obj="$out/$cc/$o.o"
        [ -f "$obj" ] || continue
        nm "$obj" | awk 'NF == 3 && $3 !~ /^_?g4_/ && $3 !~ /^[A-Za-z_]+[.](g4_|[0-9])/ && $3 !~ /^[.]L/' |
            check "names without g4_ in $obj"
        nm -u "$obj" | awk '{ print $2 }' | grep -xE "$forbidden" |
            check "calls a library must not make in $obj"
        size -A "$obj" | awk '($1 ~ /^\.(data|bss|tdata|tbss)(\.|$)/) && $1 !~ /^\.data\.rel\.ro/ && $2 > 0' |
            check "writable state in $obj"
    done
done
grep -nE '^#define ' gemma4.h engine/*.h media/*.h chat/*.h $lib |
    grep -vE '#define (G4_|GEMMA4_|_GNU_SOURCE)' | check "macros without a prefix"

# ---- Text: width, tabs, trailing blanks, machine paths ----------------------------------------------
files=$(git ls-files 2>/dev/null || find . -type f | sed 's|^\./||' | grep -v '^build/')
code=$(echo "$files" | grep -E '\.(c|h|cc|py|sh)$|^\.ci/run$')
awk 'length($0) > 120 { print FILENAME ":" FNR ": " length($0) " columns" }' $(echo "$code" | grep -v '\.py$') |
    check "lines over 120 columns"
grep -nE "$(printf '\t')" $code | check "tabs"
grep -nE ' +$' $code | check "blanks at the end of a line"
echo "$files" | grep -vE '^(tests/(data|fuzz)|models|examples)/|\.(g4|png|jpg|wav|y4m)$' |
    xargs grep -nIE '/wor[k]/|/far[m]/|/roo[t]/|pyp[i]\.org|deb\.debia[n]' | check "machine paths or registry hosts"

# The analyser reads one file and cannot see that g4_fail returns a failure: what follows a check looks like NULL to it.
# ---- clang-tidy, where it is there ------------------------------------------------------------------
if command -v clang-tidy > /dev/null; then
    for c in $lib run.c; do
        clang-tidy --quiet --checks="-*,clang-analyzer-core.*,clang-analyzer-unix.*,clang-analyzer-deadcode.*,\
-clang-analyzer-core.NullDereference,\
bugprone-suspicious-*,-bugprone-suspicious-include,bugprone-infinite-loop,bugprone-macro-parentheses,\
bugprone-misplaced-*,bugprone-too-small-loop-variable,misc-redundant-expression" "$c" -- -std=c11 -I. 2> /dev/null |
            grep -E 'warning:|error:' | check "clang-tidy in $c"
    done
else
    echo "no clang-tidy"
    skipped=$((skipped + 1))
fi

passed=$(grep -c passed "$out/score")
failed=$(grep -c failed "$out/score")
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
