#!/bin/sh
# gemma4 batch: each line's answer is the one that it gets alone, a line that is wrong is its own error, and whatever
# ends the program, what was answered is found again. Ends with "N passed, N failed".
. tests/program.sh
base=tests/data/text_e2b.g4
chat=tests/data/media/e2b-q8_0.g4
tiny=models/tiny.g4

run() { "$g4" "$@" > "$tmp/out" 2> "$tmp/err" < /dev/null; rc=$?; }
lines_are() { [ "$(wc -l < "$1")" -eq "$2" ]; }
same() { cmp -s "$1" "$2"; }
# plain FILE: answers without what differs between two runs.
plain() {
    sed -E 's/"id":"(chatcmpl|cmpl|call)[-_][^"]*",//g; s/"created":[0-9]+,//' "$1" |
        sed -E 's/,"timings":\{[^}]*\}//; s/"cached_tokens":[0-9]+//'
}
# request ID SYSTEM USER REST: a line in OpenAI's format.
request() {
    printf '{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":{"messages":[' "$1"
    printf '{"role":"system","content":"%s"},{"role":"user","content":"%s"}]%s}}\n' "$2" "$3" "$4"
}
system="You sort messages. Answer in a few words whatever comes, and stay polite, since people read it later on"
system="$system and may be sad or angry."

# ---- The form --------------------------------------------------------------------------------------------
schema='{"type":"json_schema","json_schema":{"name":"n","schema":{"enum":["x","yz"]}}}'
parameters='{"type":"object","properties":{"at":{"enum":["k"]}},"required":["at"],"additionalProperties":false}'
tools='[{"type":"function","function":{"name":"look","parameters":'$parameters'}}]'
required='"tool_choice":"required","parallel_tool_calls":false'
hi='"messages":[{"role":"user","content":"hi"}]'
cat > "$tmp/form.jsonl" <<END
{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"mine",$hi,"max_tokens":4}}

{"prompt":"hello","max_tokens":3,"logprobs":2}
{"custom_id":"text","url":"/v1/completions","body":{"prompt":"once upon","max_tokens":4,"logprobs":1}}
no JSON
{"custom_id":"a","body":{"prompt":"again"}}
{"custom_id":8,"url":"/v1/embeddings","body":{"input":"x"}}
{"custom_id":"long","body":{"prompt":"hi","max_tokens":-5}}
{"custom_id":"form","body":{"prompt":"hi","max_tokens":40,"response_format":$schema}}
{"custom_id":"call","body":{"prompt":"hi","max_tokens":60,"tools":$tools,$required}}
END
run batch -m $tiny --temp 0 "$tmp/form.jsonl"
ok "lines that fail are an exit status of 1" test "$rc" -eq 1
ok "a line for each that is not blank" lines_are "$tmp/out" 9
places=$(grep -oE '"request_id":"req_[0-9]+' "$tmp/out" | grep -oE '[0-9]+$' | tr '\n' ' ')
ok "in their order" test "$places" = "1 3 4 5 6 7 8 9 10 "
has() { sed -n "$1p" "$tmp/out" | grep -qF -- "$2"; }
ok "a name" has 1 '"custom_id":"a","response":{"status_code":200,'
ok "the model as the line calls it" has 1 '"object":"chat.completion","created":'
ok "the model's name" has 1 '"model":"mine"'
ok "no error" has 1 '},"error":null}'
ok "a prompt is a question" has 2 '"custom_id":"line-3","response":{"status_code":200,'
ok "its probabilities" has 2 '"top_logprobs":[{'
ok "text goes on" has 3 '"object":"text_completion"'
ok "its probabilities in their form" has 3 '"token_logprobs":[-'
ok "no JSON" has 4 '"custom_id":"line-5","response":{"status_code":400,'
ok "says where" has 4 '"error":{"code":"invalid_request","message":"JSON, line 1 column 1'
ok "one name twice" has 5 'custom_id: \"a\" is the name of line 1 too'
ok "another address" has 6 '"param":"url"'
ok "a member that is wrong" has 7 '"param":"max_tokens"'
ok "a schema" grep -qE '"content":"\\"(x|yz)\\""' "$tmp/out"
ok "a call" has 9 '"tool_calls":[{"id":"call_'
ok "its arguments" has 9 '"arguments":"{\"at\":\"k\"}"'
ok "and how it ended" has 9 '"finish_reason":"tool_calls"'
ok "what failed is told" grep -q 'form.jsonl: line 5: JSON, line 1' "$tmp/err"
ok "and counted" grep -q '5 answered, 4 failed; prompts ' "$tmp/err"

