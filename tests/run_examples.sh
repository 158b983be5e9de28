#!/bin/sh
# Run every example once. usage: run_examples.sh BUILD MODEL
# MODEL is models/tiny.g4, or a random model that says nothing sensible: then only the ends are tested.
b=$1; model=$2; passed=0; failed=0
picture=$b/example.pgm; sound=$b/example.wav
{ printf 'P5\n96 64\n255\n'; head -c 6144 /dev/zero | tr '\0' 'x'; } > "$picture"
# one second of silence: RIFF, 16 kHz, mono, 16 bits, 32000 bytes
{ printf 'RIFF\044\175\000\000WAVEfmt \020\000\000\000\001\000\001\000\200\076\000\000\000\175\000\000'
  printf '\002\000\020\000data\000\175\000\000'
  head -c 32000 /dev/zero; } > "$sound"
check() {
    name=$1; shift
    if out=$("$@" 2>&1 < /dev/null); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "$name failed: $out"
    fi
}
talk() { printf 'Hello.\nAnd then?\n' | "$b/example_chat" "$model"; }
check chat talk
check tools "$b/example_tools" "$model"
check loop "$b/example_loop" "$model"
check structured "$b/example_structured" "$model"
check batch "$b/example_batch" "$model"
check threads "$b/example_threads" "$model"
check picture "$b/example_picture" "$model" "$picture"
check speech "$b/example_speech" "$model" "$sound"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
