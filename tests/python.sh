#!/bin/sh
# Print a Python interpreter that has what a test needs: the given one if it does, else that of a virtual environment,
# which is made and filled when it must be. usage: python.sh PYTHON VENV CHECK PIP_ARGUMENT...
# (CHECK: Python statements that fail without it)
python=$1; venv=$2; check=$3; shift 3
for p in "$python" "$venv/bin/python"; do
    if "$p" -c "$check" > /dev/null 2>&1; then echo "$p"; exit 0; fi
done
{
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || exit 1
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" || exit 1
    "$venv/bin/python" -c "$check" || exit 1
} >&2
echo "$venv/bin/python"