# ---- Other dialects ----------------------------------------------------------------------------------------
look='[{"name":"look","input_schema":'$parameters'}]'
upon=$("$g4" tokenize -m $tiny -p 'once upon' | tr ' ' ',')
cat > "$tmp/dialects.jsonl" <<END
{"custom_id":"m","url":"https://api.example/v1/messages","body":{"max_tokens":4,$hi}}
{"custom_id":"p","params":{"model":"mine","max_tokens":60,$hi,"tools":$look,"tool_choice":{"type":"any"}}}
{"custom_id":"r","url":"/v1/responses","body":{"input":"hi","max_output_tokens":4}}
{"custom_id":"t","url":"http://x/v1/completions","body":{"prompt":"once upon","max_tokens":4}}
{"custom_id":"w","params":{"messages":[{"role":"user","content":[{"type":"document"}]}]}}
{"custom_id":"i","url":"/v1/completions","body":{"prompt":[2,$upon],"max_tokens":4}}
{"custom_id":"2","url":"/v1/completions","body":{"prompt":["once","upon"],"max_tokens":4}}
{"custom_id":"b","url":"/v1/completions","body":{"prompt":[2,99999999],"max_tokens":4}}
END
run batch -m $tiny --temp 0 "$tmp/dialects.jsonl"
ok "a message" has 1 '"type":"message","role":"assistant"'
ok "of so many tokens" has 1 '"stop_reason":"max_tokens"'
ok "Anthropic's lines" has 2 '"model":"mine","content":[{"type":"tool_use","id":"toolu_'
ok "their calls" has 2 '"name":"look","input":{"at":"k"}}],"stop_reason":"tool_use"'
ok "a response" has 3 '"object":"response"'
ok "that was cut" has 3 '"incomplete_details":{"reason":"max_output_tokens"}'
ok "a whole address" has 4 '"object":"text_completion"'
ok "faults have the client's names" has 5 '"param":"messages[0].content[0].type"'
text() { sed -n "$1p" "$tmp/out" | grep -oE '"text":"[^"]*"'; }
ok "a prompt in ids is the text of these" test "$(text 4)" = "$(text 6)"
ok "it is a text_completion" has 6 '"object":"text_completion"'
ok "a line has one answer" has 7 '"message":"prompt: expected one in a line, found 2"'
ok "ids that the model has not" has 8 '"message":"prompt: expected token ids below '

# ---- Each answer is its own ------------------------------------------------------------------------------------
i=0
while [ $i -lt 24 ]; do
    request "r$i" "$system" "tell me about $i cats" ",\"max_tokens\":$((i * 7 % 30 + 2)),\"temperature\":1,\"seed\":$i"
    i=$((i + 1))
done > "$tmp/many.jsonl"
run batch -m $tiny --parallel 1 --quiet "$tmp/many.jsonl"
plain "$tmp/out" > "$tmp/one"
ok "one at a time" lines_are "$tmp/one" 24
run batch -m $tiny --parallel 8 "$tmp/many.jsonl"
plain "$tmp/out" > "$tmp/eight"
ok "eight at a time give the same answers" same "$tmp/one" "$tmp/eight"
prompts=$(sed -nE 's/.*prompts ([0-9]+) tokens, ([0-9]+) of them reused.*/\1/p' "$tmp/err")
reused=$(sed -nE 's/.*prompts ([0-9]+) tokens, ([0-9]+) of them reused.*/\2/p' "$tmp/err")
ok "what prompts share is read once" test "$((prompts - reused))" -lt "$((prompts / 3))"
i=0
sed -nE 's/.*"body":(\{"messages".*\})\}$/\1/p' "$tmp/many.jsonl" | while read -r body; do
    echo "$body" > "$tmp/body.json"
    "$g4" -m $tiny --messages "$tmp/body.json" --json=openai --quiet < /dev/null
