"""One LSTM, GRU or RNN node of ONNX as a layer: a cell with its params for each direction.

weights.py has the layouts of the weights. A node with D directions stacks them along a first axis.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.cells.gru import GRU, GRUState
from jax_lstm.cells.lstm import LSTM, LSTMState
from jax_lstm.cells.rnn import RNN, RNNState
from jax_lstm.interop.onnx.activations import names_here
from jax_lstm.interop.onnx.files import package
from jax_lstm.interop.onnx.graph import CONSTANT, DATA, Recurrent
from jax_lstm.interop.onnx.weights import unpack
from jax_lstm.interop.parts import Layer, Part, check_shape, read_array
from jax_lstm.layers.learned_initial_state import LearnedInitialState, LearnedParams

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
STATES = {"LSTM": LSTMState, "GRU": GRUState, "RNN": RNNState}
TYPES = {  # of the attributes
    "direction": "STRING", "activations": "STRINGS", "activation_alpha": "FLOATS", "activation_beta": "FLOATS",
    "clip": "FLOAT", "hidden_size": "INT", "input_forget": "INT", "linear_before_reset": "INT", "layout": "INT",
}  # fmt: skip
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


class Options(NamedTuple):
    """The attributes of a node, checked.

    D: the number of directions.
    activations: the names here, for each direction.
    clip: None if the node does not clip.
    """

    D: int
    activations: list[list[str]]
    clip: float | None
    hidden_size: int | None
    input_forget: bool
    linear_before_reset: bool
    layout: int


class Weights(NamedTuple):
    """The weights as ONNX stores them: W (D, n H, I), R (D, n H, H), B (D, 2 n H), P (D, 3 H) or None.

    Those of one direction have no axis D.
    """

    W: Any
    R: Any
    B: Any
    P: Any

    def direction(self, d: int) -> "Weights":
        """The weights of one direction."""
        return Weights(*(None if array is None else array[d] for array in self))


def layer_of(caller: str, one: Recurrent, *, reverse: bool) -> Layer:
    """The cell and the params of a node, for each direction."""
    options, kind = _options(caller, one, reverse=reverse), one.node.op_type
    weights = _weights(caller, one, options)
    states = _initial_states(caller, one, options, weights)
    build, layer = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[kind], []
    for d in range(options.D):
        part = build(caller, one, options, options.activations[d], weights.direction(d))
        layer.append(part if states is None else _learned(kind, part, [leaf[d] for leaf in states]))
    return layer


def layout_of(caller: str, one: Recurrent) -> int:
    """0 for time-major data, 1 for batch-major."""
    return _attributes(caller, one).get("layout", 0)


def directions_of(caller: str, one: Recurrent) -> int:
    """D, the number of directions of a node."""
    direction = _attributes(caller, one).get("direction", b"forward").decode(errors="replace")
    if direction not in DIRECTIONS:
        raise ValueError(f"{caller}: {one.label} has the direction {direction!r}, but ONNX has {', '.join(DIRECTIONS)}")
    return DIRECTIONS[direction]


def _attributes(caller: str, one: Recurrent) -> dict[str, Any]:
    onnx = package(caller)
    known = [attribute for attribute in one.node.attribute if attribute.name in TYPES]
    for attribute in known:
        if attribute.type != getattr(onnx.AttributeProto, TYPES[attribute.name]):
            raise ValueError(
                f"{caller}: the attribute {attribute.name} of {one.label} must have type {TYPES[attribute.name]}, but "
                "has another one; the file is damaged"
            )
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in known}


def _options(caller: str, one: Recurrent, *, reverse: bool) -> Options:
    given, kind = _attributes(caller, one), one.node.op_type
    D = directions_of(caller, one)
    is_reverse = given.get("direction") == b"reverse"
    if is_reverse and not reverse:
        raise ValueError(
            f"{caller}: {one.label} has the direction 'reverse', which a cell does not store; pass reverse=True here, "
            "and reverse=True to jl.unroll"
        )
    if reverse and not is_reverse:
        raise ValueError(f"{caller}: reverse=True is for a node with the direction 'reverse', but {one.label} has not")
    names = [name.decode(errors="replace") for name in given.get("activations", [])] or list(ACTIVATIONS[kind]) * D
    n = len(ACTIVATIONS[kind])
    if kind == "RNN" and D == 1:
        names = names[:1]  # the specification's default has a second, unused one
    if len(names) != n * D:
        raise ValueError(f"{caller}: {one.label} must have {n * D} activations, but has {len(names)}")
    names = names_here(caller, one.name, names, given.get("activation_alpha", []), given.get("activation_beta", []))
    clip = given.get("clip")
    if clip is not None and kind != "LSTM":
        raise NotImplementedError(
            f"{caller}: {one.label} is {_article(kind)} with clip={_decimal(clip)}, but {kind} has no clip here; only "
            "LSTM has"
        )
    if clip is not None and not 0 < clip < float("inf"):
        raise ValueError(f"{caller}: {one.label} must have a clip above 0 and finite, but has {clip}")
    return Options(
        D=D,
        activations=[names[n * d : n * (d + 1)] for d in range(D)],
        clip=None if clip is None else _decimal(clip),
        hidden_size=given.get("hidden_size"),
        input_forget=bool(given.get("input_forget", 0)),
        linear_before_reset=bool(given.get("linear_before_reset", 0)),
        layout=given.get("layout", 0),
    )


def _weights(caller: str, one: Recurrent, options: Options) -> Weights:
    """The weights of all directions; zeros for an absent B, None for an absent P."""
    n, D = GATES[one.node.op_type], options.D
    W, R, B, P = (_weight(caller, one, name) for name in Weights._fields)
    H = options.hidden_size or (R.shape[-1] if R.ndim else 0)
    why = f"for hidden_size {H}, {D} direction{'s' * (D > 1)} and {n} gate{'s' * (n > 1)}"
    I = W.shape[-1] if W.ndim else 0
    B = np.zeros((D, 2 * n * H), W.dtype) if B is None else B
    shapes = {"R": (D, n * H, H), "W": (D, n * H, I), "B": (D, 2 * n * H), "P": (D, 3 * H)}
    weights = Weights(W, R, B, P)
    for name, shape in shapes.items():
        array = getattr(weights, name)
        if array is None:
            continue
        check_shape(caller, _described(one, name), array, shape, why)
        if array.dtype != W.dtype:
            raise TypeError(
                f"{caller}: {_described(one, name)} must be {W.dtype}, as W is, but is {array.dtype}; cast it"
            )
    return weights


def _weight(caller: str, one: Recurrent, name: str) -> Any:
    """A weight of a node; None if it does not have it."""
    tensor = one.input(INPUTS.index(name))
    if not tensor:
        if name in ("W", "R"):
            raise ValueError(f"{caller}: {one.label} has no {name}, which is a required input")
        return None
    if one.scope.kind(tensor) != CONSTANT:
        raise ValueError(
            f"{caller}: {_described(one, name)} must be constant, but comes from {one.scope.origin(tensor)}; "
            "make it an initializer of the model"
        )
    return read_array(caller, _described(one, name), one.scope.evaluate(tensor))


def _initial_states(caller: str, one: Recurrent, options: Options, weights: Weights) -> list[np.ndarray] | None:
    """initial_h, and initial_c of an LSTM, each (D, H); None if all are zero or part of the data."""
    H, leaves = weights.R.shape[-1], []
    for name in ("initial_h", "initial_c")[: len(STATES[one.node.op_type]._fields)]:
        tensor = one.input(INPUTS.index(name))
        if tensor and one.scope.kind(tensor) == DATA and not one.scope.inputs_of(tensor):
            raise NotImplementedError(
                f"{caller}: {_described(one, name)} comes from {one.scope.origin(tensor)}, which is not evaluated; "
                "make it an input or an initializer of the model"
            )
        if not tensor or one.scope.kind(tensor) == DATA:
            leaves.append(np.zeros((options.D, H), weights.W.dtype))
            continue
        value = read_array(caller, _described(one, name), one.scope.evaluate(tensor))
        if options.layout == 1 and value.ndim == 3:
            value = value.swapaxes(0, 1)
        B = value.shape[1] if value.ndim == 3 else 1
        check_shape(caller, _described(one, name), value, (options.D, B, H), "after any change of layout")
        if not B or np.any(value != value[:, :1]):
            raise NotImplementedError(
                f"{caller}: {_described(one, name)} differs between the {B} rows of the batch, but a cell has one "
                "initial state; make it an input of the model, and pass it as state to jl.unroll"
            )
        leaves.append(value[:, 0])
    return leaves if any(map(np.any, leaves)) else None


def _learned(kind: str, part: Part, leaves: list[np.ndarray]) -> Part:
    """The cell with this initial state."""
    cell, params = part
    return LearnedInitialState(cell), LearnedParams(params, STATES[kind](*map(jnp.asarray, leaves)))


def _lstm(caller: str, one: Recurrent, options: Options, activations: list[str], weights: Weights) -> Part:
    W, R, _, P = weights
    σ, φ, ψ = activations
    if options.clip is not None and P is not None:
        raise NotImplementedError(
            f"{caller}: {one.label} has clip={options.clip} and peepholes (P): ONNX clips after it adds the peepholes, "
            "this library before; load one without clip or without P"
        )
    if options.input_forget and σ not in ("sigmoid", "hard_sigmoid"):
        raise NotImplementedError(
            f"{caller}: {one.label} has input_forget=1 with the gate activation {σ}; here it needs Sigmoid or "
            "HardSigmoid, with σ(−z) = 1 − σ(z)"
        )
    cell = LSTM(
        W.shape[1], R.shape[1],
        peephole=P is not None, coupled=options.input_forget, clip=options.clip,
        gate_activation=σ, cell_activation=φ, output_activation=ψ,
    )  # fmt: skip
    return cell, _params(cell, weights)


def _gru(caller: str, one: Recurrent, options: Options, activations: list[str], weights: Weights) -> Part:
    if activations != ["sigmoid", "tanh"]:
        raise NotImplementedError(
            f"{caller}: {one.label} is a GRU with the activations {', '.join(activations)}; here GRU has sigmoid and "
            "tanh only"
        )
    cell = GRU(weights.W.shape[1], weights.R.shape[1], reset_after=options.linear_before_reset)
    return cell, _params(cell, weights)


def _rnn(caller: str, one: Recurrent, options: Options, activations: list[str], weights: Weights) -> Part:
    cell = RNN(weights.W.shape[1], weights.R.shape[1], activation=activations[0])
    return cell, _params(cell, weights)


def _params(cell: Any, weights: Weights) -> Any:
    """The params of a cell from its weights in one direction."""
    packed = {name: array for name, array in weights._asdict().items() if array is not None}
    return jax.tree.map(jnp.asarray, unpack(cell, packed))


def _described(one: Recurrent, name: str) -> str:
    """An input of a node in a message."""
    tensor = checks.shown(one.input(INPUTS.index(name)))
    return f"{name} of {one.label} (tensor {tensor})"


def _article(kind: str) -> str:
    return f"a {kind}" if kind == "GRU" else f"an {kind}"


def _decimal(value: float) -> float:
    """An attribute of ONNX, which is a float32, as the shortest decimal that rounds to it."""
    return float(str(np.float32(value)))
