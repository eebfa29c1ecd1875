"""The log-norm of the product of Jacobians, against the product where that can be formed, and exactly where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagonal import Diagonal

import jax_lstm as jl
from jax_lstm.gradflow import sensitivity, step_jacobians

I, H, T = 3, 4, 12


def problem(cell, steps=T, dtype=jnp.float64):
    """Params and inputs."""
    return cell.init(jax.random.key(0), dtype), jax.random.normal(jax.random.key(1), (steps, I), dtype)


def naive(J):
    """The logs of the norms of J_T ⋯ J_{k+1}, multiplied as they stand."""
    product, log_norms = np.eye(J.shape[1], dtype=J.dtype), [0.0]
    for J_t in np.asarray(J)[::-1]:
        product = product @ J_t
        log_norms.append(np.log(np.linalg.norm(product, 2)))
    return np.array(log_norms[::-1])


def test_it_is_the_log_norm_of_the_product_of_jacobians(cell):
    params, xs = problem(cell)
    J = step_jacobians(cell, params, xs)
    got = sensitivity(cell, params, xs)
    np.testing.assert_allclose(got, naive(J), rtol=1e-12, atol=1e-12)
    assert np.abs(got - naive(np.swapaxes(J, 1, 2))).max() > 1e-3, "the product in the other order must not pass"


def test_it_starts_from_the_state_that_is_given(cell):
    params, xs = problem(cell)
    state = jax.tree.map(lambda s: s + 1, cell.initial_state(params))
    got = sensitivity(cell, params, xs, state)
    np.testing.assert_allclose(got, naive(step_jacobians(cell, params, xs, state)), rtol=1e-12, atol=1e-12)
    assert np.abs(got - sensitivity(cell, params, xs)).max() > 1e-3


def test_two_thousand_steps_in_float32_do_not_underflow():
    """The RNN's norm ends near 10⁻⁴⁶⁰, past the range of float64 too."""
    cell = jl.RNN(I, H)
    params, xs = problem(cell, steps=2000, dtype=jnp.float32)
    wide = sensitivity(cell, jax.tree.map(lambda p: p.astype(jnp.float64), params), xs.astype(jnp.float64))
    narrow = sensitivity(cell, params, xs)
    assert narrow.dtype == jnp.float32
    assert wide[0] < -1000
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-3)
    with np.errstate(divide="ignore"):
        assert naive(step_jacobians(cell, params, xs[-400:]))[0] == -np.inf, "the plain product must underflow"


def test_a_tiny_direction_counts_once_the_largest_becomes_zero():
    """J_t = diag(x_t): backwards, unit 1 falls to 10⁻⁶⁰ while unit 0 stands; then unit 0 dies."""
    cell = Diagonal()
    params = cell.init(jax.random.key(0), jnp.float32)
    xs = jnp.ones((62, 2), jnp.float32).at[2:, 1].set(0.1).at[1, 0].set(0.0)
    log_norms = sensitivity(cell, params, xs)
    np.testing.assert_allclose(log_norms[2:], 0, atol=1e-6)
    np.testing.assert_allclose(log_norms[:2], -60 * np.log(10), rtol=1e-5)


def test_a_norm_of_exactly_zero_is_minus_infinity_and_never_nan():
    cell = Diagonal()
    params = cell.init(jax.random.key(0), jnp.float32)
    log_norms = sensitivity(cell, params, jnp.ones((5, 2), jnp.float32).at[2].set(0))
    np.testing.assert_array_equal(log_norms, [-np.inf, -np.inf, -np.inf, 0, 0, 0])


def test_a_growing_norm_does_not_overflow():
    cell = Diagonal()
    params = cell.init(None, jnp.float32)
    at_rest = jax.tree.map(jnp.zeros_like, cell.initial_state(params))
    log_norms = sensitivity(cell, params, jnp.full((200, 2), 10.0, jnp.float32), at_rest)
    np.testing.assert_allclose(log_norms[0], 200 * np.log(10), rtol=1e-5)


def test_nan_is_not_hidden():
    cell = Diagonal()
    xs = jnp.ones((3, 2)).at[1, 0].set(jnp.nan)
    log_norms = sensitivity(cell, cell.init(jax.random.key(0), jnp.float64), xs)
    np.testing.assert_array_equal(np.isnan(log_norms), [True, True, False, False])


def test_without_weights_it_falls_by_log_sigma_b_f_a_step():
    """O4: a Jacobian of [[0, o f], [0, f]] with f = σ(b_f) and, at rest, o(1 − tanh² c) = ½."""
    cell = jl.LSTM(I, H, forget_bias=2.0)
    params, xs = problem(cell)
    params = params._replace(w_x=jnp.zeros_like(params.w_x), w_h=jnp.zeros_like(params.w_h))
    back = np.arange(T, 0, -1)
    want = -back * np.log1p(np.exp(-2.0)) + 0.5 * np.log(1.25)
    np.testing.assert_allclose(sensitivity(cell, params, xs), [*want, 0], rtol=1e-13)


def test_no_norm_is_above_pascanus_bound():
    """O8: ‖∏ J‖ ≤ (γ σ_max(W))^k, γ = 1 for tanh, ¼ for σ."""
    for activation, gamma in (("tanh", 1.0), ("sigmoid", 0.25)):
        cell = jl.RNN(I, H, activation)
        params, xs = problem(cell)
        params = params._replace(w_h=1.7 * params.w_h)  # orthogonal times 1.7
        bound = np.arange(T, -1, -1) * np.log(gamma * 1.7)
        assert (np.asarray(sensitivity(cell, params, xs)) <= bound + 1e-12).all()


def test_a_batch_is_a_vmap_and_a_jit_changes_nothing(cell):
    params, xs = problem(cell)
    batch = jnp.stack([xs, 2 * xs])
    one_by_one = jnp.stack([sensitivity(cell, params, xs) for xs in batch])
    together = jax.jit(jax.vmap(sensitivity, in_axes=(None, None, 0)))(cell, params, batch)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12, atol=1e-12)


def test_the_log_norm_of_zero_steps_is_zero(cell):
    params, xs = problem(cell)
    np.testing.assert_array_equal(sensitivity(cell, params, xs[:0]), [0])


def test_narrow_params_are_measured_in_float32():
    cell = jl.LSTM(I, H)
    params, xs = problem(cell, dtype=jnp.bfloat16)
    got = sensitivity(cell, params, xs)
    assert got.dtype == jnp.float32
    wide = sensitivity(cell, *jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs)))
    np.testing.assert_allclose(got, wide, atol=0.3)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda p, xs: (p, xs[:, :2]), ValueError, r"sensitivity: xs has 2 features"),
        (
            lambda p, xs: (jax.tree.map(lambda a: a.astype(jnp.float32), p), xs),
            TypeError,
            r"sensitivity: xs is float64",
        ),
        (lambda p, xs: (p, xs, xs), TypeError, r"sensitivity: state must be a LSTMState"),
    ],
)
def test_a_wrong_argument_is_named_in_one_sentence(wrong, error, message):
    cell = jl.LSTM(I, H)
    with pytest.raises(error, match=message):
        sensitivity(cell, *wrong(*problem(cell)))
