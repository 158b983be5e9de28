#!/bin/sh
# Write the whole library as one header: gemma4.h with every file it includes by name put in its place, once.
# usage: single.sh > gemma4_single.h   (from the repository root)
set -eu
echo '/* gemma4_single.h: the library in one file, written by `make single`; edit the sources instead.'
echo ' * In exactly one C file, before any other #include: #define GEMMA4_IMPLEMENTATION'
echo ' *'
sed -e 's/^/ * /' -e 's/ *$//' LICENSE
echo ' */'
awk '
# The path of `name` as seen from `file`, without "folder/.." pairs.
function resolve(file, name) {
    if (file ~ /\//) { sub(/[^\/]*$/, "", file); name = file name }
    while (name ~ /[^\/.]+\/\.\.\//) sub(/[^\/.]+\/\.\.\//, "", name)
    return name
}
function put(file,   line, name) {
    if (file in seen) return
    seen[file] = 1
    while ((got = (getline line < file)) > 0) {
        if (line ~ /^#include "/) {
            name = line
            sub(/^#include "/, "", name)
            sub(/".*$/, "", name)
            put(resolve(file, name))
        } else {
            print line
        }
    }
    if (got < 0) { print "cannot read " file > "/dev/stderr"; exit 1 }
    close(file)
}
BEGIN { put("gemma4.h") }'
