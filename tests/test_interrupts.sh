#!/bin/sh
# How soon the program ends when Ctrl-C comes in the middle of long work: by kind of work, at random moments of it. It
# ends with 130 and says nothing of an error; the times are printed. Only 2 seconds and more count as a failure, since
# the machine may be busy; docs/reliability.md has those of a calm one. G4_TRIALS moments a kind, inputs of G4_MIB MiB.
. tests/program.sh
model=models/tiny.g4
trials=${G4_TRIALS:-1}
mib=${G4_MIB:-8}
export LC_ALL=C

now() { echo $(($(date +%s%N) / 1000000)); } # milliseconds
# start ARGUMENT...: the program in the background, whose shell would have it ignore SIGINT.
start() {
    (trap - INT; exec "$g4" "$@" < "$stdin" > /dev/null 2> "$tmp/err") &
    pid=$!
}
# late NAME ARGUMENT...: what goes on for how long.
late() {
    kind=$1; shift
    begin=$(now)
    (trap - INT; exec timeout -s INT 2 "$g4" "$@" < "$stdin" > /dev/null 2> "$tmp/err"); whole_rc=$?
    whole=$(($(now) - begin))
    : > "$tmp/times"
    i=0
    while [ $i -lt "$trials" ]; do
        i=$((i + 1))
        moment=$(awk -v seed="$(now)" -v whole=$whole 'BEGIN { srand(seed); printf "%.3f", rand() * whole / 1000 }')
        start "$@"
        sleep "$moment"
        begin=$(now)
        kill -INT $pid 2> /dev/null
        wait $pid; rc=$?
        took=$(($(now) - begin))
        if [ $rc -ne 130 ]; then # it was done before
            ok "$kind, after $moment s: $rc" test $rc -eq $whole_rc -a $took -lt 2000
            continue
        fi
        echo $took >> "$tmp/times"
        ok "$kind, after $moment s: $took ms" test $took -lt 2000
        ok "$kind, after $moment s: no error" test "$(grep -c 'cannot\|no memory\|cancel' "$tmp/err")" -eq 0
    done
    sort -n "$tmp/times" | awk -v kind="$kind" -v whole=$whole '{ t[NR] = $1 }
        END { printf "%-24s %5d ms whole, stopped %2d times: median %4d, worst %4d ms\n", kind, whole, NR,
                     t[int((NR + 1) / 2)], t[NR] }'
}
# many TEXT: that text over and over, $mib MiB of it.
many() { yes "$1" | tr -d '\n' | head -c $((mib << 20)); }

stdin=/dev/null
many 'The quick brown fox jumps over 1234 lazy dogs. ' > "$tmp/text"
many '我能吞下玻璃而不伤身体。' > "$tmp/chinese"
many 'a' > "$tmp/word"
{ printf '\377\376'; many 'a'; } > "$tmp/utf16"
{ printf '{"messages":[{"role":"user","content":"'; cat "$tmp/text"; printf '"}]}'; } > "$tmp/long.json"
{ printf '{"messages":['; many '{"role":"user","content":"a"},{"role":"assistant","content":"b"},' | sed 's/},[^}]*$/}/'
  printf ']}'; } > "$tmp/many.json"
{ printf '{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
  many 'iVBO'; printf '"}}]}]}'; } > "$tmp/picture.json"
{ printf '{"messages":'; many '        '; printf '}'; } > "$tmp/blank.json"
{ printf '{"enum":['; seq -f '"value %.0f"' -s , $((mib * 5000)); printf ']}'; } > "$tmp/schema.json"
{ printf 'root ::= '; many '"a" '; } > "$tmp/rules"
body='"method":"POST","url":"/v1/chat/completions","body":{"messages":[]}'
seq $((mib * 8000)) | sed "s|.*|{\"custom_id\":\"&\",$body}|" > "$tmp/lines"
{ printf '{"custom_id":"'; cat "$tmp/text"; printf '"}\n'; } > "$tmp/line"
head -c $((mib << 20)) /dev/zero > "$tmp/zeros"

set -- -m $model -t 1
late 'a text' run "$@" -n 1 -f "$tmp/text"
late 'Chinese' run "$@" -n 1 -f "$tmp/chinese"
late 'one long word' run "$@" -n 1 -f "$tmp/word"
late 'UTF-16' run "$@" -n 1 -f "$tmp/utf16"
late 'a text, raw' run "$@" -n 1 --raw -f "$tmp/text"
stdin=$tmp/text
late 'standard input' run "$@" -n 1
stdin=/dev/null
late 'token ids' tokenize -m $model -f "$tmp/text"
late 'perplexity' perplexity "$@" -f "$tmp/text"
late 'a long message' run "$@" -n 1 --messages "$tmp/long.json"
late 'many messages' run "$@" -n 1 --messages "$tmp/many.json"
late 'a picture as base64' run "$@" -n 1 --messages "$tmp/picture.json"
late 'blanks in JSON' run "$@" -n 1 --messages "$tmp/blank.json"
late 'a schema' run "$@" -n 1 -p x --json-schema "$tmp/schema.json"
late 'a grammar' run "$@" -n 1 -p x --grammar "$tmp/rules"
late 'lines of a batch' batch "$@" "$tmp/lines"
late 'a long line of a batch' batch "$@" "$tmp/line"
late 'zeros as a batch' batch "$@" "$tmp/zeros"

# Nobody reads what is written.
mkfifo "$tmp/full"
sleep 30 < "$tmp/full" &
reader=$!
(trap - INT; exec "$g4" tokenize -m $model -f "$tmp/text" > "$tmp/full" 2> "$tmp/err") &
pid=$!
sleep 1
kill -INT $pid
wait $pid; rc=$?
kill $reader 2> /dev/null
ok "a pipe that nobody reads ($rc)" test $rc -eq 130 -a ! -s "$tmp/err"

tally
