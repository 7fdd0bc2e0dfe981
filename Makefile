# make demo: watch a student learn.  make test: the tests.  Both set up .venv first, from nothing but Python 3.11+.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where torch's CPU build comes from, if pip does not find it by itself, e.g.
#   make demo TORCH_ARGS="--index-url URL_OF_THE_CPU_WHEELS"   (see pytorch.org, "Get started")
TORCH_ARGS ?=
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check format bench clean

demo: $(VENV)/.package
	$(BIN)/apt-model demo

test: $(VENV)/.tools
	$(BIN)/pytest -q

test-all: $(VENV)/.tools
	$(BIN)/pytest -q -m ""

check: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q

format: $(VENV)/.tools
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.tools
	$(BIN)/python -m benchmarks.overhead

$(VENV)/.package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; got $$($(PYTHON) --version). Fix: make PYTHON=python3.12 ..."; exit 2; }
	@echo "==> making $(VENV) and installing torch and the package (once; some minutes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) $(TORCH_ARGS) torch
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.tools: $(VENV)/.package
	@echo "==> installing the test tools into $(VENV) (once)"
	@$(INSTALL) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
