#!/bin/sh
# Model and session files as the program treats them: pipes and devices, files that are cut short, links, modes, full
# disks, a program that is killed while it writes, sessions that hold their pictures. Ends with "N passed, N failed".
. tests/program.sh
chat=tests/data/media/e2b-q8_0.g4 # a chat model that sees and hears
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
waiting=

# talk SESSION ARGUMENT...: one more turn of a session; leaves out, err and rc.
talk() {
    session=$1; shift
    timeout 60 "$g4" -m "$chat" --quiet -n 2 --temp 0 -t 1 --session "$session" "$@" \
        > "$tmp/out" 2> "$tmp/err" < /dev/null
    rc=$?
}
# refused TEXT: the last turn failed with that one line.
refused() {
    [ "$rc" -eq 1 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ] && grep -qF -- "$1" "$tmp/err"
}
mode() { stat -c %a "$1"; }
no_leftovers() { [ -z "$(find "$tmp" -name '.gemma4*')" ]; }

# Nobody opens these to write, which is found out after ten seconds while the rest goes on; read at the end.
waits="-f --json-schema --grammar --tools --messages config perplexity"
for option in $waits; do
    (
        mkfifo "$tmp/wait$option"
        case $option in
        config) mkdir -p "$tmp/home/gemma4"; mv "$tmp/waitconfig" "$tmp/home/gemma4/config"
            export XDG_CONFIG_HOME="$tmp/home"; set -- -p x ;;
        perplexity) set -- -f "$tmp/wait$option" ;;
        *) set -- $option "$tmp/wait$option" ;;
        esac
        case $option in -f | config | --messages) ;; perplexity) set -- perplexity "$@" ;; *) set -- "$@" -p x ;; esac
        timeout 30 "$g4" "$@" -m "$chat" -t 1 > /dev/null 2> "$tmp/err$option" < /dev/null
        echo $? > "$tmp/rc$option"
    ) &
    waiting="$waiting $!"
done

# Nobody opens these to read, likewise.
lonely="logits dump encode mel patches nll calibrate"
for command in $lonely; do
    (
        mkfifo "$tmp/lonely$command"
        case $command in
        logits) set -- logits -m "$chat" -t 1 --tokens 2 -o ;;
        dump) set -- logits -m "$chat" -t 1 --tokens 2 --dump ;;
        encode) set -- encode -m "$chat" -t 1 --image tests/data/tiny/ask0_0.png -o ;;
        mel) set -- mel -f tests/data/tiny/speech1_0.wav -o ;;
        patches) set -- patches -f tests/data/tiny/ask0_0.png -o ;;
        nll) set -- perplexity -m "$chat" -t 1 -f tests/test_files.sh --nll ;;
        calibrate) set -- calibrate -m "$chat" -t 1 -f models/README.md -o ;;
        esac
        timeout 60 "$g4" "$@" "$tmp/lonely$command" > /dev/null 2> "$tmp/err$command" < /dev/null
        echo $? > "$tmp/rc$command"
    ) &
    waiting="$waiting $!"
done

# ---- What is no file ----------------------------------------------------------------------------------
mkfifo "$tmp/pipe"
for odd in "$tmp/pipe" /dev/zero; do
    talk "$tmp/none.g4s" -m "$odd" -p x
    ok "a model that is $odd is refused" refused "not a regular file"
    timeout 20 "$g4" -m "$odd" --no-mmap --quiet -p x > "$tmp/out" 2> "$tmp/err"; rc=$?
    ok "also with --no-mmap" refused "not a regular file"
done
for odd in "$tmp/pipe" "$tmp" /dev/zero; do
    talk "$odd" -p x
    ok "a session that is $odd is refused" refused "is a folder, a pipe or a device"
done
truncate -s 1T "$tmp/sparse"
talk "$tmp/sparse" -p x
ok "a terabyte of zeros is no session" refused "not a session file"
printf 'G4TALK02\377\377\377\377\377\377\377\177' > "$tmp/huge"; truncate -s 1T "$tmp/huge"
talk "$tmp/huge" -p x
ok "nor one that says it is huge" refused "or damaged"
printf 'G4TALK09\0\0\0\0\0\0\0\0' > "$tmp/later"
talk "$tmp/later" -p x
ok "a later format is named" refused "session of format 9"

