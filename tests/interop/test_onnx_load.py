"""Nodes of ONNX models, loaded and run here, give the numbers of onnxruntime, or of ONNX's reference evaluator."""

import importlib
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.interop.onnx import dump, load
from jax_lstm.interop.onnx.activations import ACTIVATIONS
from jax_lstm.interop.onnx.nodes import INPUTS

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import GATES, B, H, I, T, draw, model_of, node_of, one_node, tensors, value, weights_of  # noqa: E402

TOLERANCE = 1e-6
LENGTHS = np.array([5, 2, 4], np.int32)
HARD = {"activation_alpha": [1 / 6], "activation_beta": [0.5]}
WEIGHTS = ("bias", "peephole")
# The op with attributes; `bias` and `peephole` choose weights, `lengths` and `state` inputs.
NODES = {
    "LSTM": ("LSTM", {}),
    "LSTM, no bias": ("LSTM", {"bias": False}),
    "LSTM, lengths and state": ("LSTM", {"lengths": True, "state": True}),
    "LSTM, bidirectional": ("LSTM", {"direction": "bidirectional", "lengths": True, "state": True, "peephole": True}),
    "LSTM, reverse": ("LSTM", {"direction": "reverse", "lengths": True, "state": True}),
    "LSTM, peepholes": ("LSTM", {"peephole": True}),
    "LSTM, clip": ("LSTM", {"clip": 0.4}),
    "LSTM, input_forget": ("LSTM", {"input_forget": 1}),
    "LSTM, input_forget and peepholes": ("LSTM", {"input_forget": 1, "peephole": True, "state": True}),
    "LSTM, input_forget and clip": ("LSTM", {"input_forget": 1, "clip": 0.4}),
    "LSTM, input_forget and HardSigmoid": (
        "LSTM",
        {"input_forget": 1, "peephole": True, "activations": ["HardSigmoid", "Tanh", "Tanh"], **HARD},
    ),
    "LSTM, activations": (
        "LSTM",
        {
            "activations": ["Sigmoid", "HardSigmoid", "LeakyRelu"],
            "activation_alpha": [1 / 6, 0.01],
            "activation_beta": [0.5],
        },
    ),
    "LSTM, activations per direction": (
        "LSTM",
        {
            "direction": "bidirectional",
            "activations": ["sigmoid", "relu", "Affine", "HardSigmoid", "Elu", "Tanh"],
            "activation_alpha": [1.0, 1 / 6, 1.0],
            "activation_beta": [0.0, 0.5],
        },
    ),
    "LSTM, batch first": ("LSTM", {"layout": 1, "state": True, "direction": "bidirectional"}),
    "GRU": ("GRU", {"lengths": True, "state": True}),
    "GRU, linear_before_reset": ("GRU", {"linear_before_reset": 1, "state": True}),
    "GRU, bidirectional": ("GRU", {"direction": "bidirectional", "lengths": True}),
    "GRU, bidirectional, linear_before_reset": ("GRU", {"direction": "bidirectional", "linear_before_reset": 1}),
    "GRU, reverse": ("GRU", {"direction": "reverse", "linear_before_reset": 1, "lengths": True}),
    "GRU, batch first": ("GRU", {"layout": 1, "linear_before_reset": 1, "state": True}),
    "RNN": ("RNN", {"lengths": True, "state": True}),
    "RNN, no bias": ("RNN", {"bias": False}),
    "RNN, two directions": ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Softplus"]}),
    "RNN, reverse": ("RNN", {"direction": "reverse", "lengths": True, "activations": ["Sigmoid"]}),
    "RNN, batch first": ("RNN", {"layout": 1, "state": True}),
}
QUICK = [
    "LSTM, bidirectional",
    "LSTM, clip",
    "LSTM, input_forget and peepholes",
    "LSTM, activations",
    "GRU",
    "GRU, linear_before_reset",
    "RNN, reverse",
]
STATES = {"LSTM": jl.LSTMState, "GRU": jl.GRUState, "RNN": jl.RNNState}


def directions(attributes):
    return 2 if attributes.get("direction") == "bidirectional" else 1


def a_node(op, options, seed=0):
    """A model with one random node, and its inputs."""
    attributes = {name: option for name, option in options.items() if name not in (*WEIGHTS, "lengths", "state")}
    D, rng = directions(attributes), np.random.default_rng(seed + 1)
    weights = weights_of(op, D, seed=seed, **{name: options[name] for name in WEIGHTS if name in options})
    inputs = {"X": draw(rng, T, B, I)}
    if options.get("lengths"):
        inputs["sequence_lens"] = LENGTHS
    if options.get("state"):
        inputs |= {name: draw(rng, D, B, H) for name in ("initial_h", "initial_c")[: len(STATES[op]._fields)]}
    if options.get("layout"):
        inputs = {name: array.swapaxes(0, 1).copy() for name, array in inputs.items()}
    return one_node(op, weights, inputs=inputs, **attributes), inputs


