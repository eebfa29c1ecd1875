"""What the formats share: read arrays, take a cell apart into layers and directions, and put it together again.

A part is one cell with its params. A layer is a list of one part, or of two: forward and backward.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.cells.lstm import LSTM
from jax_lstm.cells.rnn import RNN
from jax_lstm.layers.bidirectional import Bidirectional, BidirectionalParams
from jax_lstm.layers.dropout import Dropout
from jax_lstm.layers.stack import Stack

Part = tuple[Any, Any]
Layer = list[Part]
T = TypeVar("T")

# Options that say how `init` draws weights, or what a key does: they leave no trace in the weights.
OF_TRAINING = ("forget_bias", "chrono", "inputs", "hidden", "dropout")
# Where a feature that a format lacks can go instead; any other feature: safetensors.
CLOSEST = {
    "peephole": "onnx",
    "clip": "onnx",
    "coupled": "onnx",
    "activation": "onnx",
    "gate_activation": "onnx",
    "cell_activation": "onnx",
    "output_activation": "onnx",
    "residual": "onnx",
    "reset_after": "onnx",
    "projection": "torch",
}


def read_array(caller: str, name: str, value: Any) -> np.ndarray:
    """A leaf as a NumPy array of floats: a NumPy or JAX array, or a tensor of PyTorch, which is not imported."""
    if hasattr(value, "detach"):
        value = _of_tensor(caller, name, value)
    if not checks.is_array(value):
        raise TypeError(f"{caller}: {name} must be an array, but is {checks.shown(value)}{checks.of_type(value)}")
    check_values(caller, name, value)
    array = np.asarray(value)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # JAX takes no other
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{caller}: {name} must hold floats, but holds {array.dtype}; cast it to float32")
    if array.dtype.itemsize > 8:
        raise TypeError(f"{caller}: {name} is {array.dtype}, which JAX lacks; cast it to float64 or float32")
    if array.dtype == np.float64 and jnp.result_type(float) != jnp.float64:
        raise TypeError(
            f"{caller}: {name} is float64, but jax_enable_x64 is off; turn it on, or cast the weights to float32"
        )
    return array


def _of_tensor(caller: str, name: str, tensor: Any) -> np.ndarray:
    """The numbers of a tensor of PyTorch."""
    try:
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            return tensor.float().numpy().astype(jnp.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # such as a sparse tensor, or one without data
        raise TypeError(
            f"{caller}: {name} must be a dense tensor of float64, float32, float16 or bfloat16, but is not "
            f"({type(error).__name__}); convert it"
        ) from error


def check_values(caller: str, what: str, tree: Any) -> None:
    """Refuse traced arrays, which have no values; `what` is the name of the tree."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.core.Tracer):
            raise TypeError(
                f"{caller}: {checks.leaf_name(what, path)} must have values, but is traced; call "
                f"{caller.rpartition('.')[2]} outside of jit, grad and vmap"
            )


def check_shape(caller: str, name: str, array: np.ndarray, shape: tuple[int, ...], why: str) -> None:
    """Check the shape of a leaf; `why` says what it follows from."""
    if array.shape != shape:
        advice = "; transpose it" if array.shape == shape[::-1] else ""
        raise ValueError(f"{caller}: {name} must have shape {shape}, {why}, but has {array.shape}{advice}")


def checked(caller: str, cell: Any, params: Any) -> Part:
    """(cell, params), with params as JAX arrays, checked as everywhere."""
    return cell, checks.check_params(caller, checks.check_cell(caller, cell), params)[0]


def assembled(layers: Sequence[Layer]) -> Part:
    """One cell of all layers, the lowest first, and its params."""
    parts = [layer[0] if len(layer) == 1 else _bidirectional(*layer) for layer in layers]
    if len(parts) == 1:
        return parts[0]
    return Stack(tuple(cell for cell, _ in parts)), tuple(params for _, params in parts)


def _bidirectional(forward: Part, backward: Part) -> Part:
    return Bidirectional(forward[0], backward[0]), BidirectionalParams(forward[1], backward[1])


def layers_of(caller: str, form: str, cell: Any, params: Any, has: Collection[str] = ()) -> list[Layer]:
    """The layers of a cell, the lowest first. `form` names the other library, `has` the layers' options that it has."""
    check_options(caller, form, cell, ("cell", "cells", "forward", "backward", *has), only=Dropout | Stack)
    kind = type(cell)  # a subclass may compute something else
    if kind is Dropout:
        return layers_of(caller, form, cell.cell, params, has)
    if kind is Stack:
        return [
            layer for one, p in zip(cell.cells, params, strict=True) for layer in layers_of(caller, form, one, p, has)
        ]
    if kind is Bidirectional:
        directions = zip((cell.forward, cell.backward), params, strict=True)
        layers = [layers_of(caller, form, one, p, has) for one, p in directions]
        if any(len(layer) != 1 or len(layer[0]) != 1 for layer in layers):
            raise NotImplementedError(
                f"{caller}: {form} has one cell for each direction of a layer, but this Bidirectional holds layers; "
                "put a Bidirectional around each cell, and a Stack around them"
            )
        return [[layer[0][0] for layer in layers]]
    return [[(cell, params)]]


