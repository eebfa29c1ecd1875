"""The memory horizon at rest against eigenvalues known exactly, and along data against a plain fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagonal import Diagonal, DiagonalState

import jax_lstm as jl
from jax_lstm.gradflow import data_horizon, horizon, sensitivity, step_jacobians

I, H = 3, 8


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def at_rest(cell, params):
    """The eigenvalues of the step's Jacobian, state and input zero."""
    return np.linalg.eigvals(np.asarray(step_jacobians(cell, params, jnp.zeros((1, I)))[0]))


def farthest(got, want):
    """The largest distance from an eigenvalue to its partner, each the nearest one that is left."""
    left, distances = list(got), []
    for value in sorted(want, key=abs, reverse=True):
        nearest = min(range(len(left)), key=lambda n: abs(left[n] - value))
        distances.append(abs(left.pop(nearest) - value))
    assert not left
    return max(distances)


@pytest.mark.parametrize("b_f", [0.0, 1.0])
def test_lstm_eigenvalues_at_rest_match_the_closed_form(b_f):
    """O3: σ(b_f) + λ(U_g)/4, H times, and H zeros."""
    cell = jl.LSTM(I, H, forget_bias=b_f)
    params = cell.init(jax.random.key(0), jnp.float64)
    U_g = np.split(np.asarray(params.w_h), 4, axis=1)[2].T
    live = sigmoid(b_f) + np.linalg.eigvals(U_g) / 4
    want = np.concatenate([live, np.zeros(H)])
    assert farthest(at_rest(cell, params), want) < 1e-12
    assert farthest(at_rest(cell, params), want + 0.01) > 5e-3, "another set must not pass"
    np.testing.assert_allclose(horizon(cell, params), -1 / np.log(np.abs(live).max()), rtol=1e-10)
    assert horizon(cell, params) <= -1 / np.log(sigmoid(b_f) + 0.25) + 1e-9


