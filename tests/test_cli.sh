#!/bin/sh
# What the program promises on the command line: exit codes, one clear line for an error, where output goes, what stays
# behind. On tiny random models; their answers mean nothing, their form does. Ends with "N passed, N failed".
. tests/program.sh
base=tests/data/text_e2b.g4          # a base model, type f32
chat=tests/data/media/e2b-q8_0.g4    # a chat model that sees and hears
vocab=tests/data/vocab.g4            # the real vocabulary, no weights

# run ARGUMENT...: the program, without input; leaves out, err and rc.
run() { "$g4" "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null; rc=$?; }
out_is() { [ "$(cat "$tmp/out")" = "$1" ]; }
same() { cmp -s "$1" "$2"; }
size_is() { [ "$(wc -c < "$1")" -eq "$2" ]; }
no_leftovers() { [ -z "$(find "$tmp" -name '*.tmp')" ]; }
if command -v python3 > /dev/null; then
    check='import json, sys; d = json.load(open(sys.argv[1])); assert eval(sys.argv[2], {"d": d}), d'
    json() { python3 -c "$check" "$tmp/out" "$1"; }
else
    json() { grep -q '^{.*}$' "$tmp/out"; }
fi

# ---- Usage -------------------------------------------------------------------------------------------
for command in "" run chat batch serve info bench tokenize detokenize render perplexity calibrate logits encode mel \
    patches help; do
    run $command --help
    ok "$command --help exits 0" test "$rc" -eq 0
    ok "$command --help is on stdout" grep -q '^usage: gemma4' "$tmp/out"
    ok "$command --help leaves stderr alone" test ! -s "$tmp/err"
done
run --version
ok "--version" grep -q '^gemma4 [0-9]' "$tmp/out"
fails 2 "unknown option --nonsense" -m $base --nonsense
fails 2 "unknown option -z" -z
fails 2 "what is \"stray\"" info -m $base stray
fails 2 "-m needs a value" -p x -m
fails 2 "--temp is not an option of tokenize" tokenize -m $base --temp 1
cp "$g4" "$tmp/gemma4"
here=$g4; g4=$tmp/gemma4
fails 2 "no model" -p x
g4=$here
fails 2 "-n needs a whole number" -m $base -n many -p x
fails 2 "-n needs a whole number" -m $base -n 1.5 -p x
fails 2 "-n needs a whole number" -m $base -n -1 -p x
fails 2 "--temp needs a number" -m $base --temp hot -p x
fails 2 "--top-p needs a number from 0 to 1" -m $base --top-p 1.5 -p x
fails 2 "--kv needs" -m $base --kv f64 -p x
fails 2 "--logit-bias needs" -m $base --logit-bias 5 -p x
fails 2 "--logprobs needs" -m $base --logprobs 65 -p x
fails 2 "--image-tokens needs 70, 140, 280, 560 or 1120" -m $chat --image-tokens 100 -p x
fails 2 "--raw takes no value" -m $base --raw=yes -p x
fails 2 "--system belongs to the chat template" -m $base --raw --system x -p x
fails 2 "--specials needs --raw" -m $chat --specials -p x
fails 2 "logits needs --tokens" logits -m $base -o "$tmp/x"
fails 2 "logits needs -o FILE or --dump FILE" logits -m $base --tokens 2
fails 2 "both" logits -m $base --tokens 2 -o - --dump -
run -m=$base -p x
ok "a short option takes no equals sign" test "$rc" -eq 2
run -m $base --temp=0 -n 2 --quiet -p x
ok "--name=value" test "$rc" -eq 0

# ---- Files that are no model ---------------------------------------------------------------------------
fails 1 "no-such-file" -m "$tmp/no-such-file.g4" -p x
: > "$tmp/empty.g4"
fails 1 "empty.g4" -m "$tmp/empty.g4" -p x
head -c 5000 $base > "$tmp/cut.g4"
fails 1 "cut.g4" -m "$tmp/cut.g4" -p x
head -c 100000 /dev/zero > "$tmp/zero.g4"
fails 1 "zero.g4" -m "$tmp/zero.g4" -p x
cp LICENSE "$tmp/it's.gguf"
run -m "$tmp/it's.gguf" -p x
ok "a GGUF exits 1" test "$rc" -eq 1
ok "a GGUF gets the export command, quoted" grep -qF "export.py '$tmp/it'\\''s.gguf' -o '$tmp/it'\\''s.g4'" "$tmp/err"
mkdir "$tmp/folder"
run info -m "$tmp/folder/"
ok "a folder exits 1" test "$rc" -eq 1
ok "a folder gets the export command" grep -qF "export.py $tmp/folder/ -o $tmp/folder.g4" "$tmp/err"
fails 1 "isa nonsense" -m $base --isa nonsense -p x
if [ "$(id -u)" -ne 0 ]; then
    cp $base "$tmp/secret.g4"; chmod 0 "$tmp/secret.g4"
    fails 1 "secret.g4" -m "$tmp/secret.g4" -p x
fi

# ---- Raw text --------------------------------------------------------------------------------------------
run -m $base -p "the cat" -n 4 --temp 0
ok "a base model completes" test "$rc" -eq 0 -a -s "$tmp/out"
ok "and says that it does" grep -q "base model" "$tmp/err"
cp "$tmp/out" "$tmp/first"
run -m $base --raw --quiet -p "the cat" -n 4 --temp 0
ok "--raw gives the same" same "$tmp/out" "$tmp/first"
ok "--quiet says nothing" test ! -s "$tmp/err"
printf 'root ::= "yes" | "no"\n' > "$tmp/rules"
run -m $base --quiet -p "the cat" --temp 1 --grammar "$tmp/rules"
ok "a base model follows a grammar" grep -qxE "yes|no" "$tmp/out"
run -m $chat --raw --quiet -p "the cat" --temp 1 --seed 4 --grammar "$tmp/rules"
ok "--raw follows a grammar" grep -qxE "yes|no" "$tmp/out"
small='{"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"], "additionalProperties": false}'
printf '%s' "$small" > "$tmp/schema"
run -m $base --raw --quiet -p "the cat" --temp 1 --json-schema "$tmp/schema"
ok "--raw follows a schema" json 'd["a"] in (1, 22) and len(d) == 1'
run -m $base --quiet -p "the cat" --json --json-schema "$small"
ok "and ends with it" json 'd["finish_reason"] in ("stop", "constraint") and d["content"][-1] == "}"'
fails 1 "#/type" -m $base --raw --quiet --strict-schema --json-schema '{"type": "nonsense"}' -p x
fails 1 "no-such-rules" -m $base --raw --quiet --grammar "$tmp/no-such-rules" -p x
fails 2 "not both" -m $base --raw --grammar "$tmp/rules" --json-schema '{}' -p x
fails 2 "--tools belongs to the chat template" -m $base --raw --tools "$tmp/rules" -p x
printf 'the cat' > "$tmp/prompt"
run -m $base --quiet -f "$tmp/prompt" -n 4 --temp 0
ok "-f gives the same" same "$tmp/out" "$tmp/first"
run -m $base --quiet -p "the" -p " cat" -n 4 --temp 0
ok "parts join in order" same "$tmp/out" "$tmp/first"
"$g4" -m $base --quiet -n 4 --temp 0 < "$tmp/prompt" > "$tmp/out" 2> "$tmp/err"
ok "standard input gives the same" same "$tmp/out" "$tmp/first"
"$g4" -m $base --quiet -n 4 --temp 0 -f - < "$tmp/prompt" > "$tmp/out" 2> "$tmp/err"
ok "-f - gives the same" same "$tmp/out" "$tmp/first"
echo nonsense | "$g4" -m $base --quiet -n 4 --temp 0 -p "the cat" > "$tmp/out" 2> "$tmp/err"
ok "standard input is left alone when there is -p" same "$tmp/out" "$tmp/first"
run -m $base --quiet -p "the cat" -n 4 --temp 0 -t 1 --isa scalar
ok "one thread, scalar kernels: the same text" same "$tmp/out" "$tmp/first"
fails 1 "nowhere" -m $base --quiet -f "$tmp/nowhere"
fails 1 "read" -m $base --quiet -f "$tmp/folder"
fails 1 "no chat template" -m $base --system x -p x
fails 1 "no chat template" -m $base --think -p x
fails 1 "out of range" -m $base --quiet --logit-bias 99999:1 -p x
head -c 9000 /dev/zero | tr '\0' x > "$tmp/long"
fails 1 "context" -m $base --quiet -c 64 -f "$tmp/long"
run -m $base --quiet -c 24 -p "the cat" --temp 0 --no-guard
ok "a full context ends the answer" test "$rc" -eq 0
ok "and a warning says so, even when quiet" grep -q "context is full" "$tmp/err"
printf 'a\200\377b' > "$tmp/malformed"
run -m $base --quiet -n 2 -f "$tmp/malformed"
ok "malformed UTF-8 is text too" test "$rc" -eq 0
fails 2 "the prompt is empty" -m $base --quiet -p "" -n 2
run -m $base --quiet -p "the cat" -n 0
ok "-n 0 reads and says nothing" test "$rc" -eq 0

run -m $base -p "the cat" -n 3 --json --logprobs 2 --temp 0
ok "--json is one object" json 'd["role"] == "assistant"'
ok "--json counts tokens" json 'd["usage"]["completion_tokens"] == 3 and d["finish_reason"] == "length"'
ok "--logprobs 2 lists two for each token" \
    json 'len(d["logprobs"]) == 3 and all(len(x["top"]) == 2 for x in d["logprobs"])'
ok "greedy takes the best" json 'all(x["id"] == x["top"][0]["id"] and x["logprob"] <= 0 for x in d["logprobs"])'
run -m $base --quiet -p "the cat" -n 3 --logprobs 1 --temp 0
run bench -m $base --lengths 16,32 -n 4 --repeat 1 --json
ok "bench --json counts per length, with the bandwidth" \
    json "d['bandwidth_gb_per_second'] > 0 and [r['length'] for r in d['runs']] == [16, 32] and all(
        r['prefill_gmul_per_second'] > 0 and r['share_of_bandwidth'] > 0 for r in d['runs'])"
