"""Nothing is traced or compiled twice: not for the same shapes, not for other masks, not for an equal cell."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import HLO, compilations, equations

import jax_lstm as jl

I, H, T, B = 3, 4, 6, 5
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(B, T, I)).astype(np.float32)


def ragged(n):
    """The n-th mask and reset of a batch: other lengths, other episodes, the same shapes."""
    rng = np.random.default_rng(n)
    return np.arange(T) < rng.integers(0, T + 1, size=B)[:, None], rng.random((B, T)) < 0.3


def params_of(cell):
    shapes = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.map(lambda s: jnp.asarray(np.random.default_rng(1).normal(size=s.shape).astype(s.dtype)), shapes)


CALLS = {
    "unroll": lambda cell, params, xs: jl.unroll(cell, params, xs),
    "unroll with a state, mask and reset": lambda cell, params, xs: jl.unroll(
        cell, params, xs, cell.initial_state(params), *(f[0] for f in ragged(int(np.abs(xs).sum())))
    ),
    "unroll_states": lambda cell, params, xs: jl.unroll_states(cell, params, xs, reverse=True),
    "remat_every": lambda cell, params, xs: jl.unroll(cell, params, xs, remat_every=4),
    "batched": lambda cell, params, xs: jl.batched(jl.unroll)(cell, params, xs[None]),
    "tbptt": lambda cell, params, xs: jl.tbptt(cell, params, xs, window=4, stride=2),
    "plain": lambda cell, params, xs: jl.unroll(cell, params, xs, engine="plain"),
    "step": lambda cell, params, xs: jl.step(cell, params, cell.initial_state(params), xs[0]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_second_eager_call_compiles_nothing(cell, call):
    params, other = params_of(cell), jax.tree.map(lambda p: -p, params_of(cell))
    CALLS[call](cell, params, XS[0])
    with compilations() as seen:
        # Other numbers, and an equal cell that is another object.
        results = CALLS[call](type(cell)(I, H), other, XS[1])
    assert seen == []
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(results))


def test_a_second_eager_lstm_or_gates_of_call_compiles_nothing():
    cell = jl.LSTM(I, H)
    params, other = params_of(cell), jax.tree.map(lambda p: -p, params_of(cell))
    for call in (jl.lstm, partial(jl.gates_of, cell)):
        call(params, XS[0])
        with compilations() as seen:
            call(other, XS[1])
        assert seen == []


def test_a_new_shape_or_option_is_compiled_and_noticed():
    cell = jl.GRU(I, 7)  # a size of its own: no other test has compiled it
    params = params_of(cell)
    jl.unroll(cell, params, XS[0])
    for xs, options in [(XS[0][:-1], {}), (XS[0], {"reverse": True, "remat_every": 5})]:
        with compilations() as seen:
            jl.unroll(cell, params, xs, **options)
        assert any("compile" in event.split("/")[-1] for event in seen)


def train_step(cell, params, xs, mask, reset):
    def loss(params):
        state, hs = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset)
        return (hs**2).sum() + state.h.sum()

    value, grads = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), value


def test_100_training_steps_with_ragged_masks_trace_once(cell):
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(train_step, n=1))
    params, values = params_of(cell), set()
    for n in range(100):
        params, value = step(cell, params, XS, *ragged(n))
        values.add(float(value))
    assert len(values) > 50
    # One more step in time is another trace, and is noticed.
    with pytest.raises(AssertionError, match="traced"):
        step(cell, params, XS[:, :-1], *(f[:, :-1] for f in ragged(0)))


class Counting(jl.GRU):
    """A GRU that counts how often its update is traced."""

    traces = 0

    def update(self, params, state, z):
        Counting.traces += 1
        return super().update(params, state, z)


@pytest.mark.parametrize("engine", ["hoisted", "plain"])
def test_later_eager_calls_with_ragged_masks_trace_nothing(engine):
    cell = Counting(I, H)
    params, batched = params_of(cell), jl.batched(partial(jl.unroll, engine=engine))
    batched(cell, params, XS, None, *ragged(0))
    after_one = Counting.traces
    for n in range(100):
        batched(cell, params, XS, None, *ragged(n))
    assert Counting.traces == after_one > 0
    batched(cell, params, XS[:, :-1], None, *(f[:, :-1] for f in ragged(0)))
    assert Counting.traces > after_one


def test_nothing_is_logged_as_compiled_on_the_second_call(cell, caplog):
    params = params_of(cell)
    call = partial(jl.unroll, cell, params, remat_every=5)
    with jax.log_compiles(True):
        call(XS[0])
        first = [r.message for r in caplog.records if "ompil" in r.message]
        caplog.clear()
        call(XS[1])
        again = [r.message for r in caplog.records if "ompil" in r.message]
    assert first
    assert again == []


LENGTHS = (5, 17, 30, 42, 64, 65, 80, 101, 128, 130, 190)


def documented_bucket():
    """The recipe for many lengths in docs/semantics.md."""
    page = (Path(__file__).parents[1] / "docs/semantics.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def bucket" in block]
    assert str(LENGTHS) in code
    assert "11 lengths, 3 programs" in code
    names: dict[str, Any] = {"jax": jax, "jl": jl}
    exec(code.split("for length")[0], names)
    return names["run"], names["bucket"]


def test_documented_buckets_compile_3_programs_for_11_lengths():
    cell, (run, bucket) = jl.GRU(I, 5), documented_bucket()  # a size of its own: no other test has compiled it
    params, data = params_of(cell), np.random.default_rng(0).normal(size=(190, I)).astype(np.float32)
    results = {}
    with compilations() as seen:
        for T in LENGTHS:
            xs, mask = bucket(data[:T])
            results[T] = jax.tree.map(np.asarray, run(cell, params, xs, None, mask))
    assert sum("backend_compile" in event for event in seen) == 3
    for T in (5, 64, 101):
        state, hs = jl.unroll(cell, params, data[:T], engine="plain")
        np.testing.assert_allclose(results[T][1][:T], hs, rtol=0, atol=1e-6)
        np.testing.assert_allclose(results[T][0].h, state.h, rtol=0, atol=1e-6)
        assert not results[T][1][T:].any()


def test_a_tree_map_takes_the_first_state_of_a_batch():
    cell = jl.LSTM(I, H)
    params = params_of(cell)
    states, _ = jl.batched(jl.unroll)(cell, params, XS)
    first = jax.tree.map(lambda a: a[0], states)
    for name in ("h", "c"):
        one = getattr(jl.unroll(cell, params, XS[0])[0], name)
        np.testing.assert_allclose(getattr(first, name), one, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(states[0], states.h)


def train_step_over(steps, cell, options):
    """The gradient of a run over so many steps, and abstract arguments of it."""

    def loss(params, xs):
        state, hs = jl.unroll(cell, params, xs, **options)
        return hs.sum() + state.h.sum()

    return jax.jit(jax.grad(loss)), (params_of(cell), jax.ShapeDtypeStruct((steps, I), jnp.float32))


@pytest.mark.parametrize("options", [{}, {"remat_every": 20}, {"engine": "plain"}], ids=str)
def test_a_program_of_2000_steps_has_the_size_of_one_of_40(cell, options):
    def length(steps):
        step, args = train_step_over(steps, cell, options)
        traced = step.trace(*args)
        compiled = HLO(traced.lower().compile().as_text() or "")
        return len(list(equations(traced.jaxpr))), sum(map(len, compiled.computations.values()))

    (traced, compiled), (traced_long, compiled_long) = length(40), length(2000)
    assert traced_long == traced > 20
    assert compiled_long == pytest.approx(compiled, rel=0.1)  # XLA pads or fuses a stream by its size
    assert compiled > 50


def test_the_program_of_a_python_loop_grows_with_the_steps():
    cell = jl.RNN(I, H)

    def loss(params, xs):
        state = cell.initial_state(params)
        for x in xs:
            state, _ = cell.step(params, state, x)
        return state.h.sum()

    def length(steps):
        return len(list(equations(jax.make_jaxpr(jax.grad(loss))(params_of(cell), XS[0][:steps]))))

    assert length(6) > 1.5 * length(3)
