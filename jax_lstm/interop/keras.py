"""Weights of Keras 3: LSTM, GRU, SimpleRNN and Bidirectional, as lists of arrays or in a `.weights.h5` file.

Keras' kernels have the shape (features, gates), as here, with these gates:

    LSTM        i f c o, which are our i f g o
    GRU         z r h, which are our z r n
    SimpleRNN   one

A GRU with reset_after=True, the default, has a bias (2, 3H): row 0 is added to the input's side, row 1 to the state's.
For r and z, our b is the sum of both rows. For n, b is row 0, and b_hn is row 1. `dump` writes b in row 0, and −0 in
row 1 for r and z, so that the sum is b, bit for bit. Keras trains both rows: after the same step of an optimizer, their
sum has moved twice as far as our b. With reset_after=False the bias is (3H,), as our b.

Keras is not imported. Files need h5py, a package of the extra `interop`.
"""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.interop.files import package
from jax_lstm.interop.parts import (
    Activations,
    Layer,
    Part,
    as_numpy,
    assembled,
    check_activations,
    check_options,
    check_shape,
    checked,
    checked_activations,
    layers_of,
    no_such_cell,
    read_array,
    reordered,
    with_activations,
)

FORM = "Keras"
OF_ACTIVATION = ("activation", "gate_activation", "cell_activation", "output_activation")
KINDS = {4: LSTM, 3: GRU, 1: RNN}  # by the number of gates
NUMBERED: Any = re.compile(r"(.*?)(?:_(\d+))?", re.DOTALL)  # lstm_cell, lstm_cell_1
NAMES = ("kernel", "recurrent_kernel", "bias")
# Functions of Keras that have the name of a function of `jax.nn`, but other constants.
UNLIKE = {"gelu": "is exact, and that of JAX an approximation", "leaky_relu": "has slope 0.2, and that of JAX 0.01"}

Named = list[tuple[str, Any]]  # arrays with their names in messages


def load(
    weights: Any,
    layer: str | Sequence[str] | None = None,
    *,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    reset_after: bool = True,
) -> Part:
    """A cell and its params from the weights of a recurrent layer of Keras 3.

    Kind and sizes are read off the shapes. A Bidirectional, with merge_mode "concat", becomes a `Bidirectional`.
    Several layers, or the cells of StackedRNNCells, become a `Stack`.

    Options of a Keras layer are not in its weights. If it has other activations than usual, name them here.

    >>> import numpy as np
    >>> import jax_lstm as jl
    >>> from jax_lstm import interop
    >>> weights = [np.ones(shape, np.float32) for shape in ((3, 12), (4, 12), (2, 12))]
    >>> cell, params = interop.keras.load(weights)
    >>> cell == jl.GRU(3, 4), params.b.shape
    (True, (12,))

    Args:
        weights: `layer.get_weights()` of one layer; or a list of these, the lowest layer first, for a `Stack`; or the
            path of a file that `model.save_weights("name.weights.h5")` wrote, or that file opened by h5py.
        layer: which layer of a file: its name, or its path in the file, such as "layers/lstm". A list of names gives a
            `Stack`. None: the only recurrent layer of the file.
        activation: that of the Keras layer, a name or function as in `jl.RNN`; an LSTM has it for g and for c. gelu and
            leaky_relu are refused, because Keras' functions of that name differ. hard_sigmoid is that of Keras 3, with
            slope 1/6; it is 1/5 in Keras 2.
        recurrent_activation: that of the gates of an LSTM.
        reset_after: False for a GRU with reset_after=False and without bias. If it has a bias, its shape shows this.

    Returns:
        (cell, params): params as JAX arrays of the dtype of the weights. A layer without bias gets zeros.

    Raises:
        ValueError: an array is missing or misshapen, or the file lacks the layer; the message names it.
        TypeError: weights are not float arrays of one dtype.
        NotImplementedError: this library lacks an activation.
        ImportError: a file was given, but h5py is not installed.
    """
    caller = "interop.keras.load"
    given = _activations(caller, recurrent_activation, activation)
    reset_after = checks.check_bool(caller, "reset_after", reset_after)
    if isinstance(weights, str | os.PathLike) or hasattr(weights, "visititems"):
        found = _from_file(caller, weights, layer)
    elif layer is not None:
        raise ValueError(f"{caller}: layer={layer!r} names a layer of a file, but weights are arrays; leave it out")
    else:
        found = _from_lists(caller, weights)
    layers = [_layer(caller, named, reset_after, given) for named in found]
    for (below, above), named in zip(pairwise(layers), found[1:], strict=True):
        width = sum(cell.output_size for cell, _ in below)
        if above[0][0].input_size != width:
            raise ValueError(
                f"{caller}: {named[0][0]} must have {width} rows, the outputs of the layer below, but has "
                f"{above[0][0].input_size}"
            )
    return checked(caller, *assembled(layers))


