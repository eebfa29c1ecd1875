"""Streaming: steps and chunks of any lengths give one pass's numbers, from programs that are compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import compilations

import jax_lstm as jl

B, T, I, H = 3, 9, 3, 4


def problem(name, dtype=jnp.float64):
    cell = getattr(jl, name)(I, H)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(B, T, I)), dtype)
    mask, reset = jnp.asarray(rng.random((B, T)) < 0.7), jnp.asarray(rng.random((B, T)) < 0.3)
    return cell, cell.init(jax.random.key(0), dtype), xs, mask, reset


@pytest.mark.parametrize("name", ["LSTM", "RNN", "GRU"])
def test_steps_and_chunks_equal_one_pass(name):
    cell, params, xs, mask, reset = problem(name)
    xs, mask, reset = xs[0], mask[0], reset[0]
    stream, state, hs = jl.stream(cell), cell.initial_state(params), []
    for t in range(3):
        state, h = stream.step(params, state, xs[t], mask[t], reset[t])
        hs.append(h[None])
    for at in (slice(3, 5), slice(5, 5), slice(5, 9)):
        state, h = stream.chunk(params, state, xs[at], mask[at], reset[at])
        hs.append(h)
    expected = jl.unroll(cell, params, xs, None, mask, reset)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), (state, jnp.concatenate(hs)), expected
    )


def test_a_batch_of_streams_equals_the_replay():
    cell, params, xs, mask, reset = problem("LSTM")
    stream, state, hs = jl.stream(cell, batch=True), jl.initial_states(cell, params, B), []
    for t in range(4):
        state, h = stream.step(params, state, xs[:, t], mask[:, t], reset[:, t])
        hs.append(h[:, None])
    state, h = stream.chunk(params, state, xs[:, 4:], mask[:, 4:], reset[:, 4:])
    expected = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset)
    ours = (state, jnp.concatenate([*hs, h], axis=1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), ours, expected)


def test_the_state_is_donated():
    cell, params, xs, *_ = problem("LSTM")
    before = cell.initial_state(params)
    jl.stream(cell).step(params, before, xs[0, 0])
    assert all(leaf.is_deleted() for leaf in before)
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        jl.stream(cell).step(params, before, xs[0, 0])


class FromParams(jl.RNN):
    """Its initial state is b, a param."""

    def initial_state(self, params):
        return jl.RNNState(params.b)


def test_a_state_that_shares_memory_is_copied():
    cell, params, xs, *_ = problem("LSTM")
    zero, learned = jnp.zeros(H), FromParams(I, H)
    weights = learned.init(jax.random.key(0), jnp.float64)
    x_and_h = jnp.full(I, 0.5)
    same = jl.RNN(I, I)
    for c, p, state, x in (
        (cell, params, jl.LSTMState(zero, zero), xs[0, 0]),  # two leaves are one array
        (learned, weights, learned.initial_state(weights), xs[0, 0]),  # a leaf is a param
        (same, same.init(jax.random.key(0), jnp.float64), jl.RNNState(x_and_h), x_and_h),  # a leaf is the input
        (cell, params, jl.LSTMState(zero, cell.initial_state(params).c), xs[0, 0]),  # none is
    ):
        leaves = [np.array(leaf) for leaf in jax.tree.leaves((state, p, x))]
        expected = jl.step(c, p, jax.tree.map(jnp.copy, state), x)
        jax.tree.map(np.testing.assert_array_equal, jl.stream(c).step(p, state, x), expected)
        kept = [leaf for leaf in jax.tree.leaves((state, p, x)) if not leaf.is_deleted()]
        for leaf in kept:
            assert any(leaf.shape == a.shape and np.array_equal(leaf, a) for a in leaves)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((p, x)))
        jl.stream(c).chunk(p, c.initial_state(p), xs[0, :3] if c is not same else jnp.zeros((3, I)))
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(p))


@pytest.mark.parametrize("batch", [False, True])
def test_wrong_arguments_get_the_messages_of_step_and_unroll(batch):
    cell, params, xs, mask, _ = problem("LSTM")
    stream = jl.stream(cell, batch=batch)
    lead = (B,) if batch else ()
    x, m = (xs[:, 0], mask[:, 0]) if batch else (xs[0, 0], mask[0, 0])
    good = jl.initial_states(cell, params, B) if batch else cell.initial_state(params)
    for arguments, words in (
        (({}, good, x), "step: params must be LSTMParams, but is a dict"),
        ((params, (good.h, good.c), x), "step: state must be a LSTMState, but is a tuple"),
        ((params, good._replace(h=good.h[..., 1:]), x), r"step: state.h has shape \(3,\), but"),
        ((params, good, x[..., 1:]), "step: x has 2 features on its last axis"),
        ((params, good, xs), "x must (be|have)"),
        ((params, good, x.tolist()), "x must be a JAX or NumPy array, but is a list"),
        ((params, good, x.astype(int)), "step: x must hold floats"),
        ((params, good, x, m.astype(int)), "step: mask must hold bools"),
        ((params, good, x, m, jnp.zeros((*lead, 2), bool)), "reset must have shape"),
        ((params, good, x, None, None, x), "takes from 3 to 5 positional arguments"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            stream.step(*arguments)
    with pytest.raises(ValueError, match="constants were given, but cell LSTM takes none"):
        stream.chunk(params, good, xs if batch else xs[0], constants=x)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, good, x)))


def test_the_same_cell_gives_the_same_compiled_functions():
    cell, params, xs, *_ = problem("LSTM")
    assert jl.stream(cell) is jl.stream(jl.LSTM(I, H))
    assert jl.stream(cell) is not jl.stream(cell, batch=True)
    state = jl.stream(cell).step(params, cell.initial_state(params), xs[0, 0])[0]
    with compilations() as seen:
        for t in range(1, 5):
            state, _ = jl.stream(cell).step(params, state, xs[0, t])
    assert seen == []


def test_stream_refuses_invalid_arguments_before_any_call():
    with pytest.raises(TypeError, match="cell must have init"):
        jl.stream(3)
    with pytest.raises(TypeError, match="batch must be True or False"):
        jl.stream(jl.LSTM(I, H), batch=1)
