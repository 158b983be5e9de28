#!/bin/sh
# Run every example once. usage: run_examples.sh BUILD MODEL PICTURE SOUND
# MODEL is models/tiny.g4, or a random model that says nothing sensible: then only the ends are tested.
b=$1; model=$2; picture=$3; sound=$4; passed=0; failed=0
check() {
    name=$1; shift
    if out=$("$@" 2>&1 < /dev/null); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$name failed: $out"; fi
}
talk() { printf 'Hello.\nAnd then?\n' | "$b/example_chat" "$model"; }
check chat talk
check tools "$b/example_tools" "$model"
check structured "$b/example_structured" "$model"
check threads "$b/example_threads" "$model"
check picture "$b/example_picture" "$model" "$picture"
check speech "$b/example_speech" "$model" "$sound"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
