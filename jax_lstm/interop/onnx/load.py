"""Weights out of an ONNX model: an LSTM, GRU or RNN node, or several of them that are a stack."""

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jax_lstm import checks
from jax_lstm.interop.onnx.chain import chain_of
from jax_lstm.interop.onnx.files import read_model
from jax_lstm.interop.onnx.graph import KINDS, Recurrent, op_types, recurrent_nodes
from jax_lstm.interop.onnx.nodes import layer_of
from jax_lstm.interop.onnx.own import read_own
from jax_lstm.interop.parts import Part, assembled, checked


def load(
    source: str | os.PathLike[str] | bytes | Any, node: str | Sequence[str] | None = None, *, reverse: bool = False
) -> Part:
    """A cell and its params from the LSTM, GRU or RNN nodes of an ONNX model.

    Nodes are found in the main graph and in subgraphs, such as the branches of If. Their weights may be initializers,
    or computed from constants. One node becomes a cell, with two directions a `Bidirectional`. Several nodes become a
    `Stack` if each reads the outputs of the one below, with nothing but a change of shape in between. A file of `dump`
    comes back as the cell or `Model` that was dumped.

    The lengths of sequences and the initial state are inputs of a run. Pass sequence_lens as mask to `jl.unroll`, and
    the initial state as state. For a sequence of length 0, onnxruntime returns a final state of zeros, and this library
    the initial state. A constant initial state other than zeros is a part of the params: the cell becomes a
    `LearnedInitialState`. The attribute layout is about data only: here a batch of sequences is (B, T, I).

    Args:
        source: a path, the bytes of a file, or an onnx.ModelProto.
        node: the name of a node, or a tuple of names, which become a `Stack` with the first one lowest. A node without
            a name has that of its first output; nodes with the same name are called name#1, name#2, and so on. None:
            all nodes, if there is one, or if they are one stack.
        reverse: True for a node with the direction "reverse". Pass reverse=True to `jl.unroll` too.

    Returns:
        (cell, params): params as JAX arrays of the dtype in the model.

    Raises:
        ValueError: source is not an ONNX model, has no such node, or has several that are not one stack; or a weight is
            misshapen or not constant. The message has the name of the node or tensor.
        NotImplementedError: this library lacks an option of the node, such as an activation; the message names it.
        TypeError: source or node has another type, or the weights are not floats of one dtype.
        OSError: there is no such file.
        ImportError: the package onnx is missing; install it with `pip install "jax_lstm[interop]"`.
    """
    caller = "interop.onnx.load"
    reverse = checks.check_bool(caller, "reverse", reverse)
    model, folder = read_model(caller, source)
    if node is None and not reverse and (own := read_own(model, folder)) is not None:
        return own
    nodes = recurrent_nodes(caller, model, folder)
    if not nodes:
        raise ValueError(_no_nodes(caller, model))
    chosen = _chosen(caller, nodes, node)
    layers = [layer_of(caller, one, reverse=reverse) for one in chosen]
    for (one, below), (other, above) in pairwise(zip(chosen, layers, strict=True)):
        width = sum(cell.output_size for cell, _ in below)
        if above[0][0].input_size != width:
            raise ValueError(
                f"{caller}: W of {other.label} must have {width} columns, the outputs of {one.label}, but has "
                f"{above[0][0].input_size}"
            )
    return checked(caller, *assembled(layers))


def _chosen(caller: str, nodes: list[Recurrent], node: str | Sequence[str] | None) -> list[Recurrent]:
    """The nodes to load, the lowest layer first."""
    listed = _listed(nodes)
    if node is None:
        if len(nodes) == 1:
            return nodes
        if (chain := chain_of(caller, nodes)) is not None:
            return chain
        raise ValueError(
            f"{caller}: the model has {len(nodes)} recurrent nodes that are not one stack: {listed}; pass node, the "
            "name of one, or a tuple of names for a Stack"
        )
    names = (node,) if isinstance(node, str) else node
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{caller}: node must be a name, a tuple of names or None, but is {checks.shown(node)}"
            f"{checks.of_type(node)}"
        )
    by_name = {one.name: one for one in nodes}
    for name in names:
        if name not in by_name:
            raise ValueError(f"{caller}: there is no recurrent node {name!r}; the model has {listed}")
    return [by_name[name] for name in names]


def _listed(nodes: list[Recurrent]) -> str:
    """Nodes in a message: full names, which the user may copy, of at most 20 nodes."""
    few = ", ".join(f"{one.name!r} ({one.node.op_type})" for one in nodes[:20])
    return few if len(nodes) <= 20 else f"{few} and {len(nodes) - 20} more"


def _no_nodes(caller: str, model: Any) -> str:
    """The message for a model without recurrent nodes; it names operators that may be a recurrent network."""
    names = op_types(caller, model)
    alike = [name for name in names if name in ("Loop", "Scan") or any(kind in name.upper() for kind in KINDS)]
    if {"Sigmoid", "Tanh"} <= set(names):
        alike += ["Sigmoid", "Tanh"]
    text = f"{caller}: the model has no LSTM, GRU or RNN node"
    if not alike:
        return f"{text}; it has {checks.listed(names)}"
    return (
        f"{text}; its operators {checks.listed(alike)} may be a recurrent network, but cannot be loaded: export the "
        "model with such a node"
    )
