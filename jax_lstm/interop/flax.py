"""Weights of Flax: the recurrent cells of Linen and NNX, alone or in RNN, Bidirectional and Sequential.

Flax has the same equations, and kernels of the same shape (features, units). Linen's cells and NNX's LSTMCell have a
sublayer for each gate, such as `hf` with w_hf. The other cells of NNX have one for the input and one for the state.
Biases are in these sublayers:

    LSTM    b in those of the state: hi, hf, hg and ho, or dense_h
    GRU     b in those of the input: ir, iz and in, or dense_i; b_hn in hn. NNX's GRUCell has no b_hn: `load` sets 0
    RNN     b in that of the input: i or dense_i. Flax calls this cell SimpleCell

The carry of Flax's LSTMs is (c, h); our state is LSTMState(h, c). Flax is not imported.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUParams
from jax_lstm.cells.lstm import LSTM, LSTMParams
from jax_lstm.cells.rnn import RNN, RNNParams
from jax_lstm.interop.parts import (
    Activations,
    Layer,
    Part,
    as_numpy,
    assembled,
    check_activations,
    check_mapping,
    check_options,
    check_shape,
    checked,
    checked_activations,
    layers_of,
    no_such_cell,
    only_names,
    read_array,
    with_activations,
)

FORM = "Flax"
GATES: dict[Any, int] = {LSTM: 4, GRU: 3, RNN: 1}
OF_ACTIVATION = ("activation", "gate_activation", "cell_activation", "output_activation")


class Layout(NamedTuple):
    """The sublayers of one of Flax's cells, with their gates in our order; those in `biased` have a bias."""

    cell: Any
    of_x: tuple[str, ...]
    of_h: tuple[str, ...]
    biased: tuple[str, ...]