done > "$tmp/alone"
# content FILE: texts and why they end.
content() { grep -oE '"content":"[^"]*"|"finish_reason":"[a-z]*"|"completion_tokens":[0-9]+' "$1"; }
content "$tmp/alone" > "$tmp/alone.texts"
content "$tmp/eight" > "$tmp/eight.texts"
ok "and so does each alone" same "$tmp/alone.texts" "$tmp/eight.texts"
run batch -m $tiny --parallel 8 --unordered --quiet "$tmp/many.jsonl"
plain "$tmp/out" | sort > "$tmp/unordered"
sort "$tmp/one" > "$tmp/sorted"
ok "without an order, the same lines" same "$tmp/sorted" "$tmp/unordered"
run batch -m $tiny --parallel 3 -o "$tmp/file.jsonl" "$tmp/many.jsonl"
plain "$tmp/file.jsonl" > "$tmp/file"
ok "into a file" same "$tmp/one" "$tmp/file"
ok "and nothing beside it" test ! -e "$tmp/file.jsonl.part"
"$g4" batch -m $tiny --quiet - < "$tmp/many.jsonl" > "$tmp/out" 2> "$tmp/err"
plain "$tmp/out" > "$tmp/file"
ok "from standard input" same "$tmp/one" "$tmp/file"
cat "$tmp/many.jsonl" | "$g4" batch -m $tiny --quiet - > "$tmp/out" 2> "$tmp/err"
plain "$tmp/out" > "$tmp/file"
ok "from a pipe" same "$tmp/one" "$tmp/file"
{ printf '\357\273\277'; sed 's/$/\r/' "$tmp/many.jsonl"; } > "$tmp/dos.jsonl"
run batch -m $tiny --quiet "$tmp/dos.jsonl"
plain "$tmp/out" > "$tmp/file"
ok "with a byte order mark and carriage returns" same "$tmp/one" "$tmp/file"

{ printf '%70000000s{"prompt":"hi"}\n' ''; printf '{"prompt":"hi"}\n'; } > "$tmp/wide.jsonl"
run batch -m $tiny --quiet -n 1 "$tmp/wide.jsonl"
ok "a line that begins with more blanks than a line may have" has 1 'of at most 67108864 bytes, found 70000015'
ok "holds nobody up" has 2 '"custom_id":"line-2","response":{"status_code":200'
rm -f "$tmp/wide.jsonl"

# ---- The command line speaks for all lines ------------------------------------------------------------------------
printf '{"prompt":"hi"}\n{"prompt":"ho"}\n' > "$tmp/short.jsonl"
run batch -m $tiny --quiet --json-schema '{"enum":[true]}' "$tmp/short.jsonl"
ok "--json-schema" test "$(grep -c '"content":"true"' "$tmp/out")" -eq 2
run batch -m $tiny --quiet -n 2 "$tmp/short.jsonl"
ok "-n" test "$(grep -c '"completion_tokens":2,' "$tmp/out")" -eq 2
run batch -m $base --quiet -n 2 "$tmp/short.jsonl"
ok "a base model goes on" test "$(grep -c '"object":"text_completion"' "$tmp/out")" -eq 2
run batch -m $base --quiet -n 2 "$tmp/many.jsonl"
ok "and has no chat" test "$(grep -c 'has no chat template' "$tmp/out")" -eq 24
run batch -m $tiny --quiet -n 2 -c 8 "$tmp/many.jsonl"
ok "a prompt that is too long" test "$(grep -c '"code":"context_length_exceeded"' "$tmp/out")" -eq 24
mkdir "$tmp/folder"
printf 'P6\n2 1\n255\nabcdef' > "$tmp/folder/p.ppm"
image() {
    printf '{"custom_id":"%s","body":{"messages":[{"role":"user","content":[{"type":"image_url",' "$1"
    printf '"image_url":{"url":"%s"}}' "$2"
    printf ',{"type":"text","text":"what?"}]}],"max_tokens":3}}\n'
}
{
    image in p.ppm
    image out ../many.jsonl
    image web http://x/y.png
    image data 'data:,P6%0A2%201%0A255%0Aabcdef'
} > "$tmp/folder/images.jsonl"
run batch -m $chat --quiet "$tmp/folder/images.jsonl"
ok "pictures of the folder and in the line" test "$(grep -c '"status_code":200' "$tmp/out")" -eq 2
ok "and no others" test "$(grep -c '"status_code":400' "$tmp/out")" -eq 2