def run_onnx(model, inputs) -> Any:
    """The outputs of onnxruntime; of the reference evaluator for layout=1, which onnxruntime lacks."""
    if any(a.name == "layout" and a.i for a in model.graph.node[0].attribute):
        return ReferenceEvaluator(model).run(None, inputs)
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def run_ours(cell, params, node, inputs):
    """The outputs Y, Y_h and Y_c of a node, as ONNX returns them, from this library."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    State, layout, D = STATES[node.op_type], attributes.get("layout", 0), 1
    if attributes.get("direction") == b"bidirectional":
        D = 2
    inputs = {name: a.swapaxes(0, 1) if layout and a.ndim == 3 else a for name, a in inputs.items()}
    xs, state, mask = inputs["X"].swapaxes(0, 1), None, None
    if "initial_h" in inputs:
        leaves = [jnp.asarray(inputs[name]) for name in ("initial_h", "initial_c") if name in inputs]
        states = [State(*(leaf[d] for leaf in leaves)) for d in range(D)]
        state = states[0] if D == 1 else jl.BidirectionalState(*states)
    if "sequence_lens" in inputs:
        mask = np.arange(xs.shape[1]) < inputs["sequence_lens"][:, None]
    reverse = attributes.get("direction") == b"reverse"
    state, hs = jax.jit(lambda p, xs, s: jl.batched(jl.unroll)(cell, p, xs, s, mask, reverse=reverse))(
        params, jnp.asarray(xs), state
    )
    y = np.asarray(hs).reshape(*hs.shape[:2], D, -1).transpose(1, 2, 0, 3)  # (T, D, B, H)
    ends = [np.stack(leaf) for leaf in zip(*([state] if D == 1 else state), strict=True)]  # (D, B, H)
    if layout:
        return [y.transpose(2, 0, 1, 3), *(end.swapaxes(0, 1) for end in ends)]
    return [y, *ends]


def assert_close(actual, desired):
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        assert a.shape == d.shape
        np.testing.assert_allclose(a, d, rtol=TOLERANCE, atol=TOLERANCE)


def assert_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_array_equal(a, d)


@pytest.mark.parametrize("name", slow_except(QUICK, NODES))
def test_a_loaded_node_equals_onnxruntime(name):
    op, options = NODES[name]
    model, inputs = a_node(op, options)
    cell, params = load(model, reverse=options.get("direction") == "reverse")
    assert_close(run_ours(cell, params, model.graph.node[0], inputs), run_onnx(model, inputs))


def test_clip_leaves_the_cell_state_alone():
    """With all gates open, c grows beyond the clip."""
    weights = weights_of("LSTM")
    weights["B"] += 1.5
    model, inputs = one_node("LSTM", weights, clip=1.5), {"X": draw(np.random.default_rng(5), T, B, I)}
    theirs = run_onnx(model, inputs)
    assert theirs[2].max() > 2.5
    assert_close(run_ours(*load(model), model.graph.node[0], inputs), theirs)


def test_options_of_nodes_become_options_of_cells():
    plain = {"LSTM": jl.LSTM(I, H), "GRU": jl.GRU(I, H, reset_after=False), "RNN": jl.RNN(I, H)}
    for op, cell in plain.items():
        assert load(one_node(op, weights_of(op)))[0] == cell
        assert load(one_node(op, weights_of(op, 2), direction="bidirectional"))[0] == jl.Bidirectional(cell)
    for name, cell in {
        "LSTM, peepholes": jl.LSTM(I, H, peephole=True),
        "LSTM, clip": jl.LSTM(I, H, clip=0.4),
        "LSTM, input_forget and clip": jl.LSTM(I, H, coupled=True, clip=0.4),
        "GRU, linear_before_reset": jl.GRU(I, H),
    }.items():
        assert load(a_node(*NODES[name])[0])[0] == cell


def test_every_activation_of_the_table_is_read():
    for name, one in ACTIVATIONS.items():
        given = {"activation_alpha": one.alpha, "activation_beta": one.beta}
        attributes = {key: [number] for key, number in given.items() if number is not None}
        cell, _ = load(one_node("RNN", weights_of("RNN"), activations=[one.name.lower()], **attributes))
        assert cell == jl.RNN(I, H, activation=name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_the_params_have_the_dtype_of_the_weights(dtype):
    weights = weights_of("GRU", dtype=dtype)
    _, params = load(one_node("GRU", weights, linear_before_reset=1))
    z, r, h = np.split(weights["W"][0].T, 3, axis=1)
    b_z, b_r, b_h = np.split(sum(np.split(weights["B"][0], 2)), 3)
    b_h, b_hn = weights["B"][0][2 * H : 3 * H], weights["B"][0][5 * H :]
    np.testing.assert_array_equal(params.w_x, np.concatenate([r, z, h], axis=1), strict=True)
    np.testing.assert_array_equal(params.b, np.concatenate([b_r, b_z, b_h]), strict=True)
    np.testing.assert_array_equal(params.b_hn, b_hn, strict=True)


def test_float64_needs_x64():
    model = one_node("RNN", weights_of("RNN", dtype=np.float64))
    with jax.enable_x64(False), pytest.raises(TypeError, match=r"W of node 'the_node' .* is float64, but .* is off"):
        load(model)


# ONNX's own test cases.


def onnx_cases(monkeypatch):
    """Name, node, inputs and outputs of ONNX's test cases of the recurrent operators.

    A module of test cases passes each to `expect` when it is imported.
    """
    from onnx.backend.test.case import node as package

    found = []
    monkeypatch.setattr(
        package, "expect", lambda node, inputs, outputs, name: found.append((name, node, inputs, outputs))
    )
    for op in GATES:
        name = f"{package.__name__}.{op.lower()}"
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.import_module(name)
    return found


@pytest.mark.slow
def test_all_onnx_test_cases_are_equal_or_refused(monkeypatch):
    equal, refused = [], {}
    for name, node, arrays, outputs in onnx_cases(monkeypatch):
        slots = {slot: tensor for slot, tensor in zip(INPUTS, node.input, strict=False) if tensor}
        given = dict(zip(slots, arrays, strict=True))
        weights = {slot: given.pop(slot) for slot in "WRBP" if slot in given}  # the cases pass them as inputs
        declared = [value(slots[slot], array) for slot, array in given.items()]
        initializers = tensors({slots[slot]: array for slot, array in weights.items()})
        model = model_of([node], declared, [value(output) for output in node.output if output], initializers)
        try:
            cell, params = load(model, reverse="reverse" in name)
        except NotImplementedError as error:
            refused[name] = str(error)
            continue
        ours = run_ours(cell, params, node, given)
        assert_close([y for y, output in zip(ours, node.output, strict=False) if output], outputs)
        equal.append(name)
    assert len(equal) == 18
    assert refused == {}


# Where weights are.


def lstm(prefix="", name="lstm", **given):
    """An LSTM node with tensors called W, R and B unless given otherwise."""
    return node_of("LSTM", {"X": "X", "W": "W", "R": "R", "B": "B"} | given, name=name, prefix=prefix, hidden_size=H)


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array), name))


X = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", "B", I])]


def branches(then, other, condition="condition"):
    """If with these nodes in its branches; each returns its last output."""
    graphs = [
        helper.make_graph(nodes, name, [], [value(nodes[-1].output[0])])
        for name, nodes in (("then_graph", then), ("else_graph", other))
    ]
    return helper.make_node("If", [condition], ["out"], name="if", then_branch=graphs[0], else_branch=graphs[1])


CONDITION = helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])


def test_weights_behind_constant_operators_are_found():
    weights = weights_of("LSTM")
    first, second = np.split(weights["B"][0], 2)
    i, o, f, c = np.split(weights["W"][0], 4)
    nodes = [
        constant("axis", [0]),
        constant("first", first),
        helper.make_node("Concat", ["first", "second"], ["flat"], axis=0),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["B"]),
        *(helper.make_node("Slice", ["torch", *bounds], [gate]) for gate, bounds in BOUNDS.items()),
        helper.make_node("Concat", list("iofc"), ["joined"], axis=0),
        helper.make_node("Unsqueeze", ["joined", "axis"], ["W"]),
        helper.make_node("Transpose", ["transposed"], ["half"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["half"], ["R"], to=onnx.TensorProto.FLOAT),
        lstm(),
    ]
    half = weights["R"].astype(np.float16)
    arrays = {"second": second, "torch": np.concatenate([i, f, c, o]), "transposed": half.swapaxes(1, 2).copy()}
    arrays |= {str(k): np.array([k * H]) for k in range(5)}
    cell, params = load(model_of(nodes, X, [value("Y")], tensors(arrays)))
    assert_equal((cell, params), load(one_node("LSTM", weights | {"R": half.astype(np.float32)})))


BOUNDS = {"i": "01", "f": "12", "c": "23", "o": "34"}


def test_nodes_in_branches_read_weights_of_outer_graphs():
    weights, other = weights_of("LSTM"), weights_of("LSTM", seed=1)
    then = [helper.make_node("Identity", ["W"], ["W_then"]), lstm(W="W_then", prefix="then_", name="")]
    inner = branches(
        [constant("W_else", other["W"]), lstm(W="W_else", prefix="else_", name="deep")], [constant("z", 1.0)]
    )
    model = model_of([branches(then, [inner])], [*X, CONDITION], [value("out")], tensors(weights))
    with pytest.raises(ValueError, match=r"2 recurrent nodes .* stack: 'deep' \(LSTM\), 'then_Y' \(LSTM\); pass node"):
        load(model)
    assert_equal(load(model, "then_Y"), load(one_node("LSTM", weights)))
    assert_equal(load(model, "deep"), load(one_node("LSTM", weights | {"W": other["W"]})))


def test_nodes_of_one_name_are_numbered():
    weights, other = weights_of("LSTM"), weights_of("LSTM", seed=1)
    nodes = [branches([lstm()], [lstm(W="W_2")])]
    model = model_of(nodes, [*X, CONDITION], [value("out")], tensors(weights | {"W_2": other["W"]}))
    assert_equal(load(model, "lstm#1"), load(one_node("LSTM", weights | {"W": other["W"]})))  # else comes first
    assert_equal(load(model, "lstm#2"), load(one_node("LSTM", weights)))


def test_a_node_in_a_local_function_is_found():
    weights = weights_of("LSTM")
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Layer", ["X", "W", "R", "B"], ["Y"], [lstm()], opsets)
    call = helper.make_node("Layer", ["X", "W", "R", "B"], ["out"], domain="own")
    model = model_of([call], X, [value("out")], tensors(weights), functions=[function])
    model.opset_import.append(opsets[1])
    assert_equal(load(model), load(one_node("LSTM", weights)))


def test_files_with_external_data_are_read(tmp_path):
    model = one_node("LSTM", weights_of("LSTM"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = one_node("LSTM", weights_of("LSTM"))
    assert_equal(load(path), load(model))
    assert_equal(load(str(path)), load(model.SerializeToString()))
    with pytest.raises(ValueError, match=r"the tensor '\w' is in the file 'weights.bin', which is not there"):
        load(path.read_bytes())
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"the tensor '\w' is in the file 'weights.bin', which is not there"):
        load(path)


def test_a_dump_with_external_data_is_read_from_its_folder(tmp_path, monkeypatch):
    cell = jl.Model(jl.LSTM(I, H), output_size=2)
    params = cell.init(jax.random.key(0), jnp.float32)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "model.onnx"
    onnx.save(dump(cell, params), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    # A file of the same name in the current folder is not the model's.
    (tmp_path / "weights.bin").write_bytes(bytes((path.parent / "weights.bin").stat().st_size))
    monkeypatch.chdir(tmp_path)
    again, same = load(path)
    assert again == cell
    jax.tree.map(np.testing.assert_array_equal, same, params)
    with pytest.raises(ValueError, match=r"the tensor '.*' is in the file 'weights.bin', which is not there"):
        load(path.read_bytes())


@pytest.mark.parametrize(
    "config", [100_000 * "[", '{"cell": "LSTM", "input_size": 3, "hidden_size": %s}' % (4000 * "9")]
)
def test_a_config_that_cannot_be_read_is_left_alone(config):
    model = dump(jl.LSTM(I, H), jl.LSTM(I, H).init(jax.random.key(0), jnp.float32))
    model.metadata_props[0].value = config
    assert load(model)[0] == jl.LSTM(I, H)


# Stacks.


def layers(D, tail=(), kind="constant", transposes=(), between="Dropout"):
    """Two layers of LSTMs as PyTorch exports them, with zeros as initial states that depend on the batch."""
    direction = {"direction": "bidirectional"} if D == 2 else {}
    weights = tensors(weights_of("LSTM", D), "0_") + tensors(weights_of("LSTM", D, seed=1, features=D * H), "1_")
    sizes = {
        "one": np.array(1),
        "axis": np.array([0]),
        "D": np.array([2 * D]),
        "H": np.array([H]),
        "ones": np.array([1]),
    }
    sizes |= {"start": np.array([0]), "middle": np.array([D]), "end": np.array([2 * D]), "flat": np.array([0, 0, -1])}
    sizes |= {"learned": draw(np.random.default_rng(7), 2 * D, 1, H)}
    size = [
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["B"], axis=0),
        helper.make_node("Unsqueeze", ["B", "axis"], ["B_1"]),
        helper.make_node("Concat", ["D", "B_1", "H"], ["size"], axis=0),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("Expand", ["learned", "size"], ["expanded"]),
        *(
            helper.make_node("Slice", [source, start, end, "axis"], [f"{name}_{k}"])
            for name, source in (("h", "expanded" if kind == "learned" else "zeros"), ("c", "zeros"))
            for k, (start, end) in enumerate((("start", "middle"), ("middle", "end")))
        ),
    ]
    if kind == "last state":  # the decoder of a sequence-to-sequence model
        size.append(helper.make_node("Identity", ["0_Y_h"], ["h_1b"]))
    starts = "h_1b" if kind == "last state" else "h_1"
    steps = [helper.make_node("Squeeze", ["0_Y", "ones"], ["x_1"])]
    if D == 2:
        steps = [
            helper.make_node("Transpose", ["0_Y"], ["across"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["across", "flat"], ["x_1"]),
        ]
    last = "x_1"
    for perm in transposes:
        steps.append(helper.make_node("Transpose", [last], [f"{last}t"], perm=perm))
        last += "t"
    nodes = [
        lstm_of(0, "X", "h_0", direction),
        *steps,
        helper.make_node(between, [last], ["x_2"], **({"to": onnx.TensorProto.INT32} if between == "Cast" else {})),
        lstm_of(1, "x_2", starts, direction),
        *tail,
    ]
    # The graph must be sorted: what reads the first layer's state follows it.
    nodes = [*size[:9], nodes[0], *size[9:], *nodes[1:]]
    return model_of(nodes, X, [value("1_Y"), value("1_Y_h")], [*weights, *tensors(sizes)])


def lstm_of(k, x, h, direction):
    given = {"X": x, "initial_h": h, "initial_c": f"c_{k}"} | {name: f"{k}_{name}" for name in "WRB"}
    return node_of("LSTM", given, name=f"layer_{k}", prefix=f"{k}_", hidden_size=H, **direction)


def test_two_layers_in_two_directions_equal_onnxruntime():
    model = layers(2, kind="learned")
    x = draw(np.random.default_rng(2), T, B, I)
    y, h = run_onnx(model, {"X": x})
    cell, params = load(model)
    one = jl.Bidirectional(jl.LearnedInitialState(jl.LSTM(I, H)))
    two = jl.Bidirectional(jl.LearnedInitialState(jl.LSTM(2 * H, H)))
    assert cell == jl.Stack((one, two))
    state, hs = jl.batched(jl.unroll)(cell, params, x.swapaxes(0, 1))
    assert_close([hs.swapaxes(0, 1)], [y.transpose(0, 2, 1, 3).reshape(T, B, 2 * H)])
    assert_close([np.stack([state[1].forward.h, state[1].backward.h])], [h])


def test_a_chain_of_layers_is_a_stack():
    model = layers(1, transposes=([1, 0, 2], [1, 0, 2]))
    cell, params = load(model)
    assert cell == jl.Stack((jl.LSTM(I, H), jl.LSTM(H, H)))
    assert_equal(load(model, "layer_0"), (cell.cells[0], params[0]))
    assert_equal(load(model, ("layer_0", "layer_1")), (cell, params))
    with pytest.raises(ValueError, match=r"W of node 'layer_0' must have 4 columns, .* of node 'layer_1', but has 3"):
        load(model, ["layer_1", "layer_0"])


@pytest.mark.parametrize(
    "model",
    [
        lambda: layers(1, transposes=([1, 0, 2],)),  # the second layer runs over the batch
        lambda: layers(1, transposes=([0, 2, 1],)),
        lambda: layers(1, between="Cast"),  # to integers
        lambda: layers(1, kind="last state"),  # the second layer starts where the first one ends
        lambda: layers(1, tail=(lstm_twice(),)),  # two layers read the same one
    ],
)
def test_nodes_that_are_not_one_stack_are_listed(model):
    with pytest.raises(
        ValueError, match=r"that are not one stack: 'layer_0' \(LSTM\), 'layer_1' \(LSTM\).*; pass node"
    ):
        load(model())


def lstm_twice():
    return node_of("LSTM", {"X": "x_1", "W": "1_W", "R": "1_R"}, name="twin", prefix="twin_", hidden_size=H)


def test_cyclic_graphs_are_no_stack():
    weights = tensors(weights_of("LSTM", features=H, bias=False)) + tensors({"axes": np.array([1])})
    nodes = [
        node_of("LSTM", {"X": x, "W": "W", "R": "R"}, name=name, prefix=name, hidden_size=H)
        for name, x in (("a", "X"), ("b", "c"), ("c", "b"))
    ]
    squeezes = [helper.make_node("Squeeze", [f"{name}Y", "axes"], [name]) for name in "bc"]
    circle = [helper.make_node("Identity", ["b"], ["c"]), helper.make_node("Identity", ["c"], ["b"])]
    for chosen in ([*nodes, *squeezes], [*nodes[:2], *circle]):
        model = model_of(chosen, [value("X", np.zeros((T, B, H), np.float32))], [value("aY")], weights)
        with pytest.raises(ValueError, match="recurrent nodes that are not one stack: 'a'"):
            load(model)


def test_a_stack_of_reverse_nodes_needs_reverse():
    nodes = [
        node_of("RNN", {"X": "X", "W": "0_W", "R": "0_R"}, name="a", prefix="0_", direction="reverse", hidden_size=H),
        helper.make_node("Squeeze", ["0_Y", "ones"], ["x_1"]),
        node_of("RNN", {"X": "x_1", "W": "1_W", "R": "1_R"}, name="b", prefix="1_", direction="reverse", hidden_size=H),
    ]
    weights = tensors(weights_of("RNN"), "0_") + tensors(weights_of("RNN", features=H), "1_")
    model = model_of(nodes, X, [value("1_Y")], [*weights, *tensors({"ones": np.array([1])})])
    assert load(model, reverse=True)[0] == jl.Stack((jl.RNN(I, H), jl.RNN(H, H)))
    with pytest.raises(ValueError, match=r"node 'a' has the direction 'reverse', .* pass reverse=True here, and"):
        load(model)


# Initial states.


@pytest.mark.parametrize(("rows", "layout"), [(1, 0), (B, 0), (B, 1)])
def test_a_constant_initial_state_is_learned(rows, layout):
    h, c = draw(np.random.default_rng(3), 2, 1, 1, H)
    state = {"initial_h": np.repeat(h, rows, axis=1), "initial_c": np.repeat(c, rows, axis=1)}
    state = {name: array.swapaxes(0, 1) if layout else array for name, array in state.items()}
    weights = weights_of("LSTM")
    cell, params = load(one_node("LSTM", weights, constants=state, layout=layout))
    plain, same = load(one_node("LSTM", weights))
    assert_equal(
        (cell, params), (jl.LearnedInitialState(plain), jl.LearnedParams(same, jl.LSTMState(h[0, 0], c[0, 0])))
    )


def test_zeros_and_inputs_as_initial_state_are_left_out():
    weights = weights_of("GRU")
    for given in (
        {"constants": {"initial_h": np.zeros((1, B, H), np.float32)}},
        {"inputs": {"initial_h": np.zeros((1, B, H), np.float32)}},
    ):
        assert_equal(load(one_node("GRU", weights, **given)), load(one_node("GRU", weights)))


def test_an_initial_state_of_a_branch_is_an_input():
    """A branch of If reads the input `late`, which the node If does not list."""
    zeros_of = constant("zeros", zeros(1, B, H))
    choice = branches([helper.make_node("Neg", ["late"], ["negative"])], [zeros_of], condition="true")
    late = helper.make_tensor_value_info("late", onnx.TensorProto.FLOAT, [1, B, H])
    weights, nodes = weights_of("LSTM"), [constant("true", True), choice, lstm(initial_h="out")]
    model = model_of(nodes, [*X, late], [value("Y")], tensors(weights))
    assert_equal(load(model), load(one_node("LSTM", weights)))


def test_an_initial_state_that_differs_in_the_batch_is_refused():
    h = draw(np.random.default_rng(4), 1, B, H)
    with pytest.raises(
        NotImplementedError, match=r"initial_h of node 'the_node' \(tensor 'initial_h'\) differs between"
    ):
        load(one_node("GRU", weights_of("GRU"), constants={"initial_h": h}))


def test_length_zero_gives_zeros_in_onnx_and_the_state_here():
    model, inputs = a_node("LSTM", {"lengths": True, "state": True})
    inputs = inputs | {"sequence_lens": np.array([5, 0, 4], np.int32)}
    theirs = run_onnx(model, inputs)
    ours = run_ours(*load(model), model.graph.node[0], inputs)
    assert_close([a[..., [0, 2], :] for a in ours], [a[..., [0, 2], :] for a in theirs])
    assert_equal([a[0, 1] for a in theirs[1:]], [np.zeros(H), np.zeros(H)])
    assert_equal([a[0, 1] for a in ours[1:]], [inputs["initial_h"][0, 1], inputs["initial_c"][0, 1]])


# Wrong files and models.


def bad_node(op="LSTM", change=None, **options):
    """A model with one node, after a change of its weights."""
    peephole = options.pop("peephole", False)
    weights = weights_of(op, directions(options), peephole=peephole)
    return one_node(op, weights | (change or {}), **options)


def from_input(weight="W"):
    """A model whose weight is computed from the input `late`."""
    weights = weights_of("LSTM")
    late = [helper.make_tensor_value_info("late", onnx.TensorProto.FLOAT, weights[weight].shape)]
    nodes = [helper.make_node("Neg", ["late"], ["negative"]), lstm(**{weight: "negative"})]
    return model_of(nodes, [*X, *late], [value("Y")], tensors(weights))


def random_weight(name="W", *shape):
    dice = helper.make_node("RandomNormal", [], ["dice_out"], name="dice", shape=shape or [1, 4 * H, I])
    return model_of([dice, lstm(**{name: "dice_out"})], X, [value("Y")], tensors(weights_of("LSTM")))


def damaged():
    model = bad_node()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-3]
    return model


def written_out(*ops, domain=""):
    return model_of([helper.make_node(op, ["X"], [op], domain=domain) for op in ops], X, [value(ops[-1])])


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


HARD_SIGMOID = ["HardSigmoid", "Tanh", "Tanh"]
PER_BATCH = "R of node 'the_node' \\(tensor 'R'\\) must have shape \\(1, 16, 4\\), for hidden_size 4, 1 direction and 4"
WRONG = {
    "bytes of no format": (ValueError, lambda: b"abc", "source is not an ONNX model, or only a part of one"),
    "truncated": (ValueError, lambda: bad_node().SerializeToString()[:-9], "source is not an ONNX model, or only"),
    "empty": (ValueError, lambda: b"", "source is empty"),
    "pickle": (ValueError, lambda: b"\x80\x04K\x01.", r"source is a pickle, .* weights_only=True"),
    "zip": (ValueError, lambda: b"PK\x03\x04", "source is a zip archive"),
    "HDF5": (ValueError, lambda: b"\x89HDF\r\n", "source is an HDF5 file; use interop.keras.load"),
    "no model": (TypeError, lambda: 3, r"source must be a path or the bytes of a file, but is 3 \(int\)"),
    "no nodes": (ValueError, lambda: model_of([], X, X), "source is an ONNX model without nodes"),
    "other nodes": (ValueError, lambda: written_out("Relu", "Neg"), "no LSTM, GRU or RNN node; it has Relu, Neg"),
    "written out": (
        ValueError,
        lambda: written_out("Sigmoid", "Tanh"),
        "its operators Sigmoid, Tanh may be a recurrent network",
    ),
    "other domain": (
        ValueError,
        lambda: written_out("DynamicQuantizeLSTM", domain="com.microsoft"),
        "its operators com.microsoft.DynamicQuantizeLSTM may be",
    ),
    "unknown activation": (
        NotImplementedError,
        lambda: bad_node("RNN", activations=["Swish"]),
        "node 'the_node' has the activation Swish; here are Sigmoid, Tanh,",
    ),
    "ThresholdedRelu": (
        NotImplementedError,
        lambda: bad_node(activations=["Sigmoid", "ThresholdedRelu", "Tanh"]),
        "node 'the_node' has the activation ThresholdedRelu",
    ),
    "HardSigmoid with its own slope": (
        NotImplementedError,
        lambda: bad_node(activations=HARD_SIGMOID),
        "node 'the_node' has the activation HardSigmoid with alpha 0.2 and beta 0.5; here hard_sigmoid has",
    ),
    "Affine without alpha": (
        NotImplementedError,
        lambda: bad_node("RNN", activations=["Affine"]),
        "node 'the_node' has the activation Affine with alpha nan",
    ),
    "Affine with a beta": (
        NotImplementedError,
        lambda: bad_node(
            activations=["Sigmoid", "Affine", "Tanh"], activation_alpha=[1.0], activation_beta=[0.25]
        ),
        "node 'the_node' has the activation Affine with alpha 1.0 and beta 0.25; here linear has",
    ),
    "number of activations": (
        ValueError,
        lambda: bad_node(activations=["Sigmoid", "Tanh"]),
        "node 'the_node' must have 3 activations, but has 2",
    ),
    "direction": (ValueError, lambda: bad_node(direction="up"), "node 'the_node' has the direction 'up', but ONNX has"),
    "clip and peepholes": (
        NotImplementedError,
        lambda: bad_node(peephole=True, clip=0.5),
        r"node 'the_node' has clip=0.5 and peepholes \(P\)",
    ),
    "clip of a GRU": (NotImplementedError, lambda: bad_node("GRU", clip=2.0), "node 'the_node' is a GRU with clip=2.0"),
    "clip of an RNN": (NotImplementedError, lambda: bad_node("RNN", clip=2.0), "node 'the_node' is an RNN with clip"),
    "GRU with other activations": (
        NotImplementedError,
        lambda: bad_node("GRU", activations=["Sigmoid", "Relu"]),
        "node 'the_node' is a GRU with the activations sigmoid, relu",
    ),
    "input_forget with another gate": (
        NotImplementedError,
        lambda: bad_node(input_forget=1, activations=["Tanh", "Tanh", "Tanh"]),
        "node 'the_node' has input_forget=1 with the gate activation tanh",
    ),
    "shape of R": (ValueError, lambda: bad_node(change={"R": zeros(1, 12, H)}), f"{PER_BATCH} gates, but has"),
    "R without axes": (ValueError, lambda: no_size(zeros()), "R of node 'lstm' .* must have shape"),
    "shape of W": (ValueError, lambda: bad_node(change={"W": zeros(4 * H, I)}), r"W of .* shape \(1, 16, 3\)"),
    "shape of B": (ValueError, lambda: bad_node(change={"B": zeros(1, 4 * H)}), r"B of .* must have shape \(1, 32\)"),
    "shape of P": (ValueError, lambda: bad_node(change={"P": zeros(1, H)}), r"P of .* must have shape \(1, 12\)"),
    "shape of initial_h": (
        ValueError,
        lambda: bad_node(constants={"initial_h": zeros(2, 1, H)}),
        r"initial_h of node 'the_node' .* must have shape \(1, 1, 4\)",
    ),
    "two directions": (
        ValueError,
        lambda: one_node("LSTM", weights_of("LSTM"), direction="bidirectional"),
        r"R of .* must have shape \(2, 16, 4\), for hidden_size 4, 2 directions",
    ),
    "integers": (TypeError, lambda: bad_node(change={"W": zeros(1, 4 * H, I, dtype=int)}), "W of .* must hold floats"),
    "two dtypes": (
        TypeError,
        lambda: bad_node(change={"B": zeros(1, 8 * H, dtype=np.float16)}),
        "B of .* must be float32, as W is, but is float16",
    ),
    "no R": (ValueError, lambda: without_r(), "node 'lstm' has no R, which is a required input"),
    "weight from an input": (
        ValueError,
        from_input,
        r"W of node 'lstm' \(tensor 'negative'\) must be constant, but comes from the input 'late'; make it",
    ),
    "bias from an input": (ValueError, lambda: from_input("B"), "B of node 'lstm' .* comes from the input 'late'"),
    "random weight": (ValueError, random_weight, r"W of node 'lstm' .* comes from the node 'dice' \(RandomNormal\)"),
    "weight that is not there": (
        ValueError,
        lambda: model_of([lstm(W="lost")], X, [value("Y")], tensors(weights_of("LSTM"))),
        r"W of node 'lstm' \(tensor 'lost'\) must be constant, but comes from a tensor that the model lacks",
    ),
    "reverse": (ValueError, lambda: bad_node(direction="reverse"), "node 'the_node' has the direction 'reverse'"),
    "bad tensor": (ValueError, damaged, r"the tensor 'W' cannot be read \(ValueError\); the file is damaged"),
    "random initial state": (
        NotImplementedError,
        lambda: random_weight("initial_h", 1, B, H),
        r"initial_h of node 'lstm' \(tensor 'dice_out'\) comes from the node 'dice' \(RandomNormal\), ",
    ),
    "clip 0": (ValueError, lambda: bad_node(clip=0.0), "node 'the_node' must have a clip above 0 and finite"),
    "bad operator": (
        NotImplementedError,
        lambda: model_of(
            [helper.make_node("Concat", ["W", "B"], ["W_2"], axis=0), lstm(W="W_2")],
            X,
            [value("Y")],
            tensors(weights_of("LSTM")),
        ),
        "the tensor 'W_2' cannot be computed from constants by Concat",
    ),
}  # fmt: skip


def without_r():
    node = node_of("LSTM", {"X": "X", "W": "W"}, name="lstm")
    return model_of([node], X, [value("Y")], tensors({"W": zeros(1, 4 * H, I)}))


def no_size(R):
    node = node_of("LSTM", {"X": "X", "W": "W", "R": "R"}, name="lstm")
    return model_of([node], X, [value("Y")], tensors({"W": zeros(1, 4 * H, I), "R": R}))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_is_refused_in_one_sentence(name):
    kind, source, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        load(source())
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith("interop.onnx.load: ")
    assert "\n" not in text
    assert ". " not in text


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("direction", 3), ("activations", "Tanh"), ("activation_alpha", 1.0), ("clip", [1.0]), ("hidden_size", 4.0)],
)
def test_an_attribute_of_another_type_is_refused(name, wrong):
    model = one_node("LSTM", weights_of("LSTM"))
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.append(helper.make_attribute(name, wrong))
    with pytest.raises(ValueError, match=f"load: the attribute {name} of node 'the_node' must have type [A-Z]+, but"):
        load(model)


def test_wrong_arguments_are_refused_in_one_sentence(tmp_path):
    model = bad_node()
    with pytest.raises(IsADirectoryError, match=r"load: .* is a directory; pass the path of a file in it"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"load: there is no file .*none.onnx; pass a path"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match=r"no recurrent node 'lost'; the model has 'the_node' \(LSTM\)"):
        load(model, "lost")
    for wrong in (3, (), (1,)):
        with pytest.raises(TypeError, match="node must be a name, a tuple of names or None, but is"):
            load(model, wrong)
    with pytest.raises(ValueError, match=r"reverse=True is for a node with .* 'reverse', but node 'the_node' has not"):
        load(model, reverse=True)
    with pytest.raises(TypeError, match="reverse must be True or False, but is 1"):
        load(model, reverse=1)


@pytest.mark.slow
def test_jax_lstm_does_not_import_onnx():
    code = "import sys, jax_lstm, jax_lstm.interop.onnx; sys.exit('onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'onnx is missing; .* pip install "jax_lstm\[interop\]"'):
        load("model.onnx")


# PyTorch's own export, and a published model.


@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_network_that_torch_exports_equals_torch(batch_first, tmp_path):
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.GRU(I, H, 2, bidirectional=True, batch_first=batch_first)
            self.h = torch.nn.Parameter(torch.randn(4, 1, H))

        def forward(self, x):
            start = self.h.expand(-1, x.shape[0 if batch_first else 1], -1).contiguous()
            return self.layers(x, start)[0]

    torch.manual_seed(0)
    network, path = Network().eval(), tmp_path / "network.onnx"
    x = torch.randn(*((B, T, I) if batch_first else (T, B, I)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this exporter old; the new one needs another package
        torch.onnx.export(
            network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "first", 1: "second"}}
        )
    cell, params = load(path)
    assert len(cell.cells) == 2
    xs = jnp.asarray(x.numpy() if batch_first else x.numpy().swapaxes(0, 1))
    hs = np.asarray(jl.batched(jl.unroll)(cell, params, xs)[1])
    assert_close([hs if batch_first else hs.swapaxes(0, 1)], [network(x).detach().numpy()])


def silero(name):
    """A model of the wheel of silero-vad in the folder JAX_LSTM_WHEELS."""
    wheels = sorted(Path(os.environ.get("JAX_LSTM_WHEELS", "/nowhere")).glob("silero_vad-6.2.3-*.whl"))
    if not wheels:
        pytest.skip("JAX_LSTM_WHEELS is no folder with the wheel of silero-vad 6.2.3")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return wheel.read(f"silero_vad/data/{name}.onnx")


@pytest.mark.slow
def test_silero_vad_equals_onnxruntime():
    data = silero("silero_vad_16k_sequence")
    model = onnx.ModelProto.FromString(data)
    (node,) = (node for node in model.graph.node if node.op_type == "LSTM")
    model.graph.output.extend([value(node.input[0]), value(node.output[0])])
    rng = np.random.default_rng(0)
    state = {name: draw(rng, 1, 1, 128) for name in ("h", "c")}
    _, h, c, x, y = run_onnx(model, {"input": 0.1 * draw(rng, 20, 576), **state})
    cell, params = load(data)
    assert cell == jl.LSTM(128, 128)
    start = jl.LSTMState(jnp.asarray(state["h"][0, 0]), jnp.asarray(state["c"][0, 0]))
    xs = jnp.asarray(x[:, 0])
    end, hs = jl.unroll(cell, params, xs, start)
    assert_close([hs, *end], [y[:, 0, 0], h[0, 0], c[0, 0]])
    streamed, outputs = jax.tree.map(jnp.copy, start), []
    for x_t in xs:
        streamed, h_t = jl.stream(cell).step(params, streamed, x_t)
        outputs.append(np.asarray(h_t))
    assert_close([np.stack(outputs), *streamed], [y[:, 0, 0], h[0, 0], c[0, 0]])


@pytest.mark.slow
def test_nested_nodes_of_silero_vad_are_those_of_its_other_file():
    data = silero("silero_vad")
    names = [
        f"If_0_{rate}_branch__Inline_0__/decoder/{rnn}/LSTM" for rate in ("then", "else") for rnn in ("rnn", "rnn_1")
    ]
    with pytest.raises(ValueError, match="4 recurrent nodes that are not one stack") as caught:
        load(data)
    assert all(name in str(caught.value) for name in names)
    at_16k, same, at_8k, also_same = (load(data, name) for name in names)
    assert_equal(at_16k, load(silero("silero_vad_16k_sequence")))
    assert_equal(at_16k, same)
    assert_equal(at_8k, also_same)
    assert not np.array_equal(at_16k[1].w_x, at_8k[1].w_x)


@pytest.mark.slow
def test_silero_vad_without_recurrent_nodes_is_refused():
    with pytest.raises(ValueError, match="no LSTM, GRU or RNN node; its operators Sigmoid, Tanh may be a recurrent"):
        load(silero("silero_vad_op18_ifless"))
