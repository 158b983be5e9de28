#!/bin/sh
# The chat on a real terminal: tmux shows what a user sees, and types. The bundled model answers. Every wait is for a
# text on the screen. Ends with "N passed, N failed".
model=$(pwd)/models/tiny.g4
if ! command -v tmux > /dev/null || ! command -v bash > /dev/null || [ ! -f "$model" ]; then
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
. tests/program.sh
trap 'tm kill-server 2> /dev/null; rm -rf "$tmp"' EXIT
patience=${G4_PATIENCE:-60} # seconds for a text to appear: sanitizers and busy machines are slow
unset TMUX TMUX_PANE
export LC_ALL=C.UTF-8 XDG_STATE_HOME="$tmp/state" HOME="$tmp"
history="$tmp/state/gemma4/history"

tm() { tmux -u -S "$tmp/socket" -f /dev/null "$@"; }
screen() { tm capture-pane -p -t chat; }
details() { screen 2> /dev/null | sed 's/^/   |/'; }
# within CONDITION...: does it come true in time?
within() {
    end=$(($(date +%s) + patience))
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.02
    done
}
shows() { tm capture-pane -p -J -t chat | grep -qF -- "$1"; } # lines that the terminal has broken are whole
hides() { ! shows "$1"; }
ends_with() { [ "$(screen | grep -v '^ *$' | tail -n "$(printf '%s\n' "$1" | wc -l)")" = "$1" ]; }
cursor_is() { [ "$(tm display-message -p -t chat '#{cursor_x},#{cursor_y}')" = "$1" ]; }
see() { ok "shows \"$1\"" within shows "$1"; }
gone() { ok "no longer shows \"$1\"" within hides "$1"; }
last() { ok "ends with \"$1\"" within ends_with "$1"; }
cursor() { ok "the cursor is at $1" within cursor_is "$1"; }
key() { tm send-keys -t chat "$@"; }
text() { tm send-keys -t chat -l -- "$1"; }
hex() { tm send-keys -t chat -H "$@"; }
enter() { text "$1"; key Enter; }
# open WIDTH HEIGHT LINE: a shell's command on a terminal of that size.
open() {
    tm kill-session -t chat 2> /dev/null
    tm new-session -d -s chat -x "$1" -y "$2" -c "$tmp" "$3"
    tm set-option -g remain-on-exit on
}
tm new-session -d -s keep "cat" # the server stays
chat="$tmp/chat"
printf '#!/bin/sh\necho $$ > %s\nTERM=screen exec "%s" -m "%s" --temp 0 -t 1 "$@"\n' "$tmp/pid" "$g4" "$model" > "$chat"
chmod +x "$chat"
ends() { [ "$(tm display-message -p -t chat '#{pane_dead}')" = 1 ]; }
leave() { key C-u; enter /quit; ok "the chat ends" within ends; }

# ---- Commands ----------------------------------------------------------------------------------------
open 100 40 "$chat --no-history -n 4"
see "Ctrl-D ends."
enter /help
for command in help image audio video system think tools retry edit undo clear save load stats quit; do
    see "  /$command"
done
enter "/hlep"; see "there is no /hlep; did you mean /help?"
enter "/sav x"; see "did you mean /save?"
enter "/qqqqq"; see "there is no /qqqqq; /help lists what there is"
enter "/system Be brief."
enter "hello"; see "; answer"
enter "/stats"; see "3 messages"
enter "/clear"; see "a new chat, with the same system prompt"
key C-l; enter "/stats"; see "1 message"
enter "/system"; see "Be brief."
enter "/undo"; see "there is nothing to undo"
leave

# An empty chat is saved and read again, also one from which all was taken back.
open 100 40 "$chat --no-history -n 4"
see "Ctrl-D ends."
enter "/save $tmp/empty"; see "0 messages saved"
enter "/load $tmp/empty"; see "0 messages, 0 tokens"
enter "my name is Willibald"; see "; answer"
enter "/clear"; see "a new chat"
enter "/save $tmp/cleared"; ok "saved" within test -s "$tmp/cleared"
enter "/load $tmp/cleared"; key C-l
enter "/load $tmp/cleared"; see "0 messages, 0 tokens"
enter "hello"; see "; answer"
leave
ok "what was cleared is not saved" cmp -s "$tmp/empty" "$tmp/cleared"

