"""Weights of Equinox: LSTMCell and GRUCell, as the module or as a dict of its arrays.

Equinox's matrices are (gates, features), the transpose of ours, with the same gates in the same order: i f g o, or
r z n, with r after the product. `bias` is our b, and `bias_n` of a GRUCell is our b_hn. The state of its LSTMCell is a
tuple (h, c). Equinox is not imported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams
from jax_lstm.interop.parts import (
    Part,
    as_numpy,
    check_options,
    check_shape,
    checked,
    layers_of,
    no_such_cell,
    only_names,
    read_array,
)

FORM = "Equinox"
NAMES = ("weight_ih", "weight_hh", "bias", "bias_n")


def load(module: Any) -> Part:
    """A cell and its params from the weights of Equinox's LSTMCell or GRUCell.

    >>> import numpy as np
    >>> import jax_lstm as jl
    >>> from jax_lstm import interop
    >>> weights = {"weight_ih": np.ones((16, 3), np.float32), "weight_hh": np.ones((16, 4), np.float32)}
    >>> cell, params = interop.equinox.load(weights)
    >>> cell == jl.LSTM(3, 4), params.b.shape
    (True, (16,))

    Args:
        module: the module, such as `eqx.nn.LSTMCell(3, 4, key=key)`, or a dict of its arrays: weight_ih, weight_hh,
            bias and, of a GRUCell, bias_n. A cell without biases gets zeros. For several layers or directions, load
            each cell, and put them together with `Stack` and `Bidirectional`.

    Returns:
        (cell, params): params as JAX arrays of the dtype of the module.

    Raises:
        ValueError: an array is missing, unknown or misshapen; the message has its name.
        TypeError: module is neither a module with these weights nor a dict of float arrays of one dtype.
    """
    caller = "interop.equinox.load"
    found: dict[str, Any] = _leaves(caller, module)
    (rows, H), I = found["weight_hh"].shape, found["weight_ih"].shape[1]
    if rows not in (4 * H, 3 * H) or rows == 0:
        advice = "; transpose it" if H in (4 * rows, 3 * rows) else ""
        raise ValueError(
            f"{caller}: weight_hh must have 4 (LSTMCell) or 3 (GRUCell) times as many rows as columns, but has shape "
            f"{(rows, H)}{advice}"
        )
    is_gru = rows == 3 * H
    shapes = {"weight_ih": (rows, I), "weight_hh": (rows, H), "bias": (rows,)} | ({"bias_n": (H,)} if is_gru else {})
    only_names(caller, found, shapes, "weights of GRUCell" if is_gru else "weights of LSTMCell")
    for name, array in found.items():
        check_shape(caller, name, array, shapes[name], f"as weight_hh has shape {(rows, H)}")
    if is_gru and ("bias" in found) != ("bias_n" in found):
        raise ValueError(f"{caller}: {'bias_n' if 'bias' in found else 'bias'} is missing; pass both biases or none")
    dtype = found["weight_hh"].dtype
    w_x, w_h, *biases = (found.get(name, np.zeros(shape, dtype)).T for name, shape in shapes.items())
    if is_gru:
        return checked(caller, GRU(I, H), GRUParams(w_x, w_h, *biases))
    return checked(caller, LSTM(I, H), LSTMParams(w_x, w_h, *biases))


def dump(cell: Any, params: Any) -> dict[str, np.ndarray]:
    """The arrays of Equinox's LSTMCell or GRUCell with the weights of this cell; the inverse of `load`.

    Put them into a module with `eqx.tree_at(lambda m: [getattr(m, name) for name in arrays], module,
    list(map(jnp.asarray, arrays.values())))`.

    Args:
        cell: an LSTM (plain) or a GRU. Equinox has single cells: call dump for each cell of a `Stack` or
            `Bidirectional`. Dropout is left out.
        params: its params.

    Returns:
        NumPy arrays weight_ih (nH, I), weight_hh (nH, H) and bias (nH,), and of a GRU bias_n (H,).

    Raises:
        NotImplementedError: Equinox lacks the cell or an option; the message names it, and a format that has it.
        ValueError: the params do not fit the cell.
        TypeError: cell is not a cell, or params are not its params.
    """
    caller = "interop.equinox.dump"
    cell, params = checked(caller, cell, params)
    layers = layers_of(caller, FORM, cell, as_numpy(caller, params))
    if [len(layer) for layer in layers] != [1]:
        raise NotImplementedError(
            f"{caller}: {FORM} has single cells, and no {type(cell).__name__}; call dump for each of its cells"
        )
    ((one, p),) = layers[0]
    if type(one) not in (LSTM, GRU):
        raise no_such_cell(caller, FORM, one, "LSTM and GRU")
    check_options(caller, FORM, one, ())
    w_x, w_h, *biases = p
    return dict(zip(NAMES, (w_x.T.copy(), w_h.T.copy(), *biases), strict=False))


def _leaves(caller: str, module: Any) -> dict[str, np.ndarray]:
    """The arrays of the module by name, with both matrices, and without those that are None."""
    given = module if isinstance(module, Mapping) else {n: getattr(module, n) for n in NAMES if hasattr(module, n)}
    if not isinstance(module, Mapping) and not given:
        raise TypeError(
            f"{caller}: module must be an LSTMCell or GRUCell of Equinox, or a dict of its arrays, but is "
            f"{checks.shown(module)}{checks.of_type(module)}"
        )
    only_names(caller, given, NAMES, "module")
    found = {name: read_array(caller, name, array) for name, array in given.items() if array is not None}
    for name in NAMES[:2]:
        if name not in found:
            raise ValueError(f"{caller}: {name} is missing")
        if found[name].ndim != 2:
            raise ValueError(f"{caller}: {name} must be a matrix, but has shape {found[name].shape}")
    return found
