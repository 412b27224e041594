#!/usr/bin/env bash
# Builds the extension with sanitizers into an environment of its own (build/sanitize), and runs the native engines' tests in it.
set -euo pipefail
cd "$(dirname "$0")/.."
home=build/sanitize/venv
if [ ! -x "$home/bin/python" ]; then
    python=$(.venv/bin/python -c "import sys; print(sys._base_executable)")
    "$python" -m venv "$home"
    # everything else comes from the ordinary environment
    packages=$(.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    echo "$packages" >"$("$home/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ordinary.pth"
fi
"$home/bin/python" -m pip install --quiet --no-deps . \
    -C cmake.define.NINEFOLD_SANITIZE=address,undefined -C "cmake.define.NINEFOLD_ISAS=avx2;wide" -C build-dir=build/sanitize/tree
# Python itself is not instrumented: the runtime has to be there first, and what the interpreter never frees is no leak of ours.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
for isa in baseline avx2 wide; do
    NINEFOLD_ISA=$isa "$home/bin/python" tests/fuzz.py --cases "${CASES:-3000}"
done
"$home/bin/python" -m pytest tests/contract -p no:faulthandler -k "direct or local or winograd"
