#!/bin/sh
# What people type: words without options, long and joined options, names of files in every form, defaults from the
# environment and a file, standard input as a picture, and what they know from elsewhere. Ends with "N passed, N
# failed".
. tests/program.sh
repo=$(pwd)
tiny=$repo/models/tiny.g4
base=$repo/tests/data/text_e2b.g4
sees=$repo/tests/data/taps_e2b.g4 # a base model with towers
unset GEMMA4_MODEL
mkdir "$tmp/home" "$tmp/config" "$tmp/data" "$tmp/here"
export HOME="$tmp/home" XDG_CONFIG_HOME="$tmp/config" XDG_DATA_HOME="$tmp/data"
cd "$tmp/here" || exit 1
: > "$tmp/in"

run() { "$g4" "$@" > "$tmp/out" 2> "$tmp/err" < "$tmp/in"; rc=$?; }
says() { ok "$1" grep -qF -- "$1" "$tmp/err"; }
same() { cmp -s "$tmp/out" "$tmp/want"; }
# answers NAME ARGUMENT...: the same answer as the one in want.
answers() { name=$1; shift; run "$@"; ok "$name" same; }

# ---- Words -------------------------------------------------------------------------------------------
run -m "$tiny" --quiet --temp 0 -p "What is 2 + 2?"
cp "$tmp/out" "$tmp/want"
ok "a question is answered" test -s "$tmp/want"
answers "a question as a word" "$tiny" --quiet --temp 0 "What is 2 + 2?"
answers "in front of options" "What is 2 + 2?" -m "$tiny" --quiet --temp=0
answers "the model behind it" --quiet "What is 2 + 2?" "$tiny" --temp 0
answers "in several words" "$tiny" --quiet --temp 0 What is 2 + "2?"
answers "run MODEL QUESTION" run "$tiny" "What is 2 + 2?" --quiet --temp 0
answers "chat with a question" chat -m "$tiny" --quiet --temp 0 "What is 2 + 2?"
answers "behind --" --quiet --temp 0 -m "$tiny" -- "What is 2 + 2?"
printf 'What is 2 + 2?' > "$tmp/in"
answers "- is standard input" "$tiny" - --quiet --temp 0
answers "and so is -f -" "$tiny" -f - --quiet --temp 0
: > "$tmp/in"
run -m "$tiny" --quiet -n 1 -- info
ok "behind -- a command's name is a question" test "$rc" -eq 0 -a "$(wc -l < "$tmp/out")" -eq 1
run "$tiny" info
ok "MODEL COMMAND" grep -q '^parameters' "$tmp/out"
run info "$tiny"
ok "COMMAND MODEL" grep -q '^parameters' "$tmp/out"
run -m "$tiny" --threads 1 info
ok "options in front of the command" grep -q ' 1 threads' "$tmp/out"
run tokenize "$tiny" "Hello world"
cp "$tmp/out" "$tmp/want"
printf 'Hello world' > "$tmp/in"
answers "tokenize takes a text" tokenize -m "$tiny"
: > "$tmp/in"
fails 1 "there is no model nothere.g4" nothere.g4 hello
fails 1 "there is no model gemma4:e2b" run gemma4:e2b hello
fails 2 "what is \"cats\"" info "$tiny" cats
fails 2 "stands in quotes" -m "$tiny" -p What is 2
fails 2 "export.py" pull gemma4:e2b
fails 2 "it is gemma4 info" show e2b
run -m "$tiny" --quiet --temp 0 -n 3 -p hi
cp "$tmp/out" "$tmp/want"
answers "run WORD asks it where it is no model" run hi -m "$tiny" --quiet --temp 0 -n 3
answers "as chat WORD does" chat hi -m "$tiny" --quiet --temp 0 -n 3
export GEMMA4_MODEL="$tiny"
answers "which it says where no model is named" run hi --temp 0 -n 3
says "gemma4: asked as a question; there is no model hi"
unset GEMMA4_MODEL
# hints WORD TEXT: the word is asked, and one line says what it may have been meant for.
hints() {
    run -m "$tiny" --quiet --temp 0 -n 3 -p "$1"
    cp "$tmp/out" "$tmp/want"
    answers "$1 is asked" "$1" -m "$tiny" --temp 0 -n 3
    ok "$1 is done" test "$rc" -eq 0
    ok "$1: $2" grep -q "^gemma4: asked as a question; .*$2" "$tmp/err"
    run "$1" -m "$tiny" --quiet --temp 0 -n 3
    ok "$1 --quiet says nothing" test "$rc" -eq 0 -a ! -s "$tmp/err"
}
hints what "the command is chat$"
hints mode "the command is models$"
hints model "the command is models$"
hints char "the command is chat$"
hints info? "the command is info$"
hints inof "the command is info$"
hints tokenise "the command is tokenize$"
hints list "it is gemma4 models$"
hints version "it is gemma4 --version$"
hints pull "export.py"
hints embed "no embeddings"
hints completion "it is gemma4 help --completions bash"
for words in helper hi "list animals" "show dinner" "what now"; do
    run $words -m "$tiny" --temp 0 -n 1
    ok "$words is a question like any other" sh -c "test $rc -eq 0 && ! grep -q 'asked as' '$tmp/err'"
