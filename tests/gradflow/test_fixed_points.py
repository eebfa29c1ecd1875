"""Fixed points that are known in closed form."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

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


# Cells of which an entry moves by a constant per step until it meets a limit.


def slstm_step(cell, params, s, x):
    """One step of an sLSTM, from its equations; s is (h, c, n, m) in one vector."""
    w_x, w_h, b = (np.asarray(a) for a in params)
    h, c, n, m = np.split(s, 4)
    zh = [h_k @ w_k for h_k, w_k in zip(np.split(h, cell.heads), w_h, strict=True)]
    zh = np.concatenate([np.concatenate([np.split(z, 4)[gate] for z in zh]) for gate in range(4)])
    z_i, z_f, z_g, z_o = np.split(x @ w_x + zh + b, 4)
    ln_f = z_f if cell.forget_gate == "exp" else -np.log1p(np.exp(-z_f))
    m_t = np.maximum(ln_f + m, z_i)
    i, f = np.exp(z_i - m_t), np.exp(ln_f + m - m_t)
    c, n = f * c + i * np.tanh(z_g), f * n + i
    return np.concatenate([c / n / (1 + np.exp(-z_o)), c, n, m_t])


SLSTMS = {
    "sigmoid": jl.SLSTM(I, 4),
    "exp": jl.SLSTM(I, 4, forget_gate="exp", forget_bias=-3),
    "two heads": jl.SLSTM(I, 4, heads=2),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_except([("sigmoid", "float64")], [(name, f"float{n}") for name in SLSTMS for n in (32, 64)]),
)
def test_every_start_of_an_slstm_converges_as_simulation_does(name, dtype):
    cell = SLSTMS[name]
    params = cell.init(jax.random.key(0), dtype)
    rng = np.random.default_rng(1)
    x, xs = (rng.normal(size=s).astype(dtype) for s in (I, (39, I)))
    starts = jax.tree.map(
        lambda s_0, s: jnp.concatenate([s_0[None], s]), cell.initial_state(params), jl.unroll_states(cell, params, xs)
    )
    found = fixed_points(cell, params, x, starts, iterations=40)
    atol = 1e-4 if dtype == "float32" else 1e-9
    assert int((np.asarray(found.speeds) < atol).sum()) == 40
    s = np.concatenate([np.asarray(leaf[0], np.float64) for leaf in jl.unroll_states(cell, params, xs[:1])])
    for _ in range(3000):
        s = slstm_step(cell, params, s, x)
    stable = (np.abs(found.eigenvalues) < 1).all(axis=1)
    assert stable.sum() >= 38
    for k, leaf in enumerate(found.points):
        np.testing.assert_allclose(leaf[stable], np.tile(np.split(s, 4)[k], (stable.sum(), 1)), rtol=atol, atol=atol)
    small = np.eye(16) * 1e-6
    J = [(slstm_step(cell, params, s + e, x) - slstm_step(cell, params, s - e, x)) / 2e-6 for e in small]
    want = np.sort(np.abs(np.linalg.eigvals(np.stack(J))))
    got = np.sort(np.abs(found.eigenvalues[np.argmax(stable)]))
    np.testing.assert_allclose(got, want, atol=1e-2 if dtype == "float32" else 1e-4)


class Counting(NamedTuple):
    h: Any
    k: Any


@dataclass(frozen=True)
class Counter(jl.RNN):
    """h_t = tanh(w h_{t−1} + x_t + k_t / 10); k counts the steps, up to 20."""

    def initial_state(self, params, like=None):  # pyrefly: ignore[bad-override]
        return Counting(jnp.zeros_like(params.b), jnp.zeros_like(params.b))

    def update(self, params, state, z):  # pyrefly: ignore[bad-override]
        k = jnp.minimum(state.k + 1, 20)
        return Counting(jnp.tanh(z + k / 10), k)


@dataclass(frozen=True)
class LogMax(jl.RNN):
    """h_t = tanh(z − l_t), where l_t = max(l_{t−1} − 0.1, z) is a decaying maximum in the log domain."""

    def initial_state(self, params, like=None):  # pyrefly: ignore[bad-override]
        return Counting(jnp.zeros_like(params.b), jnp.full_like(params.b, -1e300))

    def update(self, params, state, z):  # pyrefly: ignore[bad-override]
        k = jnp.maximum(state.k - 0.1, z)
        return Counting(jnp.tanh(z - k / 2), k)


@pytest.mark.parametrize("cell", [Counter(I, H), LogMax(I, H)], ids=["counter", "decaying maximum"])
def test_an_own_cell_with_an_entry_of_constant_speed_converges(cell):
    params = cell.init(jax.random.key(0), jnp.float64)
    rng = np.random.default_rng(1)
    starts = Counting(jnp.asarray(rng.normal(size=(40, H))), jnp.asarray(rng.uniform(-1, 9, size=(40, H))))
    x = jnp.asarray(rng.normal(size=I))
    found = fixed_points(cell, params, x, starts, iterations=40)
    assert int((np.asarray(found.speeds) < 1e-9).sum()) == 40
    s = jax.tree.map(lambda a: a[0], starts)
    for _ in range(200):
        s = cell.step(params, s, x)[0]
    np.testing.assert_allclose(found.points.h, np.tile(s.h, (40, 1)), atol=1e-9)
    np.testing.assert_allclose(found.points.k, np.tile(s.k, (40, 1)), atol=1e-9)


@pytest.mark.slow
def test_a_gru_that_stops_at_a_slow_point_is_searched_again():
    cell = jl.GRU(I, 8)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(w_x=2 * params.w_x, w_h=2 * params.w_h)
    xs = np.random.default_rng(1).normal(size=(40, I))
    found = fixed_points(cell, params, xs[0], jl.unroll_states(cell, params, xs))
    assert int((np.asarray(found.speeds) < 1e-7).sum()) == 40
