"""Find out which recurrent nodes of an ONNX model are layers of one stack."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_lstm.interop.onnx.graph import CONSTANT, Recurrent, Scope
from jax_lstm.interop.onnx.nodes import directions_of, layout_of

# Operators that may be between two layers.
BETWEEN = {"Squeeze", "Unsqueeze", "Transpose", "Reshape", "Identity", "Dropout", "Cast"}
Step = tuple[Scope, Any]


def chain_of(caller: str, nodes: Sequence[Recurrent]) -> list[Recurrent] | None:
    """The nodes in the order of the layers, the lowest first; None if they are not one stack.

    In a stack each node but the lowest reads all outputs of another one, and no node starts from the state of another.
    """
    below: dict[int, int] = {}
    for k, one in enumerate(nodes):
        if (found := _input_of(nodes, one)) is not None:
            j, steps = found
            if not _passes_outputs(caller, nodes[j], one, steps):
                return None
            below[k] = j
    above = {j: k for k, j in below.items()}
    lowest = [k for k in range(len(nodes)) if k not in below]
    if len(lowest) != 1 or len(above) != len(below) or any(_starts_from(nodes, one) for one in nodes):
        return None
    order = lowest
    while order[-1] in above:
        order.append(above[order[-1]])
    return [nodes[k] for k in order] if len(order) == len(nodes) else None  # not all, if some read each other


def _input_of(nodes: Sequence[Recurrent], one: Recurrent) -> tuple[int, list[Step]] | None:
    """The node whose Y another one reads as X, and the operators in between, the first one first."""
    ys = {(id(node.scope), node.node.output[0]): j for j, node in enumerate(nodes) if node.node.output}
    scope, name, steps = one.scope.home(one.input(0)), one.input(0), []
    while scope is not None and name in scope.makers and (scope, scope.makers[name]) not in steps:
        if (id(scope), name) in ys:
            return ys[id(scope), name], steps[::-1]
        maker = scope.makers[name]
        if maker.op_type not in BETWEEN:
            return None
        steps.append((scope, maker))
        name = maker.input[0]
        scope = scope.home(name)
    return None


def _passes_outputs(caller: str, below: Recurrent, above: Recurrent, steps: Sequence[Step]) -> bool:
    """Whether X (T, B, D H) of the node above is Y (T, D, B, H) of the one below; tried with numbers."""
    D, T, B, H = directions_of(caller, below), 2, 3, 5
    outputs = 0.5 + np.arange(T * B * D * H, dtype=np.float32).reshape(T, B, D, H)  # exact in bfloat16; no integers
    y = outputs.transpose(1, 0, 2, 3) if layout_of(caller, below) else outputs.transpose(0, 2, 1, 3)
    for scope, node in steps:
        shaped_by = [name for name in node.input[1:] if name]
        if any(scope.kind(name) != CONSTANT for name in shaped_by):
            return False
        try:
            y = scope.run(node, {node.input[0]: y} | {name: scope.evaluate(name) for name in shaped_by})[0]
        except NotImplementedError:  # for example a Reshape to fixed sizes
            return False
    x = outputs.reshape(T, B, D * H)
    return np.array_equal(np.asarray(y, np.float32), x.swapaxes(0, 1) if layout_of(caller, above) else x)


def _starts_from(nodes: Sequence[Recurrent], one: Recurrent) -> bool:
    """Whether the initial state of a node comes from the state of another one."""
    states = {(id(node.scope), name) for node in nodes for name in node.node.output if name}
    return any(
        (id(scope), name) in states
        for start in filter(None, (one.input(5), one.input(6)))
        for scope, name in one.scope.before(start)
    )
