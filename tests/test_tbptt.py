"""Truncated backpropagation through time: unroll's numbers, and gradients that end where they should."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

T, I, H = 11, 3, 4
WINDOWS = [(4, 4), (4, 2), (4, 1), (6, 3), (10, 5)]


@cache
def problem(name="LSTM", masks=False):
    cell = getattr(jl, name)(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    rng = np.random.default_rng(1)
    drawn = lambda *shape: jnp.asarray(rng.normal(size=shape))  # noqa: E731
    state = jax.tree.map(lambda a: drawn(*a.shape), cell.initial_state(params))
    mask = jnp.arange(T) % 4 != 1 if masks else None
    reset = jnp.arange(T) == 6 if masks else None
    return cell, params, drawn(T, I), state, mask, reset, drawn(T, H)


def by_hand(cell, params, xs, state, window, stride):
    """The docstring's loop."""
    states = jl.unroll_states(cell, params, xs, state)
    hs, last = [], None
    for start in range(0, T, stride):
        full, end = start + stride, min(start + stride, T)
        cut = jax.tree.map(lambda a, at=full - window - 1: jax.lax.stop_gradient(a[at]), states)
        last, ys = jl.unroll(cell, params, xs[max(full - window, 0) : end], cut if full > window else state)
        hs.append(ys[start - end :])
    return last, jnp.concatenate(hs)


def value_and_gradients(run, weights, *args):
    def loss(*args):
        state, hs = run(*args)
        return jnp.vdot(weights, hs) + sum(jnp.sum(jnp.cos(a)) for a in jax.tree.leaves(state))

    return jax.value_and_grad(loss, (0, 1, 2))(*args)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize(("window", "stride"), WINDOWS)
def test_value_and_gradients_are_those_of_the_loop_over_windows(name, window, stride):
    cell, params, xs, state, _, _, weights = problem(name)
    ours = value_and_gradients(partial(jl.tbptt, cell, window=window, stride=stride), weights, params, xs, state)
    theirs = value_and_gradients(partial(by_hand, cell, window=window, stride=stride), weights, params, xs, state)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), ours, theirs)
    whole = value_and_gradients(partial(jl.unroll, cell), weights, params, xs, state)
    np.testing.assert_allclose(ours[0], whole[0], rtol=1e-13)
    assert np.abs(ours[1][0].w_h - whole[1][0].w_h).max() > 1e-3


@pytest.mark.parametrize("window", [T, 2 * T])
def test_a_full_window_gives_the_gradient_of_unroll(window):
    cell, params, xs, state, mask, reset, weights = problem(masks=True)
    runs = (partial(jl.tbptt, window=window), jl.unroll)
    ours, theirs = (
        value_and_gradients(lambda p, x, s, run=run: run(cell, p, x, s, mask, reset), weights, params, xs, state)
        for run in runs
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_with_flags_and_reverse_equal_unroll(reverse):
    cell, params, xs, state, mask, reset, _ = problem(masks=True)
    ours = jl.tbptt(cell, params, xs, state, mask, reset, window=6, stride=2, reverse=reverse)
    theirs = jl.unroll(cell, params, xs, state, mask, reset, reverse=reverse)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-14), ours, theirs)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_gradient_reaches_its_window_and_nothing_before_it(reverse):
    cell, params, xs, state, _, _, _ = problem()
    window, stride = 6, 3
    run = partial(jl.tbptt, cell, params, window=window, stride=stride, reverse=reverse)
    felt = np.abs(jax.jacrev(lambda xs: run(xs, state)[1])(xs)).max(axis=(1, 3)) > 0  # (T outputs, T inputs)
    order = np.arange(T)[::-1] if reverse else np.arange(T)
    for t in range(T):
        end = (t // stride + 1) * stride
        expected = [max(end - window, 0) <= k <= t for k in range(T)]
        np.testing.assert_array_equal(felt[order[t]][order], expected)


def test_a_batch_is_every_sequence_by_itself():
    cell, params, *_ = problem()
    xs = jnp.asarray(np.random.default_rng(3).normal(size=(T, T, I)))  # as many sequences as steps
    run = partial(jl.tbptt, window=4, stride=2)
    lengths = jnp.arange(T)[None] < jnp.arange(T)[:, None]
    one = jax.vmap(lambda x, m: run(cell, params, x, None, m))(xs, lengths)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-14),
                 jl.batched(run)(cell, params, xs, None, lengths), one)  # fmt: skip


def temporary_bytes(run, steps):
    cell = jl.LSTM(2, 16)
    params = cell.init(jax.random.key(0), jnp.float32)
    xs = jax.ShapeDtypeStruct((steps, 2), jnp.float32)
    step = jax.jit(jax.grad(lambda p, xs: jnp.sum(run(cell, p, xs)[0].h)))
    memory = step.lower(params, xs).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def test_memory_grows_with_the_window_and_not_with_the_sequence():
    plain, truncated = (
        temporary_bytes(run, 8192) / temporary_bytes(run, 2048) for run in (jl.unroll, partial(jl.tbptt, window=64))
    )
    assert plain > 3.5
    assert temporary_bytes(partial(jl.tbptt, window=64), 8192) < 0.05 * temporary_bytes(jl.unroll, 8192)
    assert truncated < 2  # one state a block still grows with the sequence


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window": 6, "stride": 4}, ValueError, "stride must divide window"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"window": 2.5}, TypeError, "window must be a Python integer"),
        ({"window": 4, "stride": 0}, ValueError, "stride must be at least 1"),
        ({"window": 4, "engine": "fast"}, ValueError, "engine must be one of"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(options, error, words):
    cell, params, xs, *_ = problem()
    with pytest.raises(error, match=words):
        jl.tbptt(cell, params, xs, **options)


def test_a_traced_window_is_refused():
    cell, params, xs, *_ = problem()
    with pytest.raises(TypeError, match="window must be a Python value"):
        jax.jit(lambda w: jl.tbptt(cell, params, xs, window=w))(4)
