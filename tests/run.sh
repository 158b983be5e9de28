#!/bin/sh
# Run test programs from the repository root, as many at a time as there are processors (G4_JOBS says otherwise), and
# add up their closing lines. Says which took longest. usage: run.sh PROGRAM...
# G4_RUNNER, when set, stands in front of each (an emulator).

# Run number $2 of the list in the folder $1 and print what it says in one piece.
if [ "$1" = --one ]; then
    t=$(sed -n "$3p" "$2/list")
    start=$(date +%s)
    ${G4_RUNNER:-} "$t" > "$2/out.$3" 2>&1
    echo $? > "$2/status.$3"
    echo "$(($(date +%s) - start)) s $t" >> "$2/seconds"
    until mkdir "$2/printing" 2> /dev/null; do sleep 0.1; done
    echo "== $t"
    cat "$2/out.$3"
    rmdir "$2/printing"
    exit 0
fi

dir=$(mktemp -d) || exit 1
unset GEMMA4_MODEL # the user's own defaults are not what is tested
export XDG_CONFIG_HOME="$dir/config" XDG_DATA_HOME="$dir/data"
trap 'rm -rf "$dir"' EXIT
printf '%s\n' "$@" > "$dir/list"
seq $# | xargs -n 1 -P "${G4_JOBS:-$(getconf _NPROCESSORS_ONLN)}" sh "$0" --one "$dir"

passed=0; failed=0; skipped=0; i=0
for t in "$@"; do
    i=$((i + 1))
    rc=$(cat "$dir/status.$i" 2> /dev/null)
    line=$(tail -n 1 "$dir/out.$i" 2> /dev/null)
    p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1/p')
    f=$(echo "$line" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\2/p')
    s=$(echo "$line" | sed -n 's/.*, \([0-9]*\) skipped$/\1/p')
    # A program that dies, or that fails without counting it, is a failure of its own.
    if [ -z "$p" ] || { [ "$rc" != 0 ] && [ "$f" = 0 ]; }; then
        echo "$t: exit status ${rc:-unknown}"
        f=$((${f:-0} + 1))
    fi
    [ "${f:-0}" = 0 ] || echo "$t: $f failed"
    passed=$((passed + ${p:-0})); failed=$((failed + f)); skipped=$((skipped + ${s:-0}))
done
echo "slowest: $(sort -rn "$dir/seconds" | head -n 8 | paste -sd ';' | sed 's/;/, /g')"
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