def check_options(caller: str, form: str, cell: Any, has: Collection[str], only: Any = object) -> None:
    """Refuse a cell with an option, other than those in `has`, that is not at its default."""
    if not isinstance(cell, only):
        return
    for field in fields(cell):
        value, usual = getattr(cell, field.name), field.default
        if usual is MISSING or field.name in OF_TRAINING or field.name in has or value == usual:
            continue
        if field.name == "compute_dtype":
            advice = "use dataclasses.replace(cell, compute_dtype=None) if products in the params' dtype are fine"
        else:
            advice = f"interop.{CLOSEST.get(field.name, 'safetensors')} keeps it"
        name = type(cell).__name__
        raise NotImplementedError(f"{caller}: {form} has no {field.name}={value!r} of {name}; {advice}")


class Activations(NamedTuple):
    """Activations of a layer of the other library, which its weights do not hold.

    name: the argument that gives `gates`, in messages.
    gates: the activation of an LSTM's gates.
    others: that of g and c of an LSTM, and of an RNN.
    """

    name: str
    gates: str
    others: str


def checked_activations(caller: str, name: str, gates: Any, others: Any) -> Activations:
    """Check the names of two activations, given as the arguments `name` and activation."""
    return Activations(
        name, checks.activation_name(caller, name, gates), checks.activation_name(caller, "activation", others)
    )


def with_activations(caller: str, cell: Any, given: Activations) -> Any:
    """The cell with these activations."""
    if isinstance(cell, LSTM):
        return replace(cell, gate_activation=given.gates, cell_activation=given.others, output_activation=given.others)
    cell = replace(cell, activation=given.others) if isinstance(cell, RNN) else cell
    lacks = {given.name: (given.gates, "sigmoid"), "activation": (given.others, getattr(cell, "activation", "tanh"))}
    for name, (value, usual) in lacks.items():
        if value != usual:
            raise NotImplementedError(
                f"{caller}: {name} must be {usual!r} for weights of {type(cell).__name__}, which has no such option, "
                f"but is {value!r}; write a cell with this activation"
            )
    return cell


def check_activations(caller: str, cell: Any, given: Activations) -> None:
    """Refuse a cell whose activations are not those of the layer for which its weights are dumped."""
    others = dict.fromkeys(("activation", "cell_activation", "output_activation"), ("activation", given.others))
    for field, (name, value) in {"gate_activation": (given.name, given.gates), **others}.items():
        if (found := getattr(cell, field, value)) != value:
            raise NotImplementedError(
                f"{caller}: {field} of {type(cell).__name__} is {found!r}, but the weights are for a layer with "
                f"{name}={value!r}; pass {name}={found!r} if that layer has it, or use interop.safetensors"
            )


def no_such_cell(caller: str, form: str, cell: Any, has: str) -> NotImplementedError:
    """The error for a cell that a format does not have; `has` lists those that it has."""
    return NotImplementedError(
        f"{caller}: {form} has no {type(cell).__name__}, only {has}; interop.safetensors keeps every cell"
    )


def reordered(array: np.ndarray, there: str, here: str, axis: int = 0) -> np.ndarray:
    """The gates along this axis, one letter each, in the order `here` instead of `there`."""
    gates = dict(zip(there, np.split(array, len(there), axis), strict=True))
    return np.concatenate([gates[name] for name in here], axis)


def named(caller: str, what: str, tree: Any) -> dict[str, Any]:
    """The leaves of params or of a state by their checkpoint names; a tree that is one array has the name `what`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = {checks.leaf_name(what, path).removeprefix(f"{what}."): leaf for path, leaf in leaves}
    if len(names) < len(leaves):
        raise ValueError(f"{caller}: two leaves of {what} have the same name among {checks.listed(names)}; rename one")
    return names


def as_numpy(caller: str, params: Any) -> Any:
    """The params with NumPy arrays as leaves, which the caller owns."""
    check_values(caller, "params", params)
    return jax.tree.map(np.array, params)


def only_names(caller: str, names: Iterable[str], known: Collection[str], source: str) -> None:
    """Refuse a name that is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{caller}: {name!r} in {source} is not a weight of a recurrent layer; leave it out")


def check_mapping(caller: str, name: str, value: Any) -> Mapping[str, Any]:
    """Check that this is a dict of arrays."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{caller}: {name} must be a dict of arrays, but is {checks.shown(value)}{checks.of_type(value)}"
        )
    return value
