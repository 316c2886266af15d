#!/usr/bin/env bash
# The tests that are named, on kernels compiled with GCC's address and undefined-behaviour sanitizers: sanitize.sh tests/...
# Everything that it needs it installs below build/sanitize, anew after a change of the sources or of NNX_VARIANTS. TEST_PYTHON may
# name a Python that has the test extra, setuptools and Cython. A finding ends the process, and so the run.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${python:-python3}
place=${SANITIZE_DIR:-build/sanitize}

mkdir -p "$place"
place=$(realpath "$place")
if [[ -n ${TEST_PYTHON-} ]]; then
    tester=$(command -v "$TEST_PYTHON")
else
    tester=$place/env/bin/python
    if [[ ! -e $place/env/ready || pyproject.toml -nt $place/env/ready ]]; then
        "$python" -m venv --clear "$place/env"
        env -u NNX_REQUIRE_EXTENSIONS NNX_DISABLE_EXTENSIONS=1 "$tester" -m pip install -q '.[test]' setuptools Cython
        touch "$place/env/ready"
    fi
fi
built_from=$(
    echo "variants: ${NNX_VARIANTS:-all}"
    find src setup.py pyproject.toml -type f ! -name '*.pyc' ! -name '*.so' -exec sha256sum {} + | sort
)
if [[ ! -e $place/ready || $(< "$place/ready") != "$built_from" ]]; then
    sanitizers="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    rm -f "$place/ready"
    CC=gcc CFLAGS="$sanitizers" LDFLAGS="$sanitizers" NNX_REQUIRE_EXTENSIONS=1 \
        bash tools/install_apart.sh "$tester" "$place/built"
    echo "$built_from" > "$place/ready"
fi

rm -f "$place"/report.*
reports=$place/report # pytest keeps what goes to stderr
export PYTHONPATH=$place/built

# Python itself is not compiled so: the sanitizers' libraries have to be there before it, and it leaks at exit by design.
# The C++ library comes along because matplotlib and NumPy throw exceptions through it.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
export LD_PRELOAD
export ASAN_OPTIONS=log_path=$reports:detect_leaks=0:quarantine_size_mb=1:allocator_may_return_null=1:handle_segv=0
export UBSAN_OPTIONS=log_path=$reports:print_stacktrace=1
code=0
"$tester" -X faulthandler -m pytest -q -p no:cacheprovider --ignore=tests/test_bench.py "$@" || code=$? # no kernels to time
unset LD_PRELOAD
for report in $(grep -lE 'ERROR: AddressSanitizer|runtime error' "$place"/report.* 2> /dev/null); do
    head -40 "$report"
    code=1
done
exit "$code"