# ---- A session holds what it needs ---------------------------------------------------------------------
cp tests/data/tiny/ask0_0.png "$tmp/a.png"; cp tests/data/tiny/speech1_0.wav "$tmp/b.wav"
cp tests/data/tiny/video0.y4m "$tmp/c.y4m"
talk "$tmp/s" --image "$tmp/a.png" --audio "$tmp/b.wav" --frames 3 --video "$tmp/c.y4m" -p "one"
ok "a session with a picture, a sound and a video" test "$rc" -eq 0
ok "it names none of them" test "$(grep -acE 'a\.png|b\.wav|c\.y4m' "$tmp/s")" -eq 0
cp "$tmp/s" "$tmp/before"
rm "$tmp/a.png" "$tmp/b.wav" "$tmp/c.y4m"; mkfifo "$tmp/a.png"
talk "$tmp/s" -p "two" --json
ok "it goes on when they are gone" test "$rc" -eq 0
if command -v python3 > /dev/null; then
    ok "and nothing is evaluated again" python3 -c 'import json, sys
u = json.load(open(sys.argv[1]))["usage"]; assert u["cached_tokens"] > 0.9 * u["prompt_tokens"], u' "$tmp/out"
fi
# A frame so long that it fills little of its budget, and would become larger if it were scaled once more.
{ printf 'YUV4MPEG2 W3000 H94 F1:1 Cmono\nFRAME\n'; head -c 282000 /dev/zero; } > "$tmp/long.y4m"
talk "$tmp/long" --video "$tmp/long.y4m" -p "one"
ok "a long frame is kept as the model sees it" test "$rc" -eq 0 -a "$(wc -c < "$tmp/long")" -lt 700000
talk "$tmp/long" -p "two" --json
if command -v python3 > /dev/null; then
    ok "and stays what it was" python3 -c 'import json, sys
u = json.load(open(sys.argv[1]))["usage"]; assert u["cached_tokens"] > 70, u' "$tmp/out"
fi
for copy in first second; do
    cp "$tmp/before" "$tmp/t"
    talk "$tmp/t" -p "two"
    cp "$tmp/out" "$tmp/$copy"
done
ok "twice the same" cmp -s "$tmp/first" "$tmp/second"
size=$(wc -c < "$tmp/before")
for at in 0 8 15 16 30 100 5000 $((size / 2)) $((size - 9)) $((size - 1)); do
    [ "$at" -lt "$size" ] || continue
    cp "$tmp/before" "$tmp/t"
    byte=$(od -An -tu1 -j "$at" -N 1 "$tmp/t" | tr -d ' ')
    printf "\\$(printf %o $((byte ^ 4)))" | dd of="$tmp/t" bs=1 seek="$at" conv=notrunc 2> /dev/null
    talk "$tmp/t" -p x
    ok "byte $at of $size is damaged" refused "$tmp/t"
    head -c "$at" "$tmp/before" > "$tmp/t"
    talk "$tmp/t" -p x
    ok "it ends after $at bytes" refused "$tmp/t"
done
for more in x G4TALK03 "$(cat models/README.md)"; do
    { cat "$tmp/before"; printf %s "$more"; } > "$tmp/t"
    talk "$tmp/t" -p x
    ok "bytes behind its end" refused "goes on behind its end"
done
# What is read is limited by the size of the file alone: a video of 1500 frames of one pixel, a picture of 180 million.
if command -v python3 > /dev/null; then
    talk "$tmp/text" -p "one"
    python3 - "$tmp/text" "$tmp/frames" "$tmp/pixels" << 'END'
import struct, sys
old = open(sys.argv[1], "rb").read()
timeline = old[24 + struct.unpack("<Q", old[8:16])[0]:]
P, W = 0x100000001B3, 1 << 64
def message(kind, sizes):
    frames = b"".join(struct.pack("<IId", w, h, i) for i, (w, h) in enumerate(sizes))
    return struct.pack("<9IQ", 2, 1, kind, 0, 0, 0, 0, len(sizes), 0, 0) + frames
def checksum(data, zeros):
    s = 0xCBF29CE484222325
    for b in data: s = (s ^ b) * P % W
    return s * pow(P, zeros, W) % W
for path, kind, sizes in (sys.argv[2], 3, [(1, 1)] * 1500), (sys.argv[3], 1, [(13400, 13400)]):
    zeros = sum(3 * w * h for w, h in sizes)
    head = message(kind, sizes)
    with open(path, "wb") as f:
        f.write(b"G4TALK02" + struct.pack("<Q", len(head) + zeros) + head)
        f.seek(zeros, 1)
        f.write(struct.pack("<Q", checksum(head, zeros)) + timeline)
