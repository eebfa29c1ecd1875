"""Weights of Keras 3, run by its JAX backend: numbers and gradients of both libraries, round trips and messages."""

import functools
import os
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.gates import ACTIVATIONS
from jax_lstm.interop import keras as weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

I, H, B, T = 3, 4, 3, 5
LENGTHS = np.array([5, 2, 4])
MASK = np.arange(T) < LENGTHS[:, None]
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(autouse=True)
def as_keras_runs():
    """Keras does not run with JAX's strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def drawn(shapes, dtype="float64", seed=0):
    """A tree of random arrays, biases too; small enough that a recurrence forgets rounding errors."""
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([(0.5 * rng.normal(size=leaf.shape)).astype(dtype) for leaf in leaves])


@functools.cache
def keras():
    """Keras, imported by the first test that runs: it takes seconds."""
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras")
    module.saving.register_keras_serializable()(tanh)
    return module


def tanh(x):
    """Keras' own tanh is float32 for float64 arguments, on its JAX backend."""
    return jnp.tanh(x)


def built(layer, width, seed=0):
    """The layer with random weights, biases too."""
    layer.build((B, T, width))
    layer.set_weights(drawn(layer.get_weights(), layer.dtype, seed))
    return layer


def options(dtype="float64", **more):
    return {"return_sequences": True, "dtype": dtype, "activation": tanh} | more


def check_parity(made, dtype="float64", **named):
    """Compare outputs and the gradients of inputs and weights, with a ragged mask."""
    arrays = [layer.get_weights() for layer in made]
    cell, params = weights.load(arrays if len(made) > 1 else arrays[0], **named)
    xs = drawn(jax.ShapeDtypeStruct((B, T, I), dtype), dtype, seed=1)
    d_hs = drawn(jax.ShapeDtypeStruct((B, T, cell.output_size), dtype), dtype, seed=3)

    def of_keras(arrays, xs):
        for layer, values in zip(made, arrays, strict=True):
            random_state = [v.value for v in layer.non_trainable_variables]
            xs = layer.stateless_call(values, random_state, xs, mask=jnp.asarray(MASK))[0]
        return jnp.where(MASK[..., None], xs, 0)

    def ours(params, xs):
        return jnp.where(MASK[..., None], jl.batched(jl.unroll)(cell, params, xs, None, MASK)[1], 0)

    def run(function, *args):
        outputs, pull = jax.vjp(function, *args)
        return outputs, pull(jnp.asarray(d_hs))

    want, (d_arrays, d_xs_want) = jax.jit(lambda *args: run(of_keras, *args))(arrays, xs)
    hs, (d_params, d_xs) = jax.jit(lambda *args: run(ours, *args))(params, xs)
    assert_close((hs, d_xs), (want, d_xs_want), TOLERANCE[dtype])
    layers_of_d = d_params if isinstance(cell, jl.Stack) else (d_params,)
    for found, wanted in zip(layers_of_d, d_arrays, strict=True):
        assert_close(in_keras_form(found), wanted, TOLERANCE[dtype])


def in_keras_form(d):
    """Gradients of our params as those of Keras' arrays: both rows of a GRU's bias have that of their sum."""
    if isinstance(d, jl.BidirectionalParams):
        return in_keras_form(d.forward) + in_keras_form(d.backward)
    if not isinstance(d, jl.GRUParams):
        return list(d)
    rzn = [1, 0, 2]

    def swapped(a):
        return jnp.concatenate([jnp.split(a, 3, axis=-1)[k] for k in rzn], axis=-1)

    if d.b_hn is None:
        return [swapped(d.w_x), swapped(d.w_h), swapped(d.b)]
    second = jnp.concatenate([d.b[: -len(d.b_hn)], d.b_hn])
    return [swapped(d.w_x), swapped(d.w_h), swapped(jnp.stack([d.b, second]))]


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


def assert_bits_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert (a.dtype, a.shape) == (d.dtype, d.shape)
        assert np.asarray(a).tobytes() == np.asarray(d).tobytes()