for command in info "perplexity -f LICENSE" "calibrate -f LICENSE -o $tmp/x.stats" "bench --lengths 16" "-p x" \
    "batch examples/batch.jsonl" "serve --port 0"; do
    fails 1 "context of 99999999 tokens: this model has 1 to" $command -m $base -c 99999999 --quiet
done
run bench -m tests/data/text_26b.q4_0.g4 --parallel 3 --lengths 16 -n 4 --repeat 1 --json
ok "bench --parallel counts the experts that a step reads" \
    json '3 < d["experts_read"] <= 7 and d["runs"][0]["decode_tokens_per_second"] > 0'
run bench -m $base -c 600 -n 4 --repeat 1 -t 1 --json
ok "bench leaves out the usual lengths that do not fit" json '[r["length"] for r in d["runs"]] == [128, 512]'
ok "and says so" grep -q "the context of 600 has no room for 2 of the usual lengths" "$tmp/err"
run bench -m $base --lengths 16 -n 4 --repeat 1
ok "bench names memory and share" grep -q 'of memory' "$tmp/out"
run -m $base --quiet -p "the cat" -n 3 --temp 0
cp "$tmp/out" "$tmp/free"
run -m $base --quiet -p "the cat" -n 3 --temp 0 --mlock
ok "--mlock changes nothing, or says what the limit is" \
    sh -c "cmp -s '$tmp/out' '$tmp/free' || grep -q 'ulimit -l' '$tmp/err'"
run -m $base --quiet -p "the cat" -n 3 --temp 0 --huge-pages
ok "--huge-pages changes nothing" same "$tmp/out" "$tmp/free"
run -m $base --quiet -p "the cat" -n 3 --logprobs 1 --temp 0
ok "--logprobs without --json is on stderr" test "$(wc -l < "$tmp/err")" -eq 3
run -m $base --quiet -p "the cat" -n 40 --temp 1 --seed 7
cp "$tmp/out" "$tmp/seven"
run -m $base --quiet -p "the cat" -n 40 --temp 1 --seed 7
ok "the same seed says the same" same "$tmp/out" "$tmp/seven"
run -m $base --quiet -p "the cat" -n 40 --temp 1 --seed 8
ok "another seed says something else" sh -c "! cmp -s '$tmp/out' '$tmp/seven'"
first=$(head -c 1 "$tmp/seven")
run -m $base --json -p "the cat" -n 40 --temp 1 --seed 7 --stop "$first"
ok "--stop ends before its text" json 'd["content"] == "" and d["finish_reason"] == "stop_string"'

# ---- Sessions --------------------------------------------------------------------------------------------
run -m $base --quiet -p "the cat" -n 8 --temp 0
cp "$tmp/out" "$tmp/whole"
run -m $base --quiet -p "the cat" -n 4 --temp 0 --session "$tmp/s"
run -m $base --json -p "" -n 4 --temp 0 --session "$tmp/s"
ok "--session goes on without reading again" json 'd["usage"]["cached_tokens"] > 4'
run -m $chat --json -p "hello" -n 4 --temp 0 --session "$tmp/c"
run -m $chat --json -p "and more" -n 4 --temp 0 --session "$tmp/c"
ok "a chat goes on" json 'd["usage"]["cached_tokens"] > 4'
fails 1 "holds a chat" -m $chat --raw --session "$tmp/c" -p x
fails 1 "another model" -m tests/data/media/e2b.g4 --raw --quiet --session "$tmp/s" -p x
cp LICENSE "$tmp/nosession"
# A full context: without --context-shift a line that says what to do, with it the oldest turns go, whole, and the
# answer is that of a session that never held them.
tiny=models/tiny.g4 # whose answers are text
shifting="-m $tiny --system Brief. --session $tmp/shift --temp 0 --no-guard -n 6 -c 150 --json --logprobs 0"
turn=0; dropped=0; kept=1
while [ $turn -lt 12 ] && [ $dropped -eq 0 ]; do
    turn=$((turn + 1))
    cp "$tmp/shift" "$tmp/unshifted" 2> /dev/null
    media=; [ $turn -ne 1 ] || media="--image examples/scene.png"
    run $shifting --context-shift $media -p "question $turn"
    cp "$tmp/out" "$tmp/a$turn"
    dropped=$(sed -n 's/.*the context is full: \([0-9]*\) turns\{0,1\} dropped, oldest first/\1/p' "$tmp/err")
    dropped=${dropped:-0}
