"""ONNX models for the tests: one recurrent node, with random weights as initializers."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, B, I, H = 5, 3, 3, 4
OPSET = 22


def draw(rng, *shape, dtype=np.float32):
    return (0.7 * rng.normal(size=shape)).astype(dtype)


def weights_of(op, D=1, *, seed=0, features=I, units=H, bias=True, peephole=False, dtype=np.float32):
    """W, R, B and P of a node, by name."""
    rng, n = np.random.default_rng(seed), GATES[op]
    weights = {
        "W": draw(rng, D, n * units, features, dtype=dtype),
        "R": draw(rng, D, n * units, units, dtype=dtype),
    }
    if bias:
        weights["B"] = draw(rng, D, 2 * n * units, dtype=dtype)
    if peephole:
        weights["P"] = draw(rng, D, 3 * units, dtype=dtype)
    return weights


def node_of(op, given, outputs=("Y", "Y_h", "Y_c"), name="", prefix="", **attributes):
    """A node that reads those of its inputs that are in `given`, which has their tensors."""
    names = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")[: 8 if op == "LSTM" else 6]
    inputs = [given.get(name, "") for name in names]
    while not inputs[-1]:
        inputs.pop()
    outputs = [prefix + output for output in outputs[: 3 if op == "LSTM" else 2]]
    return helper.make_node(op, inputs, outputs, name=name, **attributes)


def tensors(arrays, prefix=""):
    return [numpy_helper.from_array(array, prefix + name) for name, array in arrays.items()]


def value(name, array=None):
    """The declaration of an input or output: with the shape of an array, or a float32 without a shape."""
    if array is None:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def model_of(nodes, inputs, outputs, initializers=(), **options):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10, **options)


def one_node(op, weights, *, inputs=None, constants=None, name="the_node", **attributes):
    """A model with one node; weights and constants are initializers."""
    inputs, constants = inputs or {}, {**weights, **(constants or {})}
    given = {name: name for name in ("X", *inputs, *constants)}
    node = node_of(op, given, name=name, hidden_size=weights["R"].shape[-1], **attributes)
    x = inputs.get("X", np.zeros((T, B, weights["W"].shape[-1]), weights["W"].dtype))
    declared = [value(name, array) for name, array in {"X": x, **inputs}.items()]
    kind = helper.np_dtype_to_tensor_dtype(weights["W"].dtype)
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in node.output]
    return model_of([node], declared, outputs, tensors(constants))
