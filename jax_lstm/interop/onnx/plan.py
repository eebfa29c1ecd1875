"""The recurrent nodes that a cell becomes in ONNX, and what ONNX lacks.

A node is one cell, or two in opposite directions. A chain is a list of nodes and chains, one after another.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax_lstm.abilities import output_size
from jax_lstm.interop.onnx.activations import ACTIVATIONS
from jax_lstm.interop.onnx.weights import GATES
from jax_lstm.interop.parts import check_options, no_such_cell
from jax_lstm.layers.bidirectional import Bidirectional
from jax_lstm.layers.dropout import Dropout
from jax_lstm.layers.learned_initial_state import LearnedInitialState
from jax_lstm.layers.stack import Stack

FORM = "ONNX"
ACTIVATION_FIELDS = ("gate_activation", "cell_activation", "output_activation", "activation")
HAS = (*ACTIVATION_FIELDS, "peephole", "coupled", "clip", "reset_after")
SAME = ("peephole", "coupled", "clip", "reset_after")  # in both directions of a node


class Direction(NamedTuple):
    """One direction of a node.

    cell: an LSTM, GRU or RNN.
    params: the name of its params, such as "params.cell.0".
    state: the name of its state, such as "state.0".
    learned: the names of the learned states that its initial state is the sum of, such as "params.state.0".
    """

    cell: Any
    params: str
    state: str
    learned: tuple[str, ...]


class Node(NamedTuple):
    """A recurrent node: its name, and its one direction or its two, forward and backward."""

    name: str
    directions: tuple[Direction, ...]


class Link(NamedTuple):
    """A part of a chain; `residual` says whether its input is added to its output."""

    part: Any
    residual: bool


def plan_of(
    caller: str, cell: Any, params: str = "params", state: str = "state", learned: tuple[str, ...] = ()
) -> Node | list[Link]:
    """The nodes of a cell whose params, state and learned initial states have these names."""
    kind = type(cell)  # a subclass may compute something else
    if kind is Stack:
        return [
            Link(
                plan_of(caller, one, *_below(str(k), params, state, learned)),
                cell.residual and one.input_size == output_size(one),
            )
            for k, one in enumerate(cell.cells)
        ]
    if kind is Dropout:  # drops nothing without a key, but zoneout always mixes two states
        check_options(caller, FORM, cell, ("cell",))
        return plan_of(caller, cell.cell, params, state, learned)
    if kind is LearnedInitialState:
        return plan_of(caller, cell.cell, f"{params}.cell", state, (*learned, f"{params}.state"))
    if kind is Bidirectional:
        directions = [
            _direction(caller, plan_of(caller, getattr(cell, name), *_below(name, params, state, learned)))
            for name in ("forward", "backward")
        ]
        _check_alike(caller, *(one.cell for one in directions))
        return Node(params, tuple(directions))
    _check_cell(caller, cell)
    return Node(params, (Direction(cell, params, state, learned),))


def nodes_of(plan: Node | list[Link]) -> Iterator[Node]:
    """All nodes, the lowest first."""
    if isinstance(plan, Node):
        yield plan
        return
    for link in plan:
        yield from nodes_of(link.part)


def _below(name: str, params: str, state: str, learned: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    """The names of the params, state and learned states of one cell of a layer."""
    return f"{params}.{name}", f"{state}.{name}", tuple(f"{one}.{name}" for one in learned)


def _direction(caller: str, plan: Node | list[Link]) -> Direction:
    """The only direction of a plan, which must be a single cell."""
    if not isinstance(plan, Node) or len(plan.directions) != 1:
        raise NotImplementedError(
            f"{caller}: {FORM} has one cell for each direction of a layer, but this Bidirectional holds layers; put a "
            "Bidirectional around each cell, and a Stack around them"
        )
    return plan.directions[0]


def _check_alike(caller: str, forward: Any, backward: Any) -> None:
    """Refuse two directions that differ in what a node has once."""
    for name in ("kind", "hidden_size", *SAME):
        one, other = (type(c).__name__ if name == "kind" else getattr(c, name, None) for c in (forward, backward))
        if one != other:
            raise NotImplementedError(
                f"{caller}: {FORM} has one {name} for both directions of a layer, but forward of this Bidirectional "
                f"has {one!r} and backward {other!r}; interop.safetensors keeps them"
            )


def _check_cell(caller: str, cell: Any) -> None:
    """Refuse a cell, or an option of a cell, that ONNX lacks."""
    name = type(cell).__name__
    if type(cell) not in GATES:
        raise no_such_cell(
            caller, FORM, cell, "LSTM, GRU and RNN, in Stack, Bidirectional, LearnedInitialState, Dropout and Model"
        )
    check_options(caller, FORM, cell, HAS)
    for field in ACTIVATION_FIELDS:
        value = getattr(cell, field, "tanh")
        if value not in ACTIVATIONS:
            raise NotImplementedError(
                f"{caller}: {FORM} has no {field}={value!r} of {name}, only {', '.join(ACTIVATIONS)}; "
                "interop.safetensors keeps it"
            )
    if getattr(cell, "coupled", False) and cell.gate_activation not in ("sigmoid", "hard_sigmoid"):
        raise NotImplementedError(
            f"{caller}: {FORM} has no coupled=True of {name} with gate_activation={cell.gate_activation!r}, only with "
            "'sigmoid' or 'hard_sigmoid'; interop.safetensors keeps it"
        )
    if getattr(cell, "peephole", False) and cell.clip is not None:
        raise NotImplementedError(
            f"{caller}: {FORM} also clips peephole terms, but clip={cell.clip!r} of {name} with peephole=True does "
            "not; interop.safetensors keeps it"
        )