done
fails 2 "takes no model" mel "$tiny"
cp "$repo/examples/scene.png" "a b.png"
cp "a b.png" scene.png
fails 2 "is a file: give it with --image" scene.png
fails 2 "is a file: give it with --image" "Describe it." scene.png
cp "$repo/LICENSE" text.txt
fails 2 "is a file: give it with -f" text.txt
fails 2 "is a file: give it with -f" "Summarise it." text.txt
fails 2 "is a file: give it with -f" summarise text.txt now -m "$tiny"
run -m "$tiny" --quiet -n 3 -- summarise text.txt
ok "behind -- it is a word" test "$rc" -eq 0

# ---- Options -----------------------------------------------------------------------------------------
run -m "$tiny" --quiet -n 3 -t 1 --temp 0 -p "Tell me a story."
cp "$tmp/out" "$tmp/want"
answers "joined values" -m"$tiny" --quiet -n3 -t1 --temp=0 -p"Tell me a story."
answers "long names" --model="$tiny" --quiet --max-tokens 3 --threads=1 --temp 0 --prompt="Tell me a story."
answers "the last of two wins" -m nothere -n 9 -m "$tiny" --quiet -n 3 --temp 1 --temp 0 -p "Tell me a story."
answers "-c max" -m "$tiny" -c max --quiet -n 3 --temp 0 -p "Tell me a story."
run info -m "$tiny" -cmax
ok "-cmax is what the model has" grep -q "context of 4096" "$tmp/out"
fails 2 "or max" -m "$tiny" -c most -p x
fails 2 "it is -f here" -m "$tiny" --prompt-file x
fails 2 "merge the adapter" -m "$tiny" --lora=x -p x
fails 2 "an answer is printed as it comes" -m "$tiny" --stream -p x
for seed in 0 9007199254740993 18446744073709551615; do
    run -m "$tiny" --quiet --temp 1 --seed $seed -n 20 -p "Tell me a story."
    ok "--seed $seed" test "$rc" -eq 0
    cp "$tmp/out" "$tmp/seed$seed"
done
run -m "$tiny" --quiet --temp 1 --seed 9007199254740992 --json -n 20 -p "Tell me a story."
ok "all 64 bits of a seed count" sh -c "! grep -qF \"\$(cat '$tmp/seed9007199254740993')\" '$tmp/out'"
run -m "$tiny" --temp 1 --seed random -n 20 -p "Tell me a story."
seed=$(sed -n 's/^gemma4: seed //p' "$tmp/err")
cp "$tmp/out" "$tmp/want"
answers "a random seed is told, and can be given" -m "$tiny" --quiet --temp 1 --seed "$seed" -n 20 -p "Tell me a story."
run -m "$tiny" --seed random --json -n 1 -p x
ok "--json has it too" grep -q '"seed":[0-9]' "$tmp/out"
for seed in 18446744073709551616 -1 1.5 0x10 randomly ""; do
    fails 2 "--seed needs a whole number from 0 to 18446744073709551615, or random" -m "$tiny" "--seed=$seed" -p x
