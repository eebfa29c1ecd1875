"""The minimal LSTM: its equations in NumPy, every engine, and a Jacobian that is what the inputs say."""

import jax
import jax.numpy as jnp
import numpy as np

import jax_lstm as jl
from jax_lstm import gradflow

I, H, T = 3, 4, 6
CELL = jl.MinLSTM(I, H)
RNG = np.random.default_rng(0)
PARAMS = jl.MinLSTMParams(RNG.normal(size=(I, 3 * H)), RNG.normal(size=3 * H))
XS = np.random.default_rng(1).normal(size=(T, I))


def gates(xs):
    z_f, z_i, z_g = np.split(np.asarray(xs) @ np.asarray(PARAMS.w_x) + np.asarray(PARAMS.b), 3, axis=-1)
    f, i = 1 / (1 + np.exp(-z_f)), 1 / (1 + np.exp(-z_i))
    return f / (f + i), i / (f + i), z_g


def test_the_outputs_are_those_of_the_equations():
    keep, take, g = gates(XS)
    h, expected = np.zeros(H), []
    for t in range(T):
        h = keep[t] * h + take[t] * g[t]
        expected.append(h)
    state, hs = jl.unroll(CELL, PARAMS, XS)
    np.testing.assert_allclose(hs, expected, rtol=1e-12)
    np.testing.assert_allclose(state.h, expected[-1], rtol=1e-12)
    stepped = CELL.initial_state(PARAMS)
    for x in XS:
        stepped, _ = jl.step(CELL, PARAMS, stepped, x)
    np.testing.assert_allclose(stepped.h, state.h, rtol=1e-12)


def test_gradients_with_flags_and_vmap_match_the_plain_engine():
    mask, reset = jnp.array([1, 1, 0, 1, 1, 1], bool), jnp.array([0, 0, 0, 1, 0, 0], bool)

    def loss(params, xs, engine):
        return (jl.unroll(CELL, params, xs, None, mask, reset, engine=engine)[1] ** 2).sum()

    fast, plain = (jax.jit(jax.grad(lambda p, x, e=e: loss(p, x, e), (0, 1)))(PARAMS, XS) for e in ("hoisted", "plain"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), fast, plain)
    xs = jnp.stack([XS, 2 * XS])
    many = jax.vmap(jax.grad(lambda x: loss(PARAMS, x, "hoisted")))(xs)
    np.testing.assert_allclose(many[0], fast[1], rtol=1e-10, atol=1e-14)


def test_the_step_jacobian_is_diagonal_and_ignores_the_state():
    keep, _, _ = gates(XS)
    for state in (None, jl.MinLSTMState(jnp.full(H, 0.7))):
        jacobians = gradflow.step_jacobians(CELL, PARAMS, XS, state)
        np.testing.assert_allclose(jacobians, np.stack([np.diag(k) for k in keep]), rtol=1e-12, atol=1e-300)


def test_saturated_gates_neither_overflow_nor_divide_by_zero():
    params = jl.MinLSTMParams(jnp.ones((1, 3)), jnp.zeros(3))
    cell = jl.MinLSTM(1, 1)
    for x in (-1e4, 1e4):
        value, gradient = jax.value_and_grad(lambda p, x=x: jl.unroll(cell, p, jnp.full((3, 1), x))[0].h.sum())(params)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    # Both gates shut alike: h keeps half of itself, whatever f and i are.
    shut = gradflow.step_jacobians(cell, params, jnp.full((1, 1), -1e4))
    np.testing.assert_allclose(shut, 0.5)


def test_it_goes_to_plain_data_and_back():
    assert jl.from_config(jl.to_config(CELL)) == CELL
    assert jl.to_config(CELL)["cell"] == "MinLSTM"
