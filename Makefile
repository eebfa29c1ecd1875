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

# uv does not read pip's settings. A folder of wheels that pip uses serves uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
UV_INSTALL = $(BIN)/uv pip install --quiet --constraint constraints.txt --build-constraint constraints.txt

# PYTEST_ARGS selects tests: make test PYTEST_ARGS=tests/test_engine.py
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test test-all test-times lint notebooks bench bench-gpu dist lock clean

demo: $(VENV)/train.stamp
	$(BIN)/jax-lstm demo

test: $(VENV)/test.stamp
	$(PYTEST) $(PYTEST_ARGS)

# Tests marked `optimized` with XLA's default optimizations; then all tests, those marked `slow` too.
test-all: $(VENV)/test.stamp
	$(PYTEST) --optimized -m optimized
	$(PYTEST) -m ""

# The slowest files, how many programs they compile, and the coverage.
test-times: $(VENV)/test.stamp
	$(PYTEST) -p tests.times --durations 20 --cov jax_lstm --cov-report term:skip-covered $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

notebooks: $(VENV)/notebooks.stamp
	$(BIN)/jupytext --update --to ipynb notebooks/*.py
	$(BIN)/python -m pytest -n $(WORKERS) --nbmake --nbmake-timeout=600 notebooks

# No compilation cache: compile times are measured too.
bench: export JAX_COMPILATION_CACHE_DIR =
bench: export PYTHONPATH = $(CURDIR)
bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/speed.py --devices 2
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/ways.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/tables.py --write
	$(BIN)/python benchmarks/tables.py

# With $(PYTHON) itself: its JAX and PyTorch must be able to use the GPU.
bench-gpu: export JAX_COMPILATION_CACHE_DIR =
bench-gpu: export PYTHONPATH = $(CURDIR)
bench-gpu:
	$(PYTHON) benchmarks/gpu.py
	$(PYTHON) benchmarks/tables.py --write

# Build the sdist, and the wheel from it; install the wheel in an empty environment and use it there.
dist: export UV_CONSTRAINT = $(CURDIR)/constraints.txt
dist: $(VENV)/dist.stamp
	rm -rf dist
	$(BIN)/python -m build --installer uv
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/check_dist.py

# The newest releases that pyproject.toml allows, for Python 3.11 and for 3.12 and newer.
lock: export UV_FIND_LINKS =
lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
	  --custom-compile-command 'make lock' --output-file constraints.txt pyproject.toml

# Several extras share one environment.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(BIN)/uv
	$(UV_INSTALL) --python $(BIN)/python --editable '.[$*]'
	touch $@

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

clean:
	rm -rf .venv .jax_cache dist runs
