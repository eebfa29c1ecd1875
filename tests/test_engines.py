"""Engines: each runs the cells that it takes as the plain engine does, and says what to use for the others."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problem import CELLS, loss, problem, run
from programs import compilations
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.engines import Associative, Auto, Engine, Hoisted, Plain

ENGINES = {"auto": Auto(), "hoisted": Hoisted(), "plain": Plain(), "associative": Associative()}
LINEAR = ("MinLSTM", "MinGRU")
REFUSED = [(name, "associative") for name in CELLS if name not in LINEAR]
ACCEPTED = [(name, engine) for name in CELLS for engine in ENGINES if (name, engine) not in REFUSED]
PATHS = ("LSTM", "GRU", "MinGRU", "stack of four", "bidirectional")  # the others run "auto" in test_matrix
XS = np.random.default_rng(0).normal(size=(6, 3))


def pairs(table, default):
    return pytest.mark.parametrize(("name", "engine"), slow_except([p for p in table if p[0] in default], table))


@pairs([pair for pair in ACCEPTED if pair[1] != "plain"], PATHS)
def test_an_engine_gives_what_the_plain_one_gives(name, engine):
    p = problem(name, "masked")

    def everything(engine):
        how = p.how._replace(engine=engine)
        gradient = jax.grad(lambda args: loss(how, p.weights, args, p.masks))(p.args)
        return run(how, p.args, p.masks), gradient

    ours, expected = jax.jit(lambda: (everything(ENGINES[engine]), everything("plain")))()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), ours, expected)


@pairs(REFUSED, CELLS)
def test_a_refusal_names_the_cell_and_an_engine_that_runs_it(name, engine):
    p = problem(name, "plain")
    with pytest.raises(ValueError, match=rf'^engine "{engine}": ') as error:
        run(p.how._replace(engine=engine), p.args, p.masks)
    (part, advised) = re.findall(r"but (\w+) does not; use engine=\"(\w+)\"", str(error.value))[0]
    assert part in {type(cell).__name__ for cell in parts_of(p.how.cell)}
    jax.eval_shape(lambda: run(p.how._replace(engine=advised), p.args, p.masks))


def parts_of(cell):
    """The cell, or the cells that it is made of."""
    if isinstance(cell, jl.Stack):
        return [part for c in cell.cells for part in parts_of(c)]
    if isinstance(cell, jl.Bidirectional):
        return [cell.forward, cell.backward]
    return parts_of(cell.cell) if isinstance(cell, jl.LearnedInitialState) else [cell]


@dataclass(frozen=True)
class Sums:
    """The five that a cell must have, and nothing else."""

    input_size: int = 3
    hidden_size: int = 3

    def init(self, key, dtype=jnp.float32):
        return {"w": jnp.full(3, 0.5, dtype)}

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros_like(params["w"]))

    def step(self, params, state, x):
        state = jl.RNNState(params["w"] * state.h + x)
        return state, state.h


@dataclass(frozen=True)
class Integers(jl.RNN):
    def project(self, params, x):  # pyrefly: ignore[bad-override]
        return jnp.round(super().project(params, x)).astype(jnp.int32)

    def recur(self, params, state):  # pyrefly: ignore[bad-override]
        return None

    def update(self, params, state, z):
        return super().update(params, state, z.astype(state.h.dtype))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Sums(), "must be a SplitCell.*but Sums is not"),
        (Integers(3, 4), "the pre-activation of cell Integers must"),
    ],
)
def test_hoisted_refuses_what_auto_runs_plain(cell, words):
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises(ValueError, match=f'engine "hoisted": .*{words}.*use engine='):
        jl.unroll(cell, params, XS, engine="hoisted")
    stack = jl.Stack((cell, jl.LSTM(cell.hidden_size, 4)))
    both = stack.init(jax.random.key(0), jnp.float64)
    with pytest.raises(ValueError, match=words):
        jl.unroll(stack, both, XS, engine="hoisted")
    for one, p in ((cell, params), (stack, both)):
        auto, plain = (jl.unroll(one, p, XS, engine=engine)[1] for engine in ("auto", "plain"))
        np.testing.assert_allclose(auto, plain, rtol=1e-12)


def test_plain_refuses_a_cell_that_reads_ahead_whole():
    cell = jl.Bidirectional(jl.LSTM(3, 4))
    inputs = jl.engines.Inputs(None, None, None, XS)
    assert "must be causal" in (Plain().refuses(cell, inputs, jl.engines.Options()) or "")


def test_engines_are_equal_by_value_hashable_and_static():
    for name, engine in ENGINES.items():
        assert engine == type(engine)()
        assert hash(engine) == hash(type(engine)())
        assert isinstance(engine, Engine)
        assert jax.tree.leaves(engine) == []
        cell = jl.MinGRU(3, 4)
        params = cell.init(jax.random.key(0), jnp.float64)
        by_name, by_value = (jl.unroll(cell, params, XS, engine=e)[1] for e in (name, engine))
        assert np.array_equal(by_name, by_value)


@dataclass(frozen=True)
class Scaled:
    """An engine of a user: the plain one, with all states scaled."""

    scale: Any = 1.0

    def refuses(self, cell, inputs, options):
        return "too deep" if isinstance(cell, jl.CompositeCell) else None

    def run(self, cell, inputs, options):
        return jax.tree.map(lambda a: self.scale * a, Plain().run(cell, inputs, options))


def test_an_engine_of_a_user_runs_whole_and_part_by_part():
    cell = jl.Stack((jl.LSTM(3, 4), jl.GRU(4, 4)))
    params = cell.init(jax.random.key(0), jnp.float64)
    run = partial(jl.unroll, cell, params)
    expected = run(XS)
    for options in ({}, {"reverse": True}, {"remat_every": 4}):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-12),
            run(XS, engine=Scaled(), **options), run(XS, **options),
        )  # fmt: skip
    lower = jl.unroll(cell.cells[0], params[0], XS)[1]
    upper = jl.unroll(cell.cells[1], params[1], 2 * lower)[1]
    np.testing.assert_allclose(run(XS, engine=Scaled(2.0))[1], 2 * upper, rtol=1e-12)
    truncated = jl.tbptt(cell, params, XS, window=3, engine=Scaled())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), truncated, expected)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Scaled, "is <class"),
        (3, "must be one of auto, plain, hoisted, associative"),
        ("fast", "must be one of auto, plain, hoisted, associative, but is 'fast'"),
        (Scaled({}), "must be hashable"),
    ],
)
def test_what_is_no_engine_is_refused(engine, words):
    cell = jl.LSTM(3, 4)
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises((TypeError, ValueError), match=f"^unroll: engine .*{words}"):
        jl.unroll(cell, params, XS, engine=engine)


@dataclass(frozen=True)
class Shrugs(Scaled):
    def refuses(self, cell, inputs, options):  # pyrefly: ignore[bad-override]
        return False


def test_a_refusal_that_is_no_message_is_named():
    cell = jl.LSTM(3, 4)
    with pytest.raises(TypeError, match="engine Shrugs: refuses must return None or a message, but returns False"):
        jl.unroll(cell, cell.init(jax.random.key(0), jnp.float64), XS, engine=Shrugs())


def test_an_engine_that_holds_a_tracer_is_refused():
    cell = jl.LSTM(3, 4)
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises(TypeError, match="unroll: engine must hold Python numbers, but Scaled holds a traced array"):
        jax.jit(lambda scale: jl.unroll(cell, params, XS, engine=Scaled(scale)))(2.0)


def test_functions_that_run_the_same_program_share_it():
    cell = jl.LSTM(3, 5)
    params = cell.init(jax.random.key(0), jnp.float64)
    jl.unroll(cell, params, XS)
    with compilations() as seen:
        jl.lstm(params, XS)
    assert seen == []


def test_explain_names_engine_layout_and_reason():
    explain = jl.engines.explain
    for cell, xs, options, words in (
        (jl.LSTM(3, 4), XS, {}, r"LSTM: hoisted, inputs projected in the loop \(cpu\)"),
        (jl.LSTM(3, 4), XS, {"engine": "plain"}, "LSTM: plain, .*you asked"),
        (Sums(), XS, {}, "Sums: plain, .*must be a SplitCell"),
        (jl.MinGRU(3, 4), XS, {"engine": Associative()}, "MinGRU: associative, a parallel prefix over 6 steps"),
        (jl.Stack((Sums(), jl.GRU(3, 4))), XS, {"remat_every": 2}, "Sums: plain.*; GRU: hoisted.*segments of 2 steps"),
        (jl.LSTM(3, 4), XS, {"engine": Scaled()}, "LSTM: Scaled, .*you asked"),
    ):
        said = explain(cell, xs, **options)
        assert re.search(words, said), said
        assert "\n" not in said
    with pytest.raises(ValueError, match=r"explain: xs must be \(T, 3\) or \(T, B, 3\)"):
        explain(jl.LSTM(3, 4), np.zeros((6, 4)))
    for xs in (None, np.zeros((6, 3), int)):
        with pytest.raises(TypeError, match="explain: xs must be an array of floats"):
            explain(jl.LSTM(3, 4), xs)
    with pytest.raises(ValueError, match='engine "associative"'):
        explain(jl.LSTM(3, 4), XS, engine="associative")