LINEN_LSTM = Layout(LSTM, ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"), ("hi", "hf", "hg", "ho"))
NNX_LSTM = LINEN_LSTM._replace(of_x=("ii", "if_", "ig", "io"))
LINEN_GRU = Layout(GRU, ("ir", "iz", "in"), ("hr", "hz", "hn"), ("ir", "iz", "in", "hn"))
LINEN_RNN = Layout(RNN, ("i",), ("h",), ("i",))
NNX_OPTIMIZED_LSTM = Layout(LSTM, ("dense_i",), ("dense_h",), ("dense_h",))
NNX_GRU = Layout(GRU, ("dense_i",), ("dense_h",), ("dense_i",))
NNX_RNN = NNX_GRU._replace(cell=RNN)

STYLES: dict[str, dict[Any, Layout]] = {
    "linen": {LSTM: LINEN_LSTM, GRU: LINEN_GRU, RNN: LINEN_RNN},
    "nnx": {LSTM: NNX_LSTM, GRU: NNX_GRU, RNN: NNX_RNN},
    "nnx_optimized": {LSTM: NNX_OPTIMIZED_LSTM, GRU: NNX_GRU, RNN: NNX_RNN},
}
# Names of the sublayers of cells that this library lacks.
LACKED = {"MGUCell": {"if", "in", "hf", "hn"}, "ConvLSTMCell": {"ih", "hh"}}


def load(tree: Mapping[str, Any], *, activation: Any = "tanh", gate_activation: Any = "sigmoid") -> Part:
    """A cell and its params from the weights of a recurrent cell or layer of Flax, Linen or NNX.

    It reads LSTMCell, OptimizedLSTMCell, GRUCell and SimpleCell, alone or in an RNN. A Bidirectional becomes a
    `Bidirectional`, a Sequential becomes a `Stack`. Kind and sizes are read off the names and shapes.

    Options of a Flax module are not in its weights. If it has other activations than usual, name them here. For a
    SimpleCell with residual=True, add np.eye(H) to the kernel of its sublayer h or dense_h.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from flax import linen as nn
    >>> from jax_lstm import interop
    >>> layer = nn.RNN(nn.GRUCell(features=4))
    >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 6, 3), jnp.float32))
    >>> cell, params = interop.flax.load(variables)
    >>> cell == jl.GRU(3, 4), params.w_x.shape
    (True, (3, 12))

    Args:
        tree: Linen's variables or params; of NNX, `nnx.state(module)`, its `nnx.to_pure_dict`, or the state of params
            only. Of a larger model, the part of one layer, such as variables["params"]["LSTMCell_0"].
        activation: activation_fn of the Flax cell, a name or function as in `jl.RNN`; of an LSTM for g and for c.
        gate_activation: gate_fn of an LSTM.

    Returns:
        (cell, params): params as JAX arrays of the dtype in the tree.

    Raises:
        ValueError: a weight is missing, unknown or misshapen; the message has its path.
        TypeError: the tree is not nested dicts of float arrays of one dtype.
        NotImplementedError: the weights are of a cell that this library lacks, or an activation is.
    """
    caller = "interop.flax.load"
    given = checked_activations(caller, "gate_activation", gate_activation, activation)
    if callable(tree):
        raise TypeError(
            f"{caller}: tree must be a dict of arrays, but is a module; pass nnx.state(module) for NNX, and the "
            "variables for Linen"
        )
    return checked(caller, *assembled(_layers(caller, "", tree, given)))


def dump(
    cell: Any, params: Any, *, style: str = "linen", activation: Any = "tanh", gate_activation: Any = "sigmoid"
) -> dict[str, Any]:
    """The weights of Flax's cells with the weights of this cell; the inverse of `load`.

    One cell becomes the weights of a Flax cell; those of an RNN around it are {"cell": weights}. A `Bidirectional`
    becomes a Bidirectional with two RNNs, a `Stack` a Sequential of RNNs and Bidirectionals. Dropout is left out.

    For Linen, variables are {"params": weights}. For NNX, use `nnx.update(module, weights)`.

    Args:
        cell: an LSTM (plain), a GRU or an RNN, or a `Stack` or `Bidirectional` of those.
        params: its params.
        style: "linen" for Linen's LSTMCell or OptimizedLSTMCell, GRUCell and SimpleCell; "nnx" for NNX's LSTMCell,
            GRUCell and SimpleCell; "nnx_optimized" for NNX's OptimizedLSTMCell, GRUCell and SimpleCell.
        activation: activation_fn of the Flax cells, which must be that of this cell.
        gate_activation: gate_fn of the Flax cells, which must be that of this cell.

    Returns:
        Nested dicts of NumPy arrays.

    Raises:
        NotImplementedError: Flax lacks the cell or an option; the message names it, and a format that has it.
        ValueError: the params do not fit the cell, or style is another word.
        TypeError: cell is not a cell, or params are not its params.
    """
    caller = "interop.flax.dump"
    layouts = STYLES[checks.one_of(caller, "style", style, tuple(STYLES))]
    given = checked_activations(caller, "gate_activation", gate_activation, activation)
    cell, params = checked(caller, cell, params)
    modules: list[dict[str, Any]] = []
    for layer in layers_of(caller, FORM, cell, as_numpy(caller, params)):
        rnns = [{"cell": _weights(caller, one, p, layouts, given)} for one, p in layer]
        modules.append(rnns[0] if len(rnns) == 1 else {"forward_rnn": rnns[0], "backward_rnn": rnns[1]})
    if len(modules) == 1:
        return modules[0].get("cell", modules[0])
    if style == "linen":
        return {f"layers_{k}": module for k, module in enumerate(modules)}
    return {"layers": dict(enumerate(modules))}


def _layers(caller: str, path: str, tree: Any, given: Activations) -> list[Layer]:
    """The layers of the module with these weights, the lowest first; `path` is where it is in the tree."""
    tree = _children(caller, path, tree)

    def inner(name: str) -> list[Layer]:
        return _layers(caller, f"{path}.{name}".lstrip("."), tree[name], given)

    for name in ("params", "cell", "layers"):
        if (name == "params" and name in tree) or set(tree) == {name}:
            return inner(name)
    if "forward_rnn" in tree or "backward_rnn" in tree:
        return [_directions(caller, path, tree, inner)]
    for prefix in ("layers_", ""):  # of Linen's Sequential, and of NNX's
        numbered = [f"{prefix}{k}" for k in range(len(tree))]
        if tree and set(tree) == set(numbered):
            return _sequence(caller, path, numbered, inner)
    return [[_cell(caller, path, tree, given)]]


def _sequence(caller: str, path: str, names: list[str], inner: Callable[[str], list[Layer]]) -> list[Layer]:
    """The layers of a Sequential."""
    layers: list[Layer] = []
    for name in names:
        above = inner(name)
        width = sum(cell.output_size for cell, _ in layers[-1]) if layers else above[0][0][0].input_size
        if above[0][0][0].input_size != width:
            raise ValueError(
                f"{caller}: {_at(path, name)} must take the {width} outputs of the layer below, but takes "
                f"{above[0][0][0].input_size} features"
            )
        layers += above
    return layers


def _children(caller: str, path: str, tree: Any) -> dict[str, Any]:
    """The entries of a dict of Flax by name, without the random state that a module of NNX may hold."""
    return {str(name): child for name, child in check_mapping(caller, path or "tree", tree).items() if name != "rngs"}


def _directions(caller: str, path: str, tree: Mapping[str, Any], inner: Callable[[str], list[Layer]]) -> Layer:
    """The two cells of a Bidirectional."""
    names = ("forward_rnn", "backward_rnn")
    only_names(caller, [_at(path, name) for name in tree], [_at(path, name) for name in names], "tree")
    layer: Layer = []
    for name in names:
        if name not in tree:
            raise ValueError(f"{caller}: {_at(path, name)} is missing")
        layers = inner(name)
        if len(layers) != 1 or len(layers[0]) != 1:
            raise NotImplementedError(
                f"{caller}: {_at(path, name)} must hold one cell, but holds layers; load each layer, and put them "
                "together with jl.Bidirectional and jl.Stack"
            )
        layer.append(layers[0][0])
    if layer[0][0].input_size != layer[1][0].input_size:
        raise ValueError(
            f"{caller}: {_at(path, 'backward_rnn')} must take the {layer[0][0].input_size} features that forward_rnn "
            f"takes, but takes {layer[1][0].input_size}"
        )
    return layer


def _cell(caller: str, path: str, tree: Mapping[str, Any], given: Activations) -> Part:
    """The cell and the params of one of Flax's cells."""
    for name, sublayers in LACKED.items():
        if set(tree) == sublayers:
            raise NotImplementedError(
                f"{caller}: {path or 'tree'} has the weights of Flax's {name}, which this library lacks; write this "
                "cell as docs/recipes.md shows, and copy the weights"
            )
    leaves: dict[str, Any] = _leaves(caller, path, tree)
    layout = _layout(caller, path, tree, leaves)
    kernels = {name: _matrix(caller, path, name, leaves) for name in (layout.of_x[0], layout.of_h[0])}
    I, H = (kernel.shape[0] for kernel in kernels.values())
    _check_leaves(caller, path, layout, leaves, I, H)
    w_x: Any = np.concatenate([leaves[f"{name}.kernel"] for name in layout.of_x], axis=1)
    w_h: Any = np.concatenate([leaves[f"{name}.kernel"] for name in layout.of_h], axis=1)
    b: Any = np.concatenate([leaves[f"{name}.bias"] for name in _with_b(layout)])
    if layout.cell is GRU:
        cell, params = GRU(I, H), GRUParams(w_x, w_h, b, leaves.get("hn.bias", np.zeros(H, b.dtype)))
    elif layout.cell is LSTM:
        cell, params = LSTM(I, H), LSTMParams(w_x, w_h, b)
    else:
        cell, params = RNN(I, H), RNNParams(w_x, w_h, b)
    return with_activations(caller, cell, given), params


def _leaves(caller: str, path: str, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a cell by name, such as hf.kernel, all of one dtype."""
    leaves: dict[str, np.ndarray] = {}
    for sublayer, of_sublayer in tree.items():
        for name, value in check_mapping(caller, _at(path, sublayer), of_sublayer).items():
            value = value.get_value() if hasattr(value, "get_value") else value  # a Variable of NNX
            value = value.unbox() if hasattr(value, "unbox") else value  # an array of Linen with metadata
            leaves[f"{sublayer}.{name}"] = read_array(caller, f"{_at(path, sublayer)}.{name}", value)
    first = next(iter(leaves), "")
    for name, array in leaves.items():
        if array.dtype != leaves[first].dtype:
            raise TypeError(
                f"{caller}: weights must have one dtype, but {_at(path, first)} is {leaves[first].dtype} and "
                f"{_at(path, name)} is {array.dtype}; cast them to one dtype"
            )
    return leaves


def _check_leaves(caller: str, path: str, layout: Layout, leaves: Mapping[str, np.ndarray], I: int, H: int) -> None:
    """Check that a cell with I features and H units has all its weights and no others."""
    width = GATES[layout.cell] * H // len(layout.of_h)
    shapes = {f"{name}.kernel": (I, width) for name in layout.of_x}
    shapes |= {f"{name}.kernel": (H, width) for name in layout.of_h}
    shapes |= {f"{name}.bias": (width,) for name in layout.biased}
    only_names(caller, [_at(path, name) for name in leaves], [_at(path, name) for name in shapes], "tree")
    for name, shape in shapes.items():
        if name not in leaves:
            raise ValueError(f"{caller}: {_at(path, name)} is missing")
        why = f"as {_at(path, layout.of_h[0])}.kernel has {H} rows"
        check_shape(caller, _at(path, name), leaves[name], shape, why)


def _layout(caller: str, path: str, tree: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> Layout:
    """The layout of the cell with these sublayers."""
    if "dense_h" in tree or "dense_i" in tree:
        rows, columns = _matrix(caller, path, "dense_h", leaves).shape
        for layout in (NNX_OPTIMIZED_LSTM, NNX_GRU, NNX_RNN):
            if rows and columns == GATES[layout.cell] * rows:
                return layout
        raise ValueError(
            f"{caller}: {_at(path, 'dense_h.kernel')} must have 4 (LSTM), 3 (GRU) or 1 (RNN) times as many columns as "
            f"rows, but has shape {(rows, columns)}"
        )
    layouts = (LINEN_LSTM, NNX_LSTM, LINEN_GRU, LINEN_RNN)
    best = max(layouts, key=lambda layout: len(set(tree) & {*layout.of_x, *layout.of_h}))
    if not set(tree) & {*best.of_x, *best.of_h}:
        raise ValueError(
            f"{caller}: {path or 'tree'} must have the weights of one layer of Flax, with names such as 'hi' or "
            f"'dense_h', but has {checks.listed(map(repr, tree)) or 'nothing'}; pass the part of one layer"
        )
    return best


def _matrix(caller: str, path: str, sublayer: str, leaves: Mapping[str, np.ndarray]) -> np.ndarray:
    """The kernel of a sublayer."""
    name = f"{sublayer}.kernel"
    if name not in leaves:
        raise ValueError(f"{caller}: {_at(path, name)} is missing")
    if leaves[name].ndim != 2:
        raise ValueError(f"{caller}: {_at(path, name)} must be a matrix, but has shape {leaves[name].shape}")
    return leaves[name]


def _with_b(layout: Layout) -> tuple[str, ...]:
    """The sublayers whose biases are b, in the order of its gates."""
    return layout.of_h if layout.cell is LSTM else layout.of_x


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _weights(
    caller: str, cell: Any, params: Any, layouts: Mapping[Any, Layout], given: Activations
) -> dict[str, dict[str, np.ndarray]]:
    """The weights of one of Flax's cells."""
    if type(cell) not in layouts:
        raise no_such_cell(caller, FORM, cell, "LSTM, GRU and RNN")
    check_options(caller, FORM, cell, OF_ACTIVATION)
    check_activations(caller, cell, given)
    layout = layouts[type(cell)]
    weights: dict[str, dict[str, np.ndarray]] = {}
    for names, w in ((layout.of_x, params.w_x), (layout.of_h, params.w_h)):
        for name, kernel in zip(names, np.split(w, len(names), axis=1), strict=True):
            weights[name] = {"kernel": kernel.copy()}
    names = _with_b(layout)
    for name, bias in zip(names, np.split(params.b, len(names)), strict=True):
        weights[name]["bias"] = bias.copy()
    if "hn" in layout.biased:
        weights["hn"]["bias"] = params.b_hn
    elif layout.cell is GRU and params.b_hn.tobytes().strip(b"\0"):  # −0 is refused too: load returns 0
        raise NotImplementedError(
            f"{caller}: NNX's GRUCell has no b_hn, but params.b_hn is not 0; style='linen' keeps it"
        )
    return weights
