#!/bin/sh
# Run test programs from the repository root and add up their closing lines. usage: run.sh PROGRAM...
# G4_RUNNER, when set, stands in front of each (an emulator).
passed=0; failed=0; skipped=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
for t in "$@"; do
    echo "== $t"
    ${G4_RUNNER:-} "$t" > "$out" 2>&1
    rc=$?
    cat "$out"
    line=$(tail -n 1 "$out")
    p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1/p')
    f=$(echo "$line" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\2/p')
    s=$(echo "$line" | sed -n 's/.*, \([0-9]*\) skipped$/\1/p')
    # A program that dies, or that fails without counting it, is a failure of its own.
    if [ -z "$p" ] || { [ "$rc" -ne 0 ] && [ "$f" = 0 ]; }; then echo "$t: exit status $rc"; f=$((${f:-0} + 1)); fi
    passed=$((passed + ${p:-0})); failed=$((failed + f)); skipped=$((skipped + ${s:-0}))
done
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
