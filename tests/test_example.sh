#!/bin/sh
# The worked example of MODEL.md, section 15: each of its numbers is compared with what `gemma4 logits --dump` writes
# for the command that stands there. Lines are NAME[TOKEN] = numbers, mean(NAME[TOKEN]^2) = x and A[i] . B[j] = x, the
# product over the columns of B. Ends with "N passed, N failed".
g4=${G4_PROGRAM:-./gemma4}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0; failed=0
pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "-- $1"; }

sed -n '/^## 15\. A worked example/,/^## 16/p' MODEL.md > "$tmp/text"
command=$(sed -n 's|^    ./gemma4 \(logits .*--dump\) .*|\1|p' "$tmp/text")
# shellcheck disable=SC2086
if $g4 $command "$tmp/dump" 2> "$tmp/err"; then pass; else fail "gemma4 $command: $(cat "$tmp/err")"; fi

# safetensors: 8 bytes with the size of a JSON header, the header, the values.
size=$(od -An -t u8 -N 8 "$tmp/dump" | tr -d ' ')
tail -c +9 "$tmp/dump" | head -c "${size:-0}" | sed 's/},"/}\
"/g' > "$tmp/header"

# row NAME TOKEN: its values, one a line.
row() {
    place=$(grep -F "\"$1\":" "$tmp/header" |
        sed -n 's/.*"shape":\[[0-9]*,\([0-9]*\)\],"data_offsets":\[\([0-9]*\),.*/\1 \2/p')
    cols=${place% *}; first=${place#* }
    [ -n "$place" ] || return 1
    od -An -v -t f4 -w4 -j $((8 + size + first + 4 * cols * $2)) -N $((4 * cols)) "$tmp/dump"
}
near='function near(a, b) { return a - b < 0.0002 && b - a < 0.0002 }'

grep -E '^    [a-z(].*\] = |^    mean\(|^    .* \. .* = ' "$tmp/text" > "$tmp/lines"
while read -r left; do
    want=${left#* = }; left=${left% = *}
    names=$(echo "$left" | sed 's/^mean(//; s/\^2)$//; s/ \. / /; s/\[\([0-9]*\)\]/ \1/g')
    # shellcheck disable=SC2086
    set -- $names
    row "$1" "$2" > "$tmp/a" || { fail "$left: the dump has no $1"; continue; }
    case $left in
    mean*) got=$(awk '{ s += $1 * $1 } END { print s / NR }' "$tmp/a") ;;
    *' . '*)
        row "$3" "$4" > "$tmp/b" || { fail "$left: the dump has no $3"; continue; }
        got=$(awk 'NR == FNR { b[NR] = $1; next } FNR in b { s += b[FNR] * $1 } END { print s }' "$tmp/b" "$tmp/a")
        ;;
    *) got=$(head -n "$(echo "$want" | wc -w)" "$tmp/a" | tr -s '\n ' ' ') ;;
    esac
    if echo "$got $want" | awk "$near"'{ for (i = 1; i <= NF / 2; i++) if (!near($i, $(i + NF / 2))) exit 1 }'; then
        pass
    else
        fail "$left is $got, MODEL.md says $want"
    fi
done < "$tmp/lines"
lines=$(wc -l < "$tmp/lines")
if [ "$lines" -ge 20 ]; then pass; else fail "MODEL.md has only $lines lines of numbers"; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
