"""Convert a cell to a config of plain data, such as {"cell": "LSTM", "input_size": 3, ...}, and back.

A cell inside a layer is a nested config. The cell that a layer wraps has the key "of", because "cell" names the layer
itself: {"cell": "LearnedInitialState", "of": {"cell": "GRU", ...}}.
"""

from dataclasses import Field, fields, is_dataclass
from typing import Any

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

CELLS = {
    cls.__name__: cls
    for cls in (LSTM, RNN, GRU, JANET, MinLSTM, MinGRU, SLSTM, Stack, Bidirectional, Dropout, LearnedInitialState)
}


def to_config(cell: Cell) -> dict[str, Any]:
    """Convert a cell to a config, a dict of plain data that can be written as JSON or YAML.

    >>> import jax_lstm as jl
    >>> jl.to_config(jl.GRU(input_size=3, hidden_size=4))
    {'cell': 'GRU', 'input_size': 3, 'hidden_size': 4, 'compute_dtype': None}

    Args:
        cell: a cell or layer of this library.

    Returns:
        A dict of strings, numbers, bools, None, and dicts and lists of these. `from_config` makes an equal cell of it.

    Raises:
        TypeError: the cell, or a cell inside it, is not one of this library.
    """
    name = type(cell).__name__
    if CELLS.get(name) is not type(cell) or not is_dataclass(cell):
        raise TypeError(f"to_config: cell must be one of {', '.join(CELLS)}, but is a {name}")
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
        raise ValueError(f"from_config: cell must be one of {', '.join(CELLS)}, but is {name!r}")
    known = {_key(f): f.name for f in fields(CELLS[name])}
    if unknown := sorted(set(rest) - set(known)):
        raise ValueError(f"from_config: {unknown[0]!r} is not a field of {name}; it takes {', '.join(sorted(known))}")
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
