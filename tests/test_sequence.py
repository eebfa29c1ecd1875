"""Sequences: mask, reset, reverse, streaming, acting, batches, against a Python loop of `cell.step`."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jax_lstm as jl

I, H, T = 3, 4, 8
CELLS = {"LSTM": jl.LSTM(I, H), "RNN": jl.RNN(I, H), "GRU": jl.GRU(I, H)}
OPTIONS: dict[str, dict[str, Any]] = {
    "hoisted": {},
    "plain": {"engine": "plain"},
    "remat": {"remat_every": 3},
    "reverse": {"reverse": True},
    "reverse remat": {"reverse": True, "remat_every": 3},
}
MASKS = {
    "right": np.array([1, 1, 1, 1, 1, 0, 0, 0], bool),
    "left": np.array([0, 0, 1, 1, 1, 1, 1, 1], bool),
    "gaps": np.array([1, 0, 0, 1, 1, 0, 1, 0], bool),
}
# One reset on a live step of every mask, one on a step that every mask but "left" drops.
RESET = np.array([0, 0, 0, 1, 0, 0, 0, 1], bool)
NEVER, ALWAYS = np.zeros(T, bool), np.ones(T, bool)


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def params_of(cell, seed=0, dtype=np.float64):
    """Params of the cell's shapes with every number drawn, biases too."""
    shapes = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.map(lambda s: normal([seed, *s.shape], *s.shape, dtype=dtype) / 2, shapes)


def state_of(cell, seed=5, dtype=np.float64):
    return jax.tree.map(lambda a: normal([seed, 1], *a.shape, dtype=dtype), cell.initial_state(params_of(cell)))


def the_bytes(tree):
    return [np.asarray(a).tobytes() for a in jax.tree.leaves(tree)]


def assert_close(ours, theirs, atol=1e-12):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=atol), ours, theirs)


@lru_cache
def stepper(cell):
    return jax.jit(cell.step)


def loop(cell, params, xs, state, mask=ALWAYS, reset=NEVER, reverse=False):
    """What `unroll` means, as a Python loop: the last state, the outputs, the states."""
    steps = len(xs)
    hs: list[Any] = [None] * steps
    states: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        hs[t] = np.zeros(H, xs.dtype)
        if mask[t]:
            if reset[t]:
                state = cell.initial_state(params)
            state, hs[t] = stepper(cell)(params, state, xs[t])
        states[t] = state
    return state, np.stack(hs), jax.tree.map(lambda *a: np.stack(a), *states)


@lru_cache
def everything(cell, options):
    """One compiled program a cell and option: last state, outputs, loss, and its gradient to params, state and xs."""

    def loss(params, state, xs, mask, reset, d_s_T, d_hs):
        s_T, hs = jl.unroll(cell, params, xs, state, mask, reset, **OPTIONS[options])
        dots = jax.tree.map(lambda a, d: (a * d).sum(), ((s_T, hs)), ((d_s_T, d_hs)))
        return sum(jax.tree.leaves(dots)), (s_T, hs)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def run(cell, options, mask, reset=RESET, xs=None, state=None, d_s_T=None, d_hs=None):
    """`everything` in float32 on fixed random numbers, save those that are given."""
    drawn = (
        params_of(cell, dtype=np.float32),
        state_of(cell, dtype=np.float32) if state is None else state,
        normal(2, T, I, dtype=np.float32) if xs is None else xs,
        mask,
        reset,
        state_of(cell, 6, np.float32) if d_s_T is None else d_s_T,
        normal(3, T, H, dtype=np.float32) if d_hs is None else d_hs,
    )
    (loss, (s_T, hs)), (d_params, d_state, d_xs) = everything(cell, options)(*drawn)
    return {"loss": loss, "s_T": s_T, "hs": hs, "d_params": d_params, "d_state": d_state, "d_xs": d_xs}


