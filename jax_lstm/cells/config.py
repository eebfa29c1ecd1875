"""A cell as plain data, for files: {"cell": "LSTM", "input_size": 3, ...}, and back."""

from dataclasses import fields, is_dataclass
from typing import Any

from jax_lstm.cells.base import Cell
from jax_lstm.cells.gru import GRU
from jax_lstm.cells.lstm import LSTM
from jax_lstm.cells.min_lstm import MinLSTM
from jax_lstm.cells.rnn import RNN

CELLS = {cls.__name__: cls for cls in (LSTM, RNN, GRU, MinLSTM)}


def to_config(cell: Cell) -> dict[str, Any]:
    """A dict of strings, numbers and None from which `from_config` makes an equal cell.

    Raises:
        TypeError: the cell is none of the library's own.
    """
    name = type(cell).__name__
    if CELLS.get(name) is not type(cell) or not is_dataclass(cell):
        raise TypeError(f"to_config: cell must be one of {', '.join(CELLS)}, but is a {name}")
    return {"cell": name} | {f.name: getattr(cell, f.name) for f in fields(cell)}


def from_config(config: dict[str, Any]) -> Cell:
    """The cell that a config describes; absent fields take their defaults.

    Raises:
        ValueError: an unknown cell or field, or a field out of range; the message names it.
        TypeError: config is no dict, or a field is of another type or missing.
    """
    if not isinstance(config, dict):
        raise TypeError(f"from_config: config must be a dict, but is a {type(config).__name__}")
    rest = dict(config)
    name = rest.pop("cell", None)
    if not isinstance(name, str) or name not in CELLS:
        raise ValueError(f"from_config: cell must be one of {', '.join(CELLS)}, but is {name!r}")
    known = {f.name for f in fields(CELLS[name])}
    if unknown := sorted(set(rest) - known):
        raise ValueError(f"from_config: {unknown[0]!r} is no field of {name}; it takes {', '.join(sorted(known))}")
    return CELLS[name](**rest)
