"""ONNX models of `interop.onnx.dump`: onnxruntime gives the outputs and states of `unroll`, and `read_own` the params.

Each cell is run once here, over all that its tests compare with: whole, ragged and short sequences are one batch.
"""

import os
import sys
from functools import cache
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")

from jax_lstm.interop.onnx import dump  # noqa: E402
from jax_lstm.interop.onnx.own import read_own  # noqa: E402

B, T, I, H, V = 3, 5, 3, 4, 7
WHOLE, RAGGED, SHORT = [T] * B, [T, 2, 0], [T - 2] * B  # lengths


def lstm(**options):
    return jl.LSTM(I, H, **options)


# onnx.reference runs these too: it has the default activations only, no clip, no coupled gates and no lengths.
REFERENCE = {
    "LSTM": lstm(),
    "peephole": lstm(peephole=True),
    "GRU": jl.GRU(I, H),
    "GRU, reset before": jl.GRU(I, H, reset_after=False),
    "RNN": jl.RNN(I, H),
    "linear RNN": jl.RNN(I, H, activation="linear"),
    "LSTM in two directions": jl.Bidirectional(lstm(peephole=True)),
    "GRU in two directions": jl.Bidirectional(jl.GRU(I, H)),
    "two layers": jl.Stack((lstm(), jl.GRU(H, 2)), dropout=0.5),
    "three layers": jl.Stack((jl.Bidirectional(lstm()), jl.GRU(2 * H, H), jl.Bidirectional(jl.RNN(H, 2)))),
    "residual stack": jl.Stack(
        (lstm(), jl.Dropout(jl.GRU(H, H), inputs=0.5, hidden=0.5), jl.Stack((jl.RNN(H, H),) * 2)), residual=True
    ),
    "learned": jl.LearnedInitialState(lstm()),
    "learned twice": jl.LearnedInitialState(jl.Stack((jl.LearnedInitialState(lstm()), jl.GRU(H, 2)))),
    "learned in one direction": jl.Bidirectional(jl.LearnedInitialState(lstm()), lstm()),
    "model": jl.Model(jl.Stack((jl.GRU(I, I),), residual=True), 2),
    "model of symbols": jl.Model(jl.LearnedInitialState(lstm()), 2, vocabulary=V),
    "model in two directions": jl.Model(jl.LearnedInitialState(jl.Bidirectional(jl.GRU(I, H))), 2),
}
ACTIVATIONS = ("sigmoid", "relu", "hard_sigmoid", "leaky_relu", "elu", "soft_sign", "softplus")
CELLS = REFERENCE | {
    "coupled": lstm(coupled=True),
    "coupled, peephole": lstm(coupled=True, peephole=True, gate_activation="hard_sigmoid"),
    "coupled, clip": lstm(coupled=True, clip=0.3),
    "clip": lstm(clip=0.3),
    "activations": lstm(gate_activation="hard_sigmoid", cell_activation="leaky_relu", output_activation="linear"),
    "peephole, activations": lstm(peephole=True, gate_activation="soft_sign", output_activation="elu"),
    "two activations": jl.Bidirectional(
        lstm(cell_activation="leaky_relu", clip=0.3), lstm(gate_activation="hard_sigmoid", clip=0.3)
    ),
    "RNN in two directions": jl.Bidirectional(jl.RNN(I, H, activation="elu"), jl.RNN(I, H)),
    **{f"{name} RNN": jl.RNN(I, H, activation=name) for name in ACTIVATIONS},
}
# The rest is slow: each cell is compiled once.
QUICK = [
    *("LSTM", "peephole", "coupled, peephole", "GRU", "GRU, reset before", "elu RNN", "residual stack"),
    *("learned twice", "learned in one direction", "two activations", "model of symbols"),
]
CAUSAL = [name for name, cell in CELLS.items() if getattr(getattr(cell, "cell", cell), "causal", True)]