END
    talk "$tmp/frames" -p x -c 256
    ok "1500 frames are read" refused "context"
    if (ulimit -v 400000; "$g4" -m "$chat" --quiet -n 1 -t 1 -p x > /dev/null 2>&1 < /dev/null); then
        (ulimit -v 400000; talk "$tmp/pixels" -p x; echo $rc > "$tmp/rc"); rc=$(cat "$tmp/rc")
        ok "180 million pixels are no damage" refused "no memory for a medium of 538680000 bytes"
    fi
    rm -f "$tmp/pixels"
fi
# A file of 0.1, without media: 8 bytes of magic, the length, the messages, and no checksum.
talk "$tmp/text" -p "one"
n=$(od -An -tu8 -j 8 -N 8 "$tmp/text" | tr -d ' ')
{ printf G4TALK01; tail -c +9 "$tmp/text" | head -c $((8 + n)); tail -c +$((25 + n)) "$tmp/text"; } > "$tmp/old"
talk "$tmp/old" -p "two"
ok "a session of 0.1 is read" test "$rc" -eq 0
ok "and becomes one of today" grep -q '^G4TALK03' "$tmp/old"
{ printf G4TALK01; tail -c +9 "$tmp/before"; } > "$tmp/old"
talk "$tmp/old" -p "two"
ok "one that names a picture opens nothing" refused "saved by version 0.1"

# ---- How it is written ----------------------------------------------------------------------------------
mkdir "$tmp/folder" "$tmp/links"
talk "$tmp/folder/s" -p one
(cd "$tmp/links" && ln -s ../folder/s near && ln -s near far && ln -s ../folder/new dangling)
chmod 640 "$tmp/folder/s"
old=$(ls -i "$tmp/folder/s")
talk "$tmp/links/far" -p two
ok "a link is followed" test "$rc" -eq 0 -a -L "$tmp/links/far" -a -L "$tmp/links/near" -a ! -L "$tmp/folder/s"
ok "its target is the new file" test "$old" != "$(ls -i "$tmp/folder/s")"
ok "with the mode of the old one" test "$(mode "$tmp/folder/s")" = 640
talk "$tmp/links/dangling" -p one
ok "a link to nothing makes its target" test "$rc" -eq 0 -a -L "$tmp/links/dangling" -a -f "$tmp/folder/new"
ln -s loop2 "$tmp/links/loop1"; ln -s loop1 "$tmp/links/loop2"
talk "$tmp/links/loop1" -p one
ok "links in a circle are refused" refused "loop1"
(umask 027; talk "$tmp/folder/fresh" -p one)
ok "a new file has the mode of the umask" test "$(mode "$tmp/folder/fresh")" = 640
if [ "$(id -u)" -ne 0 ]; then
    chmod 400 "$tmp/folder/s"; cp "$tmp/folder/s" "$tmp/t"
    talk "$tmp/folder/s" -p three
    ok "a file that may not be written is not replaced" refused "Permission denied"
    ok "and stays" cmp "$tmp/folder/s" "$tmp/t"
    chmod 640 "$tmp/folder/s"
else
    chown 12:34 "$tmp/folder/s" 2> /dev/null && talk "$tmp/folder/s" -p three &&
        ok "the owner is kept" test "$(stat -c %u:%g:%a "$tmp/folder/s")" = 12:34:640
fi
ln -s "$tmp/folder/victim" "$tmp/folder/.gemma4.$$.0.tmp"
(exec sh -c 'ln -s victim "$1/.gemma4.$$.0.tmp"; exec "$2" -m "$3" --quiet -n 1 -t 1 --session "$1/fresh" -p two' sh \
    "$tmp/folder" "$g4" "$chat" > /dev/null 2> "$tmp/err")
ok "a name that somebody laid in its way is not followed" test ! -e "$tmp/folder/victim"
rm "$tmp"/folder/.gemma4.*
talk "$tmp/folder/fresh" -p three
ok "and the session is whole" test "$rc" -eq 0

# ---- Full disks, and a program that is killed ----------------------------------------------------------------
cp "$tmp/folder/s" "$tmp/t"
for blocks in 1 20; do
    (ulimit -f $blocks; talk "$tmp/folder/s" -p more; echo $rc > "$tmp/rc")
    ok "no room behind $blocks blocks: refused" test "$(cat "$tmp/rc")" -eq 1
    ok "and the old file stays" cmp "$tmp/folder/s" "$tmp/t"
    ok "and nothing else" no_leftovers
