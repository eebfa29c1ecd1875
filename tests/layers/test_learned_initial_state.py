"""A learned initial state: where a run starts, where a reset goes back to, and that it gets a gradient from both."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tiers import slow_except

import jax_lstm as jl

I, H, T = 3, 4, 6
CELLS = {"LSTM": jl.LSTM(I, H), "SLSTM": jl.SLSTM(I, H), "stack": jl.Stack((jl.GRU(I, H), jl.RNN(H, 2)))}
EACH = pytest.mark.parametrize("name", list(CELLS))
XS = np.random.default_rng(0).normal(size=(T, I))
RESET = np.array([0, 0, 1, 0, 1, 0], bool)
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def learned(name):
    """The cell, and params whose state is one that the cell has reached; of the sLSTM h is what counts of it."""
    cell = jl.LearnedInitialState(CELLS[name])
    params = cell.init(jax.random.key(0), jnp.float64)
    reached, _ = jl.unroll(cell.cell, params.cell, XS[:3])
    return cell, params._replace(state=reached)


@EACH
def test_a_new_learned_state_equals_the_cells_initial_state(name):
    cell = jl.LearnedInitialState(CELLS[name])
    params = cell.init(jax.random.key(0), jnp.float64)
    jax.tree.map(np.testing.assert_array_equal, params.cell, CELLS[name].init(jax.random.key(0), jnp.float64))
    assert not any(np.any(a) for a in jax.tree.leaves(params.state))
    jax.tree.map(np.testing.assert_array_equal, cell.initial_state(params), CELLS[name].initial_state(params.cell))
    jax.tree.map(close, jl.unroll(cell, params, XS), jl.unroll(CELLS[name], params.cell, XS))


@EACH
def test_runs_and_resets_start_from_the_learned_state(name):
    cell, params = learned(name)
    state, ys = jl.unroll(cell, params, XS, None, None, RESET)
    fresh = CELLS[name].initial_state(params.cell)
    start = jax.tree.map(np.add, fresh, params.state)
    parts = [jl.unroll(CELLS[name], params.cell, xs, start) for xs in np.split(XS, np.flatnonzero(RESET))]
    jax.tree.map(close, (state, ys), (parts[-1][0], np.concatenate([ys for _, ys in parts])))


@EACH
def test_starts_and_resets_give_the_learned_state_a_gradient(name):
    cell, params = learned(name)
    given = jax.tree.map(lambda s: 0.5 * s, params.state)

    def last_of(params, state, reset, xs):
        return jnp.sum(jl.unroll(cell, params, xs, state, None, reset)[1][-1] ** 2)

    gradient = jax.jit(jax.grad(last_of))
    from_start = gradient(params, None, None, XS[4:]).state
    through_reset = gradient(params, given, RESET, XS).state  # only what comes after the last reset counts
    jax.tree.map(close, through_reset, from_start)
    assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(from_start)[:1])
    assert not any(a.any() for a in jax.tree.leaves(gradient(params, given, None, XS).state))


def test_a_batch_shares_it_and_sums_its_gradient():
    cell, params = learned("LSTM")
    xs = np.stack([XS, -XS, XS[::-1]])
    alone = [jax.grad(lambda p, x=x: jnp.sum(jl.unroll(cell, p, x)[1] ** 2))(params) for x in xs]
    together = jax.grad(lambda p: jnp.sum(jl.batched(jl.unroll)(cell, p, xs)[1] ** 2))(params)
    jax.tree.map(lambda a, *each: close(a, sum(each)), together, *alone)
    states = jl.initial_states(cell, params, 3)
    jax.tree.map(lambda a, s: np.testing.assert_array_equal(a, np.stack([s] * 3)), states, params.state)


def test_streamed_it_gives_the_numbers_of_one_pass():
    cell, params = learned("LSTM")
    stream, state = jl.stream(cell), jax.tree.map(jnp.array, cell.initial_state(params))
    ys = []
    for t in range(T):
        state, y = stream.step(params, state, XS[t], None, RESET[t])
        ys.append(y)
    jax.tree.map(close, (state, np.stack(ys)), jl.unroll(cell, params, XS, None, None, RESET))


def test_only_h_of_an_slstm_is_learned():
    cell = jl.LearnedInitialState(jl.SLSTM(I, H, heads=2))
    params = cell.init(jax.random.key(0), jnp.float64)
    gradient = jax.grad(lambda p: jnp.sum(jl.unroll(cell, p, XS)[1] ** 2))(params).state
    assert np.abs(gradient.h).min() > 0
    assert not any(np.any(g) for g in gradient[1:])


def test_a_value_that_is_not_a_cell_is_refused():
    with pytest.raises(TypeError, match="LearnedInitialState: cell must have init"):
        jl.LearnedInitialState(3)


@pytest.mark.parametrize("axis_type", slow_except([AxisType.Explicit], [AxisType.Explicit, AxisType.Auto]))
def test_a_sharded_batch_starts_and_resets_as_on_one_device(axis_type):
    cell, params = learned("LSTM")
    xs, reset = np.stack([XS, 2 * XS]), np.stack([RESET, RESET[::-1]])

    def loss(params, xs, reset):
        state, hs = jl.batched(jl.unroll)(cell, params, xs, None, None, reset)
        return jnp.sum(hs**2) + jnp.sum(state.c)

    expected = jax.value_and_grad(loss)(params, xs, reset)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put((xs, reset), jax.NamedSharding(mesh, jax.P("data")))
        jax.tree.map(close, jax.jit(jax.value_and_grad(loss))(params, *sharded), expected)
