# What is more than one command long. Each target makes the environment that it needs, below build/.

python ?= python3
SOURCES := pyproject.toml setup.py $(shell find src -name '*.py' -o -name '*.p[xy][dix]' -o -name '*.h')

.PHONY: check trust fuzz sanitize asv docs linkcheck mutants

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

# The page that trains in the browser, with all that it loads, in build/demo; docs/guide/browser.md. With no wheel for Pyodide in
# build/pyodide (make demo-wheel makes one), it computes with NumPy.
.PHONY: demo demo-wheel demo-test
demo:
	$(python) tools/browser/page.py $(WHEEL)

# That wheel, by the Emscripten on the PATH; python must be Pyodide's version and have setuptools, Cython and NumPy.
demo-wheel:
	$(python) tools/browser/wheel.py

# The page in Chromium, 1,000 steps and every button; skipped without Chromium.
demo-test: build/demo/index.html build/browser/node_modules/playwright-core/package.json
	PLAYWRIGHT=$(CURDIR)/build/browser/node_modules/playwright-core/index.mjs node --test web/demo.test.mjs

build/demo/index.html:
	$(MAKE) demo

build/browser/node_modules/playwright-core/package.json:
	npm install --silent --no-save --prefix build/browser playwright-core

# The suite on kernels with address and undefined-behaviour sanitizers; make sanitize TESTS="tests/test_plan_binding.py" some of it.
TESTS ?= -n auto --cases all tests
sanitize:
	python=$(python) bash tools/sanitize.sh $(TESTS)

# The documentation site in build/site, from nothing in less than ten minutes; make linkcheck follows its links to other sites.
docs: build/docs/ready
	build/docs/env/bin/python tools/make_site.py

linkcheck: build/docs/ready
	build/docs/env/bin/python tools/make_site.py --links

build/docs/ready: $(SOURCES)
	$(python) -m venv build/docs/env
	NNX_REQUIRE_EXTENSIONS=1 build/docs/env/bin/python -m pip install -q '.[docs]'
	touch $@

# Faults seeded into src/nnx, one at a time, and how many of them the tests find; make mutants SEED=1 draws others.
SAMPLE ?= 500
SEED ?= 0
mutants: build/trust/ready
	build/trust/bin/python -m pip install -q '.[mutants]'
	build/trust/bin/python tools/mutants_run.py --sample $(SAMPLE) --seed $(SEED)

build/trust/ready: $(SOURCES)
	$(python) -m venv build/trust
	NNX_REQUIRE_EXTENSIONS=1 build/trust/bin/python -m pip install -q '.[test]'
	touch $@

# Speed over the last commits that changed the package, as a page in build/asv/html; make asv COMMITS=v0.2.0..main
COMMITS ?= -5
asv: build/asv/ready
	cd benchmarks && git log --format=%H $(COMMITS) -- ../src ../setup.py > ../build/asv/commits
	cd benchmarks && ../build/asv/bin/asv machine --yes && ../build/asv/bin/asv run --skip-existing-commits HASHFILE:../build/asv/commits
	cd benchmarks && ../build/asv/bin/asv publish

build/asv/ready:
	$(python) -m venv build/asv
	build/asv/bin/python -m pip install -q asv virtualenv
	touch $@