def dump(cell: Any, params: Any, *, activation: Any = "tanh", recurrent_activation: Any = "sigmoid") -> list[Any]:
    """The arrays for `layer.set_weights` of a Keras layer with the weights of this cell; the inverse of `load`.

    A `Bidirectional` becomes those of a Bidirectional. A `Stack` becomes a list of lists: use
    `for layer, arrays in zip(layers, weights): layer.set_weights(arrays)`. Dropout is left out. Files are not written:
    set the weights of a Keras model, and save that.

    Args:
        cell: an LSTM (plain), a GRU or an RNN, or a `Stack` or `Bidirectional` of those. The Keras layer must have the
            same reset_after as the GRU.
        params: its params.
        activation: activation of the Keras layers, which must be that of this cell.
        recurrent_activation: recurrent_activation of the Keras layers, which must be that of this cell.

    Returns:
        NumPy arrays: kernel, recurrent kernel and bias, of the backward cell too; or a list of such lists.

    Raises:
        NotImplementedError: Keras lacks the cell or an option; the message names it, and a format that has it.
        ValueError: the params do not fit the cell.
        TypeError: cell is not a cell, or params are not its params.
    """
    caller = "interop.keras.dump"
    given = _activations(caller, recurrent_activation, activation)
    cell, params = checked(caller, cell, params)
    weights = [
        [array for one, p in layer for array in _arrays(caller, one, p, given)]
        for layer in layers_of(caller, FORM, cell, as_numpy(caller, params))
    ]
    return weights[0] if len(weights) == 1 else weights


def _activations(caller: str, recurrent: Any, activation: Any) -> Activations:
    """The activations by name, of which Keras must have the same functions."""
    given = checked_activations(caller, "recurrent_activation", recurrent, activation)
    for name in given[1:]:
        if name in UNLIKE:
            raise NotImplementedError(
                f"{caller}: Keras' {name} {UNLIKE[name]}; write a cell with the function that the layer has"
            )
    return given


def _from_lists(caller: str, weights: Any) -> list[Named]:
    """The named arrays of each layer."""
    if not isinstance(weights, Sequence) or not weights:
        raise TypeError(
            f"{caller}: weights must be a list of arrays, such as layer.get_weights(), a list of such lists, or "
            f"a path, but is {checks.shown(weights)}{checks.of_type(weights)}"
        )
    if all(isinstance(of_layer, Sequence) for of_layer in weights):
        return [
            [(f"weights[{k}][{n}]", array) for n, array in enumerate(of_layer)] for k, of_layer in enumerate(weights)
        ]
    return [[(f"weights[{n}]", array) for n, array in enumerate(weights)]]


