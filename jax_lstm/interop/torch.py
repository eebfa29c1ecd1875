"""Weights of PyTorch: state dicts of nn.LSTM, nn.GRU, nn.RNN and their cells. PyTorch itself is not imported.

PyTorch's matrices are (gates, features), the transpose of ours, with the same gates in the same order. It adds two
biases, b_ih and b_hh, where this library adds one:

    LSTM, RNN   b = b_ih + b_hh
    GRU         the same for r and z; for n, b = b_ih and b_hn = b_hh, which r multiplies

`load` adds the two. `dump` writes b as b_ih, and −0 as b_hh, so that the sum is b, bit for bit. PyTorch trains both:
after the same step of an optimizer, its sum has moved twice as far as our b.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams, LSTMVariantParams
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.interop.parts import (
    Layer,
    Part,
    as_numpy,
    assembled,
    check_mapping,
    check_options,
    check_shape,
    checked,
    layers_of,
    no_such_cell,
    read_array,
)

NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(0|[1-9]\d{0,5})(_reverse)?)?", re.ASCII)
CELLS = {4: LSTM, 3: GRU, 1: RNN}  # by the number of gates
FORM = "PyTorch"


def load(state_dict: Mapping[str, Any], prefix: str = "", *, nonlinearity: str = "tanh") -> Part:
    """A cell and its params from a state dict of PyTorch's LSTM, GRU, RNN, LSTMCell, GRUCell or RNNCell.

    Kind, sizes, layers, directions and projection are read off the shapes. One layer becomes a cell, two directions a
    `Bidirectional`, several layers a `Stack`. Dropout between layers is not in the weights: set `Stack(dropout=…)`.

    >>> import numpy as np
    >>> import jax_lstm as jl
    >>> from jax_lstm import interop
    >>> weights = {"weight_ih_l0": np.ones((16, 3), np.float32), "weight_hh_l0": np.ones((16, 4), np.float32)}
    >>> cell, params = interop.torch.load(weights)
    >>> cell == jl.LSTM(3, 4), params.b.shape
    (True, (16,))

    Args:
        state_dict: `module.state_dict()`, or a dict of arrays with the same names. A layer without biases gets zeros.
            A file of PyTorch is a pickle, which this library does not open: use torch.load(path, weights_only=True).
        prefix: what the names start with, such as "encoder.rnn." of the module `encoder.rnn` in a larger one. Other
            names are left alone.
        nonlinearity: the activation of an RNN, "tanh" or "relu", which is not in its weights.

    Returns:
        (cell, params): params as JAX arrays of the dtype in the dict.

    Raises:
        ValueError: a weight is missing, unknown or misshapen; the message has its name.
        TypeError: state_dict is not a dict of float arrays of one dtype.
    """
    caller = "interop.torch.load"
    if isinstance(state_dict, str | bytes) or hasattr(state_dict, "__fspath__"):
        raise TypeError(
            f"{caller}: state_dict must be a dict of arrays, but is {checks.shown(state_dict)}; open a file with "
            "torch.load(path, weights_only=True)"
        )
    if hasattr(state_dict, "state_dict"):
        raise TypeError(f"{caller}: state_dict must be a dict of arrays, but is a module; pass module.state_dict()")
    checks.one_of(caller, "nonlinearity", nonlinearity, ("tanh", "relu"))
    if not isinstance(prefix, str):
        raise TypeError(f"{caller}: prefix must be a string, but is {checks.shown(prefix)}{checks.of_type(prefix)}")
    found: dict[tuple[int, bool], dict[str, np.ndarray]] = {}
    for name, value in check_mapping(caller, "state_dict", state_dict).items():
        if isinstance(name, str) and name.startswith(prefix):
            if (match := NAME.fullmatch(name[len(prefix) :])) is None:
                raise ValueError(_unknown(caller, state_dict, prefix, name))
            kind, layer, reverse = match.groups()
            of_layer = found.setdefault((int(layer or 0), bool(reverse)), {})
            if kind in of_layer:
                raise ValueError(
                    f"{caller}: {name} must be the only {kind} of its layer, but state_dict has it with and without a "
                    "number; pass the weights of one module"
                )
            of_layer[kind] = read_array(caller, name, value)
    if not found:
        raise ValueError(_unknown(caller, state_dict, prefix, None))
    is_cell = f"{prefix}weight_hh" in state_dict
    num_layers, directions = 1 + max(k for k, _ in found), (False, True) if any(r for _, r in found) else (False,)
    layers: list[Layer] = []
    for k in range(num_layers):
        suffixes = {r: "" if is_cell else f"_l{k}{'_reverse' * r}" for r in directions}
        layers.append([_part(caller, prefix, suffixes[r], found.get((k, r), {}), nonlinearity) for r in directions])
    for k, (below, above) in enumerate(pairwise(layers), 1):
        width = sum(cell.output_size for cell, _ in below)
        for (cell, _), reverse in zip(above, directions, strict=False):
            if cell.input_size != width:
                name = f"{prefix}weight_ih_l{k}{'_reverse' * reverse}"
                raise ValueError(
                    f"{caller}: {name} must have {width} columns, the outputs of layer {k - 1}, but has "
                    f"{cell.input_size}"
                )
    return checked(caller, *assembled(layers))


def dump(cell: Any, params: Any) -> dict[str, np.ndarray]:
    """The state dict of PyTorch's nn.LSTM, nn.GRU or nn.RNN with the weights of a cell; the inverse of `load`.

    A `Stack` becomes several layers, a `Bidirectional` two directions. Dropout is left out. Load the result with
    `module.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})`.

    Args:
        cell: an LSTM (plain, or with `projection`), a GRU or an RNN (tanh or relu), or a `Stack` or `Bidirectional`
            of those. All layers must have the same number of units, as in PyTorch.
        params: its params.

    Returns:
        NumPy arrays by name, such as weight_ih_l0 (4H, I), with b in bias_ih_l0 and −0 in bias_hh_l0.

    Raises:
        NotImplementedError: PyTorch lacks the cell or an option; the message names it, and a format that has it.
        ValueError: the params do not fit the cell.
        TypeError: cell is not a cell, or params are not its params.
    """
    caller = "interop.torch.dump"
    cell, params = checked(caller, cell, params)
    layers = layers_of(caller, FORM, cell, as_numpy(caller, params))
    first = layers[0][0][0]
    weights: dict[str, np.ndarray] = {}
    for k, layer in enumerate(layers):
        for (one, p), suffix in zip(layer, ("", "_reverse"), strict=False):
            of_one = _weights(caller, one, p)
            alike = type(one) is type(first) and len(layer) == len(layers[0])
            sizes = [(c.hidden_size, c.output_size, getattr(c, "activation", None)) for c in (one, first)]
            if not alike or sizes[0] != sizes[1]:
                raise NotImplementedError(
                    f"{caller}: {FORM} has one kind of cell, number of units and of directions in all layers, but "
                    f"layer {k} differs from layer 0; call dump for each layer"
                )
            weights |= {f"{name}_l{k}{suffix}": a for name, a in of_one.items()}
    return weights


def _unknown(caller: str, state_dict: Mapping[str, Any], prefix: str, name: str | None) -> str:
    """The message for an unknown name, or if no name has the prefix."""
    prefixes = {
        key.removesuffix(end)
        for key in map(str, state_dict)
        for end in ("weight_hh_l0", "weight_hh")
        if key.endswith(end)
    }
    text = (
        f"{caller}: no weights start with {prefix!r}"
        if name is None
        else f"{caller}: {name!r} is not a recurrent weight"
    )
    prefixes = sorted(prefixes - {prefix})
    if prefixes:
        return f"{text}; recurrent weights have the prefixes {checks.listed(map(repr, prefixes))}: pass one as prefix"
    return f"{text}; names are such as 'weight_ih_l0' and 'bias_hh_l1_reverse', after the prefix"


def _part(caller: str, prefix: str, suffix: str, found: Mapping[str, np.ndarray], nonlinearity: str) -> Part:
    """The cell and the params of one layer in one direction."""
    for kind in ("weight_ih", "weight_hh"):
        if kind not in found:
            raise ValueError(f"{caller}: {prefix}{kind}{suffix} is missing")
        if found[kind].ndim != 2:
            raise ValueError(f"{caller}: {prefix}{kind}{suffix} must be a matrix, but has shape {found[kind].shape}")
    w_ih, w_hh, w_hr = found["weight_ih"], found["weight_hh"], found.get("weight_hr")
    (rows, P), I = w_hh.shape, w_ih.shape[1]
    H = P if w_hr is None else w_hr.shape[-1]
    gates = rows // H if H else 0
    if gates not in CELLS or gates * H != rows or (w_hr is not None and gates != 4):
        advice = "; transpose it" if P and rows and P % rows == 0 and P // rows in CELLS else ""
        raise ValueError(
            f"{caller}: {prefix}weight_hh{suffix} must have 4 (LSTM), 3 (GRU) or 1 (RNN) times as many rows as units, "
            f"but has shape {w_hh.shape}{advice}"
        )
    if gates != 1 and nonlinearity != "tanh":
        raise ValueError(
            f"{caller}: nonlinearity={nonlinearity!r} is for an RNN, but the weights are of {CELLS[gates].__name__}"
        )
    why = f"as {prefix}weight_hh{suffix} has {rows} rows"
    shapes = {"weight_ih": (rows, I), "bias_ih": (rows,), "bias_hh": (rows,), "weight_hr": (P, H)}
    for kind, array in found.items():
        check_shape(caller, f"{prefix}{kind}{suffix}", array, shapes.get(kind, array.shape), why)
    if ("bias_ih" in found) != ("bias_hh" in found):
        missing = "bias_hh" if "bias_ih" in found else "bias_ih"
        raise ValueError(f"{caller}: {prefix}{missing}{suffix} is missing; pass both biases or none")
    zero = np.zeros(rows, w_ih.dtype)
    b_ih, b_hh = found.get("bias_ih", zero), found.get("bias_hh", zero)
    w_x, w_h, b, b_hn = map(jnp.asarray, (w_ih.T, w_hh.T, b_ih + b_hh, b_hh[2 * H :]))
    if gates == 1:
        return RNN(I, H, activation=nonlinearity), RNNParams(w_x, w_h, b)
    if gates == 3:
        b = jnp.concatenate([b[: 2 * H], b_ih[2 * H :]])
        return GRU(I, H), GRUParams(w_x, w_h, b, b_hn)
    if w_hr is None:
        return LSTM(I, H), LSTMParams(w_x, w_h, b)
    return LSTM(I, H, projection=P), LSTMVariantParams(w_x, w_h, b, w_p=jnp.asarray(w_hr.T))


def _weights(caller: str, cell: Any, params: Any) -> dict[str, np.ndarray]:
    """PyTorch's weights of one cell, without layer and direction in their names."""
    if type(cell) not in CELLS.values():  # a subclass may compute something else
        raise no_such_cell(caller, FORM, cell, "LSTM, GRU and RNN")
    has = ("activation",) if getattr(cell, "activation", None) == "relu" else ()
    check_options(caller, FORM, cell, ("projection", *has))
    b_hh = np.full_like(params.b, -0.0)  # b + (−0) is b, also where b is −0
    if isinstance(cell, GRU):
        b_hh[2 * cell.hidden_size :] = params.b_hn
    weights = {"weight_ih": params.w_x.T.copy(), "weight_hh": params.w_h.T.copy(), "bias_ih": params.b, "bias_hh": b_hh}
    if getattr(params, "w_p", None) is not None:
        weights["weight_hr"] = params.w_p.T.copy()
    return weights