# ---- Memory --------------------------------------------------------------------------------------------------------
# The base model with a context of 2^24 tokens, of which few fit into memory; its checksum is what the program found.
octal() { for byte in "$@"; do printf '\\%03o' "0x$byte"; done; }
patch() { printf "$2" | dd of="$tmp/big.g4" bs=1 seek="$1" conv=notrunc 2> /dev/null; }
cp $base "$tmp/big.g4"
patch 224 '\000\000\000\001'
run batch -m "$tmp/big.g4" "$tmp/short.jsonl"
sum=$(sed -nE 's/.*checksum (..)(..)(..)(..)(..)(..)(..)(..),.*/\8 \7 \6 \5 \4 \3 \2 \1/p' "$tmp/err")
patch 40 "$(octal $sum)"
if [ -r /proc/meminfo ]; then
    fails 1 " would fit, or a shorter context" batch -m "$tmp/big.g4" -c 16777216 --parallel 64 "$tmp/short.jsonl"
    fit=$(sed -nE 's/.* free: ([0-9]+) would fit.*/\1/p' "$tmp/err")
    ok "$fit would fit, of 64" test "$fit" -ge 0 -a "$fit" -lt 64
    run batch -m "$tmp/big.g4" -c 16777216 -n 1 "$tmp/short.jsonl"
    [ "$fit" -eq 0 ] && said="one at a time needs" || said="$fit at a time: more need"
    [ "$fit" -ge 8 ] || ok "$said" grep -q "$said" "$tmp/err"
fi

# ---- Going on -------------------------------------------------------------------------------------------------------
{
    head -n 10 "$tmp/file.jsonl"
    sed -n 13p "$tmp/file.jsonl"
    tail -n 1 "$tmp/file.jsonl" | cut -c 1-200 | tr -d '\n'
} > "$tmp/torn.jsonl"
sed -n 20p "$tmp/file.jsonl" > "$tmp/torn.jsonl.part"
run batch -m $tiny -o "$tmp/torn.jsonl" --resume "$tmp/many.jsonl"
plain "$tmp/torn.jsonl" > "$tmp/file"
ok "--resume: a torn line and one that waited" same "$tmp/one" "$tmp/file"
ok "--resume says what was there" grep -q '12 answered, 12 were there' "$tmp/err"
run batch -m $tiny -o "$tmp/torn.jsonl" --resume --unordered "$tmp/many.jsonl"
ok "--resume of all" grep -q '^gemma4: 0 answered, 24 were there' "$tmp/err"
plain "$tmp/torn.jsonl" > "$tmp/file"
ok "leaves all" same "$tmp/one" "$tmp/file"
run batch -m $tiny --quiet -c 8 -o "$tmp/retry.jsonl" "$tmp/many.jsonl"
run batch -m $tiny --quiet -o "$tmp/retry.jsonl" --resume "$tmp/many.jsonl"
plain "$tmp/retry.jsonl" > "$tmp/file"
ok "--resume answers what had failed" same "$tmp/one" "$tmp/file"
printf '{"prompt":"hi","max_tokens":2}\n{"prompt":"ho","max_tokens":3}\n' > "$tmp/moved.jsonl"
run batch -m $tiny --quiet --temp 0 -o "$tmp/moved.out" "$tmp/moved.jsonl"
{ printf '{"prompt":"new","max_tokens":4}\n'; cat "$tmp/moved.jsonl"; } > "$tmp/moved2.jsonl"
run batch -m $tiny --temp 0 -o "$tmp/moved.out" --resume "$tmp/moved2.jsonl"
ok "an answer to another line of that name goes" grep -q '2 answers there are to lines that read differently' "$tmp/err"
ok "and all are answered" test "$(grep -oE '"completion_tokens":[0-9]+' "$tmp/moved.out" | tr -dc '0-9')" = 423
printf '{"prompt":"hi"}\n{"custom_id":"line-1","prompt":"ho"}\n' > "$tmp/names.jsonl"
run batch -m $tiny --quiet -n 1 "$tmp/names.jsonl"
ok "names of lines give way to names in lines" grep -q '"custom_id":"line-line-1".*"status_code":200' "$tmp/out"
ok "and both are answered" test "$rc" -eq 0
run batch -m $tiny --quiet -o "$tmp/file.jsonl" "$tmp/many.jsonl"
ok "without --resume nothing is overwritten" grep -q 'holds answers: --resume goes on with them' "$tmp/err"
ok "and nothing was" test "$rc" -eq 1 -a "$(wc -l < "$tmp/file.jsonl")" -eq 24
cp "$tmp/many.jsonl" "$tmp/other.jsonl"
fails 1 "is no answer of a batch" batch -m $tiny --quiet -o "$tmp/other.jsonl" --resume "$tmp/many.jsonl"
ok "a file of another kind stays" same "$tmp/many.jsonl" "$tmp/other.jsonl"
cp "$tmp/file.jsonl" "$tmp/kept.jsonl"
fails 1 "and no line of" batch -m $tiny --quiet -o "$tmp/file.jsonl" --resume "$tmp/short.jsonl"
ok "so do the answers to other lines" same "$tmp/kept.jsonl" "$tmp/file.jsonl"