# The meaning.


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_unroll_is_the_python_loop(cell, engine, reverse):
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    for mask, reset in [(m, r) for m in (*MASKS.values(), ALWAYS) for r in (RESET, NEVER)]:
        want_s, want_hs, want_states = loop(cell, params, xs, s_0, mask, reset, reverse)
        state, hs = jl.unroll(cell, params, xs, s_0, mask, reset, reverse=reverse, engine=engine)
        states = jl.unroll_states(cell, params, xs, s_0, mask, reset, reverse=reverse, engine=engine)
        assert_close((state, hs, states), (want_s, want_hs, want_states))
    with pytest.raises(AssertionError):
        assert_close(hs, loop(cell, params, xs, s_0, MASKS["gaps"], reset, reverse)[1])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(mask=st.lists(st.booleans(), min_size=T, max_size=T), reset=st.lists(st.booleans(), min_size=T, max_size=T))
@pytest.mark.parametrize("kind", CELLS)
def test_any_mask_and_reset_mean_what_the_loop_means(kind, mask, reset):
    cell = CELLS[kind]
    params, xs, s_0, mask, reset = params_of(cell), normal(1, T, I), state_of(cell), np.array(mask), np.array(reset)
    assert_close(jl.unroll(cell, params, xs, s_0, mask, reset), loop(cell, params, xs, s_0, mask, reset)[:2])
    # The other direction, by reversing everything that has a time axis.
    state, hs = jl.unroll(cell, params, xs, s_0, mask, reset, reverse=True)
    flipped, flipped_hs = jl.unroll(cell, params, xs[::-1], s_0, mask[::-1], reset[::-1])
    assert_close((state, hs), (flipped, flipped_hs[::-1]))


@pytest.mark.parametrize("options", [k for k in OPTIONS if "remat" in k])
def test_remat_changes_no_number(cell, options):
    # 8 steps in segments of 3: two whole ones and a shorter one.
    ours, theirs = (run(cell, k, MASKS["gaps"]) for k in (options, "reverse" if "reverse" in options else "hoisted"))
    assert_close(ours, theirs, atol=2e-6)
    assert not np.allclose(ours["hs"], run(cell, options, MASKS["left"])["hs"], atol=1e-3)


@pytest.mark.parametrize("n", [1, 8, 50])
def test_segments_of_any_length_give_the_same_numbers(n):
    cell = CELLS["GRU"]
    args = (cell, params_of(cell), normal(1, T, I), state_of(cell), MASKS["gaps"], RESET)
    for reverse in (False, True):
        assert_close(jl.unroll(*args, reverse=reverse, remat_every=n), jl.unroll(*args, reverse=reverse))


def test_a_mask_of_a_length_is_the_shorter_sequence(cell):
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    for reverse in (False, True):
        state, hs = jl.unroll(cell, params, xs, s_0, np.arange(T) < 5, reverse=reverse)
        short, short_hs = jl.unroll(cell, params, xs[:5], s_0, reverse=reverse)
        assert_close((state, hs[:5]), (short, short_hs))
        np.testing.assert_array_equal(hs[5:], np.zeros((3, H)))
        # The last output is in the state, not in the last row.
        assert_close(state.h, hs[0] if reverse else hs[4])


def test_a_reset_starts_a_sequence_of_its_own(cell):
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    state, hs = jl.unroll(cell, params, xs, s_0, None, RESET)  # at steps 3 and 7
    starts = [s_0, cell.initial_state(params), cell.initial_state(params)]
    parts = [loop(cell, params, part, s) for part, s in zip(np.split(xs, [3, 7]), starts, strict=True)]
    assert_close(hs, np.concatenate([p[1] for p in parts]))
    assert_close(state, parts[-1][0])
    assert not np.allclose(hs[3:], jl.unroll(cell, params, xs, s_0)[1][3:], atol=1e-3)


