"""Weights of Haiku: LSTM, GRU and VanillaRNN, alone or as the layers of a DeepRNN.

Haiku's matrices have the shape (features, gates), as here. Its cells differ from ours:

    LSTM        w_x and w_h are one matrix, w_x above w_h. Gates i g f o. The forget gate is σ(z_f + 1): b_f is ours − 1
    GRU         gates z r a are our z r n, with reset_after=False. Its z is our 1 − z: w and b of z have the other sign
    VanillaRNN  relu. It has two biases; our b is their sum. `dump` writes b as the first and −0 as the second

`load` inverts `dump` bit for bit, except for b_f of an LSTM: `dump` writes b_f − 1, and `load` adds 1. This is exact
for b_f from 0.5 to 2^24 in float32, to 2^53 in float64, and to 2^8 in bfloat16. Any other b_f is rounded to the spacing
of numbers near b_f − 1: in float32 2^-24 for b_f from 0 to 0.5, and 2^-23 for b_f from −1 to 0. No params of Haiku give
these b_f exactly. Haiku's own sum z_f + 1 has rounding errors of the same size.

Haiku is not imported.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.interop.parts import (
    Part,
    as_numpy,
    assembled,
    check_mapping,
    check_options,
    check_shape,
    checked,
    layers_of,
    no_such_cell,
    only_names,
    read_array,
    reordered,
)

FORM = "Haiku"
NUMBERED: Any = re.compile(r"(.*?)(?:_(\d+))?")  # lstm, lstm_1
NAMES = {LSTM: "lstm", GRU: "gru", RNN: "vanilla_rnn"}
LINEAR, SECOND = "/linear", "/linear_1"  # the modules inside of LSTM and VanillaRNN

# The arrays of a module: those that it must have, the matrices first, and those that it may have.
LEAVES: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    LSTM: ((f"{LINEAR}.w", f"{LINEAR}.b"), ()),
    GRU: ((".w_h", ".w_i", ".b"), ()),
    RNN: ((f"{SECOND}.w", f"{LINEAR}.w", f"{LINEAR}.b"), (f"{SECOND}.b",)),
}

Weights = dict[str, dict[str, np.ndarray]]
Modules = dict[str, dict[str, Any]]  # the arrays of each recurrent module, by their names after that of the module


def load(params: Mapping[str, Mapping[str, Any]], prefix: str | Sequence[str] = "") -> Part:
    """A cell and its params from the params of Haiku's LSTM, GRU or VanillaRNN.

    Kind and sizes are read off names and shapes. A GRU becomes `GRU(reset_after=False)`, a VanillaRNN
    `RNN(activation="relu")`. Several modules become a `Stack`.

    >>> import numpy as np
    >>> import jax_lstm as jl
    >>> from jax_lstm import interop
    >>> weights = {"w": np.ones((3 + 4, 16), np.float32), "b": np.zeros(16, np.float32)}
    >>> cell, params = interop.haiku.load({"lstm/linear": weights})
    >>> cell == jl.LSTM(3, 4), params.b[4:8]
    (True, Array([1., 1., 1., 1.], dtype=float32))

    Args:
        params: Haiku's dict of modules, each a dict of arrays.
        prefix: the name of one module, such as "net/~/lstm", or of a module that holds it. Other modules are left
            alone. Modules of one kind that are numbered, such as lstm, lstm_1 of a DeepRNN, become a `Stack` in this
            order. For another order, pass a list of their names, the lowest layer first.

    Returns:
        (cell, params): params as JAX arrays of the dtype in the dict.

    Raises:
        ValueError: an array is missing, unknown or misshapen, or no recurrent module has the prefix; the message
            names it.
        TypeError: params are not dicts of float arrays of one dtype.
    """
    caller = "interop.haiku.load"
    tree = check_mapping(caller, "params", params)
    if isinstance(prefix, str):
        modules = _modules(caller, tree, prefix)
        names = _in_order(caller, modules)
    else:
        chosen = [_modules(caller, tree, one) for one in _prefixes(caller, prefix)]
        modules = {name: arrays for one in chosen for name, arrays in one.items()}
        names = [name for one in chosen for name in _in_order(caller, one)]
    parts = [_part(caller, name, modules[name]) for name in names]
    for ((below, _), (above, _)), name in zip(pairwise(parts), names[1:], strict=True):
        if above.input_size != below.hidden_size:
            raise ValueError(
                f"{caller}: {name} must take the {below.hidden_size} features of the module before it, but takes "
                f"{above.input_size}; pass the names of the modules as prefix, the lowest layer first"
            )
    return checked(caller, *assembled([[part] for part in parts]))


def dump(cell: Any, params: Any, name: str | None = None) -> Weights:
    """The params of Haiku's modules with the weights of this cell; the inverse of `load`.

    Haiku adds 1 to b_f of an LSTM in each step, so this writes b_f − 1, which rounds a b_f below 0.5; see above.

    Haiku must make the modules with the same names: `hk.LSTM(hidden_size, name="lstm")`. Dropout is left out. A
    VanillaRNN gets both biases, as with double_bias=True, its default.

    Args:
        cell: a plain LSTM, a GRU with reset_after=False, an RNN with relu, or a `Stack` of those.
        params: its params.
        name: name of the module. None: that of Haiku: lstm, gru or vanilla_rnn. Further layers of a `Stack` with the
            same name get _1, _2 and so on at its end, as in Haiku.

    Returns:
        NumPy arrays by the name of the module, then their own, such as dump(…)["lstm/linear"]["w"].

    Raises:
        NotImplementedError: Haiku lacks the cell or an option; the message names it, and a format that has it.
        ValueError: the params do not fit the cell.
        TypeError: cell is not a cell, or params are not its params.
    """
    caller = "interop.haiku.dump"
    cell, params = checked(caller, cell, params)
    weights: Weights = {}
    count: dict[str, int] = {}
    for layer in layers_of(caller, FORM, cell, as_numpy(caller, params)):
        if len(layer) > 1:
            raise NotImplementedError(
                f"{caller}: {FORM} has no Bidirectional; call dump for each of its cells, or use interop.flax"
            )
        one, p = layer[0]
        arrays = _arrays(caller, one, p)
        base = NAMES[type(one)] if name is None else name
        number = count.setdefault(base, 0)
        count[base] += 1
        module = f"{base}_{number}" if number else base
        weights |= {module + inner: of_inner for inner, of_inner in arrays.items()}
    return weights


def _prefixes(caller: str, prefix: Any) -> Sequence[str]:
    """Check a list of prefixes."""
    if not isinstance(prefix, list | tuple) or not prefix or not all(isinstance(one, str) for one in prefix):
        raise TypeError(
            f"{caller}: prefix must be a name or a list of names, but is {checks.shown(prefix)}{checks.of_type(prefix)}"
        )
    return prefix


def _modules(caller: str, tree: Mapping[str, Any], prefix: str) -> Modules:
    """The recurrent modules with this prefix, and their arrays by name, such as "/linear.w"."""
    modules: Modules = {}
    for name, arrays in tree.items():
        name = str(name)
        inner = next((end for end in (LINEAR, SECOND) if name.endswith(end)), "")
        found = modules.setdefault(name.removesuffix(inner), {})
        for leaf, value in check_mapping(caller, name, arrays).items():
            found[f"{inner}.{leaf}"] = value
    recurrent = {name: arrays for name, arrays in modules.items() if _kind(arrays) is not None}
    chosen = {name: arrays for name, arrays in recurrent.items() if f"{name}/".startswith(prefix and f"{prefix}/")}
    if not chosen:
        raise ValueError(
            f"{caller}: params must have an LSTM, GRU or VanillaRNN with prefix {prefix!r}, but have "
            f"{checks.listed(map(repr, recurrent)) or 'none of these at all'}"
        )
    return chosen


def _kind(arrays: Mapping[str, Any]) -> Any:
    """The cell that has arrays of these names, or None."""
    if ".w_i" in arrays or ".w_h" in arrays:
        return GRU
    inner = {name.partition(".")[0] for name in arrays}
    return RNN if SECOND in inner else LSTM if LINEAR in inner else None


def _in_order(caller: str, modules: Modules) -> list[str]:
    """The names of the modules by their numbers, of one kind."""
    split = {name: NUMBERED.fullmatch(name).groups() for name in modules}
    if len({base for base, _ in split.values()}) > 1:
        raise ValueError(
            f"{caller}: prefix must name one module, or modules that differ only in their number, but the params have "
            f"{checks.listed(map(repr, modules))}; pass one of them, or a list, the lowest layer first"
        )
    return sorted(modules, key=lambda name: int(split[name][1] or 0))


def _part(caller: str, module: str, arrays: Mapping[str, Any]) -> Part:
    """The cell and the params of one module."""
    kind = _kind(arrays)
    leaves: dict[str, Any] = {name: read_array(caller, f"{module}{name}", value) for name, value in arrays.items()}
    wanted, optional = LEAVES[kind]
    only_names(caller, [module + name for name in leaves], [module + name for name in (*wanted, *optional)], "params")
    for name in wanted:
        if name not in leaves:
            raise ValueError(f"{caller}: {module}{name} is missing")
    for name in wanted[:-1]:
        if leaves[name].ndim != 2:
            raise ValueError(f"{caller}: {module}{name} must be a matrix, but has shape {leaves[name].shape}")
    return {LSTM: _lstm, GRU: _gru, RNN: _rnn}[kind](caller, module, leaves)


def _lstm(caller: str, module: str, leaves: Mapping[str, Any]) -> Part:
    w: Any = leaves[f"{LINEAR}.w"]
    b: Any = leaves[f"{LINEAR}.b"]
    rows, columns = w.shape
    H = columns // 4
    if H == 0 or columns != 4 * H or rows <= H:
        raise ValueError(
            f"{caller}: {module}{LINEAR}.w must have shape (I + H, 4H) for an LSTM of I features and H units, but "
            f"has {w.shape}"
        )
    check_shape(caller, f"{module}{LINEAR}.b", b, (columns,), f"as {module}{LINEAR}.w has {columns} columns")
    w, b = (reordered(a, "igfo", "ifgo", axis=-1) for a in (w, b))
    b[H : 2 * H] += np.ones((), b.dtype)
    params: Any = (w[:-H], w[-H:], b)
    return LSTM(rows - H, H), LSTMParams(*params)


def _gru(caller: str, module: str, leaves: Mapping[str, Any]) -> Part:
    w_i, w_h, b = leaves[".w_i"], leaves[".w_h"], leaves[".b"]
    I, H = w_i.shape[0], w_h.shape[0]
    for name, shape in ((".w_h", (H, 3 * H)), (".w_i", (I, 3 * H)), (".b", (3 * H,))):
        check_shape(caller, module + name, leaves[name], shape, f"as {module}.w_h has {H} rows")
    return GRU(I, H, reset_after=False), GRUParams(*(_gru_leaf(a, "zrn", "rzn") for a in (w_i, w_h, b)))


def _gru_leaf(array: np.ndarray, there: str, here: str) -> Any:
    """A leaf of a GRU with its gates in the other order, and the sign of those of z changed."""
    array = reordered(array, there, here, axis=-1)
    z = np.split(array, 3, axis=-1)[here.index("z")]
    np.negative(z, out=z)
    return array


def _rnn(caller: str, module: str, leaves: Mapping[str, Any]) -> Part:
    w, w_1 = leaves[f"{LINEAR}.w"], leaves[f"{SECOND}.w"]
    I, H = w.shape[0], w_1.shape[0]
    for name, array in leaves.items():
        shape = (H,) if name.endswith(".b") else (I, H) if name.startswith(f"{LINEAR}.") else (H, H)
        check_shape(caller, module + name, array, shape, f"as {module}{SECOND}.w has {H} rows")
    b, b_1 = leaves[f"{LINEAR}.b"], leaves.get(f"{SECOND}.b")
    return RNN(I, H, activation="relu"), RNNParams(w, w_1, b if b_1 is None else b + b_1)


def _arrays(caller: str, cell: Any, params: Any) -> Weights:
    """Haiku's params of one cell, by the part of the module's name after that of the cell."""
    if type(cell) not in NAMES:
        raise no_such_cell(caller, FORM, cell, "LSTM, GRU and VanillaRNN")
    check_options(caller, FORM, cell, ("reset_after", "activation"))
    w_x, w_h, b = params[:3]
    if isinstance(cell, GRU):
        if cell.reset_after:
            raise NotImplementedError(
                f"{caller}: {FORM} has no reset_after=True of GRU; interop.torch and interop.flax keep it"
            )
        w_x, w_h, b = (_gru_leaf(a, "rzn", "zrn") for a in (w_x, w_h, b))
        return {"": {"w_i": w_x, "w_h": w_h, "b": b}}
    if isinstance(cell, RNN):
        if cell.activation != "relu":
            raise NotImplementedError(
                f"{caller}: {FORM} has no activation={cell.activation!r} of RNN, only 'relu'; interop.onnx keeps it"
            )
        return {LINEAR: {"w": w_x, "b": b}, SECOND: {"w": w_h, "b": np.full_like(b, -0.0)}}
    H = cell.hidden_size
    b[H : 2 * H] -= np.ones((), b.dtype)
    w = np.concatenate([w_x, w_h])
    return {LINEAR: {"w": reordered(w, "ifgo", "igfo", axis=1), "b": reordered(b, "ifgo", "igfo")}}
