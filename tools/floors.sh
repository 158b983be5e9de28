#!/bin/sh
# Hold the sources against tools/floors. usage: floors.sh OBJECT_FOLDER   (from the repository root; an object a file,
# named as the file with / as _). Prints the floors with lines of code and the calls between them; every offence is a
# line that begins with "!!".
set -eu
objects=$1
grep -v '^#' tools/floors > "$objects/floors"

# Includes: a file names its floor's header and nothing else of ours; a header names headers of lower floors.
awk '{ for (i = 3; i <= NF; i++) print $i, $2 }' "$objects/floors" | while read -r file header; do
    grep -HnE '^ *# *include *<(engine|media|chat|cli|gemma4)' "$file" | sed 's/^/!! by angle brackets: /' || true
    sed -n 's/^#include "\(.*\)".*/\1/p' "$file" | while read -r name; do
        path=$(realpath --relative-to=. "$(dirname "$file")/$name")
        case "$file:$path" in
        *":$header" | engine/kernels.c:engine/kernels_*.h | chat/unicode.c:chat/unicode.h | \
            cli/width.c:cli/width.h | cli/*.c:cli/serve.h | cli/routes.c:cli/page.h) ;;
        *) echo "!! $file includes $path: its floor's header is $header" ;;
        esac
    done
done
seen=gemma4.h
while read -r name header files; do
    for path in $(sed -n 's/^#include "\(.*\)".*/\1/p' "$header"); do
        path=$(realpath --relative-to=. "$(dirname "$header")/$path")
        case " $seen " in
        *" $path "*) ;;
        *) echo "!! $header includes $path, which is no lower floor's header" ;;
        esac
    done
    seen="$seen $header"
done < "$objects/floors"

# Calls: symbols that an object needs, and the place in the list of the object that defines them.
awk '{ for (i = 3; i <= NF; i++) print ++n, $1, $i }' "$objects/floors" > "$objects/order"
while read -r rank floor file; do
    nm "$objects/$(echo "${file%.c}" | tr / _).o" | awk -v where="$rank $floor $file" \
        'NF == 3 && $2 ~ /[TDRBCGVW]/ { print "def", $3, where } $1 ~ /^[Uvw]$/ { print "use", $2, where }'
done < "$objects/order" > "$objects/symbols"
awk '
$1 == "def" { rank[$2] = $3; floor[$2] = $4; file[$2] = $5 }
$1 == "use" { n++; symbol[n] = $2; from[n] = $3; from_floor[n] = $4; from_file[n] = $5 }
END {
    for (i = 1; i <= n; i++) {
        s = symbol[i]
        if (!(s in rank)) {
            if (s ~ /^g4_/) print "!! " from_file[i] " needs " s ", which no file defines"
            continue
        }
        if (rank[s] >= from[i])
            print "!! " from_file[i] " (floor " from_floor[i] ") calls up: " s " in " file[s] " (floor " floor[s] ")"
        if (floor[s] != from_floor[i]) calls[from_floor[i] " " floor[s]]++
    }
    for (pair in calls) print "calls", pair, calls[pair]
}' "$objects/symbols" > "$objects/calls"
grep '^!!' "$objects/calls" || true
while read -r name header files; do
    # shellcheck disable=SC2086
    lines=$(cat $header $files | wc -l)
    down=$(awk -v f="$name" '$1 == "calls" && $2 == f { printf " %s (%d)", $3, $4 }' "$objects/calls")
    printf '%-9s %6d lines  calls%s\n' "$name" "$lines" "${down:- nothing of ours}"
done < "$objects/floors"
