#!/bin/sh
# What the bundled model can do, on the inputs in examples/. usage: tour.sh PROGRAM [OUT.png]
program=$1; out=${2:-build/boxes.png}
ask() {
    echo "== $1"; shift
    "$program" -m models/tiny.g4 --quiet --temp 0 "$@" || exit 1
    echo
}
ask 'Text: it goes on from "And the LORD spake unto Moses, saying,"' \
    --raw -n 40 -p 'And the LORD spake unto Moses, saying,'
ask 'Chat: What is the opposite of hot?' -p 'What is the opposite of hot?'
ask 'Picture: examples/scene.png - Describe the picture.' --image examples/scene.png -p 'Describe the picture.'
ask 'Reading: examples/words.png - Read the text.' --image examples/words.png -p 'Read the text.'
ask "Boxes: examples/shapes.png - Detect all shapes. Drawn in $out" \
    --image examples/shapes.png -p 'Detect all shapes.' --boxes "$out"
ask 'Speech: examples/speech.wav - Transcribe the speech.' \
    --audio examples/speech.wav -p 'Transcribe the speech.'
ask 'Video: examples/clip.y4m - What happens in the video?' \
    --video examples/clip.y4m -p 'What happens in the video?'
ask 'Video with sound: and examples/clip.wav - Which digit is spoken?' \
    --video examples/clip.y4m --audio examples/clip.wav -p 'Which digit is spoken?'
ask 'Function call: examples/tools.json - What is the weather in Oslo?' \
    --tools examples/tools.json -p 'What is the weather in Oslo?'
ask 'Function call from a picture: examples/number.png - Set a timer for this many minutes.' \
    --tools examples/tools.json --image examples/number.png -p 'Set a timer for this many minutes.'
ask 'Thinking: What is 47 + 38?' --think --show-thoughts -p 'What is 47 + 38?'
