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
    stream, state, hs = jl.stream(cell, batch=True), cell.initial_state(params, like=xs), []
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
