"""Every singular value of a product of Jacobians, to its own precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fed import fed

import jax_lstm as jl
from jax_lstm.gradflow import sensitivity, singular_values, step_jacobians

I, H, T = 3, 4, 12


def problem(cell, steps=T, dtype=jnp.float64):
    """Params and inputs."""
    return cell.init(jax.random.key(0), dtype), jax.random.normal(jax.random.key(1), (steps, I), dtype)


def matrices(steps, N=5, seed=0):
    """Well-conditioned, with gains that differ."""
    rng = np.random.default_rng(seed)
    return np.stack([np.linalg.qr(rng.normal(size=(N, N)))[0] * 2.0 ** rng.integers(-3, 2, N) for _ in range(steps)])


def test_they_are_those_of_the_product_of_jacobians(cell):
    params, xs = problem(cell, steps=5)
    got, product = singular_values(cell, params, xs), np.eye(len(step_jacobians(cell, params, xs)[0]))
    for k in range(5, -1, -1):
        sigma = np.linalg.svd(product, compute_uv=False)
        resolved = sigma > 1e-7 * sigma[0]  # of these NumPy's own error is below 1e-9
        np.testing.assert_allclose(got[k][resolved], np.log(sigma[resolved]), rtol=1e-8, atol=1e-8)
        product = product @ step_jacobians(cell, params, xs)[k - 1]


def test_the_first_is_the_sensitivity_and_no_other_is_larger(cell):
    params, xs = problem(cell, steps=200)
    got = singular_values(cell, params, xs)
    np.testing.assert_allclose(got[:, 0], sensitivity(cell, params, xs), rtol=1e-12, atol=1e-12)
    assert (np.diff(got, axis=1) <= 0).all()
    np.testing.assert_array_equal(singular_values(cell, params, xs, k=2), got[:, :2])


def test_the_product_and_its_adjoint_have_equal_singular_values():
    """O12: of A_T ⋯ A_1 and of A_1ᵀ ⋯ A_Tᵀ; 300 steps, past the range of float64."""
    A = matrices(300)
    forward = singular_values(*fed(A))[0]
    adjoint = singular_values(*fed(np.swapaxes(A, 1, 2)[::-1]))[0]
    np.testing.assert_allclose(forward, adjoint, rtol=1e-10)
    assert forward[0] - forward[-1] > 100, "an SVD of the product would see rounding only"


def test_the_small_ones_are_as_exact_as_the_large_ones():
    """They are the large ones of the inverse product, A_1⁻¹ ⋯ A_T⁻¹."""
    A = matrices(60)
    inverse = singular_values(*fed(np.linalg.inv(A)[::-1]))[0]
    np.testing.assert_allclose(singular_values(*fed(A))[0], -inverse[::-1], rtol=1e-9)


def test_close_ones_are_told_apart_from_equal_ones():
    """Rotations, with one gain in a hundred between two directions: log 1.01, 0, 0, −log 1.01."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 4, 4)))[0]
    A = Q[0] @ np.diag([1.01, 1.0, 1.0, 1 / 1.01]) @ Q[1]
    got = singular_values(*fed(A[None]))[0]
    np.testing.assert_allclose(got, np.log([1.01, 1.0, 1.0, 1 / 1.01]), atol=1e-13)


def test_a_lost_direction_has_log_singular_value_minus_infinity():
    A = matrices(4)
    A[1] = np.diag([1.0, 1.0, 0.0, 1.0, 0.0])
    A[2:] = np.eye(5)
    A[0] = np.eye(5)
    got = singular_values(*fed(A))
    np.testing.assert_array_equal(np.isneginf(got), [[0, 0, 0, 1, 1]] * 2 + [[0] * 5] * 3)
    assert not np.isnan(got).any()


def test_nan_is_not_hidden():
    A = matrices(3)
    A[1, 0, 0] = np.nan
    assert np.isnan(singular_values(*fed(A))[0]).all()


def test_a_batch_is_a_vmap(cell):
    params, xs = problem(cell, steps=4)
    batch = jnp.stack([xs, 2 * xs])
    together = jax.vmap(partial(singular_values, k=3), in_axes=(None, None, 0))(cell, params, batch)
    one_by_one = [singular_values(cell, params, xs, k=3) for xs in batch]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-9, atol=1e-12)


def test_k_above_the_state_size_is_refused():
    cell = jl.LSTM(I, H)
    with pytest.raises(ValueError, match="singular_values: k must be at most 8, the size of the state, but is 9"):
        singular_values(cell, *problem(cell), k=9)
