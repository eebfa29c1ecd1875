"""JANET: its equation and its derivative in NumPy, its gates at their ends, and what its fields do."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jax_lstm as jl

I, H, T = 3, 4, 6
CELL = jl.JANET(I, H)
MASK, RESET = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 1, 0, 1, 0], bool)


def normal(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


PARAMS = jl.JANETParams(normal(0, I, 2 * H), normal(0, H, 2 * H), normal(0, 2 * H))
XS, STATE, WEIGHTS = normal(1, T, I), jl.JANETState(normal(1, H)), (normal(2, H), normal(2, T, H))


@jax.jit
@partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
def with_gradient(params, xs, state):
    (h,), hs = jl.unroll(CELL, params, xs, state, MASK, RESET)
    return sum(jnp.vdot(jnp.asarray(w, y.dtype), y) for w, y in zip(WEIGHTS, (h, hs), strict=True)), (h, hs)


def test_outputs_and_every_gradient_are_those_of_the_equation():
    (_, outputs), gradient = with_gradient(PARAMS, XS, STATE)
    (h,), hs = reference.unroll(reference.janet, PARAMS, XS, STATE, MASK, RESET)
    for ours, theirs in zip(outputs, (h, hs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    expected = reference.gradient(reference.janet, PARAMS, XS, STATE, WEIGHTS, mask=MASK, reset=RESET)
    for ours, theirs in zip(jax.tree.leaves(gradient), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("beta", [-0.5, 0.0, 1.0, 3])
def test_a_step_and_its_derivative_match_numpy_for_every_beta(beta):
    cell = jl.JANET(I, H, beta=beta)
    z, dz, dh = (jnp.asarray(normal(*a)) for a in ((3, 2 * H), (5, 2 * H), (3, H)))

    def step(h, z):  # NumPy's, with all of z in the bias
        zero = np.zeros((H, 2 * H))
        return reference.janet((np.zeros((I, 2 * H)), zero, z), (h,), np.zeros(I), beta)

    state = jl.JANETState(jnp.asarray(STATE.h))
    of_step = partial(cell.update, PARAMS)
    h_t, along = jax.jvp(lambda state, z: of_step(state, z).h, (state, z), (jl.JANETState(dh), dz))
    in_numpy = STATE.h, np.asarray(z) + PARAMS.b
    np.testing.assert_allclose(h_t, step(*in_numpy)[0], rtol=0, atol=1e-12)
    expected = reference.derivative(step, in_numpy, (np.asarray(dh), np.asarray(dz)))[0]
    np.testing.assert_allclose(along, expected, rtol=0, atol=1e-12)


def test_another_beta_is_another_cell():
    z, state = jnp.asarray(normal(3, 2 * H)), jl.JANETState(jnp.asarray(STATE.h))
    h = [jl.JANET(I, H, beta=beta).update(PARAMS, state, 2 * z).h for beta in (0, 1)]
    assert np.abs(h[1] - h[0]).min() > 1e-3


def test_the_output_stays_below_e_to_the_beta_and_comes_near_it():
    params = jl.JANETParams(np.zeros((I, 2 * H)), np.zeros((H, 2 * H)), np.repeat([6.0, 50.0], H))
    step = jax.jit(lambda state: CELL.step(params, state, jnp.zeros(I))[0])
    state = CELL.initial_state(PARAMS)
    for _ in range(5_000):
        state = step(state)
        assert state.h.max() < np.e
    f, k = reference.sigmoid(6.0), 1 - reference.sigmoid(5.0)
    np.testing.assert_allclose(state.h, k / (1 - f), rtol=1e-4)  # 2.71, where what is kept and what is written meet


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [100, 1e4])
def test_saturated_gates_give_exact_states_and_finite_gradients(dtype, size):
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1]])  # of z_f and z_g, a unit each
    drawn = PARAMS._replace(b=size * signs.ravel())
    params, xs, state = jax.tree.map(lambda a: jnp.asarray(a, dtype), (drawn, XS, STATE))
    (_, (h, hs)), gradient = with_gradient(params, xs, state)
    assert all(np.isfinite(leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves((h, hs, gradient)))
    np.testing.assert_array_equal(hs[1], jnp.where(signs[0] > 0, state.h, jnp.asarray(signs[1], dtype)))
    np.testing.assert_array_equal(h, jnp.where(signs[0] > 0, 0, jnp.asarray(signs[1], dtype)))  # reset, then kept


def test_the_forget_bias_is_one_or_the_given_value():
    for cell, b_f in ((CELL, 1.0), (jl.JANET(I, H, forget_bias=-2), -2.0), (jl.JANET(I, H, forget_bias=0.0), 0.0)):
        params = cell.init(jax.random.key(0))
        np.testing.assert_array_equal(params.b, np.repeat([b_f, 0.0], H))
        for w in np.split(params.w_h, 2, axis=1):
            np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-6)


def test_chrono_forget_biases_are_logs_of_uniform_numbers():
    T_max, width = 1000.0, 4000
    b = jax.jit(lambda key: jl.JANET(1, width, chrono=T_max).init(key).b)  # jit drops the rest
    b_f, b_g = np.split(np.asarray(b(jax.random.key(5)), np.float64), 2)
    np.testing.assert_array_equal(b_g, np.zeros(width))
    quantiles = np.linspace(0, 1, 21)
    np.testing.assert_allclose((np.quantile(np.exp(b_f), quantiles) - 1) / (T_max - 2), quantiles, atol=0.03)


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"chrono": 20, "forget_bias": 1.0}, ValueError, "JANET: chrono.*forget_bias=1.0.*give one"),
        ({"chrono": 2}, ValueError, "JANET: chrono must be greater than 2.*but is 2"),
        ({"forget_bias": float("nan")}, ValueError, "JANET: forget_bias must be finite.*nan"),
        ({"beta": float("inf")}, ValueError, "JANET: beta must be finite.*inf"),
        ({"beta": True}, TypeError, "JANET: beta must be a Python number.*True"),
    ],
)
def test_a_choice_out_of_range_is_refused_by_name(choices, error, words):
    with pytest.raises(error, match=words):
        jl.JANET(I, H, **choices)


@pytest.mark.parametrize("cell", [CELL, jl.JANET(I, H, 0, forget_bias=-2), jl.JANET(I, H, chrono=50)], ids=repr)
def test_it_goes_to_plain_data_and_back(cell):
    assert jl.to_config(cell)["cell"] == "JANET"
    assert jl.from_config(jl.to_config(cell)) == cell
    assert jl.from_config(jl.to_config(cell) | {"beta": 0.5}) != cell