def test_gru_eigenvalues_at_rest_match_the_closed_form():
    """O3: ½ + λ(U_n)/4."""
    cell = jl.GRU(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    want = 0.5 + np.linalg.eigvals(np.split(np.asarray(params.w_h), 3, axis=1)[2].T) / 4
    assert farthest(at_rest(cell, params), want) < 1e-12
    np.testing.assert_allclose(horizon(cell, params), -1 / np.log(np.abs(want).max()), rtol=1e-10)


@pytest.mark.parametrize(("b_f", "stable"), [(1.09, True), (1.11, False)])
def test_the_lstm_at_rest_is_stable_below_a_forget_bias_of_log_3(b_f, stable):
    """Where 1 is an eigenvalue of U_g, the radius is σ(b_f) + ¼."""
    cell = jl.LSTM(I, H, forget_bias=b_f)
    params = cell.init(jax.random.key(0), jnp.float64)
    w_h = params.w_h.at[:, 2 * H : 3 * H].set(jnp.eye(H))
    steps = horizon(cell, params._replace(w_h=w_h))
    assert bool(np.isfinite(steps)) == stable
    if stable:
        np.testing.assert_allclose(steps, -1 / np.log(sigmoid(b_f) + 0.25), rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_an_orthogonal_tanh_rnn_has_an_infinite_horizon_at_rest(dtype):
    cell = jl.RNN(I, H)
    assert horizon(cell, cell.init(jax.random.key(0), dtype)) == jnp.inf


def test_the_horizon_is_infinite_only_if_the_radius_reaches_one():
    cell, N = jl.RNN(I, H, "linear"), H
    params = cell.init(jax.random.key(0), jnp.float64)
    eps = np.finfo(np.float64).eps

    def of(radius):
        return float(horizon(cell, params._replace(w_h=jnp.diag(jnp.linspace(0.1, radius, H)))))

    assert of(1.0) == np.inf
    assert of(1 - 5 * eps * N) == np.inf
    assert of(2.0) == np.inf
    np.testing.assert_allclose(of(1 - 1e-9), 1e9, rtol=1e-4)
    np.testing.assert_allclose(of(0.5), 1 / np.log(2), rtol=1e-12)


def test_a_radius_of_zero_is_a_horizon_of_no_steps():
    cell = jl.RNN(I, H, "linear")
    params = cell.init(jax.random.key(0), jnp.float64)
    assert horizon(cell, params._replace(w_h=jnp.zeros((H, H)))) == 0
    assert horizon(cell, params._replace(w_h=jnp.eye(H, k=1))) == 0, "nilpotent, though its norm is 1"


@pytest.mark.parametrize("cell", [jl.LSTM(I, H), jl.GRU(I, H)], ids=["LSTM", "GRU"])
def test_float32_gives_the_horizon_of_float64(cell):
    params = cell.init(jax.random.key(0), jnp.float32)
    wide = horizon(cell, jax.tree.map(lambda p: p.astype(jnp.float64), params))
    np.testing.assert_allclose(horizon(cell, params), wide, rtol=1e-4)


def test_the_horizon_works_at_any_state_under_jit_and_vmap(cell):
    params = cell.init(jax.random.key(0), jnp.float64)
    state = jax.tree.map(lambda s: s + 0.5, cell.initial_state(params))
    xs = jax.random.normal(jax.random.key(1), (3, 3))
    J = np.stack([step_jacobians(cell, params, x[None], state)[0] for x in xs])
    radii = np.abs(np.linalg.eigvals(J)).max(1)
    want = np.where(radii < 1, -1 / np.log(radii), np.inf)
    got = jax.jit(jax.vmap(horizon, in_axes=(None, None, None, 0)))(cell, params, state, xs)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_at_rest_the_state_is_zero_for_any_initial_state():
    cell = Diagonal()
    params = cell.init(None, jnp.float64)
    assert horizon(cell, params) == 0
    x = jnp.array([0.25, 0.5])
    np.testing.assert_allclose(horizon(cell, params, DiagonalState(jnp.ones(1), jnp.ones((1, 1))), x), 1 / np.log(2))


def test_the_data_horizon_is_one_over_the_slope_of_the_log_norms(cell):
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (20, 3))
    log_norms = sensitivity(cell, params, xs)
    slope = np.polyfit(np.arange(21), log_norms, 1)[0]
    np.testing.assert_allclose(data_horizon(cell, params, xs), 1 / slope, rtol=1e-10)
    mapped = jax.jit(jax.vmap(data_horizon, in_axes=(None, None, 0)))(cell, params, xs[None])
    np.testing.assert_allclose(mapped, [1 / slope], rtol=1e-10)


def test_the_data_horizon_of_a_known_decay_is_known():
    cell = Diagonal()
    params = cell.init(None, jnp.float64)
    decay = jnp.full((30, 2), jnp.exp(-0.25))
    np.testing.assert_allclose(data_horizon(cell, params, decay), 4, rtol=1e-12)
    np.testing.assert_allclose(data_horizon(cell, params, decay.at[3].set(0)), 4, rtol=1e-12)
    assert data_horizon(cell, params, jnp.ones((30, 2))) == jnp.inf
    assert data_horizon(cell, params, 2 * jnp.ones((30, 2))) == jnp.inf
    assert data_horizon(cell, params, jnp.zeros((30, 2))) == 0
    assert jnp.isnan(data_horizon(cell, params, decay.at[3].set(jnp.nan)))


def test_a_wrong_argument_is_named_in_one_sentence():
    cell = jl.LSTM(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises(ValueError, match=r"horizon: x must have shape \(I,\)"):
        horizon(cell, params, None, jnp.zeros((1, I)))
    with pytest.raises(TypeError, match="horizon: state must be a LSTMState"):
        horizon(cell, params, (jnp.zeros(H), jnp.zeros(H)))
    with pytest.raises(ValueError, match="data_horizon: xs must have at least 1 step"):
        data_horizon(cell, params, jnp.zeros((0, I)))
