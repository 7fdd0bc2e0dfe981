# make demo: watch a student learn.  make test: the tests.  Both set up .venv first, from nothing but Python 3.11+.
# make bench: what a distillation step and its display cost, against other libraries, which live in .venv-bench.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
# For `make bench`, e.g.  make bench BENCH_ARGS="--sizes S --contenders all"   (see benchmarks/README.md)
BENCH_ARGS ?=
# Where torch's CPU build comes from, if pip does not find it by itself, e.g.
#   make demo TORCH_ARGS="--index-url URL_OF_THE_CPU_WHEELS"   (see pytorch.org, "Get started")
TORCH_ARGS ?=
# How the demo runs, e.g.  make demo DEMO_ARGS="--lang en --watch"
DEMO_ARGS ?=
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# A process of its own for each core, with one thread: most of a test's time it waits for others, or for a disk.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test test-all check format bench clean

demo: $(VENV)/.package
	$(BIN)/apt-model demo $(DEMO_ARGS)

test: $(VENV)/.tools
	$(PYTEST)

test-all: $(VENV)/.tools
	$(PYTEST) -m ""

check: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/deptry .
	$(PYTEST)

format: $(VENV)/.tools
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_VENV)/.peers
	$(BENCH_VENV)/bin/python -m benchmarks.micro.overhead
	$(BENCH_VENV)/bin/python -m benchmarks.step $(BENCH_ARGS)

$(VENV)/.package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; got $$($(PYTHON) --version). Fix: make PYTHON=python3.12 ..."; exit 2; }
	@echo "==> making $(VENV) and installing torch and the package (once; some minutes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) $(TORCH_ARGS) torch
	@$(INSTALL) -e ".[dashboard]"
	@touch $@

$(VENV)/.tools: $(VENV)/.package
	@echo "==> installing the test tools into $(VENV) (once)"
	@$(INSTALL) -e '.[dev]'
	@touch $@

$(BENCH_VENV)/.peers: pyproject.toml constraints.txt benchmarks/step/requirements.txt
	@echo "==> making $(BENCH_VENV), with the libraries to compare with (once; some minutes)"
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.package
	@$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/step/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