done
kept=$((dropped + 1))
ok "turns are dropped" test "$dropped" -gt 0 -a $kept -lt $turn
{
    printf '[{"role": "system", "content": "Brief."}'
    while [ $kept -lt $turn ]; do
        printf ', {"role": "user", "content": "question %d"}, ' $kept
        cat "$tmp/a$kept"
        kept=$((kept + 1))
    done
    printf ', {"role": "user", "content": "question %d"}]' $turn
} > "$tmp/messages"
run -m $tiny --messages "$tmp/messages" --temp 0 --no-guard -n 6 -c 150 --json --logprobs 0
strip() { sed 's/"cached_tokens":[0-9]*,//; s/"seconds":{[^}]*},//' "$1"; }
ok "the answer is a fresh session's" test "$(strip "$tmp/out")" = "$(strip "$tmp/a$turn")"
cp "$tmp/unshifted" "$tmp/shift"
run $shifting -p "$(yes "a longer question" | head -n 40)"
ok "a full context is an error" test $rc -eq 1
full="the context is full: with this message the chat has [0-9]* tokens, the context 150"
ok "... that says what to do" grep -q "$full; -c N gives more room.*--context-shift drops" "$tmp/err"
ok "... and leaves the session as it was" cmp -s "$tmp/unshifted" "$tmp/shift"
# Calls go with their results.
printf '#!/bin/sh\necho 21 degrees\n' > "$tmp/weather"; chmod +x "$tmp/weather"
calls="-m $tiny --temp 0 -c 330 --tools examples/tools.json --tool-exec $tmp/weather --yes --session $tmp/calls"
for turn in 1 2 3 4; do
    run $calls --context-shift --quiet -n 30 -p "What is the weather in Paris?"
    ok "a turn with a call is answered" test $rc -eq 0 -a -s "$tmp/out"
done
ok "a turn with a call is dropped whole" grep -q "the context is full: 1 turn dropped, oldest first" "$tmp/err"
fails 2 "--context-shift drops turns of a chat" -m $chat --raw --context-shift -p x
fails 1 "the prompt is too long: " -m $chat --quiet --context-shift --session "$tmp/unheard" -c 9 \
    -p "a question of more than nine tokens"

fails 1 "not a session file" -m $chat --session "$tmp/nosession" -p x
ok "a file that is no session stays as it is" same LICENSE "$tmp/nosession"
head -c 300 "$tmp/c" > "$tmp/cut"
run -m $chat --session "$tmp/cut" -p x
ok "a cut session exits 1" test "$rc" -eq 1
run -m $base --quiet -p x -n 1 --session "$tmp/no/such/folder/s"
ok "a session that cannot be written exits 1" test "$rc" -eq 1 -a -s "$tmp/err"

# ---- Chat --------------------------------------------------------------------------------------------------
run -m $chat -p "hello" -n 6 --temp 0 --json
ok "a chat answers" json 'd["usage"]["completion_tokens"] > 0'
run -m $chat -p "hello" -n 6 --temp 0 --json --think
ok "thinking is a longer prompt" test "$rc" -eq 0
run -m $chat --system "Be brief." -p "a" -f "$tmp/prompt" -n 2 --quiet
ok "system prompt and two parts" test "$rc" -eq 0
printf 'P6\n60 40\n255\n' > "$tmp/i.ppm"; head -c 7200 /dev/zero | tr '\0' '\200' >> "$tmp/i.ppm"
run -m $chat --image-tokens 70 --image "$tmp/i.ppm" -p "what is it?" -n 2 --json
ok "a picture" json 'd["usage"]["prompt_tokens"] > 60'
run -m $chat --quiet --image "$tmp/nowhere.png" -p x
ok "a missing picture exits 1" test "$rc" -eq 1
fails 1 "no vision tower" -m $base --quiet --image "$tmp/i.ppm" -p x
run render -m $chat < /dev/null
ok "render of nothing exits 1" test "$rc" -eq 1 -a ! -s "$tmp/out"
echo '{"messages": [{"role": "user", "content": " hi <|turn> "}], "tools": null}' > "$tmp/j"
"$g4" render -m $chat < "$tmp/j" > "$tmp/out" 2> "$tmp/err"; rc=$?
printf '<bos><|turn>user\nhi <|turn><turn|>\n' > "$tmp/want"
ok "render" same "$tmp/out" "$tmp/want"
"$g4" render --template nonsense < "$tmp/j" > "$tmp/out" 2> "$tmp/err"; rc=$?
ok "an unknown template exits 1" test "$rc" -eq 1 -a ! -s "$tmp/out" -a -s "$tmp/err"
echo '{"messages": "none"}' | "$g4" render -m $chat > "$tmp/out" 2> "$tmp/err"; rc=$?
ok "what the template refuses exits 1" test "$rc" -eq 1 -a ! -s "$tmp/out" -a -s "$tmp/err"

# ---- Guided answers, with the model that comes along ---------------------------------------------------------
if [ -f models/tiny.g4 ]; then
    tiny=models/tiny.g4
    cat > "$tmp/tools.json" <<'END'
