"""The registry of cells, the conversion of cells to and from configs, and what `jax.export` needs to save them.

A config is a dict of plain data, such as {"cell": "LSTM", "input_size": 3, ...}. `CELLS` maps the name of each
registered class to the class. `from_config`, `to_config` and the command line read it.

A cell inside a layer is a nested config. The cell that a layer wraps has the key "of", because "cell" names the layer
itself: {"cell": "LearnedInitialState", "of": {"cell": "GRU", ...}}.

Model, Readout and Embedding are no cells, and their configs have the key "model" instead of "cell". So the config of a
Model has its cell under "cell": {"model": "Model", "cell": {"cell": "GRU", ...}, "output_size": 2, ...}.

`jax.export` writes a registered cell as its config, and a NamedTuple of the library as the names of its fields.
"""

import contextlib
import json
import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

import jax.export

from jax_lstm import checks
from jax_lstm.cell import OptionalMethods, make_static
from jax_lstm.cells.gru import GRU
from jax_lstm.cells.janet import JANET
from jax_lstm.cells.lstm import LSTM
from jax_lstm.cells.min_gru import MinGRU
from jax_lstm.cells.min_lstm import MinLSTM
from jax_lstm.cells.rnn import RNN
from jax_lstm.cells.slstm import SLSTM
from jax_lstm.layers.bidirectional import Bidirectional
from jax_lstm.layers.dropout import Dropout
from jax_lstm.layers.embedding import Embedding
from jax_lstm.layers.learned_initial_state import LearnedInitialState
from jax_lstm.layers.model import Model
from jax_lstm.layers.readout import Readout
from jax_lstm.layers.stack import Stack

C = TypeVar("C", bound=type)

CELLS: dict[str, type] = {}
MODELS: dict[str, type] = {cls.__name__: cls for cls in (Model, Readout, Embedding)}
PARTS = ("init", "initial_state", "step", "input_size", "hidden_size")


