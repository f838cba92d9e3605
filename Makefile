# `make demo` and `make test` need Python 3.10 or newer and a package registry, nothing else: each
# makes the virtual environment, fetches the compiler, builds and installs, then runs. A second call
# repeats only what a changed file makes necessary.

PYTHON ?= python3
VENV ?= .venv

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
MOJO := $(VENV)/bin/mojo

export MODULAR_TELEMETRY_ENABLED := 0
export MODULAR_CRASH_REPORTING_ENABLED := 0

# "hatchling..." "mojo-compiler==...", quoted, as pyproject.toml has them
BUILD_REQUIRES := $(shell sed -n 's/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml | tr ',' ' ')
# the same of what tests and lint need, and of what the package needs
TOOLS := $(shell sed -n '/^\(dependencies\|test\|dev\) = \[/,/^\]/s/^ *\("[^"]*"\),.*/\1/p' pyproject.toml)
DOCS := $(shell sed -n '/^docs = \[/,/^\]/s/^ *\("[^"]*"\),.*/\1/p' pyproject.toml)
RELEASE := $(shell sed -n '/^release = \[/,/^\]/s/^ *\("[^"]*"\),.*/\1/p' pyproject.toml)
# CPU levels that are compiled for demo and bench, and for tests: those that this machine runs. Wheels
# of `make wheels` and `pip wheel .` have all levels of the architecture.
demo bench figures: export VICINAL_LEVELS ?= best
test test-extras lint format fuzz endurance: export VICINAL_LEVELS ?= here
# files that `make quick` leaves to `make test`: long histories, many threads, kills, whole packages
QUICK_LEAVES_OUT := bench build_stats collection_crash concurrency crash_safety doctor endurance \
	hostile measure_recall memory merge merge_graphs model packaging \
	quantization_changes recall remove_recall remove_threads same_bytes signals \
	tune
# processes that tests run in; "auto" is one a core
JOBS ?= auto
# all that the wheel is made of
SOURCES := pyproject.toml README.md $(shell find mojo python/vicinal tools \
	\( -name '*.mojo' -o -name '*.py' -o -name '*.pyi' \) -not -path '*/.*')
MOJO_FILES := $(shell find mojo tests/mojo tests/sanitize tests/schedules bench -name '*.mojo' 2>/dev/null)
# the sets inside the repository; ARGS names others
BENCH_DATA := $(patsubst tests/data/%/,%,$(wildcard tests/data/*/))

.NOTPARALLEL:
.PHONY: help demo test test-extras quick figures sanitize explore fuzz endurance wheel wheels sdist \
	check-release build bench bench-native lint format doc site clean

help:
	@echo "make demo          index, search, save and reopen real vectors"
	@echo "make test          Mojo tests, pytest on the installed wheel, lint"
	@echo "make test-extras   tests of the extras, each in an environment of its own; ARGS=\"files\""
	@echo "make quick         after a small change: three spaces compiled, the quick tests on the tree"
	@echo "make figures       times of import, open, one call and save, beside hnswlib where it is"
	@echo "make sanitize      lock-free parts under ThreadSanitizer, a whole life under AddressSanitizer"
	@echo "make explore       a writer beside searches in every order of their steps that has few preemptions"
	@echo "make fuzz          100,000 damaged files opened and used; ARGS=\"--files N --jobs N\""
	@echo "make endurance     ten minutes of changes, saves and searches; 2,000 kills during save"
	@echo "make wheels        wheels with all CPU levels for x86-64 and Arm into dist, and their checks"
	@echo "make wheel         the wheel of this machine with all its CPU levels, into dist"
	@echo "make sdist         the sources from which a wheel builds, into dist"
	@echo "make check-release auditwheel and twine on what is in dist"
	@echo "make build         compile the native module for this CPU into python/vicinal"
	@echo "make bench         recall against speed, beside other libraries"
	@echo "make bench-native  the same library from a Mojo program, without Python"
	@echo "make lint          ruff, mypy, Mojo format and docstring check"
	@echo "make format        format Python and Mojo"
	@echo "make site          the documentation as a site, build/site; warnings and dead links are errors"
	@echo "make doc           documentation of the Mojo library as JSON, build/vicinal.json"
	@echo "make clean         remove everything that make made"

demo: $(VENV)/stamp-demo
	$(PY) bench/demo.py

test: $(VENV)/stamp-test
# All three run, whichever fails.
	@status=0; \
	$(PY) tools/run_mojo_tests.py || status=1; \
	$(PY) -m pytest -n $(JOBS) --durations=15 $(ARGS) || status=1; \
	$(MAKE) --no-print-directory lint || status=1; \
	exit $$status

test-extras: $(VENV)/stamp-test
	$(PY) tools/test_extras.py $(ARGS)

quick: $(VENV)/stamp-tools
	$(PY) tools/native_build.py --spaces few
	PYTHONPATH=python $(PY) -m pytest -q -n $(JOBS) -m "not slow" \
		$(QUICK_LEAVES_OUT:%=--ignore=tests/python/test_%.py) $(ARGS)
	$(PY) -m ruff check -q .

figures: $(VENV)/stamp-demo
	$(PY) bench/figures.py $(ARGS)

# Skips what gcc on this machine does not have, and says so.
sanitize: $(VENV)/stamp-venv
	$(PY) tools/sanitize.py

explore: $(VENV)/stamp-venv
	$(PY) tools/explore.py $(ARGS)

fuzz: $(VENV)/stamp-test
	cd tests && $(abspath $(PY)) -m fuzz $(or $(ARGS),--files 100000)

endurance: $(VENV)/stamp-test
	$(PY) tests/endurance.py $(or $(ARGS),--seconds 600)
	VICINAL_KILLS=2000 VICINAL_MODEL_EXAMPLES=500 VICINAL_COLLECTION_KILLS=500 $(PY) -m pytest -rP \
		tests/python/test_crash_safety.py tests/python/test_model.py \
		tests/python/test_collection_crash.py

wheels: $(VENV)/stamp-test
	$(PIP) wheel -q --no-build-isolation --no-deps -w dist .
	VICINAL_LEVELS=dotprod,neon $(PIP) wheel -q --no-build-isolation --no-deps -w dist .
	VICINAL_TEST_LEVELS=all $(PY) -m pytest -n $(JOBS) tests/python/test_packaging.py

wheel: $(VENV)/stamp-venv
	$(PIP) wheel -q --no-build-isolation --no-deps -w dist .
	@ls dist/*.whl

sdist: $(VENV)/stamp-venv
	$(PY) -m hatchling build -t sdist -d dist

check-release: $(VENV)/stamp-venv
	$(PIP) install -q $(RELEASE)
	$(PY) tools/check_release.py dist

build: $(VENV)/stamp-venv
	$(PY) tools/native_build.py --levels best --into python/vicinal

bench: $(VENV)/stamp-bench
	$(PY) bench/recall_qps.py $(or $(ARGS),--data $(BENCH_DATA))

bench-native: $(VENV)/stamp-venv
	$(PY) tools/bench_native.py $(or $(ARGS),tests/data)

lint: $(VENV)/stamp-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict python/vicinal
	@rm -rf build/format && mkdir -p build/format && cp --parents $(MOJO_FILES) build/format
	@$(MOJO) format -q -l 100 $(addprefix build/format/,$(MOJO_FILES))
	@status=0; for file in $(MOJO_FILES); do diff -u $$file build/format/$$file || status=1; done; \
	if [ $$status = 0 ]; then echo "Mojo format: $(words $(MOJO_FILES)) files as formatted"; \
	else echo "Mojo format: run make format"; exit 1; fi
	$(PY) tools/table_of_tests.py --check
	@$(MOJO) doc --Werror -I mojo mojo/vicinal -o build/vicinal.json && echo "Mojo docstrings: no complaints"

format: $(VENV)/stamp-test
	$(PY) -m ruff check --fix-only --select I .
	$(PY) -m ruff format .
	$(PY) tools/table_of_tests.py
	$(MOJO) format -q -l 100 $(MOJO_FILES)

doc: $(VENV)/stamp-venv
	mkdir -p build
	$(MOJO) doc --Werror -I mojo mojo/vicinal -o build/vicinal.json

# Docstrings are read from the package in the tree, with its native module.
site: $(VENV)/stamp-tools build
	$(PIP) install -q $(DOCS)
	$(PY) tools/build_site.py $(ARGS)

clean:
	rm -rf $(VENV) build dist python/vicinal/_v2 python/vicinal/_v3 python/vicinal/_v4 \
		python/vicinal/_dotprod python/vicinal/_neon .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment and the compiler, once.
$(VENV)/stamp-venv: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed; $(PYTHON) is " + sys.version.split()[0])'
	@echo "== virtual environment $(VENV) with the Mojo compiler"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(BUILD_REQUIRES)
	@touch $@

# Installs the wheel of this tree; the compiler is at hand already, so no second one is fetched.
$(VENV)/stamp-demo: $(VENV)/stamp-venv $(SOURCES)
	@echo "== vicinal, built and installed"
	$(PIP) install -q --no-build-isolation .
	@touch $@

# The tools of tests and lint, without the package.
$(VENV)/stamp-tools: $(VENV)/stamp-venv
	@echo "== tools of tests and lint"
	$(PIP) install -q $(TOOLS)
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-tools $(SOURCES)
	@echo "== vicinal, built and installed"
	$(PIP) install -q --no-build-isolation --no-deps .
	@touch $@ $(VENV)/stamp-demo

$(VENV)/stamp-bench: $(VENV)/stamp-venv $(SOURCES)
	@echo "== vicinal, built and installed, with the libraries to compare with"
	$(PIP) install -q --no-build-isolation '.[bench]'
	@touch $@ $(VENV)/stamp-demo