def test_a_reset_on_a_masked_step_has_no_effect():
    cell = CELLS["LSTM"]
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    mask = np.arange(T) != 2
    at_2, at_3 = np.arange(T) == 2, np.arange(T) == 3
    dropped = jl.unroll(cell, params, xs, s_0, mask, at_2)
    jax.tree.map(np.testing.assert_array_equal, dropped, jl.unroll(cell, params, xs, s_0, mask, NEVER))
    assert not np.allclose(dropped[1], jl.unroll(cell, params, xs, s_0, mask, at_3)[1], atol=1e-3)


@pytest.mark.parametrize("options", ["hoisted", "plain", "remat"])
def test_the_gradient_is_cut_at_a_reset(cell, options):
    # A loss on what comes after the reset at step 3 cannot see what came before it.
    after = normal(3, T, H, dtype=np.float32) * (np.arange(T) >= 3)[:, None]
    cut, whole = (run(cell, options, ALWAYS, r, d_hs=after) for r in (np.arange(T) == 3, NEVER))
    for before in (cut["d_state"], cut["d_xs"][:3]):
        assert not any(np.asarray(a).any() for a in jax.tree.leaves(before))
    assert np.abs(cut["d_xs"][3:]).min() > 0
    assert np.abs(whole["d_xs"]).min() > 0
    assert all(np.abs(a).min() > 0 for a in whole["d_state"])


# Padding.


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("padding", MASKS)
def test_garbage_in_padding_changes_no_bit_of_anything(cell, padding, options):
    mask = MASKS[padding]
    clean = run(cell, options, mask)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(clean))
    for garbage in (np.nan, np.inf, -np.inf, np.float32(3e38)):
        xs = np.where(mask[:, None], normal(2, T, I), garbage).astype(np.float32)
        dirty = run(cell, options, mask, xs=xs)
        assert {k: the_bytes(v) for k, v in dirty.items()} == {k: the_bytes(v) for k, v in clean.items()}
    np.testing.assert_array_equal(clean["hs"][~mask], np.zeros(((~mask).sum(), H)))
    np.testing.assert_array_equal(clean["d_xs"][~mask], np.zeros(((~mask).sum(), I)))


@pytest.mark.parametrize("padding", MASKS)
def test_the_comparison_of_bits_notices_one_live_step(padding):
    mask, xs = MASKS[padding], normal(2, T, I, dtype=np.float32)
    xs[np.flatnonzero(mask)[0]] *= np.float32(1 + 1e-5)
    clean, other = (run(CELLS["LSTM"], "hoisted", mask, xs=x) for x in (None, xs))
    assert all(the_bytes(clean[k]) != the_bytes(other[k]) for k in ("loss", "hs", "d_params", "d_xs"))


