"""The registry of cells, and the conversion of cells to and from configs.

A config is a dict of plain data, such as {"cell": "LSTM", "input_size": 3, ...}. `CELLS` maps the name of each
registered class to the class. `from_config`, `to_config` and the command line read it.

A cell inside a layer is a nested config. The cell that a layer wraps has the key "of", because "cell" names the layer
itself: {"cell": "LearnedInitialState", "of": {"cell": "GRU", ...}}.
"""

from dataclasses import Field, fields, is_dataclass
from typing import Any, TypeVar

from jax_lstm import checks
from jax_lstm.cell import Cell
from jax_lstm.cells.gru import GRU
from jax_lstm.cells.janet import JANET
from jax_lstm.cells.lstm import LSTM
from jax_lstm.cells.min_gru import MinGRU
from jax_lstm.cells.min_lstm import MinLSTM
from jax_lstm.cells.rnn import RNN
from jax_lstm.cells.slstm import SLSTM
from jax_lstm.layers.bidirectional import Bidirectional
from jax_lstm.layers.dropout import Dropout
from jax_lstm.layers.learned_initial_state import LearnedInitialState
from jax_lstm.layers.stack import Stack

C = TypeVar("C", bound=type)

CELLS: dict[str, type] = {}
PARTS = ("init", "initial_state", "step", "input_size", "hidden_size")


def register_cell(cls: C) -> C:
    """Register the class of a cell under its name, so that configs and the command line find it.

    Use it as a decorator of a frozen dataclass with the five parts of a `Cell`:

        @jl.register_cell
        @dataclass(frozen=True)
        class Leaky:
            input_size: int
            hidden_size: int
            gain: float = 1.0

            def init(self, key, dtype=jnp.float32): ...
            def initial_state(self, params, like=None): ...
            def step(self, params, state, x): ...

    Args:
        cls: the class.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: cls is not a frozen dataclass, or lacks a part of a cell; the message names it.
        ValueError: another class is registered under the same name.
    """
    if not (isinstance(cls, type) and is_dataclass(cls) and cls.__dataclass_params__.frozen):  # pyrefly: ignore
        raise TypeError(
            f"register_cell: cls must be a frozen dataclass, but is {checks.shown(cls)}; decorate the class with "
            "@dataclass(frozen=True) first"
        )
    has = {*dir(cls), *(f.name for f in fields(cls))}
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))  # what a subclass of SplitCell has not defined
    if missing := [*(name for name in PARTS if name not in has), *abstract]:
        raise TypeError(f"register_cell: cls must be the class of a cell, but {cls.__name__} has no {missing[0]}")
    if CELLS.setdefault(cls.__name__, cls) is not cls:
        taken = CELLS[cls.__name__]
        raise ValueError(
            f"register_cell: the name of cls must be new, but {taken.__module__}.{taken.__qualname__} is registered as "
            f"{cls.__name__}; rename the class"
        )
    return cls


for _cls in (LSTM, RNN, GRU, JANET, MinLSTM, MinGRU, SLSTM, Stack, Bidirectional, Dropout, LearnedInitialState):
    register_cell(_cls)


def to_config(cell: Cell) -> dict[str, Any]:
    """Convert a cell to a config, a dict of plain data that can be written as JSON or YAML.

    >>> import jax_lstm as jl
    >>> jl.to_config(jl.GRU(input_size=3, hidden_size=4))
    {'cell': 'GRU', 'input_size': 3, 'hidden_size': 4, 'compute_dtype': None}

    Args:
        cell: a cell or layer whose class is registered: one of this library, or your own after `register_cell`.

    Returns:
        A dict of strings, numbers, bools, None, and dicts and lists of these. `from_config` makes an equal cell of it.

    Raises:
        TypeError: the class of the cell, or of a cell inside it, is not registered.
    """
    name = type(cell).__name__
    if CELLS.get(name) is not type(cell) or not is_dataclass(cell):
        raise TypeError(
            f"to_config: cell must be one of {', '.join(CELLS)}, but is a {name}; register your own with register_cell"
        )
    return {"cell": name} | {_key(f): _as_data(getattr(cell, f.name)) for f in fields(cell)}


def from_config(config: dict[str, Any]) -> Cell:
    """Make a cell from a config, the inverse of `to_config`.

    Args:
        config: a dict with the name of the cell's class under "cell", and its fields; absent fields take their
            defaults. The cell inside a Dropout or LearnedInitialState is a nested config under "of"; the cells of a
            Stack are a list under "cells"; those of a Bidirectional are under "forward" and "backward".

    Returns:
        The cell.

    Raises:
        ValueError: an unknown cell or field, or a field out of range; the message names it.
        TypeError: config is not a dict, or a field is missing or of a wrong type.
    """
    if not isinstance(config, dict):
        raise TypeError(f"from_config: config must be a dict, but is a {type(config).__name__}")
    rest = dict(config)
    name = rest.pop("cell", None)
    if not isinstance(name, str) or name not in CELLS:
        raise ValueError(f"from_config: cell must be one of {', '.join(CELLS)}, but is {checks.shown(name)}")
    known = {_key(f): f.name for f in fields(CELLS[name])}
    if unknown := sorted(set(rest) - set(known)):
        raise ValueError(
            f"from_config: {checks.shown(unknown[0])} is not a field of {name}; it takes {', '.join(sorted(known))}"
        )
    return CELLS[name](**{known[key]: _from_data(value) for key, value in rest.items()})


def _key(field: Field) -> str:
    return "of" if field.name == "cell" else field.name


def _as_data(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_data(v) for v in value]
    return to_config(value) if hasattr(value, "input_size") else value


def _from_data(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_data(v) for v in value)
    return from_config(value) if isinstance(value, dict) else value