done
fails 2 "do you mean --max-tokens?" --max-token 5 -p x
fails 2 "do you mean --max-tokens?" --max_tokens=5 -p x
fails 2 "do you mean --temp?" --tmep 0 -p x
fails 2 "do you mean --threads?" -threads 2 -p x
fails 2 "it runs on the CPU alone" -m "$tiny" -p x -n 10 -ngl 99
fails 2 "it is -n or --max-tokens here" -m "$tiny" --n-predict 10
fails 2 "it is --temp here" -m "$tiny" --temperature=1
fails 2 "it is -c or --context here" -m "$tiny" --ctx-size 100
fails 2 "a chat begins where there is no question" -m "$tiny" -cnv
fails 2 "nothing is downloaded" -hf google/gemma
fails 2 "it is --quiet here" -q
fails 2 "unknown option --nonsense; see gemma4 --help" --nonsense
fails 2 "-p needs a value: TEXT; if that is to be \"-n\", write --prompt=-n" -m "$tiny" -p -n 5
fails 2 "-m needs a value" -m
fails 2 "without an equals sign" -n=5 -p x
fails 2 "--raw takes no value" --raw=yes -p x
fails 2 "--temp is not an option of info; see gemma4 help info" info --temp 1

for threads in 0 300 257; do
    fails 2 "-t needs a whole number from 1 to 256, not \"$threads\"" -m no/such/model.g4 -t $threads -p x
done
run -m "$tiny" -t 256 -n 1 --quiet -p x
ok "-t 256 is in the range" test "$rc" -eq 0
for quiet in "" --quiet; do
    run -m "$tiny" --system "" $quiet -n 1 -p x
    ok "an empty --system says nothing $quiet" sh -c "test $rc -eq 0 && ! grep -q 'system prompt' '$tmp/err'"
done
fails 2 "--grammar: \"root := bad\" is neither a file nor rules, which have a ::=" \
    -m "$tiny" -p x --grammar 'root := bad'
fails 2 "is neither a file nor a schema" -m "$tiny" -p x --json-schema '"type": "object"'
fails 2 "is neither a file nor a list of tools" -m "$tiny" -p x --tools 'get weather'
for option in -m -f --image --audio --video --session --tools --grammar --json-schema --messages --boxes --tool-exec \
    --media-root; do
    fails 2 "$option needs " $option ""
    ok "$option: the name is empty" grep -q 'name.*, not ""' "$tmp/err"
done
fails 2 "-o needs a name, not" mel -f "$repo/examples/speech.wav" -o ""
fails 2 "-f needs the name of a file, not" perplexity -f ""

# ---- Help, the man page, completions -----------------------------------------------------------------
run --help
ok "the first screen is one" test "$(wc -l < "$tmp/out")" -le 24
commands="run chat batch serve info models bench tokenize detokenize render perplexity calibrate logits encode mel"
commands="$commands patches help"
for topic in "" $commands; do
    run help $topic
    ok "no line of help $topic is wider than a terminal" awk 'length($0) > 80 { exit 1 }' "$tmp/out"
done
run --help
ok "nor one of the first screen" awk 'length($0) > 80 { exit 1 }' "$tmp/out"
run help
for command in $commands; do
    ok "help lists $command" grep -qE "^  $command " "$tmp/out"
done
run info --help
cp "$tmp/out" "$tmp/want"
answers "help COMMAND is COMMAND --help" help info
fails 2 "there is no command \"nonsense\"" help nonsense
run help run
cp "$tmp/out" "$tmp/all"
for shell in bash zsh fish; do
    run help --completions $shell
    ok "completions for $shell" test "$rc" -eq 0 -a -s "$tmp/out"
    cp "$tmp/out" "$tmp/$shell"
