#!/bin/sh
# export.py on some broken checkpoints, always the same ones. Ends with "N passed, N failed"; skipped where Python has
# no numpy, without which export.py says that it needs it. All of them, and what must come of whole ones: make
# test-reference.
python=${PYTHON:-python3}
if ! command -v "$python" > /dev/null; then
    echo "skipped: no Python"
    echo "0 passed, 0 failed, 1 skipped"
elif ! "$python" -c 'import numpy' 2> /dev/null; then
    passed=0
    needs='export.py: needs the Python package numpy: pip install numpy'
    if "$python" export.py x -o x 2>&1 | grep -qx "$needs"; then passed=1; fi
    echo "skipped: no numpy"
    echo "$passed passed, $((1 - passed)) failed, 1 skipped"
else
    exec "$python" tests/fuzz_export.py --cases 40
fi