def drawn(cell, dtype=np.float32):
    """Params, each leaf with a −0."""
    rng = np.random.default_rng(0)
    shapes, tree = jax.tree.flatten(jax.eval_shape(cell.init, jax.random.key(0)))
    leaves = [rng.normal(size=a.shape, scale=0.4).astype(dtype) for a in shapes]
    for leaf in leaves:
        leaf.flat[0] = -0.0
    return tree.unflatten(map(jnp.asarray, leaves))


def inputs(cell, lengths, dtype=np.float32):
    """Three sequences, with what must not be read after their ends."""
    rng, after = np.random.default_rng(1), np.arange(T) >= np.array(lengths)[:, None]
    if getattr(cell, "vocabulary", None) is not None:
        return np.where(after, -99, rng.integers(0, V, size=(B, T)))
    return np.where(after[..., None], np.nan, rng.normal(size=(B, T, I))).astype(dtype)


def named(state):
    return {
        "state." + jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def run_ours(cell, params, dtype=np.float32):
    """ys and states by name: whole, ragged and short sequences, B of each."""
    lengths = np.array(WHOLE + RAGGED + SHORT)
    xs = np.concatenate([inputs(cell, one, dtype) for one in (WHOLE, RAGGED, SHORT)])
    mask = np.arange(T) < lengths[:, None]
    if isinstance(cell, jl.Model):
        state, ys = jl.batched(cell.apply)(params, xs, mask=mask)
    else:
        state, ys = jl.batched(jl.unroll)(cell, params, xs, mask=mask, engine="plain")
    return {"ys": np.asarray(ys), **named(state)}


@cache
def ours(name):
    return run_ours(CELLS[name], drawn(CELLS[name]))


def session_of(model):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(**feed):
        return dict(zip([one.name for one in session.get_outputs()], session.run(None, feed), strict=True))

    return run


def reference_of(model):
    evaluator = reference.ReferenceEvaluator(model)
    return lambda **feed: dict(zip(evaluator.output_names, evaluator.run(None, feed), strict=True))


def assert_close(actual, expected, tolerance=1e-6):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_whole_and_short_are_ours(run, name):
    xs, expected = inputs(CELLS[name], WHOLE), ours(name)
    assert_close(run(xs=xs), {key: a[:B] for key, a in expected.items()})
    two = {key: a[2 * B : 2 * B + 2] for key, a in expected.items()}
    assert_close(run(xs=xs[:2, : T - 2]), two | {"ys": two["ys"][:, : T - 2]})


# Numbers.


@pytest.mark.parametrize("name", slow_except(QUICK, CELLS))
def test_onnxruntime_equals_unroll_at_two_shapes(name):
    assert_whole_and_short_are_ours(session_of(dump(CELLS[name], drawn(CELLS[name]))), name)


@pytest.mark.parametrize("name", slow_except([name for name in QUICK if name in REFERENCE], REFERENCE))
def test_the_reference_of_onnx_equals_unroll(name):
    assert_whole_and_short_are_ours(reference_of(dump(CELLS[name], drawn(CELLS[name]))), name)


@pytest.mark.parametrize("name", slow_except(QUICK, CELLS))
def test_lengths_equal_a_mask(name):
    run = session_of(dump(CELLS[name], drawn(CELLS[name]), lengths=True))
    for k, lengths in enumerate((WHOLE, RAGGED)):
        expected = {key: a[k * B : (k + 1) * B] for key, a in ours(name).items()}
        assert_close(run(xs=inputs(CELLS[name], lengths), lengths=np.array(lengths, np.int32)), expected)


def first_states(cell, params):
    is_model = isinstance(cell, jl.Model)
    return named(jl.initial_states(cell.cell if is_model else cell, params.cell if is_model else params, B))


@pytest.mark.parametrize("name", slow_except([name for name in QUICK if name in CAUSAL], CAUSAL))
def test_chunks_equal_one_run(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    run, xs, state, ys = (
        session_of(dump(cell, params, streaming=True)),
        inputs(cell, WHOLE),
        first_states(cell, params),
        [],
    )
    for chunk in np.split(xs, [2, 3], axis=1):
        found = run(xs=chunk, **state)
        ys.append(found.pop("ys"))
        assert all(key.startswith("next_state.") for key in found)
        state = {key.removeprefix("next_"): a for key, a in found.items()}
    assert_close({"ys": np.concatenate(ys, axis=1), **state}, {key: a[:B] for key, a in ours(name).items()})


@pytest.mark.parametrize("name", ["learned twice", "residual stack"])
def test_a_chunk_of_length_0_keeps_the_state(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    run, xs, state = (
        session_of(dump(cell, params, streaming=True, lengths=True)),
        inputs(cell, RAGGED),
        first_states(cell, params),
    )
    for k in (0, 3):
        found = run(xs=xs[:, k : k + 3], lengths=np.clip(np.array(RAGGED, np.int32) - k, 0, 3), **state)
        state = {key.removeprefix("next_"): a for key, a in found.items() if key != "ys"}
    assert_close(state, {key: a[B : 2 * B] for key, a in ours(name).items() if key != "ys"})


def test_float64_weights_give_a_float64_model():
    cell = jl.Stack((lstm(), jl.GRU(H, H)), residual=True)
    params = drawn(cell, np.float64)
    found = reference_of(dump(cell, params))(xs=inputs(cell, WHOLE, np.float64))
    assert_close(found, {key: a[:B] for key, a in run_ours(cell, params, np.float64).items()}, 1e-12)


# The file.


def test_names_of_the_inputs_outputs_and_weights():
    cell = jl.Model(jl.Stack((lstm(peephole=True), jl.GRU(H, 2))), 2, vocabulary=V)
    model = dump(cell, drawn(cell), streaming=True, lengths=True)
    assert [one.name for one in model.graph.input] == ["xs", "lengths", "state.0.h", "state.0.c", "state.1.h"]
    assert [one.name for one in model.graph.output] == ["ys", "next_state.0.h", "next_state.0.c", "next_state.1.h"]
    weights = {one.name: tuple(one.dims) for one in model.graph.initializer if one.name.startswith("params.")}
    assert weights == {
        "params.cell.0.W": (1, 4 * H, I),
        "params.cell.0.R": (1, 4 * H, H),
        "params.cell.0.B": (1, 8 * H),
        "params.cell.0.P": (1, 3 * H),
        "params.cell.1.W": (1, 6, H),
        "params.cell.1.R": (1, 6, 2),
        "params.cell.1.B": (1, 12),
        "params.readout.w": (2, 2),
        "params.readout.b": (2,),
        "params.embedding.w": (V, I),
    }
    assert (model.opset_import[0].version, model.ir_version, model.producer_name) == (17, 8, "jax_lstm")


def test_a_plain_lstm_has_no_attribute_at_its_default():
    (node,) = (node for node in dump(lstm(), drawn(lstm())).graph.node if node.op_type == "LSTM")
    assert [one.name for one in node.attribute] == ["hidden_size"]


def test_the_file_is_the_model(tmp_path):
    path = tmp_path / "model.onnx"
    assert onnx.load(dump_to(path)) == dump(lstm(), drawn(lstm()))
    assert list(tmp_path.iterdir()) == [path]


def dump_to(path):
    dump(lstm(), drawn(lstm()), path)
    return path


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        dump_to(path)
    assert [(file, file.read_bytes()) for file in tmp_path.iterdir()] == [(path, b"old")]
    monkeypatch.undo()
    assert onnx.load(dump_to(path)).producer_name == "jax_lstm"


# Back again.


def bits(tree):
    return [(np.asarray(a).dtype, np.asarray(a).shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(tree)]


def assert_same(found, cell, params):
    assert found is not None
    assert found[0] == cell
    assert jax.tree.structure(found[1]) == jax.tree.structure(params)
    assert bits(found[1]) == bits(params)


@pytest.mark.parametrize("name", CELLS)
def test_read_own_gives_back_every_bit(name):
    cell, params = CELLS[name], drawn(CELLS[name])
    assert_same(read_own(dump(cell, params, lengths=True)), cell, params)
    if name in CAUSAL:
        assert_same(read_own(dump(cell, params, streaming=True)), cell, params)


def test_read_own_gives_back_options_of_training():
    cell = jl.Stack((lstm(forget_bias=3.0), jl.Dropout(jl.LSTM(H, H, chrono=9), inputs=0.25)), dropout=0.5)
    assert_same(read_own(dump(cell, drawn(cell, np.float16))), cell, drawn(cell, np.float16))


def initializer(model, name):
    return next(one for one in model.graph.initializer if one.name == name)


def set_weight(model, name, change):
    one = initializer(model, name)
    one.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(one)), name))


CHANGES = {
    "no config": lambda model: model.ClearField("metadata_props"),
    "a config that is no JSON": lambda model: setattr(model.metadata_props[0], "value", "{"),
    "the config of another cell": lambda model: setattr(model.metadata_props[0], "value", '{"cell": "LSTM9"}'),
    "a weight renamed": lambda model: setattr(initializer(model, "params.cell.R"), "name", "R"),
    "a leaf renamed": lambda model: setattr(initializer(model, "params.readout.w"), "name", "w"),
    "a weight of integers": lambda model: set_weight(model, "params.cell.W", lambda a: a.astype(np.int8)),
    "a weight of another dtype": lambda model: set_weight(model, "params.cell.W", lambda a: a.astype(np.float16)),
    "a weight transposed": lambda model: set_weight(model, "params.cell.W", lambda a: a.swapaxes(1, 2)),
    "one direction": lambda model: set_weight(model, "params.cell.W", lambda a: a[:1]),
    "a bias cut": lambda model: set_weight(model, "params.cell.B", lambda a: a[:, :-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_read_own_gives_none_for_a_changed_file(change):
    cell = jl.Model(jl.Bidirectional(lstm()), 2)
    model = dump(cell, drawn(cell))
    assert read_own(model) is not None
    CHANGES[change](model)
    assert read_own(model) is None


def test_read_own_reads_weights_that_were_changed():
    cell = jl.Model(lstm(coupled=True), 2)
    model = dump(cell, drawn(cell))
    set_weight(model, "params.cell.W", lambda a: 2 * a)
    found = read_own(model)
    assert found is not None
    np.testing.assert_array_equal(found[1].cell.w_x, 2 * drawn(cell).cell.w_x)


# What ONNX lacks.

REFUSED = {
    "JANET": (jl.JANET(I, H), r"ONNX has no JANET, only LSTM, GRU and RNN, .*; interop.safetensors keeps every cell"),
    "SLSTM": (jl.SLSTM(I, H, heads=2), "ONNX has no SLSTM"),
    "MinLSTM": (jl.MinLSTM(I, H), "ONNX has no MinLSTM"),
    "MinGRU in a Stack": (jl.Stack((lstm(), jl.MinGRU(H, H))), "ONNX has no MinGRU"),
    "layer norm": (lstm(layer_norm=True), "no layer_norm=True of LSTM; interop.safetensors keeps it"),
    "projection": (lstm(projection=2), "no projection=2 of LSTM; interop.torch keeps it"),
    "without": (lstm(without="input_gate"), "no without='input_gate' of LSTM"),
    "compute dtype": (lstm(compute_dtype="bfloat16"), "no compute_dtype='bfloat16' of LSTM; use dataclasses.replace"),
    "clip with peepholes": (lstm(peephole=True, clip=1), "clip=1.0 of LSTM with peephole=True"),
    "activation of g": (lstm(cell_activation="gelu"), "no cell_activation='gelu' of LSTM, only sigmoid, tanh"),
    "activation": (jl.RNN(I, H, activation="mish"), "no activation='mish' of RNN"),
    "coupled relu": (lstm(coupled=True, gate_activation="relu"), "coupled=True of LSTM with gate_activation='relu'"),
    "leak": (jl.RNN(I, H, leak=0.5), "no leak=0.5 of RNN; interop.safetensors"),
    "noise": (jl.RNN(I, H, noise=0.1), "no noise=0.1 of RNN"),
    "zoneout": (jl.Dropout(lstm(), zoneout=0.1), "no zoneout=0.1 of Dropout"),
    "zoneout of c": (jl.Model(jl.Dropout(lstm(), zoneout_c=0.1), 2), "no zoneout_c=0.1 of Dropout"),
    "truncated": (jl.gradflow.Truncated(lstm()), "ONNX has no Truncated"),
    "two kinds": (jl.Bidirectional(lstm(), jl.GRU(I, H)), "one kind for both .* forward .* 'LSTM' and backward 'GRU'"),
    "two sizes": (jl.Bidirectional(lstm(), jl.LSTM(I, 2)), "one hidden_size for both"),
    "two clips": (jl.Bidirectional(lstm(clip=1), lstm()), "one clip for both"),
    "peepholes once": (jl.Bidirectional(lstm(), lstm(peephole=True)), "one peephole for both"),
    "coupled once": (jl.Bidirectional(lstm(), lstm(coupled=True)), "one coupled for both"),
    "two resets": (jl.Bidirectional(jl.GRU(I, H), jl.GRU(I, H, reset_after=False)), "one reset_after for both"),
    "layers in a direction": (jl.Bidirectional(jl.Stack((lstm(),))), "put a Bidirectional around each cell"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_lacks_is_refused_by_name(name):
    cell, message = REFUSED[name]
    with pytest.raises(NotImplementedError, match=message) as raised:
        dump(cell, drawn(cell))
    assert str(raised.value).startswith("interop.onnx.dump: ")


def test_bfloat16_weights_are_refused():
    with pytest.raises(NotImplementedError, match=r"no recurrent nodes with bfloat16 weights; cast .* to float32"):
        dump(lstm(), drawn(lstm(), jnp.bfloat16))


@pytest.mark.parametrize("name", ["three layers", "model in two directions"])
def test_streaming_needs_a_causal_cell(name):
    with pytest.raises(ValueError, match=r"streaming needs a causal cell, but \w+ reads later inputs; leave out"):
        dump(CELLS[name], drawn(CELLS[name]), streaming=True)


@pytest.mark.parametrize(
    ("error", "message", "wrong"),
    [
        (TypeError, "cell must have init", {"cell": 3}),
        (TypeError, "streaming must be", {"streaming": 1}),
        (TypeError, "lengths must be", {"lengths": "yes"}),
        (ValueError, "params must be LSTMParams", {"params": {}}),
    ],
)
def test_wrong_arguments_are_refused_by_name(error, message, wrong):
    with pytest.raises(error, match=f"interop.onnx.dump: {message}"):
        dump(**{"cell": lstm(), "params": drawn(lstm())} | wrong)


def test_without_onnx_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax_lstm.interop.onnx.build", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'the package onnx is missing; .* pip install "jax_lstm\[interop\]"'):
        dump(lstm(), drawn(lstm()))


def test_the_package_is_imported_without_onnx(monkeypatch):
    monkeypatch.setattr("jax_lstm.interop.onnx", sys.modules["jax_lstm.interop.onnx"])  # so that it comes back
    for name in [name for name in sys.modules if name.startswith("jax_lstm.interop.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert import_module("jax_lstm.interop.onnx").dump is not dump
    assert import_module("jax_lstm.interop.onnx.own").read_own is not read_own


# Int8.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "peephole", "model of symbols", "three layers"])
def test_onnxruntime_quantizes_the_lstm_to_int8(name, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    cell, paths = CELLS[name], (tmp_path / "model.onnx", tmp_path / "int8.onnx")
    dump(cell, drawn(cell), paths[0], lengths=True)
    quantization.quantize_dynamic(*paths, reduce_range=True)
    model = onnx.load(paths[1])
    assert "DynamicQuantizeLSTM" in {node.op_type for node in model.graph.node}
    assert read_own(model) is None
    session = onnxruntime.InferenceSession(paths[1])
    (ys,) = session.run(["ys"], {"xs": inputs(cell, WHOLE), "lengths": np.array(WHOLE, np.int32)})
    error = ys - ours(name)["ys"][:B]
    assert 0 < np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(ours(name)["ys"][:B] ** 2))
