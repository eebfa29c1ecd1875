"""Look up and evaluate tensors in the graphs of an ONNX model.

A tensor is a constant, depends on the sizes of the inputs only (`SIZES`), or depends on their numbers (`DATA`):

    W                            an initializer: constant
    Transpose(W)                 constant
    Expand(h_0, Shape(x))        sizes; its value for a batch of one is that with ones for Shape(x)
    MatMul(x, W)                 data

A node of a subgraph, such as a branch of If, also reads tensors of the graphs around it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jax_lstm.interop.onnx.files import array_of, package

CONSTANT, SIZES, DATA = range(3)
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
KINDS = ("LSTM", "GRU", "RNN")


class Scope:
    """The tensors of one graph, and the scope of the graph around it.

    Attributes:
        makers: the node that computes a tensor, by its name.
        kinds: CONSTANT, SIZES or DATA, by name.
        values: the tensors evaluated so far, by name.
    """

    def __init__(
        self, caller: str, graph: Any, opsets: dict[str, int], folder: str | None, around: "Scope | None" = None
    ):
        self.caller, self.opsets, self.folder, self.around = caller, opsets, folder, around
        self.graph = graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.values: dict[str, Any] = {}
        self.kinds = {value.name: DATA for value in graph.input} | dict.fromkeys(self.initializers, CONSTANT)
        for node in graph.node:
            kind = self._kind_of(node)
            self.kinds |= {name: kind for name in node.output if name}

    def home(self, name: str) -> "Scope | None":
        """The innermost scope that has this tensor."""
        scope: Scope | None = self
        while scope is not None and name not in scope.kinds:
            scope = scope.around
        return scope

    def kind(self, name: str) -> int:
        """CONSTANT, SIZES or DATA."""
        home = self.home(name)
        return DATA if home is None else home.kinds[name]

    def evaluate(self, name: str) -> Any:
        """The value of a tensor that is not DATA; one that depends on sizes is evaluated for inputs of size 1."""
        waiting: list[tuple[Any, str]] = [(self.home(name), name)]
        while waiting:
            scope, one = waiting[-1]
            if one not in scope.values:
                if one in scope.initializers:
                    scope.values[one] = array_of(self.caller, scope.initializers[one], self.folder)
                    continue
                node = scope.makers[one]
                needs = [(scope.home(n), n) for n in scope._needs(node)]
                if lacking := [(home, n) for home, n in needs if n not in home.values]:
                    waiting += lacking
                    continue
                results = scope.run(node, {n: home.values[n] for home, n in needs} | scope._ones(node))
                scope.values |= dict(zip(node.output, results, strict=True))
            waiting.pop()
        home: Any = self.home(name)
        return home.values[name]

    def run(self, node: Any, inputs: dict[str, Any]) -> list[Any]:
        """The outputs of one node."""
        onnx = package(self.caller)
        values = [onnx.ValueInfoProto(name=name) for name in inputs]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.GraphProto(name="one_node", node=[node], input=values, output=outputs)
        try:
            results = iter(onnx.reference.ReferenceEvaluator(graph, opsets=self.opsets).run(None, inputs))
        except Exception as error:  # whatever the evaluator raises at an operator that it lacks, or at wrong shapes
            raise NotImplementedError(
                f"{self.caller}: the tensor {node.output[0]!r} cannot be computed from constants by "
                f"{node.op_type} ({type(error).__name__}); make it an initializer of the model"
            ) from error
        return [next(results) if name else None for name in node.output]

    def before(self, name: str) -> Iterator[tuple["Scope", str]]:
        """The tensor itself, and every one that its numbers are computed from; of Shape(x) not x."""
        waiting, seen = [(self, name)], set()
        while waiting:
            scope, one = waiting.pop()
            home = scope.home(one)
            if home is None or (id(home), one) in seen:
                continue
            seen.add((id(home), one))
            yield home, one
            if one in home.makers and home.makers[one].op_type not in ("Shape", "Size"):
                waiting += [(home, n) for n in _reads(home.makers[one])]

    def inputs_of(self, name: str) -> list[str]:
        """The inputs of the model, or of a graph in it, that this tensor is computed from, other than their sizes."""
        return [one for scope, one in self.before(name) if scope.kinds[one] == DATA and one not in scope.makers]

    def origin(self, name: str) -> str:
        """Why a tensor is not constant, in words."""
        if inputs := self.inputs_of(name):
            return f"the input {inputs[0]!r}"
        for scope, one in self.before(name):
            node = scope.makers.get(one)
            if node is not None and scope.kinds[one] == DATA:
                return f"the node {node.name or one!r} ({node.op_type})"
        return "the sizes of the input" if self.home(name) else "a tensor that the model lacks"

    def _kind_of(self, node: Any) -> int:
        """CONSTANT, SIZES or DATA: what the outputs of a node are."""
        if _domain(node.domain) or node.op_type in RANDOM or any(map(subgraphs, node.attribute)):
            return DATA
        kind = max((self.kind(name) for name in node.input if name), default=CONSTANT)
        return min(kind, SIZES) if node.op_type in ("Shape", "Size") else kind

    def _needs(self, node: Any) -> list[str]:
        """The inputs of a node to evaluate first; not those of which only the size counts."""
        return [] if self._is_size(node) else [name for name in node.input if name]

    def _ones(self, node: Any) -> dict[str, np.ndarray]:
        """An input of size 1 for a node that reads only the size."""
        if not self._is_size(node):
            return {}
        home: Any = self.home(node.input[0])
        declared = [v for v in (*home.graph.input, *home.graph.value_info) if v.name == node.input[0]]
        rank = next((len(v.type.tensor_type.shape.dim) for v in declared), 0)
        return {node.input[0]: np.zeros((1,) * (rank or 3), np.float32)}

    def _is_size(self, node: Any) -> bool:
        return node.op_type in ("Shape", "Size") and self.kind(node.input[0]) == DATA


class Recurrent(NamedTuple):
    """An LSTM, GRU or RNN node, what messages and the argument `node` call it, and the scope of its tensors."""

    name: str
    node: Any
    scope: Scope

    @property
    def label(self) -> str:
        """The node in a message."""
        return f"node {self.name!r}"

    def input(self, position: int) -> str:
        """The name of an input; empty if the node does not have it."""
        return self.node.input[position] if position < len(self.node.input) else ""


def recurrent_nodes(caller: str, model: Any, folder: str | None) -> list[Recurrent]:
    """The recurrent nodes of all graphs, in order.

    A node has its own name, or that of its first output if it has none. If several have the same, it becomes name#1,
    name#2, and so on.
    """
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    found = []
    for scope, node in _walk(Scope(caller, model.graph, opsets, folder)):
        if node.op_type in KINDS and not _domain(node.domain):
            found.append((node.name or next(filter(None, node.output), ""), node, scope))
    names = [name for name, _, _ in found]
    return [
        Recurrent(f"{name}#{names[: k + 1].count(name)}" if names.count(name) > 1 else name, node, scope)
        for k, (name, node, scope) in enumerate(found)
    ]


def op_types(caller: str, model: Any) -> list[str]:
    """The operators of all graphs, each once, with their domain."""
    nodes = (node for _, node in _walk(Scope(caller, model.graph, {}, None)))
    return list(dict.fromkeys(".".join(filter(None, (_domain(n.domain), n.op_type))) for n in nodes))


def subgraphs(attribute: Any) -> list[Any]:
    """The graphs in an attribute of a node."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _reads(node: Any) -> Iterator[str]:
    """The tensors that a node reads, those that its subgraphs read included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _reads(inner)


def _walk(scope: Scope) -> Iterator[tuple[Scope, Any]]:
    """All nodes of a graph and of the graphs inside it, each with its scope."""
    for node in scope.graph.node:
        yield scope, node
        for attribute in node.attribute:
            for graph in subgraphs(attribute):
                yield from _walk(Scope(scope.caller, graph, scope.opsets, scope.folder, scope))


def _domain(domain: str) -> str:
    """The domain of an operator; that of ONNX itself has two names."""
    return "" if domain == "ai.onnx" else domain
