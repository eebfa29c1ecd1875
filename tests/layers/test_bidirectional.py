"""Both directions: by hand on the steps that live, over episodes each alone, and refused where time goes on."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

I, H, T = 3, 4, 7
CELL = jl.Bidirectional(jl.LSTM(I, H), jl.GRU(I, 2))
XS = np.random.default_rng(0).normal(size=(T, I))
MASKS = {
    "all": [1, 1, 1, 1, 1, 1, 1],
    "a length": [1, 1, 1, 1, 0, 0, 0],
    "gaps": [1, 0, 1, 1, 0, 0, 1],
    "left padding": [0, 0, 0, 1, 1, 1, 1],
    "none": [0, 0, 0, 0, 0, 0, 0],
}
RESETS = {"inside": [0, 0, 1, 0, 0, 1, 0], "at the first": [1, 0, 0, 1, 1, 0, 0], "dead": [0, 1, 0, 0, 1, 0, 1]}
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
run = jax.jit(partial(jl.unroll, CELL), static_argnames="reverse")
value_and_grad = jax.jit(
    jax.value_and_grad(lambda *args: (lambda end, ys: (jnp.sum(ys**2) + jnp.sum(CELL.output(end)), (end, ys)))(
        *jl.unroll(CELL, *args)), (0, 1), has_aux=True)
)  # fmt: skip


@cache
def cell_params():
    return CELL.init(jax.random.key(0), jnp.float64)


def each_alone(xs, episodes, reverse=False):
    """Ends of the two cells, and outputs: every episode (a list of steps) alone, those of dead steps zero."""
    ys = np.zeros((len(xs), H + 2))
    for steps in episodes:
        there, hs = jl.unroll(CELL.forward, cell_params().forward, xs[steps], reverse=reverse)
        back, gs = jl.unroll(CELL.backward, cell_params().backward, xs[steps], reverse=not reverse)
        ys[steps] = np.concatenate([hs, gs], axis=1)
        yield there, back
    yield ys


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", list(MASKS))
def test_masked_directions_equal_separate_runs_on_the_live_steps(name, reverse):
    mask = np.array(MASKS[name], bool)
    (there, back), ys = each_alone(XS, [np.flatnonzero(mask)], reverse)
    jax.tree.map(close, run(cell_params(), XS, None, mask, reverse=reverse), (jl.BidirectionalState(there, back), ys))


@pytest.mark.parametrize("name", ["gaps", "left padding", "none"])
def test_inputs_at_masked_steps_change_no_bit(name):
    mask = np.array(MASKS[name], bool)
    reset = np.array(RESETS["inside"], bool)
    clean = value_and_grad(cell_params(), XS, None, mask, reset)
    for nothing in (np.nan, np.inf):
        padded = value_and_grad(cell_params(), np.where(mask[:, None], XS, nothing), None, mask, reset)
        jax.tree.map(np.testing.assert_array_equal, padded, clean)
    assert not clean[1][1][~mask].any()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", ["all", "gaps", "left padding"])
@pytest.mark.parametrize("reset", list(RESETS))
def test_with_resets_every_episode_is_run_alone_both_ways(mask, reset, reverse):
    mask, reset = np.array(MASKS[mask], bool), np.array(RESETS[reset], bool)
    live = np.flatnonzero(mask)[:: -1 if reverse else 1]
    begins = np.flatnonzero(reset[live])
    episodes = [np.sort(steps) for steps in np.split(live, begins[begins > 0])]
    *ends, ys = each_alone(XS, episodes, reverse)
    # The forward cell ends in the last episode, the backward one in the first.
    expected = jl.BidirectionalState(ends[-1][0], ends[0][1]), ys
    jax.tree.map(close, run(cell_params(), XS, None, mask, reset, reverse=reverse), expected)


def test_each_direction_starts_from_its_own_initial_state():
    state = jax.tree.map(lambda s: s + 0.5, CELL.initial_state(cell_params()))
    end, ys = run(cell_params(), XS, state)
    there, hs = jl.unroll(CELL.forward, cell_params().forward, XS, state.forward)
    back, gs = jl.unroll(CELL.backward, cell_params().backward, XS, state.backward, reverse=True)
    jax.tree.map(close, (end, ys), (jl.BidirectionalState(there, back), np.concatenate([hs, gs], axis=1)))
    close(CELL.output(end), np.concatenate([hs[-1], gs[0]]))


def test_no_steps_leave_both_states():
    end, ys = jl.unroll(CELL, cell_params(), XS[:0])
    jax.tree.map(np.testing.assert_array_equal, end, CELL.initial_state(cell_params()))
    assert ys.shape == (0, H + 2)


def test_segments_of_its_parts_change_no_number():
    def gradient(**options):
        return jax.grad(
            lambda p: jnp.sum(jl.unroll(CELL, p, XS, None, np.array(MASKS["gaps"], bool), **options)[1] ** 2)
        )

    jax.tree.map(close, gradient(remat_every=3)(cell_params()), gradient()(cell_params()))


def test_batches_of_it_in_a_stack_are_their_sequences_one_by_one():
    stack = jl.Stack((CELL, jl.Bidirectional(jl.RNN(CELL.output_size, 2))))
    params = stack.init(jax.random.key(1), jnp.float64)
    xs, mask = np.stack([XS, -XS, XS[::-1]]), np.array([MASKS[m] for m in ("gaps", "a length", "none")], bool)
    reset = np.array(list(RESETS.values()), bool)
    outputs = jl.batched(jl.unroll)(stack, params, xs, None, mask, reset)
    for k in range(3):
        one = jl.unroll(stack, params, xs[k], None, mask[k], reset[k])
        jax.tree.map(lambda a, b, k=k: close(a[k], b), outputs, one)


NOT_CAUSAL = {"it": CELL, "in a stack": jl.Stack((CELL, jl.RNN(H + 2, 2))), "learned": jl.LearnedInitialState(CELL)}


@pytest.mark.parametrize("cell", list(NOT_CAUSAL.values()), ids=list(NOT_CAUSAL))
def test_step_tbptt_and_stream_are_refused_with_the_reason(cell):
    params = jax.eval_shape(cell.init, jax.random.key(0))
    state = jax.eval_shape(cell.initial_state, params)
    calls = {
        "step": lambda: jl.step(cell, params, state, XS[0]),
        "tbptt": lambda: jax.eval_shape(lambda p: jl.tbptt(cell, p, XS.astype(np.float32), window=2), params),
        "stream": lambda: jl.stream(cell),
    }
    for where, call in calls.items():
        with pytest.raises(ValueError, match=f"{where}: cell {type(cell).__name__} looks at later inputs.*jl.unroll"):
            call()
    with pytest.raises(ValueError, match=r"Bidirectional.step: .*looks at later inputs"):
        CELL.step(cell_params(), CELL.initial_state(cell_params()), jnp.asarray(XS[0]))


def test_two_cells_of_unlike_inputs_are_refused_with_their_sizes():
    with pytest.raises(
        ValueError, match="backward must take the 3 features that forward takes, but its input_size is 2"
    ):
        jl.Bidirectional(jl.LSTM(3, 4), jl.LSTM(2, 4))
    assert jl.Bidirectional(jl.LSTM(3, 4)).backward == jl.LSTM(3, 4)
