# Each target makes its own virtual environment first. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin

# A compilation cache inside the run: tests and their subprocesses share compiled programs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache/$(VERSION)
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.02

# LAPACK's threads get in each other's way on matrices of a state's size: one is faster.
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test lint notebooks bench clean

demo: $(VENV)/train.stamp
	$(BIN)/jax-lstm demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

notebooks: $(VENV)/dev.stamp
	$(BIN)/jupytext --update --to ipynb notebooks/*.py
	$(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=600 notebooks

# No compilation cache: compile times are measured too.
bench: export JAX_COMPILATION_CACHE_DIR =
bench: export PYTHONPATH = $(CURDIR)
bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/speed.py --devices 2
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/tables.py --write
	$(BIN)/python benchmarks/tables.py

$(VENV)/%.stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv .jax_cache runs