[{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
END
    asks="-m $tiny --tools $tmp/tools.json --tool-choice required -n 60 --temp 0"
    run $asks -p "What is the weather in Paris?" --json
    ok "a required call" \
        json 'd["tool_calls"][0]["function"]["name"] == "get_weather" and d["finish_reason"] == "tool_calls"'
    ok "its arguments are JSON" json '"city" in __import__("json").loads(d["tool_calls"][0]["function"]["arguments"])'
    printf '#!/bin/sh\ncat > "%s"; echo "{\\"celsius\\": 12}"\n' "$tmp/arguments" > "$tmp/tool"; chmod +x "$tmp/tool"
    run $asks -p "What is the weather in Paris?" --quiet --tool-exec "$tmp/tool" --yes
    ok "--tool-exec runs it, arguments on standard input" grep -q '"city"' "$tmp/arguments"
    printf '#!/bin/sh\nyes 2> "%s" | head -n 1\n' "$tmp/broken" > "$tmp/tool"
    run $asks -p "What is the weather in Paris?" --quiet --tool-exec "$tmp/tool" --yes
    ok "a tool's pipes end as they do elsewhere" test -e "$tmp/broken" -a ! -s "$tmp/broken"
    run $asks -p "What is the weather?" --tool-exec "$tmp/tool"
    ok "without --yes nothing runs" grep -q "needs --yes" "$tmp/err"

    run $asks -p "What is the weather?" --json --session "$tmp/unrun" --yes --tool-exec "$tmp/none"
    ok "an answer is told though its call cannot be carried out" json 'd["finish_reason"] == "tool_calls"'
    ok "and it fails" test "$rc" -eq 1 -a -s "$tmp/unrun"
    run -m $tiny --session "$tmp/unrun" -p "And now?" -n 3 --json
    ok "and kept" json 'd["finish_reason"] in ("length", "stop")'
    run $asks -p "What is the weather in Paris?" --quiet --tool-exec yes --yes
    ok "a tool that never ends is stopped" grep -q "more than 16 MiB and was stopped" "$tmp/err"

    # A call that is cut off is none: it is not reported, not run, and the session that it was cut in goes on.
    printf '#!/bin/sh\necho "$1" >> "%s"; cat >> "%s"\n' "$tmp/ran" "$tmp/ran" > "$tmp/tool"
    : > "$tmp/ran"
    paris="What is the weather in Paris?"
    asks="-m $tiny --tools $tmp/tools.json --tool-choice required --temp 0"
    n=1
    while run $asks -p "$paris" -n $n --json --session "$tmp/cut$n"
          [ $n -lt 40 ] && ! grep -q '"tool_calls"' "$tmp/out"; do
        ok "cut behind $n tokens is no call" json '"tool_calls" not in d and len(d["incomplete_calls"]) == 1'
        ok "and the object says so" json 'd["finish_reason"] == "length" and d["incomplete"] is True'
        ok "and stderr says so" grep -q "stopped: length; the call .*is incomplete" "$tmp/err"
        answer=$(cat "$tmp/out")
        printf '[{"role": "user", "content": "a"}, %s, {"role": "user", "content": "b"}]' "$answer" > "$tmp/messages"
        run -m $tiny --messages "$tmp/messages" --json -n 2
        ok "--messages reads what --json wrote behind $n tokens" json 'd["usage"]["completion_tokens"] == 2'
        run -m $tiny --session "$tmp/cut$n" -p "And then?" --json -n 2
        ok "a session goes on that was cut behind $n tokens" json 'd["usage"]["completion_tokens"] == 2'
        run $asks -p "$paris" -n $n --quiet --tool-exec "$tmp/tool" --yes
        ok "cut behind $n tokens, nothing runs" test "$rc" -eq 0 -a ! -s "$tmp/ran"
        ok "and nothing that looks like a call is printed" size_is "$tmp/out" 1
        n=$((n + 1))
    done
    ok "there were several places to cut" test $n -gt 5
    ok "a whole call that -n ends is one" json 'd["finish_reason"] == "tool_calls" and "incomplete" not in d'
    prompt=$(sed -n 's/.*"prompt_tokens":\([0-9]*\).*/\1/p' "$tmp/out")
    run $asks -p "$paris" -n $n --quiet --tool-exec "$tmp/tool" --yes
    ok "and runs" grep -q '"city"' "$tmp/ran"
    run $asks -p "$paris" --json -c $((prompt + 3))
    ok "a full context is no call either" json 'd["finish_reason"] == "context" and "tool_calls" not in d'
    # one that the model has ended itself, without a name
    ends="-m $tiny --temp 0 -n 8 -p hi --logit-bias 7:1000 --logit-bias 1:950 --presence-penalty 98"
    run $ends --json
    ok "a call that is none is no answer" \
        json 'd["finish_reason"] == "length" and d["incomplete"] and d["incomplete_calls"]'
    ok "and stderr says so" grep -q "gemma4: the call is incomplete" "$tmp/err"
    run $ends --json=openai
    ok "both objects say the same" json 'd["choices"][0]["finish_reason"] == "length"'
    sed 's/get_weather/-rf/' "$tmp/tools.json" > "$tmp/dash.json"
    : > "$tmp/ran"
    run -m $tiny --tools "$tmp/dash.json" --tool-choice required --temp 0 -p x --tool-exec "$tmp/tool" --yes
    ok "a tool's name is never an option of PROGRAM" test "$rc" -eq 1 -a ! -s "$tmp/ran"
    ok "and it says so" grep -q "begins with -" "$tmp/err"

    schema='{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    run -m $tiny --json-schema "$schema" -p hi -n 2 --json
    ok "a cut answer to a schema is incomplete" json 'd["finish_reason"] == "length" and d["incomplete"] is True'
    for raw in "" --raw; do
        run -m $tiny --json-schema "$schema" -p hi -n 2 --quiet $raw
        ok "and stderr says so $raw" grep -q "stopped: length; the answer is incomplete" "$tmp/err"
        run -m $tiny --json-schema "$schema" -p hi --temp 0 --quiet --json --stop : $raw
        ok "a stop string cuts it too $raw" json 'd["finish_reason"] == "stop_string" and d["incomplete"] is True'
        run -m $tiny --json-schema "$schema" -p hi --temp 0 --quiet --json $raw
        ok "a whole one is not $raw" json 'd["finish_reason"] == "stop" and "incomplete" not in d'
    done
    ok "and stderr does not say so" test ! -s "$tmp/err"
    run -m $tiny --think -p "What is 2 + 2?" --temp 0 -n 4 --quiet
    ok "a cut thought is no answer" grep -q "stopped: length; the thought is incomplete" "$tmp/err"
    for n in 2 5 8; do
        rm -f "$tmp/thought"
        run -m $tiny --think -p "What is 2 + 2?" --temp 0 -n $n --quiet --session "$tmp/thought"
        ok "nor is one that is cut behind $n tokens" grep -q "stopped: length; the .* is incomplete" "$tmp/err"
        run -m $tiny -p "And then?" -n 2 --json --session "$tmp/thought"
        ok "and its session goes on" json 'd["usage"]["completion_tokens"] == 2'
    done
    run -m $tiny --json-schema "$schema" -p hi --quiet -n 40
    ok "--json-schema" json 'd["a"] == int(d["a"])'
    fails 1 "#/type" -m $tiny --quiet --strict-schema --json-schema '{"type": "nonsense"}' -p hi
    printf 'root ::= "yes" | "no"\n' > "$tmp/rules"
    run -m $tiny --grammar "$tmp/rules" -p "Is it?" --quiet -n 9
    ok "--grammar" grep -qxE "yes|no" "$tmp/out"
    fails 2 "needs --tools" -m $tiny --tool-choice none -p hi
    fails 2 "not both" -m $tiny --grammar "$tmp/rules" --json-schema '{}' -p hi
    echo '[{"role": "user", "content": [{"type": "text", "text": "Describe the picture."},
           {"type": "image", "path": "'"$tmp/i.ppm"'"}]}]' > "$tmp/messages"
    run -m $tiny --messages "$tmp/messages" --json -n 20
    ok "--messages with a picture" json 'd["role"] == "assistant" and d["usage"]["prompt_tokens"] > 30'
    printf 'YUV4MPEG2 W16 H16 F1:1 C420jpeg\nFRAME\n' > "$tmp/v.y4m"; head -c 384 /dev/zero >> "$tmp/v.y4m"
    echo '[{"role": "user", "content": [{"type": "video", "path": "'"$tmp/v.y4m"'"}]}]' > "$tmp/messages"
    run -m $chat --messages "$tmp/messages" --frame-tokens 280 --json -n 1
    ok "--messages with --frame-tokens" json 'd["usage"]["prompt_tokens"] > 200'
    echo '[{"role": "user", "content": [{"type": "image", "path": "https://example.org/x.png"}]}]' > "$tmp/messages"
    fails 1 "not fetched" -m $tiny --quiet --messages "$tmp/messages" --json
    echo '[{"role": "user", "content": 5' > "$tmp/messages"
    fails 1 "line" -m $tiny --quiet --messages "$tmp/messages"
    # Media stand below the document's folder, or below --media-root, whatever links and dots and addresses say.
    mkdir -p "$tmp/talk/deep" "$tmp/other"
    cp "$tmp/i.ppm" "$tmp/talk/deep/i.ppm"
    cp "$tmp/i.ppm" "$tmp/other/i.ppm"
    ln -s ../other/i.ppm "$tmp/talk/link.ppm"
    ln -s ../other "$tmp/talk/folder"
    shows() { # shows SOURCE: a document that shows this picture
        echo '[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "'"$1"'"}}]}]' \
            > "$tmp/talk/messages"
    }
    for source in deep/i.ppm ./deep/../deep/i.ppm "$tmp/talk/deep/i.ppm" "file://$tmp/talk/deep/i%2eppm" \
        "data:,P6%0A2%201%0A255%0Aabcdef" "data:image/x;base64,UDYKMiAxCjI1NQphYmNkZWY="; do
        shows "$source"
        run -m $tiny --messages "$tmp/talk/messages" --json -n 1
        ok "$source is read" json 'd["usage"]["prompt_tokens"] > 5'
    done
    for source in ../other/i.ppm link.ppm folder/i.ppm "$tmp/other/i.ppm" "file://$tmp/other/i.ppm" \
        "file://$tmp/talk/../other/i.ppm" "file://$tmp/talk/%2e%2e/other/i.ppm" deep /etc/passwd no.ppm \
        /proc/self/fd/0 /dev/stdin; do
        shows "$source"
        fails 1 "there is no such file below" -m $tiny --quiet --messages "$tmp/talk/messages"
    done
    shows ../other/i.ppm
    run -m $tiny --messages "$tmp/talk/messages" --media-root "$tmp" --json -n 1
    ok "a file elsewhere is not below another folder" test "$rc" -eq 1
    shows other/i.ppm
    run -m $tiny --messages "$tmp/talk/messages" --media-root "$tmp" --json -n 1
    ok "--media-root allows the files below it" json 'd["usage"]["prompt_tokens"] > 5'
    "$g4" -m $tiny --quiet --messages - < "$tmp/talk/messages" > "$tmp/out" 2> "$tmp/err"; rc=$?
    ok "a document from standard input opens no file" sh -c "test $rc -eq 1 && grep -q 'media-root DIR' '$tmp/err'"
    fails 2 "--media-root needs --messages" -m $tiny --media-root . -p x
    # Requests and answers in OpenAI's format.
    echo '{"model": "mine", "messages": [{"role": "user", "content": [{"type": "input_text", "text": "Rome?"}]}],
           "tools": [{"name": "get_time", "description": "Time of a city", "inputSchema": {"type": "object",
           "properties": {"city": {"type": "string"}}, "required": ["city"]}}], "tool_choice": "required",
           "max_tokens": 60, "temperature": 0, "logprobs": true, "top_logprobs": 2, "stream": true, "n": 1,
           "store": false}' > "$tmp/request"
    run -m $tiny --quiet --messages "$tmp/request" --json=openai
    ok "--json=openai is a chat.completion" json 'd["object"] == "chat.completion" and d["model"] == "mine"'
    choice='d["choices"][0]'
    ok "a required call of a tool as MCP lists it" \
        json "($choice['finish_reason'] == 'tool_calls' and $choice['message']['content'] is None and
            $choice['message']['tool_calls'][0]['function']['name'] == 'get_time')"
    ok "its arguments are text, its id is short" \
        json "(type($choice['message']['tool_calls'][0]['function']['arguments']) == str and
            len($choice['message']['tool_calls'][0]['id']) <= 40)"
    ok "log-probabilities with bytes" \
        json "(len($choice['logprobs']['content']) == d['usage']['completion_tokens'] and
            all(len(t['top_logprobs']) == 2 and t['bytes'] for t in $choice['logprobs']['content']))"
    run -m $tiny --quiet --messages "$tmp/request" --json=openai -n 2
    ok "the command line's limit wins, and a cut call is none" \
        json "$choice['finish_reason'] == 'length' and 'tool_calls' not in $choice['message']"
    run -m $tiny --quiet --messages "$tmp/request" --json --tool-choice none -n 4
    ok "and its choice" json "'tool_calls' not in d"
    printf '{"tools": [{"name": "get_time", "description": "Time of a city", "inputSchema": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}}]}' > "$tmp/mcp.json"
    printf '[{"type": "function", "name": "get_time", "description": "Time of a city", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}}]' > "$tmp/flat.json"
    for f in mcp flat; do
        run -m $tiny --quiet --tools "$tmp/$f.json" --tool-choice required --json -n 60 --temp 0 -p "Rome?"
        ok "--tools $f" json "'city' in d['tool_calls'][0]['function']['arguments']"
    done
    echo '[{"type": "web_search"}]' > "$tmp/flat.json"
    fails 1 'tools[0].type: expected "function", found "web_search"' -m $tiny --quiet --tools "$tmp/flat.json" -p x
    fails 1 "declares tools itself" -m $tiny --messages "$tmp/request" --tools "$tmp/tools.json"
    fails 2 "--json needs openai, or nothing" -m $tiny --json=xml -p x
    run -m $tiny --quiet -p "Hello" --json=openai -n 8 --stop lo
    ok "a stop string is a stop" json "$choice['finish_reason'] == 'stop' and 'lo' not in $choice['message']['content']"
    echo '{"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_schema", "json_schema":
           {"name": "n", "schema": {"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"],
           "additionalProperties": false}}}}' > "$tmp/request"
    run -m $tiny --quiet --messages "$tmp/request"
    ok "response_format" json 'd["a"] in (1, 22)'
    for bad in '{"messages": []}|at least one message' '[{"role": "tool", "tool_call_id": "c7"}]|call "c7"' \
        '[{"role": "user", "content": [{"type": "file", "file": {}}]}]|parts of type "file"' \
        '{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}|temperature: expected a number'; do
        printf '%s' "${bad%|*}" > "$tmp/request"
        fails 1 "${bad#*|}" -m $tiny --quiet --messages "$tmp/request"
    done
    # Text files as editors of Windows save them.
    printf '\357\273\277Say yes.' > "$tmp/bom"
    printf '\377\376S\0a\0y\0 \0y\0e\0s\0.\0' > "$tmp/utf16"
    printf '\376\377\0S\0a\0y\0 \0y\0e\0s\0.' > "$tmp/utf16be"
    run -m $tiny --json -n 4 --temp 0 -p "Say yes."
    json_of() { sed 's/"seconds".*//' "$tmp/out"; }
    plain=$(json_of)
    for f in bom utf16 utf16be; do
        run -m $tiny --json -n 4 --temp 0 -f "$tmp/$f"
        ok "$f is text" test "$(json_of)" = "$plain"
    done
    printf 'S\0a\0y\0' > "$tmp/utf16"
    fails 1 "looks like UTF-16 without a byte order mark" -m $tiny --quiet -f "$tmp/utf16"
    printf '\377\376\0\0S\0\0\0' > "$tmp/utf32"
    fails 1 "is UTF-32" -m $tiny --quiet -f "$tmp/utf32"
    {
        printf '\377\376[\0{\0"\0r\0o\0l\0e\0"\0:\0"\0u\0s\0e\0r\0"\0,\0'
        printf '"\0c\0o\0n\0t\0e\0n\0t\0"\0:\0"\0x\0"\0}\0]\0'
    } > "$tmp/utf16"
    run -m $tiny --quiet -n 1 --messages "$tmp/utf16"
    ok "a document in UTF-16" test "$rc" -eq 0
    run -m $tiny --image "$tmp/i.ppm" -p "Find the red circle." -n 60 --temp 0 --quiet --boxes "$tmp/boxes.png"
    ok "--boxes writes a PNG" sh -c "head -c 4 '$tmp/boxes.png' | grep -q PNG"
    mkdir -p "$tmp/beside/models" # wherever the program was built, here it has a model beside it
    cp "$g4" "$tmp/beside/gemma4"
    cp $tiny "$tmp/beside/models/tiny.g4"
    "$tmp/beside/gemma4" -p "hello" -n 2 > "$tmp/out" 2> "$tmp/err" < /dev/null
    ok "the model beside the program is the default, and it says so" grep -q "using .*models/tiny.g4" "$tmp/err"