@pytest.mark.parametrize("options", OPTIONS)
def test_a_sequence_of_length_0_is_its_initial_state_bit_for_bit(cell, options):
    s_0 = jax.tree.map(lambda a: np.array([-0.0, 1e-45, np.pi, -3e38], np.float32), state_of(cell))
    ones = jax.tree.map(np.ones_like, s_0)
    for xs in (normal(2, T, I, dtype=np.float32), np.full((T, I), np.nan, np.float32)):
        out = run(cell, options, NEVER, RESET, xs=xs, state=s_0, d_s_T=ones)
        assert the_bytes(out["s_T"]) == the_bytes(s_0)
        np.testing.assert_array_equal(out["hs"], np.zeros((T, H)))
        # The loss sums the final state: the gradient is 1 to the initial state and 0 to everything else.
        jax.tree.map(np.testing.assert_array_equal, out["d_state"], ones)
        assert not any(np.asarray(a).any() for a in jax.tree.leaves((out["d_params"], out["d_xs"])))
    # One live step, and all of this is otherwise.
    s_0 = state_of(cell, dtype=np.float32)
    alive = run(cell, options, np.arange(T) == 4, RESET, state=s_0, d_s_T=ones)
    assert the_bytes(alive["s_T"]) != the_bytes(s_0)
    assert all(np.asarray(a).any() for a in alive["d_params"])
    assert the_bytes(alive["d_state"]) != the_bytes(ones)


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_zero_steps_keep_the_state_and_give_params_no_gradient(cell, engine):
    params, s_0, xs, masks = params_of(cell), state_of(cell), np.zeros((0, I)), np.zeros(0, bool)

    @jax.jit
    def grads(params, s_0, xs):
        def loss(params, s_0, xs):
            state, hs = jl.unroll(cell, params, xs, s_0, masks, masks, engine=engine)
            return sum(a.sum() for a in state) + hs.sum()

        return jax.grad(loss, (0, 1, 2))(params, s_0, xs)

    for some in ((), (masks,), (masks, masks)):
        state, hs = jl.unroll(cell, params, xs, s_0, *some, engine=engine)
        jax.tree.map(np.testing.assert_array_equal, state, s_0)
        np.testing.assert_array_equal(hs, np.zeros((0, H)), strict=True)
    states = jl.unroll_states(cell, params, xs, s_0, engine=engine, reverse=True, remat_every=2)
    jax.tree.map(lambda a: np.testing.assert_array_equal(a, np.zeros((0, H)), strict=True), states)
    d_params, d_s_0, d_xs = grads(params, s_0, xs)
    jax.tree.map(lambda d, p: np.testing.assert_array_equal(d, np.zeros_like(p), strict=True), d_params, params)
    jax.tree.map(lambda d, s: np.testing.assert_array_equal(d, np.ones_like(s)), d_s_0, s_0)
    assert d_xs.shape == (0, I)


def test_no_steps_at_all_without_a_state_are_the_cells_own_state(cell):
    state, _ = jl.unroll(cell, params_of(cell), np.zeros((0, I)))
    assert all((np.asarray(a) == np.zeros(H)).all() for a in state)


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_a_nan_affects_only_its_own_row_from_its_step_on(cell, engine):
    params = params_of(cell, dtype=np.float32)
    xs = normal(4, 4, T, I, dtype=np.float32)
    sick = xs.copy()
    sick[1, 3, 0] = np.nan
    run_batch = jl.batched(partial(jl.unroll, engine=engine))
    (state, hs), (sick_state, sick_hs) = (run_batch(cell, params, x) for x in (xs, sick))
    others = [0, 2, 3]
    assert the_bytes(hs[jnp.array(others)]) == the_bytes(sick_hs[jnp.array(others)])
    for a, b in zip(state, sick_state, strict=True):
        assert the_bytes(a[jnp.array(others)]) == the_bytes(b[jnp.array(others)])
        assert np.isnan(b[1]).all()
    assert the_bytes(hs[1, :3]) == the_bytes(sick_hs[1, :3])
    assert np.isnan(sick_hs[1, 3:]).all()
    assert np.isfinite(hs).all()


def test_a_live_nan_is_in_the_loss_and_in_every_gradient(cell):
    xs = normal(2, T, I, dtype=np.float32)
    xs[3, 1] = np.nan
    for options in ("hoisted", "plain"):
        out = run(cell, options, MASKS["right"], NEVER, xs=xs)
        assert np.isnan(out["loss"])
        assert all(np.isnan(a).any() for a in jax.tree.leaves(out["d_params"]))


def test_a_reset_clears_a_nan_in_outputs_but_not_in_gradients(cell):
    xs = normal(2, T, I, dtype=np.float32)
    xs[1, 1] = np.nan
    out, clean = (run(cell, "hoisted", ALWAYS, RESET, xs=x) for x in (xs, None))
    assert the_bytes(out["hs"][3:]) == the_bytes(clean["hs"][3:])
    assert np.isnan(out["hs"][1:3]).all()
    # 0 · NaN is NaN: documented, and not hidden.
    assert np.isnan(out["d_params"].w_x).any()


