"""The registry of cells: a registered class is found by configs and by the table of tests, and a bad one is refused."""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problem import CELLS, WRITTEN, problem, table

import jax_lstm as jl
from jax_lstm.registry import CELLS as REGISTERED


class Level(NamedTuple):
    """The state of Leaky: its field is not called h."""

    s: Any


@dataclass(frozen=True)
class Leaky:
    """A leaky integrator: s ← s + gain (tanh(x w) − s)."""

    input_size: int
    hidden_size: int
    gain: float = 0.5

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)

    def initial_state(self, params):
        return Level(jnp.zeros(self.hidden_size, params.dtype))

    def step(self, params, state, x):
        s = state.s + self.gain * (jnp.tanh(x @ params) - state.s)
        return Level(s), s


@pytest.fixture(autouse=True)
def registry():
    """The registry, restored after each test."""
    cells = dict(REGISTERED)
    yield REGISTERED
    REGISTERED.clear()
    REGISTERED.update(cells)


def test_register_cell_returns_the_class_and_accepts_it_twice():
    assert jl.register_cell(Leaky) is Leaky
    assert jl.register_cell(Leaky) is Leaky
    assert REGISTERED["Leaky"] is Leaky


def test_a_registered_cell_is_made_from_a_config_and_back():
    cell = Leaky(3, 4, gain=0.1)
    with pytest.raises(TypeError, match="register your own with register_cell"):
        jl.to_config(cell)
    jl.register_cell(Leaky)
    config = {"cell": "Leaky", "input_size": 3, "hidden_size": 4, "gain": 0.1}
    assert jl.to_config(cell) == config
    assert jl.from_config(config) == cell
    stack = jl.Stack((cell, jl.GRU(4, 2)))
    assert jl.from_config(jl.to_config(stack)) == stack


MODELS = {
    "Model": jl.Model(jl.LSTM(3, 4), output_size=2),
    "Model with symbols": jl.Model(jl.Stack((jl.GRU(3, 4), jl.Dropout(jl.LSTM(4, 2), hidden=0.1))), 5, vocabulary=5),
    "Readout": jl.Readout(4, 2),
    "Embedding": jl.Embedding(5, 3),
    "Truncated": jl.gradflow.Truncated(jl.LSTM(3, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_made_from_a_config_and_back(name):
    config = json.loads(json.dumps(jl.to_config(MODELS[name])))
    assert jl.from_config(config) == MODELS[name]


def test_the_config_of_a_model_has_its_cell_under_cell():
    config = {"model": "Model", "cell": jl.to_config(jl.GRU(3, 4)), "output_size": 2, "vocabulary": None}
    assert jl.to_config(jl.Model(jl.GRU(3, 4), 2)) == config
    assert jl.from_config(
        {"model": "Model", "cell": {"cell": "GRU", "input_size": 3, "hidden_size": 4}, "output_size": 2}
    )
    assert jl.to_config(jl.Embedding(5, 3)) == {"model": "Embedding", "vocabulary": 5, "output_size": 3}


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"cell": "LSTM", "input_size": 3}, TypeError, "the config of LSTM must have 'hidden_size', but has not"),
        ({"cell": "Dropout", "hidden": 0.1}, TypeError, "the config of Dropout must have 'of'"),
        ({"cell": "Stack"}, TypeError, "the config of Stack must have 'cells'"),
        ({"cell": "Stack", "cells": [{"cell": "GRU", "hidden_size": 3}]}, TypeError, "of GRU must have 'input_size'"),
        ({"cell": "Bidirectional"}, TypeError, "the config of Bidirectional must have 'forward'"),
        ({"model": "Model", "output_size": 2}, TypeError, "the config of Model must have 'cell'"),
        ({"model": "LSTM"}, ValueError, "model must be one of Model, Readout, Embedding, but is 'LSTM'"),
        ({"cell": "Model"}, ValueError, "cell must be one of .*, but is 'Model'"),
        ({"model": "Readout", "input_size": 3, "units": 2}, ValueError, "'units' is not a field of Readout"),
        ({"cell": "GRU", 3: 4, "size": 2}, ValueError, "3 is not a field of GRU"),
    ],
)
def test_a_config_that_lacks_a_field_is_refused_by_name(config, error, said):
    with pytest.raises(error, match=f"^from_config: .*{said}"):
        jl.from_config(config)


@dataclass(frozen=True)
class Derived(Leaky):
    """A cell with a field that its constructor does not take."""

    squared: float = field(init=False, default=0.25)


def test_a_field_that_is_computed_is_no_part_of_a_config():
    jl.register_cell(Derived)
    assert "squared" not in jl.to_config(Derived(3, 4))
    assert jl.from_config(jl.to_config(Derived(3, 4))) == Derived(3, 4)


def test_register_cell_makes_a_static_pytree():
    @jl.register_cell
    @dataclass(frozen=True)
    class Own(Leaky):
        pass

    assert jax.tree.leaves((Own(3, 4), Own(3, 4, gain=0.1))) == []
    assert jax.tree.structure(Own(3, 4)) == jax.tree.structure(Own(3, 4))
    assert jax.tree.structure(Own(3, 4)) != jax.tree.structure(Own(3, 4, gain=0.1))


def test_every_registered_cell_has_a_row_in_the_table_of_tests():
    assert {type(row.cell) for row in CELLS.values()} | {jl.gradflow.Truncated} >= set(REGISTERED.values())
    assert CELLS == WRITTEN, "the cells of the library have a reference written from their equations"


@pytest.mark.parametrize("mode", ["plain", "masked"])
def test_a_new_cells_row_compares_unroll_with_its_own_step(mode):
    jl.register_cell(Leaky)
    row: Any = table()["Leaky"]
    assert row.cell == Leaky(3, 4)
    made = problem("Leaky", mode)
    ours = jl.unroll(made.how.cell, *made.args, *made.masks, **dict(made.how.options))
    theirs = made.reference(*made.args, *made.masks, **dict(made.how.options))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), ours, theirs)


class Loose:
    """A class that is no dataclass."""


@dataclass(frozen=True)
class Sizes:
    """A frozen dataclass that is no cell."""

    input_size: int
    hidden_size: int


@dataclass(frozen=True)
class Unfinished(jl.SplitCell):
    """A SplitCell without its three parts."""

    input_size: int
    hidden_size: int

    def init(self, key, dtype=jnp.float32):
        return jnp.zeros((), dtype)

    def initial_state(self, params):
        return params


@pytest.mark.parametrize(
    ("cls", "error", "said"),
    [
        (Loose, TypeError, "cls must be a frozen dataclass"),
        (dataclass(type("Thawed", (), {})), TypeError, "cls must be a frozen dataclass"),
        (3, TypeError, "cls must be a frozen dataclass, but is 3"),
        (Sizes, TypeError, "Sizes has no init"),
        (Unfinished, TypeError, "Unfinished has no project"),
        (dataclass(frozen=True)(type("LSTM", (Leaky,), {})), ValueError, "jax_lstm.cells.lstm.LSTM is registered as"),
    ],
)
def test_a_class_that_cannot_be_registered_is_refused(cls, error, said):
    with pytest.raises(error, match=f"^register_cell: .*{said}"):
        jl.register_cell(cls)
    assert REGISTERED["LSTM"] is jl.LSTM