else
    echo "no models/tiny.g4"; skipped=$((skipped + 1))
fi

# ---- Tokens ------------------------------------------------------------------------------------------------
tokenize() { printf "$1" | "$g4" tokenize -m $vocab $2 > "$tmp/out" 2> "$tmp/err"; rc=$?; }
tokenize 'Hello world' ''
ok "ids, blanks between, a newline" out_is "9259 1902"
tokenize '' ''
ok "nothing is an empty line" size_is "$tmp/out" 1
tokenize '' --bos
ok "--bos of nothing" out_is 2
tokenize '<bos>' --specials
ok "--specials" out_is 2
tokenize '<bos>' ''
ok "specials are text without it" sh -c "[ \$(wc -w < '$tmp/out') -gt 1 ]"
tokenize 'a\377' ''
ok "a malformed byte is its token" out_is "236746 493"
"$g4" tokenize -m $vocab -f run.c > "$tmp/ids" 2> "$tmp/err"
"$g4" detokenize -m $vocab -f "$tmp/ids" > "$tmp/out" 2> "$tmp/err"
ok "there and back" same "$tmp/out" run.c
printf '9259,1902\n\n1902' | "$g4" detokenize -m $vocab > "$tmp/out" 2> "$tmp/err"
ok "blanks, commas and newlines" out_is "Hello world world"
printf '2 9259' | "$g4" detokenize -m $vocab --skip-specials > "$tmp/out" 2> "$tmp/err"
ok "--skip-specials" out_is "Hello"
printf '9259 262144' | "$g4" detokenize -m $vocab > "$tmp/out" 2> "$tmp/err"; rc=$?
ok "an id out of range exits 1, prints nothing" test "$rc" -eq 1 -a ! -s "$tmp/out"
printf '9259 12x' | "$g4" detokenize -m $vocab > "$tmp/out" 2> "$tmp/err"; rc=$?
ok "what is no id exits 1" test "$rc" -eq 1 -a ! -s "$tmp/out"
fails 1 "tokenizer only" -m $vocab --quiet -p x

