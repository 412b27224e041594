#!/usr/bin/env bash
# Builds the extension in another way, into an environment of its own, and runs the native engines' tests in it:
#   sanitize   with AddressSanitizer and UndefinedBehaviorSanitizer
#   wide       with the vectors and blocks of AVX-512 made of AVX2's instructions, for where no processor has them
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
case $kind in
    sanitize) sanitizers=address,undefined isas=avx2 tried="baseline avx2" ;;
    wide) sanitizers="" isas=wide tried=wide ;;
    *) echo "the kinds are sanitize and wide, not '$kind'" >&2 && exit 2 ;;
esac
home=build/$kind/venv
if [ ! -x "$home/bin/python" ]; then
    python=$(.venv/bin/python -c "import sys; print(sys._base_executable)")
    "$python" -m venv "$home"
    # everything else comes from the ordinary environment
    packages=$(.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    echo "$packages" >"$("$home/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ordinary.pth"
fi
"$home/bin/python" -m pip install --quiet --no-deps . \
    -C cmake.define.NINEFOLD_SANITIZE=$sanitizers -C cmake.define.NINEFOLD_ISAS=$isas -C build-dir="build/$kind/tree"
if [ -n "$sanitizers" ]; then
    # Python itself is not instrumented: the runtime has to be there first, and what the interpreter never frees is no leak of ours.
    # The stacks that GCC 13 puts aside to find uses after a return are not aligned for wide vectors: everything crashes there.
    export LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)"
    export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
fi
for isa in $tried; do
    NINEFOLD_ISA=$isa "$home/bin/python" tests/fuzz.py --cases "${CASES:-3000}"
    NINEFOLD_ISA=$isa "$home/bin/python" tests/fuzz_labels.py --cases "$((${CASES:-3000} / 15))"
done
NINEFOLD_ISA=${tried##* } "$home/bin/python" -m pytest tests/contract -p no:faulthandler -m native
