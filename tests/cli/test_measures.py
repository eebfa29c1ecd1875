"""What an experiment measures of trained networks, where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.cli import measures
from jax_lstm.cli.trained_run import TrainedRun
from jax_lstm.layers import ModelParams, ReadoutParams
from jax_lstm.tasks import Batch


def test_closed_loop_exponents_match_a_diagonal_linear_map(monkeypatch):
    """A linear network with w_x diagonal: each exponent is the log of an entry."""
    monkeypatch.setattr(measures, "BURN_IN", 10)
    monkeypatch.setattr(measures, "STEPS", 200)
    model = TrainedRun(jl.Model(jl.RNN(3, 3, activation="linear"), 3))
    w = jnp.diag(jnp.array([0.9, 0.5, 0.2]))
    cell = jl.RNNParams(w_x=w, w_h=jnp.zeros((3, 3)), b=jnp.zeros(3))
    params = ModelParams(cell, ReadoutParams(jnp.eye(3), jnp.zeros(3)))
    batch = Batch(jnp.zeros((1, 5, 3)), jnp.zeros((1, 5, 3)))
    seeds = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    found = measures.measure(["closed_loop"], model, seeds, batch)
    for i, w_i in enumerate((0.9, 0.5, 0.2)):
        np.testing.assert_allclose(found[f"exponent {i + 1}"], [np.log(w_i) / measures.DT] * 2, rtol=1e-4)


def test_with_f_equal_to_1_c_grows_linearly_and_tanh_saturates(monkeypatch):
    """One unit, i = ½, g = tanh(1), f = 1: |c| grows by as much at every step."""
    monkeypatch.setattr(measures, "AFTER", (10, 20, 40))
    model = TrainedRun(jl.Model(jl.LSTM(1, 1), 1))
    cell = jl.LSTMParams(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.array([0.0, 100.0, 1.0, 0.0]))
    params = jax.tree.map(lambda a: a[None], ModelParams(cell, ReadoutParams(jnp.eye(1), jnp.zeros(1))))
    found = measures.measure(["cell_state"], model, params, Batch(jnp.zeros((5, 40, 1)), jnp.zeros((5, 40))))
    step = 0.5 * np.tanh(1)
    for n in (10, 20, 40):
        assert found[f"|c| after {n:,}"] == pytest.approx([n * step], rel=1e-5)
    assert found["o (1 − tanh² c) after 40"] == pytest.approx([0.5 * (1 - np.tanh(40 * step) ** 2)], rel=1e-3)


def test_the_memory_of_a_linear_network_is_that_of_its_matrix():
    """A rotation by 0.9: every step shrinks every difference by as much, and so does rest."""
    model = TrainedRun(jl.Model(jl.RNN(1, 2, activation="linear"), 1))
    cell = jl.RNNParams(jnp.ones((1, 2)), jnp.array([[0.0, 0.9], [-0.9, 0.0]]), jnp.ones(2))
    params = jax.tree.map(lambda a: a[None], ModelParams(cell, ReadoutParams(jnp.ones((2, 1)), jnp.zeros(1))))
    found = measures.measure(["memory"], model, params, Batch(jnp.ones((2, 7, 1)), jnp.zeros((2, 1))))
    assert found["largest exponent"] == pytest.approx([np.log(0.9)], rel=1e-5)
    assert found["rest radius"] == pytest.approx([0.9], rel=1e-5)


def test_nothing_is_measured_where_nothing_is_named():
    assert measures.measure([], TrainedRun(jl.Model(jl.RNN(1, 1), 1)), {"w": jnp.zeros((2, 1))}, None) == {}  # pyrefly: ignore