# ---- Logits and perplexity -----------------------------------------------------------------------------------
run logits -m $base --tokens "2,5,7" --all -o "$tmp/all.f32"
ok "logits --all" size_is "$tmp/all.f32" $((3 * 370 * 4))
ok "the shape is on stderr" grep -q "^shape 3 370$" "$tmp/err"
run logits -m $base --tokens "2,5,7" -o "$tmp/last.f32"
tail -c $((370 * 4)) "$tmp/all.f32" > "$tmp/tail.f32"
ok "logits of the last position are the last row" same "$tmp/last.f32" "$tmp/tail.f32"
echo 2 5 7 > "$tmp/ids"
run logits -m $base --tokens "@$tmp/ids" -o -
ok "@FILE, and - is standard output" same "$tmp/out" "$tmp/last.f32"
run logits -m $base --tokens "2,5,7" --dump "$tmp/dump" -o "$tmp/too.f32"
ok "logits --dump" grep -q "^tensors 123$" "$tmp/err"
ok "what -o gives is the same beside it" same "$tmp/too.f32" "$tmp/last.f32"
tail -c $((3 * 370 * 4)) "$tmp/dump" > "$tmp/b"
ok "the last activation is the logits of every position" same "$tmp/all.f32" "$tmp/b"
ok "the header of a dump begins with a bracket" test "$(head -c 9 "$tmp/dump" | tail -c 1)" = "{"
ok "a dump has the MLP of the last layer" grep -qa '"l.7.mlp_out":{"dtype":"F32","shape":\[3,56\],' "$tmp/dump"
run logits -m $base --tokens "2,5,7" --dump - --quiet
ok "--dump - is standard output, and the same" same "$tmp/out" "$tmp/dump"
run logits -m tests/data/text_26b.g4 --tokens "2,5,7" --dump "$tmp/dump"
ok "chosen experts are integers" grep -qa '"l.3.router_ids":{"dtype":"I32","shape":\[3,3\],' "$tmp/dump"
fails 1 "out of range" logits -m $base --tokens 2,370 --dump "$tmp/x.f32"
fails 1 "out of range" logits -m $base --tokens 2,370 -o "$tmp/x.f32"
fails 1 "context" logits -m $base --tokens 2,3,4,5,6 -c 4 -o "$tmp/x.f32"
fails 1 "placeholders" logits -m $chat --tokens 2,19,19 --image "$tmp/i.ppm" --quiet -o "$tmp/x.f32"
fails 1 "no placeholder" logits -m $chat --tokens 2,3 --image "$tmp/i.ppm" --quiet -o "$tmp/x.f32"
ok "a failure leaves no output" test ! -e "$tmp/x.f32"
run perplexity -m $base -f LICENSE --nll "$tmp/nll.f32" --json -c 64
ok "perplexity" json 'd["perplexity"] > 1 and d["tokens"] > 100'
n=$("$g4" tokenize -m $base -f LICENSE | wc -w)
ok "every token has its likelihood once" size_is "$tmp/nll.f32" $((4 * n))
run perplexity -m $base -f LICENSE --nll "$tmp/again.f32" --json -c 1000
head -c $((4 * 64)) "$tmp/nll.f32" > "$tmp/a"; head -c $((4 * 64)) "$tmp/again.f32" > "$tmp/b"
ok "the first window is that of the whole" same "$tmp/a" "$tmp/b"
fails 1 "empty" perplexity -m $base -f "$tmp/empty.g4"

