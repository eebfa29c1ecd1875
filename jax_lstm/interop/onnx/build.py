"""The graph of a cell or `Model`: one LSTM, GRU or RNN node for each layer, time-major between input and output."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from jax_lstm.abilities import output_size
from jax_lstm.cells.gru import GRU
from jax_lstm.cells.lstm import LSTM
from jax_lstm.interop.onnx.activations import ACTIVATIONS
from jax_lstm.interop.onnx.files import METADATA
from jax_lstm.interop.onnx.own import arrays_of, plan_of_model
from jax_lstm.interop.onnx.plan import ACTIVATION_FIELDS, Direction, Link, Node, nodes_of
from jax_lstm.layers.model import Model
from jax_lstm.registry import to_config

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, from 2022


class Graph:
    """A graph in the making.

    arrays: the initializers by name.
    dtype: that of the params.
    streaming: whether the states before the first step are inputs.
    lengths: whether the lengths of the sequences are an input.
    nodes, inputs, outputs: as in a GraphProto.
    """

    def __init__(self, arrays: dict[str, np.ndarray], dtype: Any, *, streaming: bool, lengths: bool):
        self.arrays, self.dtype, self.streaming, self.lengths = arrays, np.dtype(dtype), streaming, lengths
        self.nodes: dict[str, NodeProto] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []

    def add(self, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Add a node with the name of its first output, unless there is one; return that name."""
        if outputs[0] not in self.nodes:
            self.nodes[outputs[0]] = helper.make_node(op, inputs, outputs, name=outputs[0], **attributes)
        return outputs[0]

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        """Add an initializer; return its name."""
        self.arrays[name] = np.array(value, dtype)
        return name

    def axes(self, *values: int) -> str:
        """Add a vector of integers, such as axes or a shape; return its name."""
        return self.constant("axes." + ".".join(map(str, values)), values)

    def read(self, name: str, shape: Sequence[Any], dtype: Any = None) -> str:
        """Add an input; return its name."""
        self.inputs.append(_value_info(name, shape, dtype or self.dtype))
        return name

    def write(self, name: str, shape: Sequence[Any]) -> None:
        """Make the output of a node one of the graph."""
        self.outputs.append(_value_info(name, shape, self.dtype))

    def unread(self) -> dict[str, np.ndarray]:
        """The arrays that no node reads. onnxruntime warns about such initializers."""
        read = {name for node in self.nodes.values() for name in node.input}
        return {name: a for name, a in self.arrays.items() if name not in read}

    def proto(self) -> GraphProto:
        """The GraphProto, without the arrays that no node reads."""
        unread = self.unread()
        arrays = [numpy_helper.from_array(a, name) for name, a in self.arrays.items() if name not in unread]
        return helper.make_graph(list(self.nodes.values()), "jax_lstm", self.inputs, self.outputs, arrays)