printf '{"prompt":"hi"}\n{"custom_id":"x","prompt":"ho"}\n' > "$tmp/gone.jsonl"
run batch -m $tiny --quiet -n 1 -o "$tmp/gone.out" "$tmp/gone.jsonl"
printf '{"prompt":"hello"}\n' > "$tmp/gone.jsonl"
fails 1 "answers \"x\", and no line of" batch -m $tiny -n 1 -o "$tmp/gone.out" --resume "$tmp/gone.jsonl"

# kill_often SIGNAL N ARGUMENT...: end it N times at any moment, each time on from the last, and from the start when it
# was done.
seed=7
kill_often() {
    signal=$1; n=$2; shift 2
    killed=0; rounds=0; wrong=0
    rm -f "$tmp/k.jsonl" "$tmp/k.jsonl.part"
    while [ $killed -lt "$n" ] && [ $rounds -lt $((4 * n)) ]; do
        rounds=$((rounds + 1))
        "$g4" batch -m $tiny --quiet -o "$tmp/k.jsonl" --resume "$@" "$tmp/many.jsonl" 2> "$tmp/err" < /dev/null &
        pid=$!
        seed=$((seed * 1103515245 % 2147483648 + 12345))
        sleep "0.$(printf %03d $((seed / 65536 % 250)))"
        kill "-$signal" $pid 2> /dev/null && killed=$((killed + 1))
        wait $pid 2> /dev/null
        [ $? -ne 0 ] && continue
        plain "$tmp/k.jsonl" | sort > "$tmp/file"
        cmp -s "$tmp/sorted" "$tmp/file" || wrong=$((wrong + 1))
        rm -f "$tmp/k.jsonl" "$tmp/k.jsonl.part"
    done
    "$g4" batch -m $tiny --quiet -o "$tmp/k.jsonl" --resume "$@" "$tmp/many.jsonl" 2> "$tmp/err" < /dev/null
}
kill_often KILL 50
plain "$tmp/k.jsonl" > "$tmp/file"
ok "killed $killed times: all is there, in order" same "$tmp/one" "$tmp/file"
ok "every time that it came to its end" test "$wrong" -eq 0
ok "it was killed" test "$killed" -ge 25
kill_often KILL 10 --unordered
plain "$tmp/k.jsonl" | sort > "$tmp/file"
ok "killed without an order" same "$tmp/sorted" "$tmp/file"
kill_often INT 10
plain "$tmp/k.jsonl" > "$tmp/file"
ok "interrupted" same "$tmp/one" "$tmp/file"
ok "no temporary file is left" test -z "$(find "$tmp" -name '*.tmp')"

# ---- A terminal ----------------------------------------------------------------------------------------------------
# widest COLUMNS: the longest line of progress on a terminal of that width.
widest() {
    TERM=xterm script -qec "stty cols $1 && exec '$g4' batch -m $tiny -o '$tmp/seen.$1' '$tmp/many.jsonl'" /dev/null \
        < /dev/null > "$tmp/out" 2>&1
    tr '\r\033' '\n\n' < "$tmp/out" | grep ' of 24' | awk '{ if (length > n) n = length } END { print n + 0 }'
}
if script -qec true /dev/null > /dev/null 2>&1 < /dev/null; then
    for columns in 100 60 45 30 12; do
        n=$(widest $columns)
        ok "progress on $columns columns takes one line ($n)" test "$n" -gt 0 -a "$n" -lt $columns
        ok "and all is answered" lines_are "$tmp/seen.$columns" 24
    done
