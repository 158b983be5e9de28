#!/bin/sh
# House rules that a machine can check. Prints the floors; ends with "N passed, N failed".
# usage: lint.sh   (from the repository root)
lib=$(awk '!/^#/ && $1 != "cli" { for (i = 3; i <= NF; i++) print $i }' tools/floors)
cli=$(awk '$1 == "cli" { for (i = 3; i <= NF; i++) print $i }' tools/floors)
forbidden="exit|_exit|_Exit|quick_exit|abort|(__)?v?printf(_chk)?|puts|putchar|perror|stdin|stdout|stderr|__assert_fail"
forbidden="$forbidden|getenv|secure_getenv|system|popen|setlocale|strtok|s?rand|signal|sigaction"
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
out=build/lint
jobs=$(nproc 2> /dev/null || echo 2)
skipped=0
rm -rf "$out"
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

# each NAME COMMAND: run COMMAND FILE for every file on stdin, some at a time, and check what each of them prints.
each() {
    name=$1; shift
    mkdir -p "$out/said"
    list=$(cat)
    echo "$list" | xargs -P "$jobs" -I '{}' sh -c \
        'f=$1; shift; "$@" "$f" > "$0/said/$(echo "$f" | tr / _)" 2>&1' "$out" '{}' "$@"
    for f in $list; do check "$name $f" < "$out/said/$(echo "$f" | tr / _)"; done
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
    level=-O1; [ "$cc" != clang ] || level=-O0 # what gcc warns of depends on the level, what clang warns of does not
    # shellcheck disable=SC2016
    compile="$cc -std=c11 $level -fPIC -pthread $warn"' -I. -c "$1" -o "$2/$(echo "${1%.c}" | tr / _).o"'
    echo "$out/one.c $lib $cli $out/head.c examples/simple.c" | tr ' ' '\n' | # the longest first
        each "$cc warnings in" sh -c "set -- \"\$1\" $out/$cc; $compile" sh
    mv "$out/$cc/$(echo "$out/one" | tr / _).o" "$out/$cc/one.o"
    "$cc" -std=c11 -O0 -DG4_SCALAR_ONLY $warn -I. -c "$out/one.c" -o "$out/$cc/scalar.o" 2>&1 |
        check "$cc warnings with G4_SCALAR_ONLY"
    "$cc" -x c++ -std=c++11 $warn -I. -fsyntax-only "$out/head.c" 2>&1 | check "$cc warnings in gemma4.h as C++11"
done

# Nobody starts them in a test.
cc=${compilers# }
cc=${cc%% *}
printf '%s\n' bench/*.c | each "warnings in" "$cc" -std=c11 $warn -I. -Itests -fsyntax-only

# ---- Floors ----------------------------------------------------------------------------------------
sh tools/floors.sh "$out/$cc" > "$out/floors" || echo "!! tools/floors.sh ends with status $?" >> "$out/floors"
grep -v '^!!' "$out/floors"
grep '^!!' "$out/floors" | check "floors"
echo "$lib" | tr ' ' '\n' > "$out/order"
sed -n '/defined(GEMMA4_IMPLEMENTATION) && !defined/,$s/^#include "\(.*\)"/\1/p' gemma4.h | diff "$out/order" - |
    check "the implementation switch of gemma4.h against tools/floors"
grep -nE 'g4_session|pthread|mmap|madvise|fopen' gemma4.c | check "words that gemma4.c must not know"
grep -hE '^#include "' examples/simple.c | check "examples/simple.c includes libc's headers only"

# The command line is a client of what the header declares.
sed -nE 's/.*G4_API .*[ *](g4_[a-z0-9_]+)\(.*/\1/p' gemma4.h > "$out/public"
for f in $cli; do
    nm -u "$out/$cc/$(echo "${f%.c}" | tr / _).o" | awk '$2 ~ /^g4_/ { print $2 }' | grep -vxFf "$out/public" |
        check "private names of the library in $f"
    obj="$out/$cc/$(echo "${f%.c}" | tr / _).o"
    nm "$obj" | awk 'NF == 3 && tolower($3) ~ /^(g4_|gemma4_)/ { print $3 }' | check "names of the library in $f"
    case $f in cli/files.c | cli/terminal.c) continue ;; esac # which hold what a signal's handler can reach
    size -A "$obj" |
        awk '($1 ~ /^\.(data|bss|tdata|tbss)(\.|$)/) && $1 !~ /^\.data\.rel\.ro/ && $2 > 0' |
        check "writable state in $f"
done
sh tools/page.sh | cmp - cli/page.h 2>&1 | check "cli/page.h, which tools/page.sh makes of cli/page.html"
if command -v python3 > /dev/null; then
    while read -r mirror tool; do
        # shellcheck disable=SC2086
        python3 $tool 2>&1 | cmp - "$mirror" 2>&1 | check "$mirror against gemma4.h: python3 $tool > $mirror"
    done << END
python/gemma4c/_mirror.py tools/make_python_mirror.py
rust/src/sys.rs tools/make_rust_mirror.py
rust/tests/mirror.rs tools/make_rust_mirror.py --proof
END
else
    echo "no python3"
    skipped=$((skipped + 1))
fi
grep -niE '^# *define +(g4_|gemma4_)' $cli cli/*.h | check "macros of the library in the command line"

# ---- Symbols of the library: prefix, forbidden calls, no state ------------------------------------
# Compilers add suffixes after a dot (.part.0, .constprop.0); a static inside a function is NAME.0 in gcc; clang
# names tables of its own reltable.FUNCTION, and keeps what it has from its headers (__get_cpuid_max).
for cc in $compilers; do
    for f in $lib one.c; do
        obj="$out/$cc/$(echo "${f%.c}" | tr / _).o"
        [ -f "$obj" ] || continue
        nm "$obj" | awk 'NF == 3 && $3 !~ /^_?g4_/ && !($2 == "t" && $3 ~ /^__/) && $3 !~ /^[.]L/' |
            grep -vE ' [A-Za-z_][A-Za-z_0-9]*[.](g4_|[0-9])' | check "names without g4_ in $obj"
        nm -u "$obj" | awk '{ print $2 }' | grep -xE "$forbidden" |
            check "calls a library must not make in $obj"
        size -A "$obj" | awk '($1 ~ /^\.(data|bss|tdata|tbss)(\.|$)/) && $1 !~ /^\.data\.rel\.ro/ && $2 > 0' |
            check "writable state in $obj"
    done
done
grep -nE '^#define ' gemma4.h engine/*.h media/*.h chat/*.h $lib |
    grep -vE '#define (G4_|GEMMA4_|_GNU_SOURCE|g4_)' | check "macros without a prefix"

# ---- Text: format, width, tabs, trailing blanks, machine paths ---------------------------------------
files=$(git ls-files 2>/dev/null || find . -type f | sed 's|^\./||' | grep -v '^build/')
code=$(echo "$files" | grep -E '\.(c|h|cc|py|sh)$|^\.ci/run$')
if clang-format --version 2> /dev/null | grep -q 'version 14\.'; then
    echo "$code" | grep -E '\.(c|h|cc)$' | xargs -P "$jobs" -n 8 clang-format --dry-run 2>&1 | grep 'warning:' |
        check "what clang-format 14 would change"
else
    echo "no clang-format 14"
    skipped=$((skipped + 1))
fi
awk 'length($0) > 120 { print FILENAME ":" FNR ": " length($0) " columns" }' $(echo "$code" | grep -v '\.py$') |
    check "lines over 120 columns"
grep -nE "$(printf '\t')" $code | check "tabs"
grep -nE ' +$' $code | check "blanks at the end of a line"
echo "$files" | grep -vE '^(tests/(data|fuzz)|models|examples)/|\.(g4|png|jpg|wav|y4m)$' |
    xargs grep -nIE '/wor[k]/|/far[m]/|/roo[t]/|pyp[i]\.org|deb\.debia[n]' | check "machine paths or registry hosts"

# ---- clang-tidy, where it is there ------------------------------------------------------------------
# The analyser reads one file and cannot see that g4_fail returns a failure: what follows a check looks like NULL to it.
if command -v clang-tidy > /dev/null; then
    checks="-*,clang-analyzer-core.*,clang-analyzer-unix.*,clang-analyzer-deadcode.*"
    checks="$checks,-clang-analyzer-core.NullDereference,bugprone-suspicious-*,-bugprone-suspicious-include"
    checks="$checks,bugprone-infinite-loop,bugprone-macro-parentheses"
    checks="$checks,bugprone-misplaced-*,bugprone-too-small-loop-variable,misc-redundant-expression"
    # At most so many states of a function: a tenth of what is usual finds the same here, in a tenth of the time.
    budget="--extra-arg=-Xclang --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes=20000"
    tidy="clang-tidy --quiet --checks='$checks' $budget"
    echo "$lib $cli" | tr ' ' '\n' |
        each "clang-tidy in" sh -c "$tidy \"\$1\" -- -std=c11 -I. 2> /dev/null | grep -E 'warning:|error:'" sh
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
