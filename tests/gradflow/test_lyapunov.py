"""Lyapunov exponents, where they are known exactly or from the literature."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from fed import fed

import jax_lstm as jl
from jax_lstm.gradflow import (
    lyapunov_exponents,
    lyapunov_init,
    lyapunov_spectrum,
    lyapunov_update,
    step_jacobians,
)

I, H, T = 3, 4, 12


def problem(cell, steps=T, dtype=jnp.float64):
    """Params and inputs."""
    return cell.init(jax.random.key(0), dtype), jax.random.normal(jax.random.key(1), (steps, I), dtype)


def naive(J, burn_in=0):
    """The exponents by a loop over QR decompositions in NumPy."""
    Q, logs = np.eye(J.shape[1]), []
    for J_t in np.asarray(J):
        Q, R = np.linalg.qr(J_t @ Q)
        logs.append(np.log(np.abs(np.diag(R))))
    return np.sort(np.mean(logs[burn_in:], axis=0))[::-1]


@pytest.mark.parametrize("burn_in", [0, 5])
def test_they_are_the_mean_logs_of_the_diagonal_of_r(cell, burn_in):
    params, xs = problem(cell)
    J = step_jacobians(cell, params, xs)
    got = lyapunov_spectrum(cell, params, xs, burn_in=burn_in)
    np.testing.assert_allclose(got, naive(J, burn_in), rtol=1e-9)
    assert np.abs(got - naive(np.swapaxes(J, 1, 2), burn_in)).max() > 1e-3, "transposed Jacobians must not pass"


def test_the_sum_is_the_time_average_of_the_log_determinant():
    """O2, from the gates: Σ log f + Σ log|tanh(c') o (1 − o)| + log|det U_o|."""
    cell = jl.LSTM(I, H)
    params, xs = problem(cell, steps=500)
    states = jl.unroll_states(cell, params, xs)
    before = jax.tree.map(lambda s: jnp.concatenate([jnp.zeros_like(s[:1]), s[:-1]]), states)
    _, f, _, o = jax.vmap(lambda s, x: cell.gates(params, s, x))(before, xs)
    U_o = np.split(np.asarray(params.w_h), 4, axis=1)[3]
    want = np.log(f).sum(1) + np.log(np.abs(np.tanh(states.c) * o * (1 - o))).sum(1) + np.linalg.slogdet(U_o)[1]
    got = lyapunov_spectrum(cell, params, xs).sum()
    np.testing.assert_allclose(got, want.mean(), rtol=1e-10)
    assert abs(got - (want - np.log(f).sum(1)).mean()) > 0.1


@pytest.mark.parametrize("b_f", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_without_weights_exponents_are_log_f_or_minus_infinity(b_f, dtype):
    """O4; −0.6931, −0.3133, −0.1269."""
    cell = jl.LSTM(I, H, forget_bias=b_f)
    params, xs = problem(cell, dtype=dtype)
    params = params._replace(w_x=0 * params.w_x, w_h=0 * params.w_h)
    want = -np.log1p(np.exp(-b_f))
    np.testing.assert_allclose(want, {0.0: -0.6931, 1.0: -0.3133, 2.0: -0.1269}[b_f], atol=5e-5)
    got = lyapunov_spectrum(cell, params, xs)
    np.testing.assert_allclose(got[:H], want, rtol=1e-6 if dtype == jnp.float32 else 1e-13)
    np.testing.assert_array_equal(got[H:], -np.inf)
    one = lyapunov_spectrum(cell, params, xs, k=1, burn_in=1)
    np.testing.assert_allclose(one, [want], rtol=1e-6)


def test_the_constant_error_carousel_has_exponent_zero():
    """O5: i = 0 and f = 1."""
    cell = jl.LSTM(I, H)
    params, xs = problem(cell)
    b_i, b_f, b_g, b_o = jnp.split(params.b, 4)
    params = params._replace(b=jnp.concatenate([b_i - 1e3, b_f + 1e3, b_g, b_o]))
    state = jl.LSTMState(jnp.zeros(H), jnp.linspace(-1.0, 1.0, H))
    truncated = lyapunov_spectrum(cell, params, xs, state, truncate="1997")
    np.testing.assert_array_equal(truncated[H:], -np.inf)
    np.testing.assert_allclose(truncated[:H], 0, atol=1e-14)
    np.testing.assert_allclose(lyapunov_spectrum(cell, params, xs, state)[:H], 0, atol=1e-14)


def test_exponents_of_a_linear_network_are_its_log_eigenvalues():
    """O6. At rest every step has the Jacobian W."""
    cell = jl.RNN(I, H, "linear")
    params, _ = problem(cell)
    W = np.array([[0.9, 0.3, 0, 0.1], [0, -0.5, 0.2, 0], [0.1, 0, 0.3, 0.1], [0, 0.2, 0, 0.1]])
    params = params._replace(w_h=jnp.asarray(W.T))
    want = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
    got = lyapunov_spectrum(cell, params, jnp.zeros((2000, I)), burn_in=500)
    np.testing.assert_allclose(got, want, atol=2e-4)
    assert np.abs(naive(np.repeat(W[None], 3, 0)) - want).max() > 0.01, "three steps must not do"


def test_an_orthogonal_linear_network_has_exponents_of_zero():
    """O6, to 1e-6."""
    cell = jl.RNN(I, H, "linear")
    params, _ = problem(cell)
    np.testing.assert_allclose(lyapunov_spectrum(cell, params, jnp.zeros((10_000, I))), 0, atol=1e-6)


def test_the_logistic_map_has_log_two():
    """O7, r = 4."""
    got = lyapunov_exponents(lambda s: 4 * s * (1 - s), jnp.array([0.3]), steps=100_000)
    np.testing.assert_allclose(got, [np.log(2)], atol=1e-4)


def test_the_henon_map_has_its_published_exponents_and_sum():
    """O7, a = 1.4, b = 0.3: 0.4192, −1.6232, sum ln 0.3."""

    def henon(s):
        x, y = s
        return 1 - 1.4 * x * x + y, 0.3 * x

    got = lyapunov_exponents(henon, (jnp.zeros(1), jnp.zeros(1)), steps=100_000, burn_in=100)
    np.testing.assert_allclose(got, [0.4192, -1.6232], atol=3e-3)
    np.testing.assert_allclose(got.sum(), np.log(0.3), rtol=1e-12)


def test_the_lorenz_system_has_its_published_exponents():
    """O7: 0.9056, 0, −14.572 per unit of time, sum −13.667."""
    dt = 0.01

    def lorenz(s):
        x, y, z = s
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    def runge_kutta(s):
        k1 = lorenz(s)
        k2 = lorenz(s + dt / 2 * k1)
        k3 = lorenz(s + dt / 2 * k2)
        return s + dt / 6 * (k1 + 2 * k2 + 2 * k3 + lorenz(s + dt * k3))

    got = lyapunov_exponents(runge_kutta, jnp.array([1.0, 1.0, 20.0]), steps=100_000, burn_in=2_000) / dt
    np.testing.assert_allclose(got, [0.9056, 0, -14.572], atol=0.02)
    np.testing.assert_allclose(got.sum(), -13.667, atol=2e-3)


@pytest.mark.parametrize(("gain", "sign"), [(0.8, -1), (1.5, 1), (3.0, 1)])
def test_a_random_network_is_chaotic_from_a_gain_of_one_on(gain, sign):
    """O13, N = 200 (Sompolinsky, Crisanti & Sommers 1988)."""
    N = 200
    W = gain / np.sqrt(N) * np.random.default_rng(0).normal(size=(N, N))
    s = jnp.asarray(np.random.default_rng(1).normal(size=N))
    got = lyapunov_exponents(lambda s: jnp.tanh(W @ s), s, steps=1000, k=1, burn_in=200)
    assert sign * got[0] > 0.02


def test_the_largest_k_equal_those_of_the_whole_spectrum():
    cell = jl.LSTM(I, H)
    params, xs = problem(cell, steps=3000)
    every = lyapunov_spectrum(cell, params, xs, burn_in=200)
    np.testing.assert_allclose(lyapunov_spectrum(cell, params, xs, k=3, burn_in=200), every[:3], atol=2e-3)
    assert every[2] - every[3] > 0.01


def test_they_can_be_differentiated():
    cell = jl.RNN(I, H)
    params, xs = problem(cell)
    loss = lambda params: (lyapunov_spectrum(cell, params, xs, k=2) ** 2).sum()  # noqa: E731
    jax.test_util.check_grads(loss, (params,), order=1, modes=("rev",), rtol=1e-5, atol=1e-6)
    assert np.abs(jax.grad(loss)(params).w_h).max() > 1e-3


def test_a_stream_gives_the_spectrum_of_the_whole_at_every_step(cell):
    params, xs = problem(cell)
    running = lyapunov_init(cell.initial_state(params), k=3)
    for t, x in enumerate(xs, 1):
        running = lyapunov_update(cell, params, running, x)
        if t in (1, T):
            np.testing.assert_allclose(running.exponents, lyapunov_spectrum(cell, params, xs[:t], k=3), rtol=1e-10)
    np.testing.assert_allclose(running.state.h, jl.unroll(cell, params, xs)[0].h, rtol=1e-12)
    assert np.isnan(lyapunov_init(cell.initial_state(params)).exponents).all()


def test_one_singular_step_gives_an_exponent_of_minus_infinity():
    matrices = np.random.default_rng(0).normal(size=(6, 3, 3))
    matrices[2] = np.diag([1.0, 1.0, 0.0])
    matrices[:2] = np.eye(3)
    got = lyapunov_spectrum(*fed(matrices))
    assert got[2] == -np.inf
    assert np.isfinite(got[:2]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_direction_lost_up_to_rounding_has_exponent_minus_inf(dtype):
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    got = lyapunov_spectrum(*fed(np.repeat((Q @ np.diag([1.0, 0.5, 0.0]) @ Q.T)[None], 200, 0).astype(dtype)))
    np.testing.assert_allclose(got[:2], [0, np.log(0.5)], atol=0.02)
    assert got[2] == -np.inf


@pytest.mark.parametrize("small", [1e-9, 1e-20, 1e-200])
def test_a_direction_that_is_small_is_not_lost(small):
    """A gate that is nearly shut at every step, beside one that is open."""
    got = lyapunov_spectrum(*fed(np.repeat(np.diag([1.0, small])[None], 5, 0)))
    np.testing.assert_allclose(got, [0, np.log(small)], atol=1e-12)


def test_large_jacobians_do_not_overflow():
    got = lyapunov_exponents(lambda s: jnp.float32(1e20) * s, jnp.full(2, 1e-38, jnp.float32), steps=1)
    np.testing.assert_allclose(got, 20 * np.log(10), rtol=1e-6)


def test_narrow_params_give_the_exponents_of_their_jacobians():
    cell = jl.RNN(I, H)
    params, xs = problem(cell, steps=50, dtype=jnp.bfloat16)
    xs = xs / 4  # driven harder, a slope rounds to zero, and one exponent is of rounding only
    J = np.asarray(step_jacobians(cell, params, xs).astype(jnp.float32))
    np.testing.assert_allclose(lyapunov_spectrum(cell, params, xs), naive(J), rtol=1e-4, atol=1e-4)


def test_stacked_estimates_are_those_of_every_step():
    cell = jl.LSTM(I, H)
    params, xs = problem(cell)
    start = lyapunov_init(cell.initial_state(params))
    _, stacked = jax.lax.scan(lambda r, x: (lyapunov_update(cell, params, r, x),) * 2, start, xs)
    np.testing.assert_allclose(stacked.exponents[3], lyapunov_spectrum(cell, params, xs[:4]), rtol=1e-10)


def test_nan_is_not_hidden():
    cell = jl.LSTM(I, H)
    params, xs = problem(cell)
    assert np.isnan(lyapunov_spectrum(cell, params, xs.at[3].set(jnp.nan))).any()


def test_a_batch_is_a_vmap(cell):
    params, xs = problem(cell)
    batch = jnp.stack([xs, 2 * xs])
    together = jax.vmap(partial(lyapunov_spectrum, k=2), in_axes=(None, None, 0))(cell, params, batch)
    np.testing.assert_allclose(together, [lyapunov_spectrum(cell, params, xs, k=2) for xs in batch], rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs[:0]), ValueError, "at least 1 step must be left after burn_in"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, burn_in=T), ValueError, "burn_in is 12 and there are 12 steps"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, k=9), ValueError, "k must be at most 8, the size of the state"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, k=0), ValueError, "k must be at least 1"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, k=jnp.array(2)), TypeError, "k must be a Python value"),
        (
            lambda c, p, xs: lyapunov_spectrum(c, p, xs, truncate="1998"),
            ValueError,
            'truncate must be None or "1997", but is .1998.',
        ),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs[:, :2]), ValueError, "lyapunov_spectrum: xs has 2 features"),
        (
            lambda c, p, xs: lyapunov_exponents(jnp.tanh, xs),
            ValueError,
            "exactly one of xs and steps must be given, but neither came",
        ),
        (lambda c, p, xs: lyapunov_exponents(3, xs, steps=2), TypeError, "step_fn must be a function"),
        (lambda c, p, xs: lyapunov_exponents(jnp.tanh, [1.0], steps=2), TypeError, "every leaf of state"),
        (lambda c, p, xs: lyapunov_update(c, p, lyapunov_init(p), xs[0]), TypeError, "state must be a LSTMState"),
        (lambda c, p, xs: lyapunov_update(c, p, p, xs[0]), TypeError, "running must be a LyapunovState"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, burn_in=-1), ValueError, "burn_in must be at least 0, but is -1"),
        (lambda c, p, xs: lyapunov_spectrum(c, p, xs, burn_in=0.0), TypeError, "burn_in must be a Python integer"),
        (lambda c, p, xs: lyapunov_exponents(lambda s, x: s, xs[0], ()), ValueError, "same leading axis of steps"),
        (
            lambda c, p, xs: lyapunov_exponents(lambda s: (s, s), xs[0], steps=2),
            ValueError,
            "step_fn must return a state",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(call, error, message):
    cell = jl.LSTM(I, H)
    with pytest.raises(error, match=message):
        call(cell, *problem(cell))