done
run help --man
cp "$tmp/out" "$tmp/man"
ok "the man page is one" grep -q '^\.SH SYNOPSIS' "$tmp/man"
missing=
for option in $(grep -oE '^  (-[a-z], )?--[a-z-]+' "$tmp/all" | sed 's/.*--//'); do
    grep -qF -- "--$option" "$tmp/bash" && grep -qF -- "--$option" "$tmp/zsh" && grep -q -- "-l $option" "$tmp/fish" &&
        grep -qF -- "$(echo "--$option" | sed 's/-/\\-/g')" "$tmp/man" || missing="$missing --$option"
done
ok "all options are everywhere, but for $missing" test -z "$missing"
fails 2 "bash, zsh or fish" help --completions tcsh
if command -v bash > /dev/null; then
    complete='COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gemma4; echo "${COMPREPLY[@]}"'
    complete() { bash -c ". '$tmp/bash'; $complete" bash "$@"; }
    ok "bash completes a command" test "$(complete gemma4 ben)" = bench
    ok "an option of a command" test "$(complete gemma4 info --te)" = --tensors
    ok "not those of others" test -z "$(complete gemma4 info --tem)"
    ok "and the name of a file" test "$(complete gemma4 --image sc)" = scene.png
fi

# ---- Defaults ----------------------------------------------------------------------------------------
run -m "$tiny" --quiet --temp 0 -n 3 -p "Tell me a story."
cp "$tmp/out" "$tmp/want"
export GEMMA4_MODEL="$tiny"
answers "GEMMA4_MODEL" --quiet --temp 0 -n 3 "Tell me a story."
GEMMA4_MODEL=$tmp/nothere.g4
fails 1 "there is no model $tmp/nothere.g4, which GEMMA4_MODEL or the configuration names" --quiet x
fails 1 "there is no model $tmp/neither.g4" models -m "$tmp/neither.g4"
answers "-m wins over it" -m "$tiny" --quiet --temp 0 -n 3 "Tell me a story."
unset GEMMA4_MODEL
mkdir "$tmp/config/gemma4"
config=$tmp/config/gemma4/config
write() { printf '%s\n' "$@" > "$config"; }
ln -s "$tiny" "$HOME/my.g4"
write "# mine" "" "  model = ~/my.g4  " "temp=0" "max-tokens = 3" "quiet"
answers "a file of defaults" "Tell me a story."
answers "only what a command takes" "Tell me a story."
run info
ok "of every command" grep -q '^file .*home/my.g4' "$tmp/out"
export GEMMA4_MODEL=$tmp/nothere.g4
fails 1 "there is no model" x
unset GEMMA4_MODEL
run -n 5 "Tell me a story."
ok "the command line wins over it" sh -c "! cmp -s '$tmp/out' '$tmp/want'"
run --no-config -m "$tiny" --quiet --temp 0 -n 5 "Tell me a story."
cp "$tmp/out" "$tmp/want"
answers "and says the same as without it" -n 5 "Tell me a story."
printf '\357\273\277model = "%s"\r\nquiet = yes\r\ntemp = 0\r\nraw = no\r\nmax-tokens = 5' "$tiny" > "$config"
answers "a file of Windows, without a newline at its end" "Tell me a story."
write "model = $tiny" "quiet = maybe"
fails 2 "$config:2: --quiet is yes or no, not \"maybe\"" x
write "tmep = 0"
fails 2 "$config:1: there is no option \"tmep\" (do you mean --temp?)" x
write "" "temp = hot"
fails 2 "$config:2: --temp needs a number" x
write "# all of it" "  # = \"" "model = $tiny # tiny" "--temp = 0 # greedy" "quiet # \"really\" = yes" \
    "max-tokens = 5$(printf '\t')# five"