# ---- Statistics ------------------------------------------------------------------------------------------------
run calibrate -m tests/data/text_26b.g4 -f LICENSE -o "$tmp/m.stats"
ok "calibrate" grep -qE "m.stats: [0-9]+ tensors over [0-9]+ tokens$" "$tmp/err"
ok "its header has every expert" grep -qaE '"l.0.experts.down":\{"dtype":"F32","shape":\[[0-9]+,[0-9]+\]' "$tmp/m.stats"
ok "and counts of its own" grep -qaE '"l.0.experts.down.count":\{"dtype":"I64","shape":\[[0-9]+\]' "$tmp/m.stats"
run calibrate -m tests/data/text_26b.g4 -f LICENSE -t 1 --quiet -o -
ok "one thread measures the same, and - is standard output" same "$tmp/out" "$tmp/m.stats"
if [ -f "$(dirname "$g4")/models/calibration.txt" ]; then
    run calibrate -m $base -c 64 --quiet -o "$tmp/own.stats"
    ok "a text comes with the program" test "$rc" -eq 0 -a -s "$tmp/own.stats" -a ! -s "$tmp/err"
else
    fails 2 "give one with -f FILE" calibrate -m $base -o "$tmp/x.stats"
fi
fails 1 "the text is empty" calibrate -m $base -f "$tmp/empty.g4" -o "$tmp/x.stats"
fails 1 "cannot read $tmp/nowhere" calibrate -m $base -f "$tmp/nowhere" -o "$tmp/x.stats"
fails 1 "there is no model" calibrate -m "$tmp/nowhere.g4" -f LICENSE -o "$tmp/x.stats"
fails 2 "calibrate needs -o FILE" calibrate -m $base -f LICENSE
if [ -w /dev/full ]; then fails 1 "No space left" calibrate -m $base -f LICENSE -o /dev/full; fi
ok "and nothing is left" test ! -e "$tmp/x.stats"

# ---- Media -----------------------------------------------------------------------------------------------------
run encode -m $chat --image "$tmp/i.ppm" --image-tokens 70 -o "$tmp/e.f32"
ok "encode" grep -qE "^shape [0-9]+ [0-9]+$" "$tmp/err"
ok "encode writes that shape" size_is "$tmp/e.f32" "$(awk '/^shape/ { print $2 * $3 * 4 }' "$tmp/err")"
rows=$(awk '/^shape/ { print $2 }' "$tmp/err")
run encode -m $chat --image "$tmp/i.ppm" --image-tokens 70 -o /dev/null --json
ok "encode --json says what it took" json "d['tokens'] == $rows and d['seconds'] > 0"
fails 2 "json" encode -m $chat --image "$tmp/i.ppm" -o - --json
run patches -f "$tmp/i.ppm" --image-tokens 70 -o "$tmp/p.f32"
ok "patches" grep -q "^shape [0-9]* 768$" "$tmp/err"
ok "patches writes that shape" size_is "$tmp/p.f32" "$(awk '/^shape/ { print $2 * 768 * 4 }' "$tmp/err")"
fails 2 "encode needs one of" encode -m $chat -o "$tmp/x.f32"
run encode -m $base --image "$tmp/i.ppm" -o "$tmp/x.f32"
ok "a model that cannot see says so" test "$rc" -eq 1 -a -s "$tmp/err" -a ! -e "$tmp/x.f32"
run logits -m $chat --tokens 2,19,30,19 --image "$tmp/i.ppm" --image "$tmp/i.ppm" --image-tokens 70 --dump "$tmp/dump"
both='"vision.out":{"dtype":"F32","shape":\['$((2 * rows))',56\],'
ok "a dump has what the tower made of both pictures" grep -qa "$both" "$tmp/dump"
run patches -f LICENSE -o "$tmp/x.f32" --ffmpeg ""
ok "what is no picture exits 1" test "$rc" -eq 1 -a ! -e "$tmp/x.f32"
printf 'RIFF\244>\0\0WAVEfmt \20\0\0\0\1\0\1\0\200>\0\0\0\175\0\0\2\0\20\0data\200>\0\0' > "$tmp/s.wav"
head -c 16000 /dev/zero >> "$tmp/s.wav"
run mel -f "$tmp/s.wav" -o "$tmp/m.f32"
ok "mel of half a second" grep -q "^shape 49 128$" "$tmp/err"
ok "mel writes that shape" size_is "$tmp/m.f32" $((49 * 128 * 4))
run mel -f "$tmp/s.wav" --block 1 -o "$tmp/x.f32"
ok "a block that is not there exits 1" test "$rc" -eq 1 -a ! -e "$tmp/x.f32"

# ---- Where output cannot go -------------------------------------------------------------------------------------
if [ -w /dev/full ]; then
    for command in "-m $base --quiet -p x -n 1" "-m $base --quiet -p x -n 1 --json" "tokenize -m $vocab -f LICENSE" \
        "info -m $base" --help --version; do
        "$g4" $command > /dev/full 2> "$tmp/err" < /dev/null; rc=$?
        ok "$command > /dev/full exits 1" test "$rc" -eq 1
        ok "$command > /dev/full says why" grep -q "No space left" "$tmp/err"
    done
    run logits -m $base --tokens 2,5,7 --all -o /dev/full
    ok "logits -o /dev/full exits 1" test "$rc" -eq 1
    fails 1 "No space left" logits -m $base --tokens 2,5,7 --dump /dev/full
    ok "/dev/full is still there" test -w /dev/full
else
    echo "no /dev/full"; skipped=$((skipped + 1))
