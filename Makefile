# What is more than one command long. Each target makes the environment that it needs, below build/.

python ?= python3

.PHONY: check trust fuzz sanitize

# All that python -m pytest -n auto leaves out: every case, other backends, old versions, other compilers, sanitizers, checkers, examples;
# make check STEPS="checkers examples" some of it.
check:
	python=$(python) bash tools/check.sh $(STEPS)

# The promises of docs/internals/reliability.md, some ten minutes; make trust SHARE=0.1 tries a tenth of the cases.
SHARE ?= 1
trust: build/trust/ready
	build/trust/bin/python trust --share $(SHARE) $(if $(WRITE),--write $(WRITE))

# Mutants of files, and arrays in disguise, until one of them breaks something.
fuzz: build/trust/ready
	build/trust/bin/python trust --only files arrays --forever --seed $$(date +%s)

# The suite on kernels with address and undefined-behaviour sanitizers; make sanitize TESTS="tests/test_plan_binding.py" some of it.
TESTS ?= -n auto --cases all tests
sanitize:
	python=$(python) bash tools/sanitize.sh $(TESTS)

build/trust/ready: pyproject.toml setup.py $(shell find src -name '*.p[xy]*' -o -name '*.h')
	$(python) -m venv build/trust
	NNX_REQUIRE_EXTENSIONS=1 build/trust/bin/python -m pip install -q '.[test]'
	touch $@