answers "comments behind values, names with dashes" "Tell me a story."
write "system = \"a # b\" # c" "ffmpeg = a#b" "model = $tiny"
run --quiet --json -n 1 x
cp "$tmp/out" "$tmp/json"
run --no-config -m "$tiny" --quiet --json -n 1 --system "a # b" x
tokens_of() { sed 's/.*"prompt_tokens":\([0-9]*\).*/\1/' "$1"; }
ok "quotes keep their #" test "$(tokens_of "$tmp/out")" = "$(tokens_of "$tmp/json")"
write "temp = # nothing"
fails 2 "$config:1: --temp needs a number from 0 to 1e+06, not \"\"" x
write "temp"
fails 2 "$config:1: --temp needs a value: temp = X" x
write "prompt = x"
fails 2 "$config:1: --prompt belongs on the command line" x
write "= 5"
fails 2 "$config:1: there is no option \"\"" x
printf 'quiet\n\0' > "$config"
fails 2 "$config holds a NUL" x
run --help
ok "--help does not need it" test "$rc" -eq 0
answers "nor does --no-config" --no-config -m "$tiny" --quiet --temp 0 -n 5 "Tell me a story."
rm "$config"
mkdir "$config"
fails 1 "cannot read $config" x
rmdir "$config"

# ---- Models ------------------------------------------------------------------------------------------
mkdir "$tmp/data/gemma4"
cp "$base" "$tmp/data/gemma4/mine.g4"
head -c 1000 "$base" > broken.g4
run models
ok "models of the user's folder are listed" grep -q 'base .* f32 .*/data/gemma4/mine.g4' "$tmp/out"
ok "what is broken says so" grep -q 'cannot be used: .*broken.g4' "$tmp/out"
says "looked in ., models, $tmp/data/gemma4"
GEMMA4_MODEL=$tmp/nothere.g4
export GEMMA4_MODEL
run models --quiet
ok "and where GEMMA4_MODEL is wrong" grep -q '/data/gemma4/mine.g4' "$tmp/out"
ok "with a line about it" grep -q "there is no model $tmp/nothere.g4, which GEMMA4_MODEL" "$tmp/err"
unset GEMMA4_MODEL
run models --json
ok "models --json" grep -q '"kind":"base","image":false,"audio":false,"type":"f32"' "$tmp/out"
run -m "$base" --quiet --temp 0 -n 3 "the cat"
cp "$tmp/out" "$tmp/want"
answers "-m NAME" -m mine --quiet --temp 0 -n 3 "the cat"
answers "run NAME" run mine --quiet --temp 0 -n 3 "the cat"
run info -m "$tiny" --json --tensors
ok "info --json" grep -q '^{"file":.*"name":"l.0.q","type":"q8_0","layout":"groups16","dims":\[256,192\]' "$tmp/out"
ok "is JSON" sh -c "! command -v python3 || python3 -m json.tool '$tmp/out'"
run info -m "$tiny" --tensors
ok "info --tensors" grep -qE 'l.0.q +q8_0 +groups16 +256 x 192 ' "$tmp/out"
run -m google/gemma-4-E2B-it x
ok "a name on a hub exits 1" test "$rc" -eq 1
says "is a name on a hub"
says "export.py google/gemma-4-E2B-it -o gemma-4-E2B-it.g4"

# ---- Names of files ----------------------------------------------------------------------------------
asks="-m $tiny --quiet --temp 0 -n 5"
run $asks --image scene.png -p "Describe the picture."
cp "$tmp/out" "$tmp/want"
cp scene.png "$HOME/scene.png"
for name in "'a b.png'" '"a b.png"' 'a\ b.png' " a b.png " "'a b.png' " "$tmp/here/a b.png" "~/scene.png" \
    "file://$tmp/here/a%20b.png" "FILE://localhost$tmp/here/a%20b.png" "file:$tmp/here/a%20b.png" \
    "'file://$tmp/here/a%20b.png'"; do
    answers "a picture called $name" $asks --image "$name" -p "Describe the picture."
done
cp scene.png "it's.png"
answers "an apostrophe that is one" $asks --image "it's.png" -p "Describe the picture."
cp scene.png "'quoted'"
answers "quotes that are the file's" $asks --image "'quoted'" -p "Describe the picture."
for address in http://example.org/a.png https://example.org/a.png HTTPS://example.org/a.png ftp://example.org/a.png; do
    for option in --image --audio --video -f -m --tools; do
        fails 2 "web addresses are not opened: download the file first" $asks $option $address -p x
    done
