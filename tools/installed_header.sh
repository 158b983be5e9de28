#!/bin/sh
# gemma4.h as it is installed: its implementation switch includes the single file beside it, for the folders of the
# source tree are not there. usage: installed_header.sh > gemma4.h   (from the repository root)
set -eu
awk '
/defined\(GEMMA4_IMPLEMENTATION\) && !defined\(GEMMA4_IMPLEMENTED\)/ { switch_begins = 1 }
switch_begins && /^#define GEMMA4_IMPLEMENTED/ { print "#include \"gemma4_single.h\"\n#endif"; exit }
{ print }' gemma4.h