def _layer(caller: str, named: Named, reset_after: bool, given: Activations) -> Layer:
    """The cells of one layer: one, or two of opposite directions."""
    if len(named) not in (2, 3, 4, 6):
        raise ValueError(
            f"{caller}: a layer must have 2 or 3 arrays for each direction, kernel, recurrent kernel and bias, but has "
            f"{len(named)}, {checks.listed(name for name, _ in named)}; pass several layers as a list of lists"
        )
    each = len(named) if len(named) < 4 else len(named) // 2
    layer = [_cell(caller, named[k : k + each], reset_after, given) for k in range(0, len(named), each)]
    inputs = {cell.input_size for cell, _ in layer}
    if len(inputs) > 1:
        raise ValueError(
            f"{caller}: {named[each][0]} must have {layer[0][0].input_size} rows, as {named[0][0]} of the other "
            f"direction, but has {layer[1][0].input_size}; pass several layers as a list of lists"
        )
    return layer


def _cell(caller: str, named: Named, reset_after: bool, given: Activations) -> Part:
    """The cell and the params of one direction."""
    labels = [f"{label} ({name})" for (label, _), name in zip(named, NAMES, strict=False)]
    arrays: list[Any] = [read_array(caller, label, value) for label, (_, value) in zip(labels, named, strict=True)]
    for label, array in zip(labels[:2], arrays, strict=False):
        if array.ndim != 2:
            raise ValueError(f"{caller}: {label} must be a matrix, but has shape {array.shape}")
    (I, columns), (H, columns_h) = arrays[0].shape, arrays[1].shape
    kind = KINDS.get(columns_h // H if H and columns_h % H == 0 else 0)
    if kind is None:
        raise ValueError(
            f"{caller}: {labels[1]} must have 4 (LSTM), 3 (GRU) or 1 (SimpleRNN) times as many columns as rows, but "
            f"has shape {arrays[1].shape}"
        )
    check_shape(caller, labels[0], arrays[0], (I, columns_h), f"as {labels[1]} has {columns_h} columns")
    has_bias = len(arrays) == 3
    after = kind is GRU and reset_after and (not has_bias or arrays[2].ndim == 2)
    rows = (2,) if after else ()
    b: Any = arrays[2] if has_bias else np.zeros((*rows, columns), arrays[0].dtype)
    check_shape(caller, labels[-1], b, (*rows, columns), f"as {labels[1]} has {columns} columns")
    w_x, w_h = arrays[:2]
    if kind is LSTM:
        cell, params = LSTM(I, H), LSTMParams(w_x, w_h, b)
    elif kind is RNN:
        cell, params = RNN(I, H), RNNParams(w_x, w_h, b)
    else:
        cell, params = GRU(I, H, reset_after=after), _gru_params(H, w_x, w_h, b)
    return with_activations(caller, cell, given), params


def _gru_params(H: int, *arrays: np.ndarray) -> GRUParams:
    """Params of a GRU from Keras' kernel, recurrent kernel and bias."""
    in_order: Any = (reordered(array, "zrn", "rzn", axis=-1) for array in arrays)
    w_x, w_h, b = in_order
    if b.ndim == 1:
        return GRUParams(w_x, w_h, b)
    rz, n = slice(2 * H), slice(2 * H, None)
    b_rzn: Any = np.concatenate([(b[0] + b[1])[rz], b[0, n]])
    return GRUParams(w_x, w_h, b_rzn, b[1, n])


def _from_file(caller: str, source: Any, layer: str | Sequence[str] | None) -> list[Named]:
    """The named arrays of each layer, from a path or an open file."""
    if hasattr(source, "visititems"):
        return _from_groups(caller, source, layer)
    h5py = package(caller, "h5py")
    if not os.path.exists(source):
        raise FileNotFoundError(f"{caller}: there is no file {os.fspath(source)}; pass a path that exists")
    if not h5py.is_hdf5(source):
        raise ValueError(
            f"{caller}: {os.fspath(source)!r} is not an HDF5 file; write one with model.save_weights('name.weights.h5')"
        )
    with h5py.File(source, "r") as file:
        return _from_groups(caller, file, layer)


def _from_groups(caller: str, file: Any, layer: str | Sequence[str] | None) -> list[Named]:
    """The named arrays of the layers with these names or paths, or of the only recurrent layer."""
    groups = _recurrent_groups(file)
    titles = {
        path: str(group["vars"].attrs.get("name", path)) if "vars" in group else path for path, group in groups.items()
    }
    has = checks.listed(f"{path!r} ({title})" for path, title in titles.items()) or "no recurrent layers of Keras 3"
    if layer is None and len(groups) != 1:
        raise ValueError(f"{caller}: layer must name one or more layers of the file, which has {has}")
    found: list[Named] = []
    names = list(groups) if layer is None else [layer] if isinstance(layer, str) else layer
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{caller}: layer must be a name, a list of names or None, but is {checks.shown(layer)}"
            f"{checks.of_type(layer)}"
        )
    for name in names:
        paths = [name] if name in groups else [path for path, title in titles.items() if title == name]
        if len(paths) != 1:
            problem = "names several layers" if paths else "names none"
            raise ValueError(f"{caller}: layer={name!r} {problem} of the recurrent layers in the file, which has {has}")
        try:
            found += _from_group(caller, file.file, paths[0], groups[paths[0]])
        except NotImplementedError:
            raise
        except Exception as error:  # whatever h5py raises at a group that is missing or of another form
            raise ValueError(
                f"{caller}: {paths[0]!r} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}); "
                "write the file again with model.save_weights('name.weights.h5')"
            ) from error
    return found


