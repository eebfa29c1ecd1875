"""Fixed points that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.gradflow import fixed_points

I, H = 2, 3
RNG = np.random.default_rng(0)


def sorted_complex(z):
    """In one order for both."""
    return np.sort_complex(np.round(np.asarray(z), 9))


def test_a_linear_network_rests_where_its_equation_says():
    """s = W s + w_x x + b."""
    cell = jl.RNN(I, H, "linear")
    params = jl.RNNParams(*(jnp.asarray(RNG.normal(size=s)) for s in ((I, H), (H, H), (H,))))
    x = jnp.asarray(RNG.normal(size=I))
    found = fixed_points(cell, params, x, jl.RNNState(jnp.asarray(RNG.normal(size=(4, H)))))
    W = np.asarray(params.w_h).T
    want = np.linalg.solve(np.eye(H) - W, x @ params.w_x + params.b)
    np.testing.assert_allclose(found.points.h, np.tile(want, (4, 1)), rtol=1e-9)
    np.testing.assert_allclose(found.speeds, 0, atol=1e-12)
    for z in found.eigenvalues:
        np.testing.assert_allclose(sorted_complex(z), sorted_complex(np.linalg.eigvals(W)), atol=1e-8)


def test_a_bistable_unit_has_two_stable_and_one_unstable_point():
    """h = tanh(2 h): 0 and ±0.9575, with slopes 2 and 2 (1 − h²)."""
    cell = jl.RNN(1, 1)
    params = jl.RNNParams(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0), jnp.zeros(1))
    found = fixed_points(cell, params, jnp.zeros(1), jl.RNNState(jnp.array([[-0.8], [0.01], [0.8]])))
    h = 0.9575040240772687
    np.testing.assert_allclose(found.points.h[:, 0], [-h, 0, h], atol=1e-9)
    np.testing.assert_allclose(found.eigenvalues[:, 0].real, [2 * (1 - h * h), 2, 2 * (1 - h * h)], atol=1e-8)


def test_lstm_eigenvalues_at_rest_match_the_closed_form():
    """O3: σ(b_f) + λ(U_g)/4, and H zeros."""
    cell = jl.LSTM(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    found = fixed_points(cell, params, jnp.zeros(I), jl.LSTMState(jnp.zeros((1, H)), jnp.zeros((1, H))))
    U_g = np.split(np.asarray(params.w_h), 4, axis=1)[2].T
    want = np.concatenate([np.zeros(H), 1 / (1 + np.exp(-1.0)) + np.linalg.eigvals(U_g) / 4])
    np.testing.assert_allclose(sorted_complex(found.eigenvalues[0]), sorted_complex(want), atol=1e-7)
    np.testing.assert_array_equal(found.speeds, 0)


def test_a_gru_at_rest_has_those_of_its_candidate():
    """O3: ½ + λ(U_h)/4."""
    cell = jl.GRU(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    found = fixed_points(cell, params, jnp.zeros(I), jl.GRUState(jnp.zeros((1, H))))
    U_h = np.split(np.asarray(params.w_h), 3, axis=1)[2].T
    np.testing.assert_allclose(
        sorted_complex(found.eigenvalues[0]), sorted_complex(0.5 + np.linalg.eigvals(U_h) / 4), atol=1e-7
    )


def test_narrow_params_are_searched_in_float32():
    cell = jl.RNN(1, 1)
    params = jl.RNNParams(*(jnp.asarray(a, jnp.bfloat16) for a in ([[0.0]], [[2.0]], [0.0])))
    starts = jl.RNNState(jnp.array([[0.8]], jnp.bfloat16))
    found = fixed_points(cell, params, jnp.zeros(1, jnp.bfloat16), starts)
    np.testing.assert_allclose(found.points.h, [[0.957504]], atol=1e-5)


def test_without_a_fixed_point_the_speed_is_not_zero():
    """h ↦ h + 1."""
    cell = jl.RNN(1, 1, "linear")
    params = jl.RNNParams(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones(1))
    found = fixed_points(cell, params, jnp.zeros(1), jl.RNNState(jnp.zeros((1, 1))))
    np.testing.assert_allclose(found.speeds, [1.0])


@pytest.mark.parametrize(
    ("starts", "error", "message"),
    [
        (jl.RNNState(np.zeros(())), ValueError, "every leaf of starts must have the same leading axis"),
        (jl.RNNState(np.zeros((0, H))), ValueError, "starts must have at least 1 entry"),
        (jl.RNNState(np.zeros((2, H + 1))), ValueError, "state.h has shape"),
        (jl.GRUState(np.zeros((2, H))), TypeError, "state must be a RNNState"),
    ],
)
def test_wrong_starts_are_refused(starts, error, message):
    cell = jl.RNN(I, H)
    with pytest.raises(error, match=f"fixed_points: {message}"):
        fixed_points(cell, cell.init(jax.random.key(0), jnp.float64), jnp.zeros(I), starts)
