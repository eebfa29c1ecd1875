"""Every test runs with float64 on, strict promotion, eight CPU devices, and the shapes in signatures checked.

Compiling is most of the time of a run, so XLA compiles with few optimizations. `pytest --optimized` uses its defaults.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jaxtyping import config, install_import_hook
from tiers import slow_except

jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64", "1") not in ("0", "false", "False"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

# Tracing makes many small objects, most of which stay in JAX's caches: look for garbage less often.
gc.set_threshold(100_000, 20, 100)

QUICK_COMPILER = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
]
MAX_MAPPINGS = 20_000


def pytest_addoption(parser):
    parser.addoption("--optimized", action="store_true", help="compile with XLA's default optimizations")


def pytest_configure(config):
    """Set the compiler's flags; workers of pytest-xdist, and subprocesses of tests, inherit them."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if not config.getoption("optimized") and QUICK_COMPILER[0] not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, *known(QUICK_COMPILER)])


def known(flags):
    """The flags that this version of XLA has: a process with an unknown one aborts when it first uses JAX."""

    def starts(flags):
        probe = [sys.executable, "-c", "import jax; jax.devices()"]
        environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
        return subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0

    return flags if starts(flags) else [flag for flag in flags if starts([flag])]


def pytest_report_header():
    return f"XLA_FLAGS: {os.environ.get('XLA_FLAGS', '')}"


# The modules that check arguments (batch, checks, restore, sequence, engines.run, flax_run, registry, gradflow.adjoint,
# gradflow.lyapunov) are left out, so that users see our error messages and not those of the type checker.
CORE = (
    "gates",
    "cell",
    "abilities",
    *(f"cells.{name}" for name in ("gru", "initializers", "janet", "linear", "lstm", "min_gru", "min_lstm", "rnn")),
    "cells.slstm",
    *(f"engines.{name}" for name in ("associative", "collect", "driver", "engine", "plain", "segments", "truncation")),
    "flax_carry",
    *(f"layers.{name}" for name in ("bidirectional", "dropout", "embedding", "learned_initial_state", "model")),
    *(f"layers.{name}" for name in ("readout", "sampling", "stack", "wrapper")),
)
MEASURES = (
    *("flat", "trajectory", "jacobians", "product", "sensitivity", "singular", "retention", "paths"),
    *("horizon", "fixed_points"),
)
CHECKED = (*CORE, *(f"gradflow.{name}" for name in MEASURES))
install_import_hook([f"jax_lstm.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def few_memory_mappings():
    """Drop compiled programs after a file of tests when there are many.

    XLA maps several regions of memory for each program, and a Linux process that asks for more than 65,530
    (vm.max_map_count) crashes.
    """
    yield
    mappings = Path("/proc/self/maps")  # Linux only
    if not mappings.exists() or mappings.read_bytes().count(b"\n") > MAX_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(params=slow_except(["LSTM", "GRU"], ["LSTM", "RNN", "GRU"]))
def cell(request):
    """One of the library's cells, 3 features into 4 units."""
    import jax_lstm as jl

    return getattr(jl, request.param)(3, 4)


@pytest.fixture
def own_messages():
    """Turn off the check of shapes and types in signatures, so that an error is the library's own, as for users."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
