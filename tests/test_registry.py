"""The registry of cells: a registered class is found by configs and by the table of tests, and a bad one is refused."""

from dataclasses import dataclass
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

    def initial_state(self, params, like=None):
        shape = () if like is None else like.shape[:-2]
        return Level(jnp.zeros((*shape, self.hidden_size), params.dtype))

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

    def initial_state(self, params, like=None):
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