def _value_info(name: str, shape: Sequence[Any], dtype: Any) -> ValueInfoProto:
    """An input or output of a graph, with names for the free sizes in its shape."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def model_of(caller: str, cell: Any, params: Any, *, streaming: bool, lengths: bool) -> ModelProto:
    """The ONNX model of a cell or a `Model`; see `dump`."""
    plan, dtype = plan_of_model(caller, cell), jax.tree.leaves(params)[0].dtype
    graph = Graph(arrays_of(nodes_of(plan), params), dtype, streaming=streaming, lengths=lengths)
    ys = _add_plan(graph, plan, _add_input(graph, cell))
    O = cell.output_size if isinstance(cell, Model) else output_size(cell)
    if isinstance(cell, Model):
        ys = graph.add("MatMul", [ys, "params.readout.w"], "readout.product")
        ys = graph.add("Add", [ys, "params.readout.b"], "readout")
    graph.add("Transpose", [ys], "ys", perm=[1, 0, 2])
    graph.outputs.insert(0, _value_info("ys", ["B", "T", O], dtype))
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph.proto(), producer_name="jax_lstm", opset_imports=[opset], ir_version=IR_VERSION)
    # With streaming no node reads the learned initial states.
    unread = {name: json.dumps(a.ravel().tolist()) for name, a in graph.unread().items() if name.startswith("params.")}
    helper.set_model_props(model, {METADATA: json.dumps(to_config(cell)), **unread})
    return model


def _add_input(graph: Graph, cell: Any) -> str:
    """Add the inputs xs and lengths; return the name of the input of the lowest node, (T, B, I)."""
    if symbols := isinstance(cell, Model) and cell.vocabulary is not None:
        graph.read("xs", ["B", "T"], np.int64)
    else:
        graph.read("xs", ["B", "T", (cell.cell if isinstance(cell, Model) else cell).input_size])
    if graph.lengths:
        graph.read("lengths", ["B"], np.int32)
    x = graph.add("Transpose", ["xs"], "xs.time_major", perm=[1, 0] if symbols else [1, 0, 2])
    if not symbols:
        return x
    symbol = _zero_padding(graph, x, np.int64, 0)  # padding may be any integer
    return graph.add("Gather", ["params.embedding.w", symbol], "xs.embedded")


def _add_plan(graph: Graph, plan: Node | list[Link], x: str) -> str:
    """Add all nodes, which read x (T, B, I); return the name of their output (T, B, O)."""
    if isinstance(plan, Node):
        return _add_recurrent(graph, plan, x)
    for part, residual in plan:
        y = _add_plan(graph, part, x)
        x = _zero_padding(graph, graph.add("Add", [x, y], f"{y}.residual"), graph.dtype, 1) if residual else y
    return x


def _zero_padding(graph: Graph, y: str, dtype: Any, features: int) -> str:
    """y, (T, B) and as many axes of features, with 0 from the end of each sequence on."""
    if not graph.lengths:
        return y
    T = graph.add("Squeeze", [graph.add("Shape", ["xs"], "T.axis", start=1, end=2)], "T")
    steps = graph.add("Range", [graph.constant("zero", 0), T, graph.constant("one", 1)], "steps")
    column = graph.add("Unsqueeze", [steps, graph.axes(1)], "steps.column")
    ends = graph.add("Cast", ["lengths"], "lengths.int64", to=TensorProto.INT64)
    inside = graph.add("Less", [column, ends], "inside")
    if features:
        inside = graph.add("Unsqueeze", [inside, graph.axes(2)], "inside.column")
    zero = graph.constant(f"zero.{np.dtype(dtype)}", 0, dtype)
    return graph.add("Where", [inside, y, zero], f"{y}.inside")


def _add_recurrent(graph: Graph, node: Node, x: str) -> str:
    """Add the recurrent node of a layer, and its final states; return the name of its output (T, B, D H)."""
    cells = [one.cell for one in node.directions]
    D, H = len(cells), cells[0].hidden_size
    fields = ("h", "c") if isinstance(cells[0], LSTM) else ("h",)
    initial = {field: _initial(graph, node, field) for field in fields}
    P = f"{node.name}.P" if f"{node.name}.P" in graph.arrays else ""
    weights = [f"{node.name}.{name}" for name in "WRB"]
    inputs = [x, *weights, "lengths" if graph.lengths else "", *initial.values(), P]
    while not inputs[-1]:
        inputs.pop()
    ends = [f"{node.name}.Y_{field}" for field in fields]
    Y = graph.add(type(cells[0]).__name__, inputs, f"{node.name}.Y", *ends, hidden_size=H, **_attributes(cells))
    rows = [_rows(graph, D, end, one) for end, one in zip(ends, initial.values(), strict=True)]
    for k, one in enumerate(node.directions):
        for field, row in zip(fields, rows, strict=True):
            name = graph.add("Squeeze", [row[k], graph.axes(0)], f"{'next_' * graph.streaming}{one.state}.{field}")
            graph.write(name, ["B", H])
    if D == 1:
        return graph.add("Squeeze", [Y, graph.axes(1)], f"{node.name}.y")
    Y = graph.add("Transpose", [Y], f"{Y}.transposed", perm=[0, 2, 1, 3])
    return graph.add("Reshape", [Y, graph.axes(0, 0, D * H)], f"{node.name}.y")


def _attributes(cells: Sequence[Any]) -> dict[str, Any]:
    """The attributes of a node, apart from hidden_size, that are not at their defaults."""
    chosen = [[getattr(cell, f) for f in ACTIVATION_FIELDS if hasattr(cell, f)] for cell in cells]
    found: dict[str, Any] = {}
    if len(cells) == 2:
        found["direction"] = "bidirectional"
    if any(names not in ([], ["tanh"], ["sigmoid", "tanh", "tanh"]) for names in chosen):
        of = [ACTIVATIONS[name] for names in chosen for name in names]
        found["activations"] = [one.name for one in of]
        # Only those of the activations that have an alpha, or a beta.
        for name in ("alpha", "beta"):
            if values := [value for one in of if (value := getattr(one, name)) is not None]:
                found[f"activation_{name}"] = values
    if getattr(cells[0], "clip", None) is not None:
        found["clip"] = cells[0].clip
    if getattr(cells[0], "coupled", False):
        found["input_forget"] = 1
    if isinstance(cells[0], GRU) and cells[0].reset_after:
        found["linear_before_reset"] = 1
    return found


def _initial(graph: Graph, node: Node, field: str) -> str:
    """The initial h or c (D, B, H) of a node: an input, or a learned one; "" for zeros."""
    H = node.directions[0].cell.hidden_size
    name = f"{node.name}.initial_{field}"
    if graph.streaming:
        state = graph.read(f"{node.directions[0].state}.{field}", ["B", H])
        return graph.add("Unsqueeze", [state, graph.axes(0)], name)
    if not any(one.learned for one in node.directions):
        return ""
    rows = [_learned(graph, one, field, H) for one in node.directions]
    row = rows[0] if len(rows) == 1 else graph.add("Concat", rows, f"{name}.rows", axis=0)
    B = graph.add("Shape", ["xs"], "B.axis", start=0, end=1)
    shape = graph.add("Concat", [graph.axes(1), B, graph.axes(1)], "1.B.1", axis=0)
    return graph.add("Expand", [row, shape], name)


def _learned(graph: Graph, one: Direction, field: str, H: int) -> str:
    """The initial h or c (1, 1, H) of one direction: the sum of the learned ones, or zeros."""
    if not one.learned:
        return graph.constant(f"zeros.{H}", [[[0] * H]], graph.dtype)
    total, *rest = (f"{name}.{field}" for name in one.learned)
    for name in rest:
        total = graph.add("Add", [total, name], f"{name}.sum")
    return total


def _rows(graph: Graph, D: int, end: str, initial: str) -> list[str]:
    """The final h or c (1, B, H) of each direction, from Y_h or Y_c (D, B, H)."""
    if graph.lengths and initial:  # onnxruntime gives 0 for a sequence of length 0
        positive = graph.add("Cast", ["lengths"], "lengths.bool", to=TensorProto.BOOL)
        column = graph.add("Unsqueeze", [positive, graph.axes(1)], "lengths.column")
        end = graph.add("Where", [column, end, initial], f"{end}.kept")
    if D == 1:
        return [end]
    rows = [f"{end}.forward", f"{end}.backward"]
    graph.add("Split", [end], *rows, axis=0)
    return rows
