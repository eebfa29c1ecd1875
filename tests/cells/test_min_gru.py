"""The minimal GRU: its equations in NumPy; and of both minimal cells, the step as an affine map of the state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jax_lstm as jl

I, H, T = 3, 8, 6
MASK, RESET = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 1, 0, 1, 0], bool)
BOTH = pytest.mark.parametrize("cell", [jl.MinGRU(I, H), jl.MinLSTM(I, H)], ids=lambda cell: type(cell).__name__)


def normal(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def params_of(cell):
    return jax.tree.map(lambda a: normal(0, *a.shape), jax.eval_shape(cell.init, jax.random.key(0)))


def state_of(cell, h):
    return type(cell.initial_state(params_of(cell)))(h)


XS, WEIGHTS = normal(1, T, I), (normal(2, H), normal(2, T, H))


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=(1, 2, 3), has_aux=True)
def with_gradient(cell, params, xs, state):
    (h,), hs = jl.unroll(cell, params, xs, state, MASK, RESET)
    return sum(jnp.vdot(jnp.asarray(w, y.dtype), y) for w, y in zip(WEIGHTS, (h, hs), strict=True)), (h, hs)


@BOTH
def test_outputs_and_every_gradient_are_those_of_the_equations(cell):
    params, state = params_of(cell), state_of(cell, normal(1, H))
    step = reference.STEPS[type(cell).__name__]
    (_, outputs), gradient = with_gradient(cell, params, XS, state)
    (h,), hs = reference.unroll(step, params, XS, state, MASK, RESET)
    for ours, theirs in zip(outputs, (h, hs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    expected = reference.gradient(step, params, XS, state, WEIGHTS, mask=MASK, reset=RESET)
    for ours, theirs in zip(jax.tree.leaves(gradient), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@BOTH
def test_a_step_is_the_affine_map_that_the_cell_says_it_is(cell):
    params = jax.tree.map(jnp.asarray, params_of(cell))
    for x, h in ((XS[0], normal(1, H)), (XS[1], np.zeros(H)), (30 * XS[2], 100 * normal(2, H))):
        a, b = cell.affine(params, jnp.asarray(x))
        assert type(a) is type(b) is type(state_of(cell, h))
        state, _ = cell.step(params, state_of(cell, h), x)
        np.testing.assert_allclose(a.h * h + b.h, state.h, rtol=1e-12)
        assert (a.h >= 0).all()
        assert (a.h <= 1).all()


@BOTH
def test_the_maps_of_many_steps_compose_to_the_run(cell):
    params, h = jax.tree.map(jnp.asarray, params_of(cell)), normal(1, H)

    def then(early, late):
        (a, b), (c, d) = early, late
        return jax.tree.map(jnp.multiply, a, c), jax.tree.map(lambda b, c, d: c * b + d, b, c, d)

    @jax.jit
    def composed(xs):
        return jax.lax.associative_scan(jax.vmap(then), jax.vmap(partial(cell.affine, params))(xs))

    a, b = composed(jnp.asarray(XS))
    hs = jl.unroll(cell, params, XS, state_of(cell, h))[1]
    np.testing.assert_allclose(np.asarray(a.h) * h + b.h, hs, rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_saturated_gates_give_finite_outputs_and_gradients(cell, dtype):
    params, state = params_of(cell), state_of(cell, normal(1, H))
    gates = len(params.b) // H
    signs = np.sign((np.arange(8) >> np.arange(gates)[:, None]) % 2 - 0.5)  # of every gate, a unit each
    for size in (100, 1e4):
        args = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params._replace(b=size * signs.ravel()), XS, state))
        (_, outputs), gradient = with_gradient(cell, *args)
        assert all(np.isfinite(leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves((outputs, gradient)))
        a, b = cell.affine(args[0], args[1][0])
        assert np.isfinite(jnp.stack([a.h, b.h]).astype(jnp.float32)).all()
        if gates == 2:  # a gate that is open writes the candidate, one that is shut keeps the state
            z_g = (args[1][1] @ args[0].w_x + args[0].b)[H:]
            np.testing.assert_array_equal(outputs[1][1], jnp.where(signs[0] > 0, z_g, args[2].h))


def test_weights_are_drawn_per_gate_and_the_bias_is_zero():
    params = jl.MinGRU(400, 64).init(jax.random.key(3))
    w_z, w_g = np.split(params.w_x, 2, axis=1)
    for w in (w_z, w_g):
        np.testing.assert_allclose(w.var() * 400, 1, atol=0.05)
    assert abs(np.corrcoef(w_z.ravel(), w_g.ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(params.b, np.zeros(128))


def test_a_choice_out_of_range_is_refused_by_name():
    with pytest.raises(ValueError, match="MinGRU: hidden_size must be at least 1, but is 0"):
        jl.MinGRU(3, 0)
    with pytest.raises(TypeError, match=r"MinGRU: compute_dtype must be a floating dtype.*int8"):
        jl.MinGRU(3, 4, compute_dtype="int8")


def test_it_goes_to_plain_data_and_back():
    cell = jl.MinGRU(I, H, compute_dtype="bfloat16")
    assert jl.to_config(cell) == {"cell": "MinGRU", "input_size": I, "hidden_size": H, "compute_dtype": "bfloat16"}
    assert jl.from_config(jl.to_config(cell)) == cell