done
fails 2 "is not an address of a file on this machine" $asks --image file://elsewhere/a.png -p x
fails 2 "is no byte of a name" $asks --image file:///a%zz.png -p x
fails 2 "is no byte of a name" $asks --image file:///a%00.png -p x
run $asks -f "file://$tmp/here/text.txt"
ok "-f takes an address" test "$rc" -eq 0

# ---- The order of a message, standard input as a medium ----------------------------------------------
answers "--image may stand behind -p" $asks -p "Describe the picture." --image scene.png
answers "and behind a word" $asks "Describe the picture." --image scene.png
ok "which needs no warning" test ! -s "$tmp/err"
run $asks -p "This is one:" --image scene.png -p "Describe it."
ok "between two texts it stands where it stands" test "$rc" -eq 0 -a ! -s "$tmp/err"
run $asks --image scene.png -p "Describe it." --image scene.png
ok "behind the last of several it is warned of" test "$rc" -eq 0
says "stands behind the text"
cp scene.png "$tmp/in"
answers "--image - is standard input" $asks --image - -p "Describe the picture."
answers "behind the question too" $asks "Describe the picture." --image -
fails 2 "standard input can be read once: --image - or -f -, not both" $asks --image - -f -
fails 2 "standard input can be read once: --image - or --audio -, not both" $asks --image - --audio - -p x
fails 2 "standard input can be read once: --image - or --tools -, not both" $asks --image - --tools - -p x
run $asks --image -
ok "and alone it is the message" test "$rc" -eq 0
cp text.txt "$tmp/in"
run $asks --image - -p x
ok "a text is no picture" test "$rc" -eq 1
: > "$tmp/in"
run $asks --image - -p x
ok "nor is nothing" test "$rc" -eq 1 -a "$(wc -l < "$tmp/err")" -eq 1
says "standard input is empty"
for option in --image --audio --video; do # what has no end is known by its start, before memory ends
    yes | (ulimit -t 5; timeout 20 "$g4" $asks $option - -p x) > "$tmp/out" 2> "$tmp/err"; rc=$?
    ok "$option - that never ends is refused" test "$rc" -eq 1 -a "$(wc -l < "$tmp/err")" -eq 1
    says 'it begins with 79 0a'
done
{ printf 'P6 700 700 255\n'; head -c 1470000 /dev/zero; } > large.ppm
run $asks --image large.ppm -p x
cp "$tmp/out" "$tmp/want"
cat large.ppm | "$g4" $asks --image - -p x > "$tmp/out" 2> "$tmp/err"
ok "a large picture that comes through a pipe is read" same
run $asks --json --image scene.png --image-tokens 70 -p x
cp "$tmp/out" "$tmp/want"
run $asks --json --image-tokens 70 --image scene.png -p x
tokens() { sed 's/.*"prompt_tokens":\([0-9]*\).*/\1/' "$1"; }
ok "--image-tokens may stand behind its picture" test "$(tokens "$tmp/out")" = "$(tokens "$tmp/want")"

# ---- Base models and --raw ---------------------------------------------------------------------------
run -m "$tiny" --raw --quiet --json --temp 0 -n 8 --image scene.png -p "A picture of"
ok "--raw sees a picture" test "$(tokens "$tmp/out")" -gt 60
cp "$tmp/out" "$tmp/raw"
run -m "$tiny" --raw --quiet --json --temp 0 -n 8 -p "A picture of" --image scene.png
ok "in front of its text" test "$(tokens "$tmp/out")" = "$(tokens "$tmp/raw")"
run -m "$tiny" --raw --quiet --json --temp 0 -n 2 -p "A sound:" --audio "$repo/examples/speech.wav"
ok "hears a sound" test "$(tokens "$tmp/out")" -gt 20
run -m "$tiny" --raw --quiet --json --temp 0 -n 2 --video "$repo/examples/clip.y4m" -p "A video of" --session s.g4s
ok "sees a video" test "$(tokens "$tmp/out")" -gt 60
run -m "$tiny" --raw --quiet --json --temp 0 -n 2 --image scene.png -p "and" --session s.g4s
ok "and a picture behind it, in its session" test "$rc" -eq 0
run -m "$sees" --quiet --json --temp 0 -n 2 --image scene.png -p "the cat"
ok "so does a base model" test "$(tokens "$tmp/out")" -gt 60
rules='root ::= "yes" | "no"'
for how in "" --raw; do
    run -m "$tiny" --quiet $how --grammar "$rules" -p "Is it?"
    ok "rules inline $how" grep -qxE 'yes|no' "$tmp/out"
    run -m "$tiny" --quiet $how --json-schema ' {"enum": [7]}' -p "Is it?"
    ok "a schema inline $how" grep -qx 7 "$tmp/out"
