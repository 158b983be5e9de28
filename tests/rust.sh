#!/bin/sh
# The crate in rust/ as its users build it: do tests, documentation and examples run, has Clippy nothing to say? That
# its mirror of gemma4.h is up to date is said by lint. usage: rust.sh PYTHON (from the repository root)
# Ends with "N passed, N failed[, N skipped]".
python=$1
cargo=${CARGO:-cargo}
export CFLAGS=-O1 # compiled in half the time
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/build/rust}" CARGO_NET_OFFLINE=true CARGO_TERM_COLOR=never
proof=$PWD/build/rust/proof
passed=0; failed=0; skipped=0
check() { # NAME COMMAND...: run it quietly; what fails is shown
    name=$1; shift
    if "$@" > build/rust/log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "-- $name:"; tail -n 60 build/rust/log
    fi
}
if ! command -v "$cargo" > /dev/null; then
    echo "no cargo: the crate is not tested"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir -p build/rust
"$python" tools/interface.py > "$proof.c" && ${CC:-cc} -I. "$proof.c" -o "$proof" && "$proof" > "$proof.txt" || exit 1
export G4_PROOF="$proof.txt"
cd rust || exit 1
"$cargo" test > ../build/rust/tests 2>&1
status=$?
p=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' ../build/rust/tests | awk '{ n += $1 } END { print n + 0 }')
f=$(sed -n 's/^test result: .* \([0-9]*\) failed.*/\1/p' ../build/rust/tests | awk '{ n += $1 } END { print n + 0 }')
[ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
[ "$f" -eq 0 ] || tail -n 80 ../build/rust/tests
passed=$((passed + p)); failed=$((failed + f))
cd .. || exit 1
for example in prompt batch extract; do
    check "example $example says nothing" sh -c "cd rust && '$cargo' run -q --example $example | grep -q ."
done
if "$cargo" clippy --version > /dev/null 2>&1; then
    check "clippy" sh -c "cd rust && '$cargo' clippy --all-targets -- -D warnings"
else
    echo "no cargo clippy"; skipped=$((skipped + 1))
fi
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