done
talk "$tmp/folder/missing/s" -p x
ok "a folder that is not there" refused "No such file"
cp "$tmp/before" "$tmp/k"
good=0
for delay in 02 04 05 06 07 08 10 14; do
    "$g4" -m "$chat" --quiet -n 1 -t 1 --session "$tmp/k" -p x > /dev/null 2>&1 < /dev/null &
    pid=$!
    sleep 0.$delay
    kill -9 $pid 2> /dev/null
    wait $pid 2> /dev/null
    talk "$tmp/k" -p x -c 2000
    [ "$rc" -eq 0 ] && good=$((good + 1))
    cp "$tmp/before" "$tmp/k"
done
ok "killed at any moment, the file is whole ($good of 8)" test "$good" -eq 8
rm -f "$tmp"/.gemma4.*

# ---- A model that is cut short while it runs ------------------------------------------------------------------
for how in "" --no-mmap; do
    cp "$chat" "$tmp/m.g4"; rm -f "$tmp/in"; mkfifo "$tmp/in"
    timeout 60 "$g4" -m "$tmp/m.g4" $how --quiet -n 2 -t 1 -p x --image "$tmp/in" \
        > "$tmp/out" 2> "$tmp/err" < /dev/null &
    pid=$!
    exec 9> "$tmp/in" # once it waits for its picture, the model is open
    truncate -s 4096 "$tmp/m.g4"
    cat tests/data/tiny/ask0_0.png >&9
    exec 9>&-
    wait $pid; rc=$?
    if [ -z "$how" ]; then
        ok "a mapped model that is cut short is told" refused "m.g4 was cut short"
    else
        ok "with $how it does not matter" test "$rc" -eq 0
    fi
done

# ---- Pipes that are read as texts -----------------------------------------------------------------------------
mkfifo "$tmp/slow"
(exec 8> "$tmp/slow"; sleep 0.4; echo one >&8; sleep 0.4; echo two >&8) &
"$g4" tokenize -m "$chat" -f "$tmp/slow" > "$tmp/out" 2> "$tmp/err" < /dev/null
printf 'one\ntwo\n' | "$g4" tokenize -m "$chat" > "$tmp/want"
ok "a slow writer is waited for" cmp "$tmp/out" "$tmp/want"
(sleep 0.4; cat "$tmp/slow" > "$tmp/got") &
late=$!
"$g4" mel -f tests/data/tiny/speech1_0.wav -o "$tmp/slow" 2> "$tmp/err" < /dev/null; rc=$?
wait $late
"$g4" mel -f tests/data/tiny/speech1_0.wav -o "$tmp/mel" 2> /dev/null < /dev/null
ok "a reader that comes late gets all" test "$rc" -eq 0
ok "as a file does" cmp "$tmp/got" "$tmp/mel"
(trap - INT; exec "$g4" mel -f tests/data/tiny/speech1_0.wav -o "$tmp/slow" 2> "$tmp/err" < /dev/null) &
pid=$!
sleep 0.5
kill -INT $pid
wait $pid; rc=$?
ok "and who has enough of waiting for one interrupts ($rc)" test "$rc" -eq 130
truncate -s 3G "$tmp/sparse"
for option in -f --grammar --json-schema --tools; do
    case $option in -f) talk "$tmp/none" $option "$tmp/sparse" ;; *) talk "$tmp/none" $option "$tmp/sparse" -p x ;; esac
    ok "$option: 3 GB of zeros" refused "holds more than the 256 MiB that are read"
done
(sleep 0.4; printf 'one\ntwo\n' > "$tmp/slow") &
"$g4" tokenize -m "$chat" -f "$tmp/slow" > "$tmp/out" 2> "$tmp/err" < /dev/null
ok "and one that comes late" cmp "$tmp/out" "$tmp/want"
wait $waiting
for option in $waits; do
    cp "$tmp/err$option" "$tmp/err"; rc=$(cat "$tmp/rc$option")
    ok "$option: a pipe that nobody opens is refused" refused "nobody has opened this pipe to write into it for 10 sec"
done
for command in $lonely; do
    cp "$tmp/err$command" "$tmp/err"; rc=$(cat "$tmp/rc$command")
    ok "$command: and one that nobody reads" test "$rc" -eq 1 -a \
        "$(grep -c 'nobody has opened this pipe to read from it for 10 sec' "$tmp/err")" -eq 1
done

tally