# Streaming and acting.


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_chunks_that_hand_on_their_state_are_one_pass(cell, engine):
    params, xs, s_0, mask = params_of(cell), normal(1, T, I), state_of(cell), MASKS["gaps"]
    whole, hs = jl.unroll(cell, params, xs, s_0, mask, RESET, engine=engine)
    state, parts = s_0, []
    for at in (slice(0, 3), slice(3, 3), slice(3, T)):
        state, part = jl.unroll(cell, params, xs[at], state, mask[at], RESET[at], engine=engine)
        parts.append(part)
    assert_close((state, np.concatenate(parts)), (whole, hs))
    forgot = jl.unroll(cell, params, xs[3:], s_0, mask[3:], NEVER[3:], engine=engine)[1]
    assert not np.allclose(forgot, hs[3:], atol=1e-3)


def test_chunks_in_float32_are_one_pass_to_its_rounding(cell):
    params, xs = params_of(cell, dtype=np.float32), normal(1, T, I, dtype=np.float32)
    whole, hs = jl.unroll(cell, params, xs)
    state, first = jl.unroll(cell, params, xs[:3])
    state, second = jl.unroll(cell, params, xs[3:], state)
    assert_close((state, np.concatenate([first, second])), (whole, hs), atol=1e-6)


def test_a_loop_over_step_is_unroll(cell):
    params, xs, s_0, mask = params_of(cell), normal(1, T, I), state_of(cell), MASKS["gaps"]
    for masks in ((), (mask,), (mask, RESET), (None, RESET)):
        state, hs = s_0, []
        for t in range(T):
            state, h = jl.step(cell, params, state, xs[t], *(f if f is None else f[t] for f in masks))
            hs.append(h)
        assert_close((state, np.stack(hs)), jl.unroll(cell, params, xs, s_0, *masks))
    assert not np.allclose(hs, jl.unroll(cell, params, xs, s_0)[1], atol=1e-3)


def test_a_masked_step_returns_its_state_bit_for_bit_and_zeros(cell):
    s_0 = jax.tree.map(lambda a: np.array([-0.0, 1e-45, np.pi, -3e38], np.float32), state_of(cell))
    x = np.array([np.nan, np.inf, 1], np.float32)
    state, h = jl.step(cell, params_of(cell, dtype=np.float32), s_0, x, np.bool_(False), np.bool_(True))
    assert the_bytes(state) == the_bytes(s_0)
    np.testing.assert_array_equal(h, np.zeros(H))


def test_lax_scan_over_the_cells_own_step_is_unroll(cell):
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    assert_close(jax.lax.scan(partial(cell.step, params), s_0, xs), jl.unroll(cell, params, xs, s_0))


ENVIRONMENTS = 64


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_acting_in_64_environments_step_by_step_is_the_replay(kind):
    cell = CELLS[kind]
    params, w_out = params_of(cell), normal(7, H, I)
    episode = np.random.default_rng(8).random((ENVIRONMENTS, T)) < 0.3  # where episodes begin
    noise = normal(9, ENVIRONMENTS, T, I)
    act = jax.jit(jax.vmap(partial(jl.step, cell), (None, 0, 0, None, 0)))

    def play(reset):
        """Environments whose next observation depends on the action, so that one wrong step spoils the rest."""
        h, xs, hs = np.zeros((ENVIRONMENTS, H)), [], []
        state = jax.tree.map(lambda a: jnp.broadcast_to(a, (ENVIRONMENTS, H)), cell.initial_state(params))
        for t in range(T):
            xs.append(np.tanh(h @ w_out) + noise[:, t])
            state, h = act(params, state, xs[-1], None, reset[:, t])
            hs.append(h)
        return state, np.stack(xs, 1), np.stack(hs, 1)

    state, xs, hs = play(episode)
    replay = jl.batched(jl.unroll)(cell, params, xs, None, None, episode)
    assert_close(replay, (state, hs))
    # Time-major, as actors often store it.
    replay = jl.batched(jl.unroll, time_major=True)(cell, params, xs.swapaxes(0, 1), reset=episode.T)
    assert_close(replay, (state, hs.swapaxes(0, 1)))
    # A flag that comes one step late is noticed.
    late = np.roll(episode, 1, axis=1)
    assert not np.allclose(jl.batched(jl.unroll)(cell, params, xs, None, None, late)[1], hs, atol=1e-3)


