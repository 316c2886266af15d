# What is more than one command long. Each target makes the environment that it needs, below build/.

python ?= python3

.PHONY: trust fuzz sanitize mutants

# The promises of docs/internals/reliability.md, some ten minutes; make trust SHARE=0.1 tries a tenth of the cases.
SHARE ?= 1
trust: build/trust/ready
	build/trust/bin/python trust --share $(SHARE) $(if $(WRITE),--write $(WRITE))

# Mutants of files, and arrays in disguise, until one of them breaks something.
fuzz: build/trust/ready
	build/trust/bin/python trust --only files arrays --forever --seed $$(date +%s)

# The suite on kernels with address and undefined-behaviour sanitizers; make sanitize TESTS="tests/test_plan_binding.py" some of it.
TESTS ?= -n auto tests
sanitize:
	python=$(python) bash tools/sanitize.sh $(TESTS)

# Faults seeded into src/nnx, one at a time, and how many of them the tests find; make mutants SEED=1 draws others.
SAMPLE ?= 500
SEED ?= 0
mutants: build/trust/ready
	build/trust/bin/python -m pip install -q '.[mutants]'
	build/trust/bin/python tools/mutants_run.py --sample $(SAMPLE) --seed $(SEED)

build/trust/ready: pyproject.toml setup.py $(shell find src -name '*.p[xy]*' -o -name '*.h')
	$(python) -m venv build/trust
	NNX_REQUIRE_EXTENSIONS=1 build/trust/bin/python -m pip install -q '.[test]'
	touch $@