def _recurrent_groups(file: Any) -> dict[str, Any]:
    """The groups of recurrent layers by path, without those inside of others."""
    groups: dict[str, Any] = {}

    def visit(path: str, group: Any) -> None:
        inside = any(path.startswith(f"{outer}/") for outer in groups)
        if hasattr(group, "visititems") and not inside and ("cell" in group or "forward_layer" in group):
            groups[path] = group

    file.visititems(visit)
    return groups


def _from_group(caller: str, file: Any, path: str, group: Any) -> list[Named]:
    """The named arrays of one layer, or of each cell of its StackedRNNCells."""
    if "forward_layer" in group:
        (forward,), (backward,) = (
            _from_group(caller, file, f"{path}/{name}", group[name]) for name in ("forward_layer", "backward_layer")
        )
        return [forward + backward]
    if "cells" not in group["cell"]:
        return [_arrays_of(caller, file, f"{path}/cell", group["cell"])]
    cells = group["cell/cells"]
    names = [(name, *NUMBERED.fullmatch(name).groups()) for name in cells]
    if len({kind for _, kind, _ in names}) > 1:
        raise NotImplementedError(
            f"{caller}: {path} has cells of several kinds, whose order is not in the file; load the list "
            "[cell.get_weights() for cell in layer.cell.cells]"
        )
    in_order = sorted(names, key=lambda name: int(name[2] or 0))
    return [_arrays_of(caller, file, f"{path}/cell/cells/{name}", cells[name]) for name, _, _ in in_order]


def _arrays_of(caller: str, file: Any, path: str, group: Any) -> Named:
    """The named arrays of one cell."""
    for name, data in group["vars"].items():
        if data.file != file or getattr(data, "external", None) or getattr(data, "is_virtual", False):
            raise NotImplementedError(
                f"{caller}: {path}/vars/{name} has its data in another file, which is not read; copy them into one file"
            )
    return [(f"{path}/vars/{name}", np.asarray(data)) for name, data in group["vars"].items()]


def _arrays(caller: str, cell: Any, params: Any, given: Activations) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias of one direction."""
    if type(cell) not in (LSTM, GRU, RNN):  # a subclass may compute something else
        raise no_such_cell(caller, FORM, cell, "LSTM, GRU and SimpleRNN")
    check_options(caller, FORM, cell, ("reset_after", *OF_ACTIVATION))
    check_activations(caller, cell, given)
    if not isinstance(cell, GRU):
        return [params.w_x, params.w_h, params.b]
    b = params.b
    if cell.reset_after:
        b = np.stack([b, np.full_like(b, -0.0)])  # b + (−0) is b, also where b is −0
        b[1, 2 * cell.hidden_size :] = params.b_hn
    return [reordered(array, "rzn", "zrn", axis=-1) for array in (params.w_x, params.w_h, b)]
