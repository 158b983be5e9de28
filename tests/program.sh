# What the tests of the program share, read by a shell in the repository's root: g4 is the program, tmp a folder that
# goes away at the end. A test has its own `run`, which leaves out, err and rc, and ends with `tally`.
g4=${G4_PROGRAM:-./gemma4}
case $g4 in /*) ;; *) g4=$(pwd)/$g4 ;; esac
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0; failed=0; skipped=0

# details: what is told of a condition that does not hold.
details() { sed 's/^/   stderr: /' "$tmp/err" 2> /dev/null | head -n 3; }
# ok NAME CONDITION...: the condition is a command.
ok() {
    name=$1; shift
    if "$@" > /dev/null 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "-- $name"
        details
    fi
}
# fails STATUS TEXT ARGUMENT...: that exit status, TEXT on stderr, nothing on stdout, and one line only.
fails() {
    want=$1; text=$2; shift 2
    run "$@"
    ok "$* exits $want" test "$rc" -eq "$want"
    ok "$* says \"$text\"" grep -qF -- "$text" "$tmp/err"
    ok "$* says one line" test "$(wc -l < "$tmp/err")" -eq 1
    ok "$* prints nothing" test ! -s "$tmp/out"
}
# tally: the closing line, and whether all is well.
tally() {
    line="$passed passed, $failed failed"
    [ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
    echo "$line"
    [ "$failed" -eq 0 ]
}