done
run -m "$base" --quiet --grammar "$rules" -p "Is it?"
ok "rules for a base model" grep -qxE 'yes|no' "$tmp/out"
fails 1 "--grammar: " -m "$tiny" --quiet --grammar 'root ::= (' -p x
run -m "$tiny" --quiet --tools '[{"name": "f", "parameters": {}}]' --tool-choice required -p x
ok "tools inline" grep -q '^f {' "$tmp/out"
fails 1 "--tools: " -m "$tiny" --quiet --tools '[{"name": 5}]' -p x

# ---- Before the work ---------------------------------------------------------------------------------
for prompt in "" "$(printf ' \n\t .')"; do
    prompt=${prompt%.}
    fails 2 "the prompt is empty" -m "$tiny" --quiet -p "$prompt"
    fails 2 "the prompt is empty" -m "$tiny" --quiet "$prompt"
    printf '%s' "$prompt" > "$tmp/in"
    fails 1 "standard input is empty" -m "$tiny" --quiet
done
: > "$tmp/in"
fails 2 "the prompt is empty" -m "$base" --quiet ""
fails 2 "the prompt is empty" -m no/such/model.g4 -p ""
fails 2 "the prompt is empty" -m no/such/model.g4 --raw -p "" -p ""
run tokenize -m "$tiny" -p ""
ok "a text without tokens has none" test "$rc" -eq 0
: > empty.txt
fails 1 "the prompt is empty" -m "$tiny" --quiet -f empty.txt
late="-m $tiny --quiet -p x"
fails 1 "cannot write no/such/folder" $late --session no/such/folder
fails 1 "cannot write no/such/b.png" $late --image scene.png --boxes no/such/b.png
fails 1 "/ is a folder, a pipe or a device" $late --session /
for command in "logits -m $tiny --tokens 2 -o" "logits -m $tiny --tokens 2 -o x --dump" \
    "perplexity -m $tiny -f text.txt --nll" "calibrate -m $tiny -f text.txt -o" \
    "encode -m $tiny --image scene.png -o" "patches -f scene.png -o" "mel -f $repo/examples/speech.wav -o"; do
    fails 1 "cannot write no/such/folder" $command no/such/folder
done
ok "and nothing is left" test "$(find . -name '*.tmp' -o -name x | wc -l)" -eq 0
fails 2 "is named for two outputs" logits -m "$tiny" --tokens 2 -o x --dump x
cp "$tiny" model.g4
fails 2 "is the model: nothing is written there" logits -m model.g4 --tokens 2 -o ./model.g4
fails 2 "--boxes needs a picture" $late --boxes b.png
"$g4" $late -n 1 >&- 2> "$tmp/err"; rc=$?
ok "a closed standard output is an error" test "$rc" -eq 1

