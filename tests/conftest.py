"""Every test runs with float64 on, strict promotion, eight CPU devices, and the shapes in signatures checked."""

import os

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64", "1") not in ("0", "false", "False"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

# The doors (batch, sequence, cells.door, layers.config, gradflow.adjoint, gradflow.lyapunov) are left out: there our
# own messages speak, not the type checker's.
CORE = (
    "gates",
    "cells.base",
    "cells.affine",
    "cells.lstm",
    "cells.rnn",
    "cells.gru",
    "cells.input_gated",
    "cells.janet",
    "cells.min_gru",
    "cells.min_lstm",
    "cells.slstm",
    "cells.weights",
    "recurrence",
    *(f"layers.{name}" for name in ("around", "bidirectional", "carry", "dropout", "embedding", "learned", "model")),
    *(f"layers.{name}" for name in ("readout", "sampling", "stack")),
)
MEASURES = (
    *("flat", "trajectory", "jacobians", "product", "sensitivity", "singular", "retention", "paths"),
    *("horizon", "fixed_points"),
)
CHECKED = (*CORE, *(f"gradflow.{name}" for name in MEASURES))
install_import_hook([f"jax_lstm.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go():
    """A file's compiled programs end with it.

    XLA maps several regions of memory for each, and crashes where the suite asks for more of them than a process may
    have (65,530 on Linux, vm.max_map_count).
    """
    yield
    jax.clear_caches()


@pytest.fixture(params=["LSTM", "RNN", "GRU"])
def cell(request):
    """One of the library's cells, 3 features into 4 units."""
    import jax_lstm as jl

    return getattr(jl, request.param)(3, 4)