fi

# ---- Usage ------------------------------------------------------------------------------------------------------
fails 2 "which requests?" batch -m $tiny
fails 2 "what is \"b\"" batch -m $tiny "$tmp/short.jsonl" b
fails 2 "--resume needs the file of answers" batch -m $tiny --resume "$tmp/short.jsonl"
fails 2 "is read here: what is written needs a file of its own" batch -m $tiny -o "$tmp/short.jsonl" \
    "$tmp/short.jsonl"
for beside in fresh.part fresh.part.tmp; do # which come and go beside the answers
    cp "$tmp/short.jsonl" "$tmp/$beside"
    fails 2 "$beside is read here" batch -m $tiny --resume -o "$tmp/fresh" "$tmp/$beside"
    ok "$beside stays" same "$tmp/short.jsonl" "$tmp/$beside"
    rm -f "$tmp/$beside"
done
fails 2 "-n 0 leaves nothing to answer" batch -m $tiny -n 0 "$tmp/short.jsonl"
fails 2 "--parallel needs a whole number from 1 to 64" batch -m $tiny --parallel 0 "$tmp/short.jsonl"
fails 2 "--image is not an option of batch" batch -m $tiny --image x "$tmp/short.jsonl"
fails 1 "cannot read $tmp/nowhere" batch -m $tiny "$tmp/nowhere"
: > "$tmp/empty.jsonl"
fails 1 "holds no line to answer" batch -m $tiny "$tmp/empty.jsonl"
fails 1 "cannot read $tmp/folder: Is a directory" batch -m $tiny "$tmp/folder"
# Nothing but the answers is written: no empty file where none begins, nothing where a link leads.
cp "$tmp/short.jsonl" "$tmp/fresh.part"
fails 1 "$tmp/fresh.part holds answers" batch -m $tiny --quiet -o "$tmp/fresh" "$tmp/short.jsonl"
ok "no file is made" test ! -e "$tmp/fresh"
echo kept > "$tmp/elsewhere"; ln -s elsewhere "$tmp/linked.part.tmp"
run batch -m $tiny --quiet -n 1 --resume -o "$tmp/linked" "$tmp/short.jsonl"
ok "what is copied for --resume has a name of its own" grep -qx kept "$tmp/elsewhere"
ok "and becomes the answers" test "$rc" -eq 0 -a -s "$tmp/linked" -a ! -e "$tmp/linked.part"
fails 1 "--resume needs a file" batch -m $tiny --quiet --resume -o /dev/null "$tmp/short.jsonl"
fails 1 "cannot write $tmp/none/x" batch -m $tiny --quiet -o "$tmp/none/x" "$tmp/short.jsonl"
if [ -w /dev/full ]; then
    run batch -m $tiny --quiet -n 1 -o /dev/full "$tmp/short.jsonl"
    ok "a full disk" grep -q 'cannot write /dev/full: No space left' "$tmp/err"
    ok "is a failure" test "$rc" -eq 1
fi
# Every size at which the disk may be full, up to the last line: what is not written is not counted as answered.
wrong=
for blocks in 1 2 3 4 5; do
    rm -f "$tmp/full" "$tmp/full.part"
    (ulimit -f $blocks; exec "$g4" batch -m $tiny --quiet --unordered -n 1 -o "$tmp/full" "$tmp/names.jsonl") \
        2> "$tmp/err" < /dev/null && break
    answered=$(sed -nE 's/.* ([0-9]+) answered.*/\1/p' "$tmp/err")
    test "$answered" = "$(wc -l < "$tmp/full")" && grep -q -- '--resume goes on' "$tmp/err" || wrong="$wrong $blocks"
done
ok "$blocks blocks are enough" test "$blocks" -gt 1 -a "$blocks" -lt 5
ok "with fewer, the last one is left ($wrong)" test -z "$wrong"
run batch -m $tiny --quiet -n 1 -o /dev/null "$tmp/short.jsonl"
ok "a device" test "$rc" -eq 0
tally