# Batches.


def a_batch(cell):
    """As many sequences as steps: an axis in the wrong place fits, and is wrong without a word."""
    rng = np.random.default_rng(11)
    return {
        "xs": rng.normal(size=(T, T, I)),
        "state": jax.tree.map(lambda a: rng.normal(size=(T, H)), state_of(cell)),
        "mask": np.arange(T) < rng.integers(0, T + 1, size=T)[:, None],
        "reset": rng.random((T, T)) < 0.3,
    }


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("by", ["position", "keyword"])
def test_batched_equals_a_loop_over_sequences_when_b_equals_t(cell, by, time_major):
    params, batch = params_of(cell), a_batch(cell)
    want = [
        loop(cell, params, *(jax.tree.map(lambda a, b=b: a[b], batch[n]) for n in ("xs", "state", "mask", "reset")))
        for b in range(T)
    ]
    want_s, want_hs, want_states = jax.tree.map(lambda *a: np.stack(a), *want)
    turned = dict(batch)
    if time_major:
        turned |= {n: batch[n].swapaxes(0, 1) for n in ("xs", "mask", "reset")}
        want_hs, want_states = want_hs.swapaxes(0, 1), jax.tree.map(lambda a: a.swapaxes(0, 1), want_states)
    args, kwargs = (tuple(turned.values()), {}) if by == "position" else ((), turned)
    assert_close(jl.batched(jl.unroll, time_major=time_major)(cell, params, *args, **kwargs), (want_s, want_hs))
    assert_close(jl.batched(jl.unroll_states, time_major=time_major)(cell, params, *args, **kwargs), want_states)
    if isinstance(cell, jl.LSTM):
        assert_close(jl.batched(jl.lstm, time_major=time_major)(params, *args, **kwargs), (want_s, want_hs))
    wrong = jl.batched(jl.unroll, time_major=time_major)(cell, params, **(turned | {"mask": turned["mask"].T}))[1]
    assert not np.allclose(wrong, want_hs, atol=1e-3)


def test_a_time_major_keyword_mask_works_in_batched_but_not_vmap():
    cell = CELLS["LSTM"]
    params, batch = params_of(cell), a_batch(cell)
    xs, mask = batch["xs"].swapaxes(0, 1), batch["mask"].T
    right = jl.batched(jl.unroll)(cell, params, batch["xs"], mask=batch["mask"])[1].swapaxes(0, 1)
    bare = jax.vmap(partial(jl.unroll, cell), in_axes=(None, 1), out_axes=(0, 1))(params, xs, mask=mask)[1]
    by_position = jax.vmap(partial(jl.unroll, cell), in_axes=(None, 1, None, 1), out_axes=(0, 1))(
        params, xs, None, mask
    )[1]
    assert_close(jl.batched(jl.unroll, time_major=True)(cell, params, xs, mask=mask)[1], right)
    assert_close(by_position, right)
    assert not np.allclose(bare, right, atol=1e-3)


@pytest.mark.parametrize("time_major", [False, True])
def test_a_batch_of_none_has_a_state_and_gradients_of_zero(cell, time_major):
    params = params_of(cell)
    xs, masks = np.zeros((T, 0, I) if time_major else (0, T, I)), np.zeros((T, 0) if time_major else (0, T), bool)

    @jax.jit
    def loss_and_outputs(params):
        state, hs = jl.batched(jl.unroll, time_major=time_major)(cell, params, xs, mask=masks, reset=masks)
        return hs.sum() + sum(a.sum() for a in state), (state, hs)

    (loss, (state, hs)), d_params = jax.value_and_grad(loss_and_outputs, has_aux=True)(params)
    assert hs.shape == (*xs.shape[:2], H)
    assert all(a.shape == (0, H) for a in state)
    assert loss == 0
    jax.tree.map(lambda d, p: np.testing.assert_array_equal(d, np.zeros_like(p), strict=True), d_params, params)
    bare = jax.vmap(partial(jl.unroll, cell), in_axes=(None, 0))(params, np.zeros((0, T, I)))[1]
    assert bare.shape == (0, T, H)