# The terminal is no file, and a file that is no session is not replaced by one.
open 100 40 "$chat --no-history -n 4"
see "Ctrl-D ends."
enter "/image -"; see "- is the terminal, and no file"
key C-l; enter "/tools -"; see "- is the terminal, and no file"
key C-l; enter "/audio /dev/tty"; see "/dev/tty is the terminal, and no file"
key C-l; enter "/save -"; see "/save needs a file"
cp "$model" "$tmp/copy.g4"; cp LICENSE "$tmp/text"; : > "$tmp/nothing"
key C-l; enter "/save $tmp/copy.g4"; see "copy.g4 is there and is no session: it stays as it is"
enter "/save $tmp/text"; see "text is there and is no session"
enter "/save $tmp/nothing"; see "0 messages saved"
key C-l; enter "/save $tmp/nothing"; see "0 messages saved"
leave
ok "the model is as it was" cmp -s "$model" "$tmp/copy.g4"
ok "the text is as it was" cmp -s LICENSE "$tmp/text"

# ---- Answers alone on standard output -------------------------------------------------------------------
open 100 40 "$chat --no-history -n 400 > '$tmp/out'"
see "Ctrl-D ends."
enter "What is the opposite of hot?"; see "; answer"
enter /stats; see "2 messages"
enter /help
leave
ok "nothing but the answer went to the file" test "$(cat "$tmp/out")" = "The opposite of hot is cold."

open 60 20 "$chat --no-history -n 400 2> '$tmp/err'" # the line is drawn where it is seen
last ">"
enter "What is the opposite of hot?"; see "The opposite of hot is cold."
key C-d; ok "the chat ends" within ends
ok "the figures went to the file" grep -q "; answer" "$tmp/err"

# ---- Lines wider than the terminal ----------------------------------------------------------------------
open 20 12 "$chat --quiet --no-history -n 4"
cursor 2,0
text "abcdefghijklmnopqrstuvwxyz0123456789"; last "> abcdefghijklmnopqr
stuvwxyz0123456789"
cursor 18,1
key Up; cursor 18,0
key Home; cursor 2,0
text "XY"; last "> XYabcdefghijklmnop
qrstuvwxyz0123456789"
cursor 4,0
key End; cursor 0,2                 # the row is full: the next character stands in a new one
text "!"; cursor 1,2
key BSpace BSpace; last "> XYabcdefghijklmnop
qrstuvwxyz012345678"
tm resize-window -t chat -x 30 -y 12
last "> XYabcdefghijklmnopqrstuvwxyz
012345678"
cursor 9,1
tm resize-window -t chat -x 16 -y 12
last "> XYabcdefghijkl
mnopqrstuvwxyz01
2345678"
key C-u; last ">"
# wide characters do not stand on two rows; what combines moves with its base; a joined emoji is one character
text "1234567890123漢字"; last "> 1234567890123
漢字"
cursor 4,1
key Left; cursor 2,1; key Left; cursor 0,1; key Left; cursor 14,0
key C-e C-u
text "aé́b"; key Left Left; cursor 3,0
key Delete; last "> ab"
key C-e C-u
text "x👨‍👩‍👧y"; cursor 6,0
key Left Left; cursor 3,0
key Delete; last "> xy"
key C-e C-u; last ">"
# several lines
text "one"; key M-Enter; text "two"; key M-Enter; text "three"; last "> one
two
three"
key Up Up; cursor 3,0; key End
text "!"; key Down; cursor 3,1
key C-a BSpace; last "> one!two
three"
key C-k C-k; last "> one!three"
key C-e C-u; last ">"
# more lines than the screen has
tm set-buffer "$(seq 100 130)"; tm paste-buffer -p -t chat; see "130"
ok "two thirds of the screen show it" test "$(screen | grep -c '1[0-9][0-9]')" = 8
key Up Up Up Up Up Up Up Up Up Up; see "120"
ok "it scrolls back" within hides 130
key C-c; last ">"
leave

# ---- Completion -----------------------------------------------------------------------------------------
mkdir -p "$tmp/pictures/deep"
cp examples/scene.png "$tmp/pictures/my picture.png"
cp examples/scene.png "$tmp/pictures/my pixels.png"
cp examples/scene.png "$tmp/pictures/it's.png"
open 60 20 "$chat --quiet --no-history -n 4"
cursor 2,0
text "/im"; key Tab; last "> /image"; cursor 9,0
text "pic"; key Tab; last "> /image pictures/"
key Tab; see "it's.png"; see "deep/"; see "my pixels.png"
text "m"; key Tab; last "> /image pictures/my\\ pi"
text "c"; key Tab; last "> /image pictures/my\\ picture.png"
key Enter; see "goes with your next message"
text "/image ~/pictures/it"; key Tab; last "> /image ~/pictures/it\\'s.png"
key Enter C-l; enter "/image '$tmp/pictures/my pixels.png'"; see "goes with your next message"
text '/load "pictures/my pic'; key Tab; last '> /load "pictures/my picture.png"'
key C-u; text "/think o"; key Tab; see "off  on"; key C-u
text "/s"; key Tab; see "/save    /stats   /system"; key C-u
text "a"; key Tab; text "b"; last "> a     b"
key C-u; leave

