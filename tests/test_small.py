"""Each transformation once for each cell, on three steps: small enough to run again under every strict flag of JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

pytestmark = pytest.mark.strict

I, H, T = 3, 4, 3
MASK, RESET = np.array([True, False, True]), np.array([False, True, True])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params_of(cell):
    shapes = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.map(lambda s: jnp.asarray(normal([*s.shape], *s.shape) / 2), shapes)


def state_of(cell):
    return jax.tree.map(lambda a: jnp.asarray(normal(5, *a.shape)), cell.initial_state(params_of(cell)))


def inputs():
    return jnp.asarray(normal(1, T, I))


def loop(cell, params, state, xs, mask=(True,) * T, reset=(False,) * T):
    """The sequence as a Python loop."""
    hs = []
    for x, live, restart in zip(xs, mask, reset, strict=True):
        h = jnp.zeros_like(state.h)
        if live:
            state, h = cell.step(params, cell.initial_state(params) if restart else state, x)
        hs.append(h)
    return state, jnp.stack(hs)


def loss(run, cell, params, state, xs):
    state, hs = run(cell, params, state, xs)
    return (hs[::2] ** 2).sum() + state.h.sum()


def unrolled(cell, params, state, xs, **options):
    return jl.unroll(cell, params, xs, state, **options)


def each(of, *runs):
    """What `of` makes of each run, in one compiled program."""
    return jax.jit(lambda *args: tuple(of(run)(*args) for run in runs))


def assert_close(ours, theirs):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


def case(cell):
    return params_of(cell), state_of(cell), inputs()


def test_outputs_are_those_of_the_loop(cell):
    assert_close(unrolled(cell, *case(cell)), loop(cell, *case(cell)))


def test_outputs_under_jit_are_those_of_the_loop(cell):
    assert_close(jax.jit(unrolled)(cell, *case(cell)), loop(cell, *case(cell)))


def test_the_gradient_is_that_of_the_loop(cell):
    grads = each(lambda run: jax.grad(partial(loss, run, cell), (0, 1, 2)), unrolled, loop)
    assert_close(*grads(*case(cell)))


def test_the_tangent_is_that_of_the_loop(cell):
    args = case(cell)
    moving = jax.tree.map(lambda a: jnp.asarray(normal(9, *a.shape)), args)
    tangents = each(lambda run: partial(jax.jvp, partial(loss, run, cell)), unrolled, loop)
    assert_close(*tangents(args, moving))


def test_vmap_over_sequences_is_a_loop_over_them(cell):
    params, state, _ = case(cell)
    batch = jnp.asarray(normal(2, 2, T, I))
    ours = jax.vmap(partial(unrolled, cell), (None, None, 0))(params, state, batch)
    for b in range(2):
        assert_close(jax.tree.map(lambda a, b=b: a[b], ours), loop(cell, params, state, batch[b]))


def test_vmap_of_the_gradient_over_params_is_a_loop_over_them(cell):
    params, state, xs = case(cell)
    both = jax.tree.map(lambda p: jnp.stack([p, -p]), params)
    one_by_one = each(lambda run: jax.grad(partial(loss, run, cell)), loop)
    ours = jax.jit(jax.vmap(jax.grad(partial(loss, unrolled, cell)), (0, None, None)))(both, state, xs)
    theirs = [one_by_one(jax.tree.map(lambda p, b=b: p[b], both), state, xs)[0] for b in range(2)]
    assert_close(ours, jax.tree.map(lambda *a: jnp.stack(a), *theirs))


def test_mask_and_reset_and_their_gradient_are_those_of_the_loop(cell):
    run = partial(unrolled, mask=jnp.asarray(MASK), reset=jnp.asarray(RESET))
    twin = partial(loop, mask=MASK, reset=RESET)
    assert_close(run(cell, *case(cell)), twin(cell, *case(cell)))
    assert_close(*each(lambda r: jax.grad(partial(loss, r, cell)), run, twin)(*case(cell)))


def test_remat_and_reverse_give_the_reversed_loops_gradient(cell):
    params, state, xs = case(cell)

    def backwards(cell, params, state, xs):
        state, hs = loop(cell, params, state, xs[::-1])
        return state, hs[::-1]

    run = partial(unrolled, reverse=True, remat_every=2)
    assert_close(*each(lambda r: jax.grad(partial(loss, r, cell)), run, backwards)(params, state, xs))


def test_the_plain_engine_gives_the_outputs_of_the_loop(cell):
    assert_close(unrolled(cell, *case(cell), engine="plain"), loop(cell, *case(cell)))


def test_no_steps_give_the_initial_state(cell):
    params, state, xs = case(cell)
    for engine in ("hoisted", "plain"):
        ours, hs = unrolled(cell, params, state, xs[:0], engine=engine)
        jax.tree.map(np.testing.assert_array_equal, ours, state)
        assert hs.shape == (0, H)
        d_params = jax.grad(lambda p, e=engine: unrolled(cell, p, state, xs[:0], engine=e)[1].sum())(params)
        assert not any(np.asarray(d).any() for d in d_params)


def test_a_drawn_cell_acts_step_by_step_as_it_unrolls(cell):
    params = cell.init(jax.random.key(3))
    state, hs = cell.initial_state(params), []
    for t in range(T):
        state, h = jl.step(cell, params, state, inputs()[t])
        hs.append(h)
    assert_close((state, jnp.stack(hs)), jl.unroll(cell, params, inputs()))
    assert_close(jl.batched(jl.unroll)(cell, params, inputs()[None])[1][0], jnp.stack(hs))


def test_the_gates_reproduce_the_cell_states():
    cell = jl.LSTM(I, H)
    params, state, xs = case(cell)
    gates = jl.gates_of(cell, params, xs, state)
    cs = jnp.concatenate([state.c[None], jl.unroll_states(cell, params, xs, state).c])
    assert_close(gates.f * cs[:-1] + gates.i * gates.g, cs[1:])


def test_the_comparison_notices_another_state(cell):
    params, state, xs = case(cell)
    other = jax.tree.map(lambda a: a + 0.01, state)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(unrolled(cell, params, other, xs), loop(cell, params, state, xs))