LAYERS = {
    "LSTM": lambda **o: keras().layers.LSTM(H, **options(**o)),
    "GRU": lambda **o: keras().layers.GRU(H, **options(**o)),
    "GRU, reset before": lambda **o: keras().layers.GRU(H, reset_after=False, **options(**o)),
    "SimpleRNN": lambda **o: keras().layers.SimpleRNN(H, **options(**o)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients_are_those_of_keras(kind, dtype):
    check_parity([built(LAYERS[kind](dtype=dtype), I)], dtype)


def test_layers_and_directions_are_those_of_keras():
    both = built(keras().layers.Bidirectional(LAYERS["GRU"](), dtype="float64"), I)
    check_parity([both])
    apart = keras().layers.Bidirectional(
        LAYERS["LSTM"](), backward_layer=keras().layers.SimpleRNN(2, go_backwards=True, **options()), dtype="float64"
    )
    check_parity([both, built(LAYERS["GRU, reset before"](), 2 * H), built(apart, H)])


@pytest.mark.parametrize(("kind", "reset_after"), [("LSTM", True), ("GRU", True), ("GRU, reset before", False)])
def test_a_layer_without_bias_gets_zeros(kind, reset_after):
    layer = built(LAYERS[kind](use_bias=False), I)
    cell, params = weights.load(layer.get_weights(), reset_after=reset_after)
    assert getattr(cell, "reset_after", True) is reset_after
    xs = drawn(jax.ShapeDtypeStruct((T, I), "float64"), seed=1)
    hs = jl.unroll(cell, params, xs)[1]
    np.testing.assert_allclose(hs, np.asarray(layer(jnp.asarray(xs[None])))[0], rtol=1e-12, atol=1e-12)
    assert not any(np.any(p) for p in params[2:] if p is not None)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_is_the_function_of_keras(name):
    xs = np.linspace(-8, 8, 801, dtype=np.float32)
    theirs = keras().activations.get({"soft_sign": "softsign"}.get(name, name))
    same = np.allclose(ACTIVATIONS[name](xs), theirs(jnp.asarray(xs)), rtol=1e-6, atol=1e-6)
    assert same == (name not in weights.UNLIKE)


def test_named_activations_are_those_of_keras():
    layer = built(LAYERS["LSTM"](activation="softplus", recurrent_activation="hard_sigmoid"), I)
    named = {"activation": "softplus", "recurrent_activation": "hard_sigmoid"}
    check_parity([layer], **named)
    cell, params = weights.load(layer.get_weights(), **named)
    assert_bits_equal(weights.dump(cell, params, **named), layer.get_weights())
    with pytest.raises(
        NotImplementedError, match=r"gate_activation of LSTM is 'hard_sigmoid', but .*recurrent_activat"
    ):
        weights.dump(cell, params, activation="softplus")
    with pytest.raises(NotImplementedError, match="Keras' gelu is exact, and that of JAX an approximation"):
        weights.load(layer.get_weights(), activation=jax.nn.gelu)


ROUND_TRIPS = [
    jl.LSTM(I, H),
    jl.GRU(I, H),
    jl.GRU(I, H, reset_after=False),
    jl.RNN(I, H),
    jl.Bidirectional(jl.LSTM(I, H), jl.GRU(I, 2)),
    jl.Stack((jl.Bidirectional(jl.RNN(I, H)), jl.LSTM(2 * H, H), jl.GRU(H, 1))),
]


def params_of(cell, dtype="float32"):
    """Random params, each leaf with a −0."""
    params = drawn(jax.eval_shape(cell.init, jax.random.key(0)), dtype)
    for leaf in jax.tree.leaves(params):
        leaf[..., 0] = -0.0
    return params


@pytest.mark.parametrize("cell", ROUND_TRIPS, ids=lambda cell: type(cell).__name__)
def test_load_inverts_dump_bit_for_bit(cell):
    for dtype in ("float32", "float64", "bfloat16"):
        params = params_of(cell, dtype)
        again, found = weights.load(weights.dump(cell, params))
        assert again == cell
        assert_bits_equal(found, params)


def test_keras_takes_a_dump():
    cell = jl.Bidirectional(jl.GRU(I, H))
    params = params_of(cell)
    layer = built(keras().layers.Bidirectional(LAYERS["GRU"](dtype="float32"), dtype="float32"), I)
    layer.set_weights(weights.dump(cell, params))
    again, found = weights.load(layer.get_weights())
    assert again == cell
    assert_bits_equal(found, params)


@pytest.fixture
def file(tmp_path):
    """A file with recurrent layers of all forms, and the model that wrote it."""
    model = keras().Sequential(
        [
            keras().layers.Input((T, I)),
            keras().layers.LSTM(H, return_sequences=True),
            keras().layers.Bidirectional(keras().layers.GRU(2, return_sequences=True), name="both"),
            keras().layers.RNN([keras().layers.LSTMCell(3) for _ in range(3)], return_sequences=True, name="stacked"),
            keras().layers.SimpleRNN(2, name="last"),
            keras().layers.Dense(1),
        ]
    )
    for k, layer in enumerate(model.layers):
        layer.set_weights(drawn(layer.get_weights(), "float32", seed=k))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    return path, model


def test_a_layer_of_a_file_has_the_layers_weights(file):
    path, model = file
    lists = {layer.name: layer.get_weights() for layer in model.layers}
    stacked = [cell.get_weights() for cell in model.get_layer("stacked").cell.cells]
    for name, source in [("layers/lstm", lists[model.layers[0].name]), ("both", lists["both"]), ("stacked", stacked)]:
        cell, params = weights.load(source)
        for given in (path, str(path)):
            again, found = weights.load(given, name)
            assert again == cell
            assert_bits_equal(found, params)
    cell, params = weights.load([lists[model.layers[0].name], lists["both"], *stacked])
    with h5py.File(path) as opened:
        again, found = weights.load(opened, ["layers/lstm", "both", "layers/rnn"])
        assert_bits_equal(weights.load(opened, "last")[1], weights.load(lists["last"])[1])
    assert again == cell
    assert_bits_equal(found, params)


def test_a_name_that_is_not_in_the_file_lists_those_that_are(file, tmp_path):
    path, model = file
    listed = r"which has 'layers/bidirectional' \(both\), 'layers/lstm' \(lstm.*'layers/rnn' \(stacked\) and 1 more"
    with pytest.raises(ValueError, match=f"layer must name one or more layers of the file, {listed}"):
        weights.load(path)
    with pytest.raises(ValueError, match=f"layer='encoder' names none of the recurrent layers in the file, {listed}"):
        weights.load(path, "encoder")
    with pytest.raises(ValueError, match="layer='lstm' names a layer of a file, but weights are arrays"):
        weights.load(model.layers[0].get_weights(), "lstm")
    other = tmp_path / "text.keras"
    other.write_text("text")
    with pytest.raises(ValueError, match=r"text.keras' is not an HDF5 file; write one with model.save_weights"):
        weights.load(other)
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none.weights.h5")
    empty = tmp_path / "empty.weights.h5"
    keras().Sequential([keras().layers.Input((I,)), keras().layers.Dense(1)]).save_weights(empty)
    with pytest.raises(ValueError, match="which has no recurrent layers of Keras 3"):
        weights.load(empty)


def test_the_only_recurrent_layer_needs_no_name(tmp_path):
    model = keras().Sequential([keras().layers.Input((T, I)), keras().layers.GRU(H), keras().layers.Dense(1)])
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    assert_bits_equal(weights.load(path)[1], weights.load(model.layers[0].get_weights())[1])


def test_cells_of_several_kinds_in_a_file_are_refused(tmp_path):
    model = keras().Sequential(
        [keras().layers.Input((T, I)), keras().layers.RNN([keras().layers.LSTMCell(2), keras().layers.GRUCell(2)])]
    )
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    with pytest.raises(NotImplementedError, match="layers/rnn has cells of several kinds, whose order is not in the"):
        weights.load(path)
    cell, _ = weights.load([cell.get_weights() for cell in model.layers[0].cell.cells])
    assert cell == jl.Stack((jl.LSTM(I, 2), jl.GRU(2, 2)))


def h5_file(path, write):
    with h5py.File(path, "w") as file:
        write(file)
    return path


def add_lstm(group, dtype="<f4"):
    for name, array in enumerate(arrays((3, 16), (4, 16), (16,))):
        group.require_group("vars")[str(name)] = array.astype(dtype)


def test_an_hdf5_file_of_another_byte_order_is_read(tmp_path):
    files = [
        h5_file(tmp_path / f"{kind}.h5", lambda file, kind=kind: add_lstm(file.create_group("lstm/cell"), f"{kind}f4"))
        for kind in "<>"
    ]
    assert_bits_equal(*(weights.load(file)[1] for file in files))


DAMAGED = {
    "no weights": lambda file: file.create_group("lstm/cell"),
    "one direction": lambda file: add_lstm(file.create_group("both/forward_layer/cell")),
    "an array as a cell": lambda file: file.create_dataset("lstm/cell", data=np.ones(3)),
    "a link to nowhere": lambda file: file.create_group("lstm").__setitem__("cell", h5py.SoftLink("/nowhere")),
    "a PiB of zeros": lambda file: file.create_dataset("lstm/cell/vars/0", (2**24, 2**24), "<f4", chunks=(1, 1024)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_hdf5_file_is_refused_in_one_sentence(name, tmp_path):
    path = h5_file(tmp_path / "damaged.h5", DAMAGED[name])
    with pytest.raises(ValueError, match=r"load: '(lstm|both)' cannot be read \(\w+: .*\); write the file again with"):
        weights.load(path)


def test_data_of_other_files_are_not_read(tmp_path):
    add = h5_file(tmp_path / "other.h5", lambda file: add_lstm(file.create_group("cell")))
    (tmp_path / "raw").write_bytes(np.ones((3, 16), np.float32).tobytes())

    def raw(file):
        add_lstm(file.create_group("lstm/cell"))
        del file["lstm/cell/vars/0"]
        file["lstm/cell/vars"].create_dataset("0", (3, 16), "<f4", external=[(str(tmp_path / "raw"), 0, 192)])

    def link(file):
        file.create_group("lstm")["cell"] = h5py.ExternalLink(add.name, "/cell")

    for write in (raw, link):
        with pytest.raises(NotImplementedError, match="lstm/cell/vars/0 has its data in another file, which is not re"):
            weights.load(h5_file(tmp_path / "model.h5", write))


@pytest.mark.parametrize("layer", [0, [], [1]])
def test_a_layer_is_a_name_or_several(layer, tmp_path):
    path = h5_file(tmp_path / "model.h5", lambda file: add_lstm(file.create_group("lstm/cell")))
    with pytest.raises(TypeError, match=r"interop.keras.load: layer must be a name, a list of names or None, but is"):
        weights.load(path, layer)


def test_a_file_without_h5py_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'the package h5py is missing; .* "jax_lstm\[interop\]"'):
        weights.load(tmp_path / "model.weights.h5")


class Slow(jl.LSTM):
    """Another step with the same weights."""

    def update(self, params, state, z):
        return super().update(params, state, z / 2)


REFUSED = [
    (Slow(I, H), "no Slow, only LSTM, GRU and SimpleRNN"),
    (jl.LSTM(I, H, peephole=True), "no peephole=True of LSTM; interop.onnx keeps it"),
    (jl.LSTM(I, H, projection=2), "no projection=2 of LSTM; interop.torch keeps it"),
    (jl.LSTM(I, H, clip=3.0), "no clip=3.0 of LSTM"),
    (jl.LSTM(I, H, coupled=True), "no coupled=True of LSTM"),
    (jl.RNN(I, H, learned_leak=True, leak=0.5), "no leak=0.5 of RNN"),
    (jl.Stack((jl.RNN(H, H), jl.RNN(H, H)), residual=True), "no residual=True of Stack"),
    (jl.MinLSTM(I, H), "no MinLSTM, only LSTM, GRU and SimpleRNN"),
    (jl.RNN(I, H, activation="relu"), "activation of RNN is 'relu', but the weights are for a layer with"),
]


@pytest.mark.parametrize(("cell", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_dump_refuses_by_name_what_keras_lacks(cell, message):
    with pytest.raises(NotImplementedError, match=message):
        weights.dump(cell, params_of(cell))


def arrays(*shapes):
    return [np.ones(shape, np.float32) for shape in shapes]


MALFORMED = [
    ([], TypeError, "weights must be a list of arrays, such as layer.get_weights"),
    ({}, TypeError, "weights must be a list of arrays, .* but is"),
    (arrays((3, 16)), ValueError, r"a layer must have 2 or 3 arrays .* but has 1, weights\[0\];"),
    (arrays((3, 16), (16,)), ValueError, r"weights\[1\] \(recurrent_kernel\) must be a matrix, but has shape \(16,\)"),
    (arrays((3, 16), (4, 15)), ValueError, r"weights\[1\] \(recurrent_kernel\) must have 4 .* but has shape \(4, 15\)"),
    (arrays((3, 12), (4, 16)), ValueError, r"weights\[0\] \(kernel\) must have shape \(3, 16\)"),
    (arrays((3, 16), (4, 16), (4,)), ValueError, r"weights\[2\] \(bias\) must have shape \(16,\)"),
    (arrays((3, 12), (4, 12), (1, 12)), ValueError, r"weights\[2\] \(bias\) must have shape \(2, 12\)"),
    (
        arrays((3, 4), (4, 4), (4,), (2, 4), (4, 4), (4,)),
        ValueError,
        r"weights\[3\] must have 3 rows, as weights\[0\] of",
    ),
    (
        [arrays((3, 4), (4, 4)), arrays((5, 4), (4, 4))],
        ValueError,
        r"weights\[1\]\[0\] must have 4 rows, the outputs of",
    ),
    ([arrays((3, 4), (4, 4)), []], ValueError, "a layer must have 2 or 3 arrays .* but has 0"),
    ([*arrays((3, 4), (4, 4)), [0.0]], TypeError, r"weights\[2\] \(bias\) must be an array"),
    ([np.ones((3, 4), np.float32), np.ones((4, 4))], TypeError, "one dtype"),
]


@pytest.mark.parametrize(("source", "error", "message"), MALFORMED)
def test_an_error_names_the_array(source, error, message):
    with pytest.raises(error, match=f"interop.keras.load: .*{message}"):
        weights.load(source)


def test_a_bias_shows_which_gru_it_is():
    after, before = arrays((3, 12), (4, 12), (2, 12)), arrays((3, 12), (4, 12), (12,))
    assert weights.load(after)[0].reset_after
    assert not weights.load(before)[0].reset_after
    with pytest.raises(ValueError, match=r"weights\[2\] \(bias\) must have shape \(12,\)"):
        weights.load(after, reset_after=False)
