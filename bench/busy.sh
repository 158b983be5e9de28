#!/bin/sh
# How far answering slows down when another program spins on one core: tokens/s alone, then beside it, in turns.
# usage: busy.sh MODEL.g4 [ROUNDS]      PROGRAM=./gemma4
set -eu
model=$1
rounds=${2:-3}
program=${PROGRAM:-./gemma4}

rate() {
    "$program" bench -m "$model" --lengths 16 -n 24 --repeat 1 --json |
        sed 's/.*"decode_tokens_per_second":\([0-9.]*\).*/\1/'
}

i=0
while [ "$i" -lt "$rounds" ]; do
    alone=$(rate)
    sh -c 'while :; do :; done' &
    spinner=$!
    trap 'kill $spinner 2> /dev/null' EXIT INT TERM
    beside=$(rate)
    kill "$spinner"
    wait "$spinner" 2> /dev/null || true
    trap - EXIT INT TERM
    echo "$alone $beside" |
        awk '{ printf "alone %.2f tokens/s, beside a spinning program %.2f: %.0f %%\n", $1, $2, 100 * $2 / $1 }'
    i=$((i + 1))
done