# The plain LSTM and its gates; cells of one's own.


def test_lstm_is_unroll_of_the_lstm_its_params_describe():
    cell = CELLS["LSTM"]
    params, xs, s_0 = params_of(cell), normal(1, T, I), state_of(cell)
    for options in ({}, {"reverse": True}, {"remat_every": 3}):
        ours = jl.lstm(params, xs, s_0, MASKS["gaps"], RESET, **options)
        jax.tree.map(
            np.testing.assert_array_equal, ours, jl.unroll(cell, params, xs, s_0, MASKS["gaps"], RESET, **options)
        )
    jax.tree.map(np.testing.assert_array_equal, jl.lstm_step(params, s_0, xs[0]), jl.step(cell, params, s_0, xs[0]))
    assert not np.allclose(jl.lstm(params, xs, s_0)[1], jl.lstm(params, xs)[1], atol=1e-3)


def test_the_gates_over_time_are_those_of_the_equations():
    cell = CELLS["LSTM"]
    params, xs, s_0, mask = params_of(cell), normal(1, T, I), state_of(cell), MASKS["gaps"]
    gates = jl.gates_of(cell, params, xs, s_0, mask, RESET)
    states = jl.unroll_states(cell, params, xs, s_0, mask, RESET)
    before = jax.tree.map(lambda s, a: np.concatenate([a[None], s[:-1]]), states, s_0)
    before = jax.tree.map(lambda a: np.where((mask & RESET)[:, None], 0, a), before)
    z = xs @ params.w_x + before.h @ params.w_h + params.b
    i, f, g, o = (mask[:, None] * φ(part) for φ, part in zip([σ, σ, np.tanh, σ], np.split(z, 4, axis=1), strict=True))
    assert_close(gates, jl.Gates(i, f, g, o))
    # They make the state: c_t = f c_tm1 + i g, h_t = o tanh(c_t), where the mask lets the step happen.
    assert_close(np.where(mask[:, None], gates.f * before.c + gates.i * gates.g, before.c), states.c)
    assert not np.allclose(gates.f * before.c + gates.i * gates.o, states.c, atol=1e-3)


def σ(z):
    return 1 / (1 + np.exp(-z))


class Leaky:
    """A cell that only steps: h_t = (1 - a) h_tm1 + a tanh(x w), with a from its params."""

    input_size, hidden_size = I, H

    def init(self, key, dtype=jnp.float32):
        return {"w": jax.random.normal(key, (I, H), dtype), "a": jnp.full((), 0.25, dtype)}

    def initial_state(self, params):
        return (jnp.zeros((), params["a"].dtype), jnp.zeros(H, params["a"].dtype))

    def step(self, params, state, x):
        steps, h = state
        h = (1 - params["a"]) * h + params["a"] * jnp.tanh(x @ params["w"])
        return (steps + 1, h), h


def test_a_cell_with_only_a_step_runs_as_the_loop():
    cell, params = Leaky(), {"w": normal(0, I, H), "a": np.float64(0.3)}
    params = jax.tree.map(jnp.asarray, params)
    xs, mask = normal(1, T, I), MASKS["gaps"]
    want_s, want_hs, want_states = loop(cell, params, xs, cell.initial_state(params), mask, RESET)
    assert_close(jl.unroll(cell, params, xs, None, mask, RESET), (want_s, want_hs))
    assert_close(jl.unroll(cell, params, xs, None, mask, RESET, remat_every=3), (want_s, want_hs))
    assert_close(jl.unroll_states(cell, params, xs, None, mask, RESET), want_states)
    assert float(jl.unroll(cell, params, xs, None, mask)[0][0]) == mask.sum() != T