def register_cell(cls: C) -> C:
    """Register the class of a cell under its name, so that configs, the command line and `jax.export` find it.

    The class becomes a static pytree: `jax.jit(jl.unroll)(cell, params, xs)` then works for a class without base class
    too. `jax.export` can save a program that takes or returns such a cell; it writes the config of the cell. Register
    NamedTuples of your own, such as params, with `jax.export.register_namedtuple_serialization`.

    Use it as a decorator of a frozen dataclass with the five parts of a `Cell`:

        @jl.register_cell
        @dataclass(frozen=True)
        class Leaky:
            input_size: int
            hidden_size: int
            gain: float = 1.0

            def init(self, key, dtype=jnp.float32): ...
            def initial_state(self, params): ...
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
    taken = CELLS.get(cls.__name__, cls)
    # A class that is defined again, as in a notebook cell that runs twice, replaces the old one.
    if (taken.__module__, taken.__qualname__) == (cls.__module__, cls.__qualname__):
        CELLS[cls.__name__] = cls
    else:
        raise ValueError(
            f"register_cell: the name of cls must be new, but {taken.__module__}.{taken.__qualname__} is registered as "
            f"{cls.__name__}; rename the class"
        )
    if not issubclass(cls, OptionalMethods):  # otherwise the first cell does this, after all decorators have run
        make_static(cls)
    _register_export(cls)
    return cls


def _register_export(cls: type) -> None:
    """Tell `jax.export` to write a static object of this class as its config."""

    def write(cell: Any) -> bytes:
        try:
            return json.dumps(to_config(cell)).encode()
        except TypeError as error:
            raise TypeError(
                f"jax.export: cell {type(cell).__name__} must have plain data in its fields to be saved, but {error}; "
                "fix the cell with functools.partial before you export, so that the program does not take it"
            ) from error

    def read(config: bytes) -> Any:
        return from_config(json.loads(config))

    with contextlib.suppress(ValueError):  # the class is registered already, here or by its author
        jax.export.register_pytree_node_serialization(
            cls,
            serialized_name=f"jax_lstm.{cls.__name__}",  # as in a config: the module may be __main__ when it is saved
            serialize_auxdata=write,
            deserialize_auxdata=read,
            from_children=lambda aux_data, children: aux_data,
        )


def register_namedtuples(package: str) -> None:
    """Tell `jax.export` the names of all NamedTuples that the modules of a package define, as far as imported."""
    modules = [module for name, module in sys.modules.items() if f"{name}.".startswith(f"{package}.")]
    for cls in [value for module in modules for value in vars(module).values() if _is_namedtuple(value)]:
        if f"{cls.__module__}.".startswith(f"{package}."):
            with contextlib.suppress(ValueError):  # it is registered already: modules import from each other
                jax.export.register_namedtuple_serialization(cls, serialized_name=f"{package}.{cls.__name__}")


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")


for _cls in (LSTM, RNN, GRU, JANET, MinLSTM, MinGRU, SLSTM, Stack, Bidirectional, Dropout, LearnedInitialState):
    register_cell(_cls)
for _cls in MODELS.values():
    _register_export(_cls)


def to_config(cell: Any) -> dict[str, Any]:
    """Convert a cell or a `Model` to a config, a dict of plain data that can be written as JSON or YAML.

    >>> import jax_lstm as jl
    >>> jl.to_config(jl.GRU(input_size=3, hidden_size=4))
    {'cell': 'GRU', 'input_size': 3, 'hidden_size': 4, 'compute_dtype': None, 'reset_after': True}
    >>> jl.to_config(jl.Readout(input_size=4, output_size=2))
    {'model': 'Readout', 'input_size': 4, 'output_size': 2}

    Args:
        cell: a cell or layer whose class is registered: one of this library, or your own after `register_cell`. Or a
            `Model`, `Readout` or `Embedding`.

    Returns:
        A dict of strings, numbers, bools, None, and dicts and lists of these. `from_config` makes an equal cell of it.
        The name of the class is under "cell"; that of a Model, Readout or Embedding is under "model".

    Raises:
        TypeError: the class of the cell, or of a cell inside it, is not registered.
    """
    name = type(cell).__name__
    kind = next((kind for kind, known in _KINDS.items() if known.get(name) is type(cell)), None)
    if kind is None:
        raise TypeError(
            f"to_config: cell must be one of {', '.join((*CELLS, *MODELS))}, but is a {name}; register your own with "
            "register_cell"
        )
    return {kind: name} | {key: _as_data(getattr(cell, f.name)) for key, f in _fields(kind, type(cell)).items()}


def from_config(config: dict[str, Any]) -> Any:
    """Make a cell or a `Model` from a config, the inverse of `to_config`.

    Args:
        config: a dict with the name of the cell's class under "cell", and its fields; absent fields take their
            defaults. The cell inside a Dropout or LearnedInitialState is a nested config under "of"; the cells of a
            Stack are a list under "cells"; those of a Bidirectional are under "forward" and "backward". A Model,
            Readout or Embedding has its name under "model"; the cell of a Model is a nested config under "cell".

    Returns:
        The cell, or the Model, Readout or Embedding.

    Raises:
        ValueError: an unknown cell or field, or a field out of range; the message names it.
        TypeError: config is not a dict, or a field is missing or of a wrong type; the message names it.
    """
    if not isinstance(config, dict):
        raise TypeError(f"from_config: config must be a dict, but is a {type(config).__name__}")
    rest = dict(config)
    kind = "model" if "model" in rest else "cell"
    known, name = _KINDS[kind], rest.pop(kind, None)
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"from_config: {kind} must be one of {', '.join(known)}, but is {checks.shown(name)}")
    takes = _fields(kind, known[name])
    if unknown := sorted(set(rest) - set(takes), key=str):
        raise ValueError(
            f"from_config: {checks.shown(unknown[0])} is not a field of {name}; it takes {', '.join(sorted(takes))}"
        )
    if missing := [key for key, f in takes.items() if key not in rest and _is_required(f)]:
        raise TypeError(f"from_config: the config of {name} must have {missing[0]!r}, but has not; add it")
    return known[name](**{takes[key].name: _from_data(value) for key, value in rest.items()})


_KINDS = {"cell": CELLS, "model": MODELS}


def _fields(kind: str, cls: type) -> dict[str, Field]:
    """The fields that the constructor takes, by their keys in a config: in that of a cell a field `cell` is "of"."""
    return {"of" if (kind, f.name) == ("cell", "cell") else f.name: f for f in fields(cls) if f.init}


def _is_required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _as_data(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_data(v) for v in value]
    return to_config(value) if hasattr(value, "init") else value


def _from_data(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_data(v) for v in value)
    return from_config(value) if isinstance(value, dict) else value