fi
# What is read, the model first, is never what is written, however it is named.
cp "$g4" "$tmp/gemma4"; mkdir -p "$tmp/models" "$tmp/data/gemma4"; export XDG_DATA_HOME="$tmp/data"
mine=$tmp/data/gemma4/mine.g4
here=$g4; g4=$tmp/gemma4
cp $base "$tmp/models/tiny.g4"; cp $base "$mine"
fails 2 "is the model: nothing is written there" logits --tokens 2 -o "$tmp/models/tiny.g4"
fails 2 "is the model: nothing is written there" serve --trace "$tmp/models/tiny.g4" --api-key-file "$tmp/none"
fails 2 "is the model: nothing is written there" logits -m mine --tokens 2 --dump "$tmp/models/../data/gemma4/mine.g4"
g4=$here
unset XDG_DATA_HOME
ok "the models are as they were" sh -c "cmp -s '$mine' $base && cmp -s '$tmp/models/tiny.g4' $base"
cp LICENSE "$tmp/text"; ln "$tmp/text" "$tmp/hard"; ln -s text "$tmp/soft"
for alias in text hard soft; do
    fails 2 "is read here: what is written needs a file of its own" perplexity -m $base -f "$tmp/text" \
        --nll "$tmp/$alias"
    fails 2 "is read here" calibrate -m $base -f "$tmp/text" -o "$tmp/$alias"
done
cp tests/data/tiny/ask0_0.png "$tmp/seen.png"
fails 2 "is read here" -m $chat --image "$tmp/seen.png" --boxes "$tmp/seen.png" -p x
ok "and is as it was" same LICENSE "$tmp/text"
fails 2 "is named for two outputs" logits -m $base --tokens 2 -o "$tmp/two" --dump "$tmp/models/../two"
run logits -m $base --tokens 2 -o "$tmp/two" --dump "$tmp/models/two"
ok "two names in two folders are two files" test "$rc" -eq 0 -a -s "$tmp/two" -a -s "$tmp/models/two"
fails 2 "--session needs a file" -m $chat --session - -p x
fails 2 "--boxes needs a file" -m $chat --image tests/data/tiny/ask0_0.png --boxes - -p x
fails 2 "--nll needs a file" perplexity -m $base -f LICENSE --nll -
"$g4" -m $base --quiet -p x -n 400 --no-guard 2> "$tmp/err" | head -c 1 > /dev/null
ok "a closed pipe is no crash" sh -c "! grep -qi 'signal' '$tmp/err'"
run logits -m $base --tokens 2 -o "$tmp/no/such/folder/x"
ok "an output without a folder exits 1" test "$rc" -eq 1
run logits -m $base --tokens 2 -o "$tmp/folder"
ok "an output that is a folder exits 1" test "$rc" -eq 1

# ---- Interrupts ----------------------------------------------------------------------------------------------------
# Standard input that never comes: the program waits for it, and the signal finds it waiting.
interrupt() { # interrupt SIGNAL STATUS ARGUMENT...
    signal=$1; want=$2; shift 2
    mkfifo "$tmp/never"
    (trap - INT; exec "$g4" "$@" > "$tmp/out" 2> "$tmp/err" < "$tmp/never") &
    pid=$!
    exec 3> "$tmp/never"
    sleep 0.5
    kill -s "$signal" "$pid"
    wait "$pid"; rc=$?
    exec 3>&-
    rm "$tmp/never"
    ok "$signal while reading exits $want" test "$rc" -eq "$want"
    ok "$signal leaves nothing" no_leftovers
}
interrupt INT 130 -m $base --quiet
interrupt TERM 143 -m $base --quiet
for i in 1 2 3 4 5 6 7 8 9 10; do cat run.c; done > "$tmp/book"
interrupt INT 130 perplexity -m $base -f "$tmp/book" --nll "$tmp/x.f32"
interrupt TERM 143 perplexity -m $base --nll "$tmp/x.f32"
ok "an interrupted command leaves no output" test ! -e "$tmp/x.f32"
ok "no temporary file is left" no_leftovers

# Documents of any size are given up at once, and that is an interrupt, not a fault of theirs.
said='{"role":"user","content":"hi"}'
{ echo '['; yes "$said," | head -n 400000; echo "$said]"; } > "$tmp/many"
{ echo '{"enum":['; seq -s, 1 300000; echo ']}'; } > "$tmp/enum"
{ printf 'root ::= "a"'; seq -f ' | "b%.0f"' 1 300000 | tr -d '\n'; echo; } > "$tmp/rules"
for option in "--messages $tmp/many" "--json-schema $tmp/enum -p x" "--grammar $tmp/rules -p x"; do
    (trap - INT; exec "$g4" -m $chat --quiet $option > "$tmp/out" 2> "$tmp/err" < /dev/null) &
    pid=$!
    sleep 0.3
    kill -s INT $pid
    wait $pid; rc=$?
    ok "INT while ${option%% *} is read exits 130" test "$rc" -eq 130
    ok "and says nothing" test ! -s "$tmp/err"
done

# With --json, what there is of the answer is printed, and the exit status is that of an interrupt all the same.
talks="-m $chat --temp 0 --no-guard --logit-bias 1:-999 --logit-bias 16:-999 --logit-bias 9:-999 -c 4000 -t 1"
talks="$talks --isa scalar"
interrupted_json() { # interrupted_json NAME CONDITION SIGNAL STATUS ARGUMENT...: once the answer has begun
    name=$1; condition=$2; signal=$3; want=$4; shift 4
    (trap - INT; exec "$g4" "$@" --json > "$tmp/out" 2> "$tmp/err" < /dev/null) &
    pid=$!
    sleep 0.3
    kill -s "$signal" "$pid"
    wait "$pid"; rc=$?
    ok "$name exits $want" test "$rc" -eq "$want"
    ok "$name prints what there is" json "$condition"
}
partial='d["interrupted"] is True and d["incomplete"] is True and d["finish_reason"] == "interrupted"'
interrupted_json "INT in an answer" "$partial" INT 130 $talks -p hello
interrupted_json "TERM in an answer" "$partial" TERM 143 $talks -p hello
interrupted_json "INT in raw text" "$partial" INT 130 $talks -p hello --raw
# A session that an interrupt kept from being written is told of, and is as it was.
for raw in "" --raw; do
    rm -f "$tmp/stays"
    run $talks $raw --quiet -n 1 -p hello --session "$tmp/stays"
    cp "$tmp/stays" "$tmp/before"
    interrupted_json "INT beside a session $raw" "$partial" INT 130 $talks $raw --quiet -p "and" --session "$tmp/stays"
    ok "INT says what became of it $raw" test "$(tail -n 1 "$tmp/err")" = "gemma4: interrupted: $tmp/stays is as it was"
    ok "and so it is $raw" same "$tmp/stays" "$tmp/before"
done

tally
