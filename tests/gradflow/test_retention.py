"""What each unit keeps of itself: the diagonal of the product of Jacobians, at any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagonal import Diagonal
from fed import fed

import jax_lstm as jl
from jax_lstm.gradflow import retention, step_jacobians

I, H, T = 3, 4, 12


def problem(cell, steps=T, dtype=jnp.float64):
    """Params and inputs."""
    return cell.init(jax.random.key(0), dtype), jax.random.normal(jax.random.key(1), (steps, I), dtype)


def flat(logs):
    """The leaves side by side, each raveled but for time."""
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(logs)], axis=1)


def test_it_is_the_diagonal_of_the_product_of_jacobians(cell):
    params, xs = problem(cell)
    got, J = retention(cell, params, xs), np.asarray(step_jacobians(cell, params, xs))
    assert type(got) is type(cell.initial_state(params))
    product = np.eye(J.shape[1])
    for k in range(T, -1, -1):
        np.testing.assert_allclose(flat(got)[k], np.log(np.abs(np.diag(product))), rtol=1e-9, atol=1e-9)
        product = product @ J[k - 1]


def test_truncated_retention_is_the_product_of_forget_gates():
    cell = jl.LSTM(I, H)
    params, xs = problem(cell)
    log_f = np.log(jl.gates_of(cell, params, xs).f)
    want = np.concatenate([np.cumsum(log_f[::-1], axis=0)[::-1], np.zeros((1, H))])
    got = retention(cell, params, xs, truncate="1997")
    np.testing.assert_allclose(got.c, want, rtol=1e-12, atol=1e-14)
    assert np.abs(retention(cell, params, xs).c - want).max() > 0.01, "the whole gradient must not pass"


def test_2000_steps_in_float32_do_not_underflow_or_overflow():
    x = np.stack([np.full(2000, 0.5), np.full(2000, 2.0)], axis=1)
    cell = Diagonal()
    state = jax.tree.map(jnp.zeros_like, cell.initial_state(cell.init(None, jnp.float32)))
    got = retention(cell, cell.init(None, jnp.float32), jnp.asarray(x, jnp.float32), state)
    np.testing.assert_allclose(flat(got)[0], 2000 * np.log([0.5, 2.0]), rtol=1e-5)
    assert got.b.shape == (2001, 1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_unit_with_tiny_retention_is_as_exact_as_the_others(dtype):
    """[[0.9, 0.3], [0, 0.1]]: unit 1 keeps 0.1^k, sixty decades below what comes to unit 0; and both ways round."""
    J = np.array([[0.9, 0.3], [0.0, 0.1]])
    for order in ([0, 1], [1, 0]):
        got = retention(*fed(np.repeat(J[order][:, order][None], 60, 0).astype(dtype))).h
        np.testing.assert_allclose(got[0], 60 * np.log(np.array([0.9, 0.1])[order]), rtol=1e-5)


def test_a_unit_that_passes_its_state_on_retains_nothing():
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    got = retention(*fed(np.stack([swap] * 3))).h
    np.testing.assert_array_equal(np.isneginf(got[0]), True)
    np.testing.assert_allclose(got[1], 0, atol=1e-15)
