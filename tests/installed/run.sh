#!/usr/bin/env bash
# Install a wheel into empty environments that reach no compiler, and try it from another folder: run.sh WHEEL [CONSTRAINTS]
# First with PyTorch and NumPy alone, then with what the command and the tests need. PYTHON names the interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheel=$(realpath "$1")
constraints=$(realpath "${2:-$here/../../constraints.txt}")
work=$(mktemp -d)
trap '/bin/rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
cp "$here/plain.py" "$here/checks.py" "$work/"
cd "$work"
export PATH="$work/venv/bin" NINEFOLD_CACHE="$work/cache" NINEFOLD_WHEEL="${wheel##*/}" PYTHONNOUSERSITE=1
unset PYTHONPATH
for compiler in cc c++ gcc g++ clang clang++; do
    if command -v "$compiler"; then echo "a compiler is reachable: $compiler" && exit 1; fi
done
python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -c "$constraints" "$wheel"
python -m pip list --disable-pip-version-check
python plain.py --command
python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -c "$constraints" "$wheel[cli]" pytest
python -m pytest -q -p no:cacheprovider --rootdir "$work" -c /dev/null --import-mode=importlib checks.py
