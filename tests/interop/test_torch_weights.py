"""Weights of PyTorch, in and out; PyTorch itself as the oracle where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.interop import torch as weights

I, H, T, B = 3, 4, 5, 3
LENGTHS = np.array([4, 1, 5])
# The options of PyTorch's layer, and the cell that comes of its weights.
LAYERS = {
    "LSTM": ("LSTM", {}, jl.LSTM(I, H)),
    "GRU": ("GRU", {}, jl.GRU(I, H)),
    "RNN": ("RNN", {}, jl.RNN(I, H)),
    "relu": ("RNN", {"nonlinearity": "relu"}, jl.RNN(I, H, activation="relu")),
    "no bias": ("LSTM", {"bias": False}, jl.LSTM(I, H)),
    "GRU, no bias": ("GRU", {"bias": False}, jl.GRU(I, H)),
    "projection": ("LSTM", {"proj_size": 2}, jl.LSTM(I, H, projection=2)),
    "2 layers": ("GRU", {"num_layers": 2}, jl.Stack((jl.GRU(I, H), jl.GRU(H, H)))),
    "2 directions": ("RNN", {"bidirectional": True}, jl.Bidirectional(jl.RNN(I, H))),
    "3 layers, 2 directions, projection": (
        "LSTM",
        {"num_layers": 3, "bidirectional": True, "proj_size": 2},
        jl.Stack(tuple(jl.Bidirectional(jl.LSTM(n, H, projection=2)) for n in (I, 4, 4))),
    ),
}


def arrays(kind="LSTM", **changed):
    """A state dict of one layer as NumPy arrays, with some of them changed; None removes one."""
    n = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * H
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (n, I), "weight_hh_l0": (n, H), "bias_ih_l0": (n,), "bias_hh_l0": (n,)}
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | changed
    return {name: a for name, a in drawn.items() if a is not None}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_equal_those_of_torch(name):
    torch = pytest.importorskip("torch")
    kind, options, expected = LAYERS[name]
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(I, H, batch_first=True, dtype=torch.float64, **options)
    relu = {"nonlinearity": "relu"} if "nonlinearity" in options else {}
    cell, params = weights.load(layer.state_dict(), **relu)
    assert cell == expected

    rng = np.random.default_rng(1)
    xs, d_ys = rng.normal(size=(B, T, I)), rng.normal(size=(B, T, expected.output_size))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(xs), torch.from_numpy(LENGTHS), batch_first=True, enforce_sorted=False
    )
    theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
    (theirs * torch.from_numpy(d_ys)).sum().backward()

    mask = np.arange(T) < LENGTHS[:, None]
    ours, pull = jax.vjp(lambda p: jl.batched(jl.unroll)(cell, p, xs, mask=mask)[1], params)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-10)
    gradients = weights.dump(cell, pull(jnp.asarray(d_ys))[0])
    for leaf, p in layer.named_parameters():
        if not leaf.startswith("bias_hh"):  # torch's other bias, whose gradient is that of the sum
            np.testing.assert_allclose(gradients[leaf], p.grad.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_cell_of_torch_is_a_layer_without_a_number(kind):
    torch = pytest.importorskip("torch")
    one = getattr(torch.nn, f"{kind}Cell")(I, H, dtype=torch.float64)
    cell, params = weights.load({f"actor.{name}": a for name, a in one.state_dict().items()}, "actor.")
    x, h = torch.ones(1, I, dtype=torch.float64), torch.ones(1, H, dtype=torch.float64)
    theirs = one(x, (h, h) if kind == "LSTM" else h)
    ones = jax.tree.map(jnp.ones_like, cell.initial_state(params))
    state, y = cell.step(params, ones, jnp.ones(I))
    np.testing.assert_allclose(y, (theirs[0] if kind == "LSTM" else theirs).detach().numpy()[0], atol=1e-12)
    assert type(state).__name__ == f"{kind}State"


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_params_come_back_bit_for_bit(name, dtype):
    _, options, cell = LAYERS[name]
    leaves, tree = jax.tree.flatten(jax.eval_shape(cell.init, jax.random.key(0)))
    rng = np.random.default_rng(2)
    drawn = [rng.normal(size=leaf.shape) * rng.choice([0.0, -0.0, 1.0], size=leaf.shape) for leaf in leaves]
    params = tree.unflatten([jnp.asarray(a, dtype) for a in drawn])
    relu = {"nonlinearity": "relu"} if "nonlinearity" in options else {}
    again, back = weights.load(weights.dump(cell, params), **relu)
    assert again == cell
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def test_torch_takes_what_is_dumped():
    torch = pytest.importorskip("torch")
    cell = jl.Stack((jl.Bidirectional(jl.GRU(I, H)), jl.Bidirectional(jl.GRU(2 * H, H))), dropout=0.5)
    dumped = weights.dump(cell, cell.init(jax.random.key(0)))
    layer = torch.nn.GRU(I, H, num_layers=2, bidirectional=True)
    result = layer.load_state_dict({name: torch.from_numpy(a) for name, a in dumped.items()})
    assert not result.missing_keys
    assert not result.unexpected_keys


WRONG = {
    "no weights": ({}, {}, "no weights start with ''"),
    "a prefix is due": ({"lstm.weight_hh_l0": np.ones((16, 4))}, {}, "prefixes 'lstm.': pass one as prefix"),
    "another prefix": (arrays(), {"prefix": "gru."}, "no weights start with 'gru.'; .* prefixes ''"),
    "another weight": (arrays(fc=np.ones(3, np.float32)), {}, "'fc' is not a recurrent weight"),
    "no weight_ih": (arrays(weight_ih_l0=None), {}, "weight_ih_l0 is missing"),
    "no layer between": ({name.replace("l0", "l1"): a for name, a in arrays().items()}, {}, "weight_ih_l0 is missing"),
    "one bias": (arrays(bias_hh_l0=None), {}, "bias_hh_l0 is missing; pass both biases or none"),
    "transposed": (arrays(weight_hh_l0=np.ones((4, 16), np.float32)), {}, r"weight_hh_l0 .* \(4, 16\); transpose it"),
    "two gates": (arrays(weight_hh_l0=np.ones((8, 4), np.float32)), {}, r"weight_hh_l0 must have 4 \(LSTM\), 3"),
    "other rows": (arrays(weight_ih_l0=np.ones((12, 3), np.float32)), {}, r"weight_ih_l0 must have shape \(16, 3\)"),
    "a matrix as bias": (arrays(bias_ih_l0=np.ones((16, 1), np.float32)), {}, r"bias_ih_l0 must have shape \(16,\)"),
    "no matrix": (arrays(weight_hh_l0=np.ones(16, np.float32)), {}, r"weight_hh_l0 must be a matrix"),
    "layers that do not meet": (
        arrays() | {name.replace("l0", "l1"): a for name, a in arrays().items()}, {},
        "weight_ih_l1 must have 4 columns, the outputs of layer 0, but has 3",
    ),
    "an LSTM with relu": (arrays(), {"nonlinearity": "relu"}, "nonlinearity='relu' is for an RNN"),
    "a sine": (arrays("RNN"), {"nonlinearity": "sin"}, "nonlinearity must be one of tanh, relu"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_weights_are_refused_by_name(name):
    given, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        weights.load(given, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.pt", r"is 'model\.pt'; open a file with torch\.load\(path, weights_only=True\)"),
        ([1], r"state_dict must be a dict of arrays, but is \[1\]"),
        (arrays(bias_ih_l0=np.ones(16, int)), "bias_ih_l0 must hold floats, but holds int64"),
        (arrays(bias_ih_l0=[1.0]), "bias_ih_l0 must be an array"),
        (arrays(bias_ih_l0=np.ones(16, np.float64)), "params must have one dtype"),
    ],
)
def test_wrong_types_are_refused_by_name(given, message):
    with pytest.raises(TypeError, match=message):
        weights.load(given)


def test_float64_weights_are_not_rounded_in_silence():
    with jax.enable_x64(False), pytest.raises(TypeError, match="weight_ih_l0 is float64, but jax_enable_x64 is off"):
        weights.load(arrays(weight_ih_l0=np.ones((16, 3))))


class Slow(jl.LSTM):
    """Another step with the same weights."""

    def update(self, params, state, z):
        return super().update(params, state, z / 2)


LSTM = jl.LSTM(I, H)
REFUSED = {
    "peephole": (jl.LSTM(I, H, peephole=True), "no peephole=True of LSTM; interop.onnx keeps it"),
    "clip": (jl.LSTM(I, H, clip=1.0), "no clip=1.0 of LSTM; interop.onnx"),
    "layer norm": (jl.LSTM(I, H, layer_norm=True), "no layer_norm=True of LSTM; interop.safetensors"),
    "relu gates": (jl.LSTM(I, H, gate_activation="relu"), "gate_activation='relu'"),
    "bfloat16 products": (jl.LSTM(I, H, compute_dtype="bfloat16"), "compute_dtype='bfloat16'.*dataclasses.replace"),
    "reset before": (jl.GRU(I, H, reset_after=False), "no reset_after=False of GRU; interop.onnx"),
    "leak": (jl.RNN(I, H, leak=0.5), "no leak=0.5 of RNN; interop.safetensors"),
    "sigmoid": (jl.RNN(I, H, activation="sigmoid"), "no activation='sigmoid' of RNN"),
    "JANET": (jl.JANET(I, H), "no JANET, only LSTM, GRU and RNN; interop.safetensors"),
    "a subclass": (Slow(I, H), "no Slow, only LSTM, GRU and RNN"),
    "zoneout": (jl.Dropout(LSTM, zoneout=0.5), "no zoneout=0.5 of Dropout"),
    "residual": (jl.Stack((jl.LSTM(H, H), jl.LSTM(H, H)), residual=True), "no residual=True of Stack; interop.onnx"),
    "learned state": (jl.LearnedInitialState(LSTM), "no LearnedInitialState"),
    "two widths": (jl.Stack((LSTM, jl.LSTM(H, 2))), "layer 1 differs from layer 0; call dump for each layer"),
    "two kinds": (jl.Stack((LSTM, jl.GRU(H, H))), "layer 1 differs from layer 0"),
    "layers in a direction": (jl.Bidirectional(jl.Stack((LSTM, jl.LSTM(H, H)))), "put a Bidirectional around each"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_lacks_is_refused_by_name(name):
    cell, message = REFUSED[name]
    with pytest.raises(NotImplementedError, match=message):
        weights.dump(cell, cell.init(jax.random.key(0)))


def test_params_of_another_cell_are_refused():
    with pytest.raises(
        ValueError, match=r"interop\.torch\.dump: params\.w_x has shape \(4, 16\), but cell LSTM takes \(3, 16\)"
    ):
        weights.dump(jl.LSTM(I, H), jl.LSTM(I + 1, H).init(jax.random.key(0)))


@pytest.mark.parametrize("order", [1, -1])
def test_a_weight_with_and_without_a_number_is_refused(order):
    layer = arrays()
    both = layer | {name.removesuffix("_l0"): 2 * a for name, a in layer.items()}
    with pytest.raises(ValueError, match=r"must be the only \w+ of its layer, but state_dict has it with and"):
        weights.load(dict(list(both.items())[::order]))


def test_other_names_are_left_alone_or_refused():
    assert weights.load(arrays() | {0: np.zeros(3)})[0] == jl.LSTM(I, H)
    for name in ("weight_ih_l00", "weight_ih_l" + 5000 * "9", "weight_ih_l²"):
        with pytest.raises(ValueError, match=r"interop.torch.load: 'weight_ih_l.* is not a recurrent weight"):
            weights.load(arrays() | {name: np.zeros((16, I), np.float32)})
    with pytest.raises(TypeError, match=r"interop.torch.load: prefix must be a string, but is None"):
        weights.load(arrays(), None)


def test_arrays_of_another_byte_order_are_read():
    cell, params = weights.load(arrays())
    again, same = weights.load({name: a.astype(">f4") for name, a in arrays().items()})
    assert again == cell
    jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="longdouble is float64 here")
def test_a_float_that_jax_lacks_is_refused():
    with pytest.raises(TypeError, match=r"load: weight_ih_l0 is float\d+, which JAX lacks; cast it to float64"):
        weights.load(arrays(weight_ih_l0=np.ones((16, I), np.longdouble)))


def test_traced_arrays_are_refused():
    cell = jl.LSTM(I, H)
    params = cell.init(jax.random.key(0))
    with pytest.raises(TypeError, match=r"load: .*_l0 must have values, but is traced; call load outside of jit"):
        jax.jit(lambda state_dict: weights.load(state_dict)[1])(arrays())
    for module in (weights, jl.interop.safetensors, jl.interop.keras, jl.interop.onnx):
        with pytest.raises(TypeError, match=r"dump: params.w_x must have values, but is traced; call dump outside"):
            jax.eval_shape(lambda params, dump=module.dump: dump(cell, params) and None, params)


def test_tensors_without_numbers_are_refused():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(4 * H, I).to_sparse(), torch.ones(4 * H, I, device="meta")):
        with pytest.raises(TypeError, match=r"load: weight_ih_l0 must be a dense tensor of float64, .* \(\w+\); con"):
            weights.load(arrays(weight_ih_l0=tensor))


class Other(jl.Bidirectional):
    """Another sum of the same weights."""


@pytest.mark.parametrize("name", ["torch", "keras", "flax", "onnx"])
def test_a_subclass_of_a_layer_is_refused(name):
    cell = Other(jl.LSTM(I, H))
    with pytest.raises(NotImplementedError, match=f"interop.{name}.dump: .* has no Other"):
        getattr(jl.interop, name).dump(cell, cell.init(jax.random.key(0)))


class Bare:
    """A cell without a base class, and params that are one array."""

    input_size, hidden_size = I, H

    def init(self, key, dtype=jnp.float32):
        return jnp.zeros((1, H), dtype)

    def initial_state(self, params):
        return jl.RNNState(params[0])

    def step(self, params, state, x):
        return state, state.h


@pytest.mark.parametrize("name", ["torch", "equinox"])
def test_a_cell_without_a_base_class_is_refused_by_name(name):
    with pytest.raises(NotImplementedError, match=f"interop.{name}.dump: .* has no Bare, only LSTM"):
        getattr(jl.interop, name).dump(Bare(), Bare().init(None))