# ---- History --------------------------------------------------------------------------------------------
open 60 20 "$chat --quiet -n 1"
cursor 2,0
enter "/stats one"; see "/stats takes no words"
enter " /stats private"
text "/stats a"; key M-Enter; text 'b\n'; key Enter; last ">"
leave
ok "the history is a private file" test "$(stat -c %a "$history")" = 600
ok "with the lines as they were" test "$(cat "$history")" = "$(printf '%s\n' '/stats one' '/stats a\nb\\n' /quit)"
open 60 20 "$chat --quiet -n 1"
cursor 2,0
key Up Up; last '> /stats a
b\n'
key Up Up; last "> /stats one"
key C-n C-n C-n; last ">"
# searching backwards
key C-r; last "(search: )"
text "a"; last '(search: a) /stats a
b\n'
key C-r; last "(search: a) /stats one"
key C-r; last "(not found: a) /stats one"
key C-s; last '(search: a) /stats a
b\n'
text "zz"; see "(not found: azz)"
key BSpace BSpace; see "(search: a)"
key C-g; last ">"
text "kept"; key C-r; text "one"; last "(search: one) /stats one"
key Escape; last "> kept"
key C-r; text "on"; last "(search: on) /stats one"
key BSpace BSpace; last "(search: ) kept"; key C-g
key C-u C-r; text "one"; key Right; last "> /stats one"; cursor 10,0
key C-u C-r; text "one"; key C-l Enter; see "takes no words"
leave
# two at a time lose nothing
open 60 20 "$chat --quiet -n 1"
tm new-session -d -s other -x 60 -y 20 "$chat --quiet -n 1"
cursor 2,0
for i in 1 2 3; do
    enter "/stats here $i"
    tm send-keys -t other "/stats there $i" Enter
done
has_both() { [ "$(grep -c 'here [123]$' "$history")" = 6 ]; }
ok "two programs keep their lines" within has_both
leave
# what stands in the file is bounded, and need not be text
yes "/stats $(printf '%01000d' 0)" | head -n 3000 > "$history"
printf 'bad \200\201 bytes\n' >> "$history"
open 60 20 "$chat --quiet -n 1"
cursor 2,0
key Up; last "> bad �� bytes"
leave
ok "the history is shortened" test "$(wc -c < "$history")" -lt 1048576
ok "its newest lines are kept" grep -q "^bad" "$history"
mkdir -p "$tmp/blocked/gemma4/history"
open 60 20 "XDG_STATE_HOME=$tmp/blocked $chat --quiet"
see "your lines are not kept: cannot write"
enter /stats; see "0 messages"
leave
rm "$history"
open 60 20 "$chat --quiet --no-history"
cursor 2,0
enter "/stats x"; see "takes no words"
leave
ok "--no-history writes none" test ! -e "$history"

# ---- Bytes that are no keys -----------------------------------------------------------------------------
open 60 20 "$chat --quiet --no-history -n 1"
cursor 2,0
text "a"
hex 80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f 90 91 92 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f
text "b"; last "> a��������������������������������b"
key C-u; hex ff c0 80 ed a0 80 f5 61; last "> �������a"
key C-u; hex 1b 5b; hex 31 3b; hex 35 44; text "x"; last "> x"           # a sequence in three pieces
hex 1b 5b 33 38 3b 35 3b 31 32 33 3b 31 32 33 3b 31 32 33 3b 31 32 33 3b 31 32 33 7a; text "y"; last "> xy"
hex 1b 5d 31 31 3b 72 67 62 3a 66 66 07; text "z"; last "> xyz"          # an answer to a question nobody asked
hex 1b 50 31 24 72 1b 5c; hex 1b 4f 50; hex 1b 5b 5b 41; hex 1b e4 bd a0; text "!"; last "> xyz!"
hex 00; text "?"; last "> xyz!?"
key C-u; hex 1b 5b 32 30 30 7e; text "a paste without an end"; see "a paste without an end"
key C-c; last ">"
text "gone"; key C-c; last ">"
text "ab"; key C-a C-d; last "> b"                                       # Ctrl-D on a filled line
key C-e C-u C-d; ok "Ctrl-D on an empty line ends the chat" within ends