# ---- Options without effect --------------------------------------------------------------------------
# idle OPTION WHY ARGUMENT...: a line that says so, and the work is done.
idle() {
    option=$1; why=$2; shift 2
    run "$@"
    ok "$*: done" test "$rc" -eq 0
    ok "$*: one line" test "$(wc -l < "$tmp/err")" -eq 1
    says "$option has no effect: $why"
}
late="-m $tiny --quiet -n 1 -p x"
idle --image-tokens "there is no picture" $late --image-tokens 70
idle --frames "there is no video" $late --frames 3
idle --fps "there is no video" $late --fps 3 --image scene.png
idle --frame-times "there is no video" $late --frame-times --image scene.png
idle --max-pixels "there is no picture and no video" $late --max-pixels 1000
idle --max-file "there are no media" $late --max-file 5
idle --no-history "only a chat keeps" $late --no-history
idle --context-shift "one question has no older turns" $late --context-shift
idle --seed "--top-k 1 leaves nothing to chance" $late --top-k 1 --seed 5
idle --man "there is one man page" help run --man
idle --tool-exec "there are no --tools" $late --tool-exec /bin/true
idle --yes "there is no --tool-exec" $late --yes
idle --strict-schema "there is no schema" $late --strict-schema
idle --show-thoughts "there are no thoughts" $late --show-thoughts
idle --no-guard "raw text is not guarded" $late --raw --no-guard
idle --seed "--temp 0 leaves nothing to chance" $late --temp 0 --seed 5
idle --top-k "--temp 0 takes the best token" $late --temp 0 --top-k 5
mkdir -p "${config%/*}"
write "seed = 5" "temp = 0"
run $late
ok "of the file's options none is warned of" test "$rc" -eq 0 -a ! -s "$tmp/err"
rm "$config"

cp text.txt "$tmp/in"
run -m "$tiny" -n 1 "Summarise it."
says "standard input is not read beside a prompt; -f - reads it"
: > "$tmp/in"
run -m "$tiny" -n 1 "Summarise it."
ok "which is said where there is something" sh -c "! grep -q 'not read beside' '$tmp/err'"

# ---- Files that are none -----------------------------------------------------------------------------
late="-m $tiny --quiet -n 1"
[ ! -r /dev/zero ] || fails 1 "/dev/zero holds more than the 256 MiB that are read" $late -f /dev/zero
fails 1 "cannot read .: Is a directory" $late -f .
fails 1 "cannot read nothere" $late -f nothere
if [ "$(id -u)" -ne 0 ]; then
    chmod 0 empty.txt
    fails 1 "cannot read empty.txt" $late -f empty.txt
fi
mkfifo pipe
printf 'What is 2 + 2?' > pipe &
run $late --temp 0 -f pipe
ok "a pipe is read" test "$rc" -eq 0
for option in -f --image --audio --tools --json-schema; do # nobody writes: Ctrl-C ends it
    (trap - INT; exec "$g4" $late $option pipe -p x > "$tmp/out" 2> "$tmp/err" < /dev/null) &
    pid=$!
    sleep 0.1
    kill -s INT $pid
    wait $pid
    ok "an interrupt ends the wait of $option" test $? -eq 130
done
fails 1 "is a folder, a pipe or a device" $late -p x --session pipe
printf 'one\0two' > nul
run $late --json -f nul
ok "a NUL is a byte of the text" test "$(tokens "$tmp/out")" -gt 5
ok "and no warning" test ! -s "$tmp/err"
printf 'a caf\351 and more \300' > latin1
run $late --json -f latin1
ok "Latin-1 is warned of" test "$rc" -eq 0 -a "$(wc -l < "$tmp/err")" -eq 1
says "latin1: byte 0xE9 at offset 5 of the text is no UTF-8"
cp latin1 "$tmp/in"
run $late --json
says "standard input: byte 0xE9 at offset 5 of the text is no UTF-8"
: > "$tmp/in"
printf '{"caf\351":1}' > latin1.json
fails 1 "malformed UTF-8" $late -p x --json-schema latin1.json
printf '\377\376W\0h\0a\0t\0 \0i\0s\0 \0002\0 \0+\0 \0002\0?\0' > utf16
run $late --json --temp 0 -p "What is 2 + 2?"
count=$(tokens "$tmp/out")
run $late --json --temp 0 -f utf16
ok "UTF-16 with its mark is text" test "$(tokens "$tmp/out")" = "$count"

tally
