"""The tests can fail: each named fault, put into a copy of the package, turns the test that should catch it red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiers import slow_except

ROOT = Path(__file__).parents[1]
GRADIENT = "tests/test_matrix.py::test_grad_equals_the_complex_step_derivative_in_every_leaf[{}-float64]"
OUTPUT = "tests/test_matrix.py::test_a_run_equals_the_numpy_loop[{}-float64]"
STRUCTURE = "tests/test_engine.py::test_no_loop_carries_anything_of_a_parameters_shape[LSTM-False]"
TEXTBOOK = "tests/cells/test_cells.py"

# A fault: the file, what stands there, what is put in its place, and the test that must go red.
MUTANTS = {
    "no mask in the adjoint": (
        "engines/tangent.py",
        "s_bar = where_or(mask, s_bar, zero, absent=s_bar)",
        "pass",
        GRADIENT.format("LSTM-masked"),
    ),
    "no reset in the adjoint": (
        "engines/tangent.py",
        "s_in_bar = where_or(reset, zero, s_in_bar, absent=s_in_bar)",
        "pass",
        GRADIENT.format("LSTM-masked"),
    ),
    "no recurrent weights in the adjoint": (
        "engines/tangent.py",
        "s_in_bar = _sum(s_in_bar, jax.vjp(recur, s_in)[1](z_bar)[0])",
        "pass",
        GRADIENT.format("LSTM-plain"),
    ),
    "reset after the step": (
        "engines/recurrence.py",
        "s_t = apply_mask(masks_t, s_tm1, s_t)",
        "s_t = apply_reset(masks_t, inputs.s_initial, apply_mask(masks_t, s_tm1, s_t))",
        OUTPUT.format("LSTM-masked"),
    ),
    "parameters of update left out of the gradient": (
        "engines/tangent.py",
        "self.in_loop = [on and not is_large for on, is_large in zip(of_update, large, strict=True)]",
        "self.in_loop = [False] * len(active)",
        "tests/test_engine.py::test_a_cell_with_params_in_every_method_gets_all_gradients[None]",
    ),
    "a vmap over params that forgets to sum": (
        "engines/program.py",
        "return [a if is_mapped else a.sum(axis) for a, axis, is_mapped in results]",
        "return [a if is_mapped else a.take(0, axis) for a, axis, is_mapped in results]",
        "tests/test_program.py::test_every_vmap_gives_the_values_and_derivatives_of_plain[LSTM-params]",
    ),
    "a known gate without a second derivative": (
        "engines/saving.py",
        "if isinstance(dy, SymbolicZero) else dy",
        "",
        "tests/test_saving.py::test_derivatives_of_every_order_equal_those_of_plain[projection]",
    ),
    "forget bias dropped": (
        "cells/lstm.py",
        'biases["f"] = forget_biases(keys[2], H, dtype, forget_bias, chrono)',
        'biases["f"] = jnp.zeros(H, dtype)',
        TEXTBOOK,
    ),
    "gates swapped": (
        "gates.py",
        "jax.nn.sigmoid(z.i), jax.nn.sigmoid(z.f)",
        "jax.nn.sigmoid(z.f), jax.nn.sigmoid(z.i)",
        OUTPUT.format("LSTM-plain"),
    ),
    "a truncated gradient not cut": (
        "engines/truncation.py",
        "cut_off = jax.lax.stop_gradient(s_next)",
        "cut_off = s_next",
        "tests/test_tbptt.py::test_a_gradient_reaches_its_window_and_nothing_before_it[False]",
    ),
    "weight gradient in the loop": (
        "engines/auto.py",
        "return (Hoisted(), None) if why_not is None else (Plain(), why_not)",
        "return (Plain(), why_not)",
        STRUCTURE,
    ),
    "the output gate's peephole on the c before": (
        "gates.py",
        'o = gate("o", c_t)',
        'o = gate("o", c_tm1)',
        OUTPUT.format("peephole-masked"),
    ),
    "a reset at the wrong end of the backward direction": (
        "layers/bidirectional.py",
        "part(1, other_reset)",
        "part(1, inputs.reset)",
        OUTPUT.format("bidirectional-masked"),
    ),
    "no input added in a loop over layers": (
        "layers/stack.py",
        "y = x.astype(y.dtype) + y if",
        "y = y if",
        OUTPUT.format("stack of four-masked"),
    ),
    "one zoneout mask for h and c": (
        "layers/dropout.py",
        "zip(keys[2:], zones, strict=False)",
        "zip(keys[:1].repeat(2), zones, strict=False)",
        "tests/layers/test_dropout.py::test_zoneout_of_an_lstm_has_masks_of_their_own_for_h_and_c",
    ),
    "no reset in the parallel prefix": (
        "engines/associative.py",
        "a = apply_reset(resets, jax.tree.map(jnp.zeros_like, a), a)",
        "pass",
        "tests/test_associative.py::test_values_and_gradients_equal_the_loop_for_any_flags[reset-MinGRU]",
    ),
}


def copy_of_the_project(folder):
    shutil.copytree(ROOT / "jax_lstm", folder / "jax_lstm")
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder, test):
    """pytest's exit code: 0 if all passed, 1 if some failed."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", test]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_unchanged_copy_passes(tmp_path):
    copy_of_the_project(tmp_path)
    result = run(tmp_path, OUTPUT.format("LSTM-masked"))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", slow_except(["no mask in the adjoint"], MUTANTS))
def test_a_fault_in_the_package_fails_a_test(tmp_path, name):
    file, stands, put, test = MUTANTS[name]
    copy_of_the_project(tmp_path)
    source = (tmp_path / "jax_lstm" / file).read_text()
    assert source.count(stands) == 1
    (tmp_path / "jax_lstm" / file).write_text(source.replace(stands, put))
    result = run(tmp_path, test)
    assert result.returncode == 1, result.stdout
    assert " failed" in result.stdout
    assert "ImportError" not in result.stdout