# A megabyte that is pasted, with and without brackets, arrives whole and in good time.
head -c 1000000 /dev/zero | tr '\0' 'x' > "$tmp/long"; printf 'END' >> "$tmp/long"
open 60 20 "$chat --quiet --no-history -c 2000"
cursor 2,0
tm load-buffer "$tmp/long"
tm paste-buffer -p -t chat; see "xxEND"
key Enter; see "the prompt is too long: 1000"
see "-c N gives more room (up to 4096)"
key C-c C-l; gone "xxEND"; last ">"
tm paste-buffer -t chat; see "xxEND"
key C-c C-l; gone "xxEND"; last ">"
leave

# ---- The terminal's mode --------------------------------------------------------------------------------
open 80 20 "exec bash --noprofile --norc -i"
text "PS1='# '; stty -a > before"; key Enter
enter "clear"; last "#"
enter "$chat --quiet --no-history -n 1"; last ">"
text "half"; key C-z; see "Stopped"
enter "stty -a > stopped; clear; fg"; last "> half"
text "!"; last "> half!"
enter ""; see "Hello"
key C-d; last "#"
enter "stty -a > ended"
for signal in TERM HUP INT; do
    enter "clear; $chat --quiet --no-history -n 1; echo rc \$?; stty -a > $signal"
    last ">"
    text "x"; last "> x"
    ok "SIG$signal is sent" kill -s $signal "$(cat "$tmp/pid")"
    if [ $signal = INT ]; then
        last "> x
>"
        key C-d; see "rc 0"
    else
        see "rc 1"
    fi
    last "#"
done
for mode in stopped ended TERM HUP INT; do
    ok "the mode is known: $mode" within test -s "$tmp/$mode"
    ok "the mode is as before: $mode" cmp -s "$tmp/before" "$tmp/$mode"
done
enter "clear; TERM=dumb '$g4' -m '$model' --quiet --no-history -n 1"; last ">"
enter "/stats"; see "0 messages"
key C-d; last "#"

endless=--no-guard
for id in 1 7 9 14 16; do endless="$endless --logit-bias $id:-999"; done # ends, and calls
# ---- Thoughts -------------------------------------------------------------------------------------------
open 60 20 "$chat --no-history --think -n 100000 --isa scalar $endless" # it thinks for ever
see "Ctrl-D ends."
enter "What is 3 + 4?"; see "thinking: "; see " tokens, "
key C-c; gone "thinking: "; see "the thought is incomplete"
leave

# ---- A context that is full -----------------------------------------------------------------------------
open 140 30 "$chat --no-history -n 60 -c 80"
see "Ctrl-D ends."
enter "my name is Willibald"; see "; answer"
enter "my pet is a cat"; key C-l
within hides "; answer"
enter "this is a longer message of which there is no room left in the context of eighty tokens"
see "the context is full: with this message the chat has"
see "/clear starts anew, /undo forgets a turn, -c N gives more room (up to 4096), "; see "--context-shift drops"
last "> this is a longer message of which there is no room left in the context of eighty tokens"
key C-c; enter "/clear"; see "a new chat"
key Up Up; last "> this is a longer message of which there is no room left in the context of eighty tokens"
key C-l Enter; see "; answer"
# with a message that does not fit, its picture comes back
key C-c; key C-l; enter "/image pictures/it\\'s.png"; see "goes with your next message"
enter "what is this, in many words, as many as there are and then some more of them?"; see "the chat has"
key C-c; enter "/clear"; see "a new chat"
enter "so"; see "prompt 7"
# what was taken back is not saved
key C-l; enter "/clear"; see "a new chat"
enter "hello"; see "; answer"
key C-l; enter "my secret number is 1 2 3 4 5 6 7 8 9"; see "; answer"
enter "/stats"; see "4 messages, 53 of 80"
enter "/undo"; see "2 messages left"
enter "/save $tmp/undone"; see "2 messages saved"
key C-l; enter "/load $tmp/undone"; see "2 messages, 2"
leave
open 100 30 "$chat --no-history -n 400 -c 60 $endless --context-shift"
see "Ctrl-D ends."
enter "my name is Willibald"; see "the context is full, all 60 tokens of it, and the answer ends here"
key C-l; enter "and now?"; see "1 turn dropped, oldest first"
see "the context is full, all 60 tokens of it"
enter "/save $tmp/cut"; see "2 messages saved"
enter "/load $tmp/cut"; see "2 messages, 60 tokens; the last answer was cut off"
leave

tally
