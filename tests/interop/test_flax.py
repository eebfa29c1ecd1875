"""Weights of Flax's cells, Linen and NNX: the numbers and gradients of both libraries, round trips and messages."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.interop import flax as weights

I, H, B, T = 3, 4, 3, 5
LENGTHS = np.array([5, 2, 4])
MASK = np.arange(T) < LENGTHS[:, None]
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
CELLS = ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"]


def drawn(shapes, dtype="float64", seed=0):
    """A tree of random arrays, biases too; small enough that a recurrence forgets rounding errors."""
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([jnp.asarray(0.5 * rng.normal(size=leaf.shape), dtype) for leaf in leaves])


class Linen:
    """Layers of Linen, with random weights."""

    def __init__(self, cells, dtype):
        self.layers = [
            nn.Bidirectional(*(nn.RNN(getattr(nn, name)(H, param_dtype=dtype)) for name in cell))
            if isinstance(cell, tuple)
            else nn.RNN(getattr(nn, cell)(H, param_dtype=dtype))
            for cell in cells
        ]
        xs, shapes = jax.ShapeDtypeStruct((B, T, I), dtype), {}
        for k, layer in enumerate(self.layers):
            xs, variables = jax.eval_shape(lambda x, layer=layer: layer.init_with_output(jax.random.key(0), x), xs)
            shapes[f"layers_{k}"] = variables["params"]
        self.tree = drawn(shapes, dtype)

    def apply(self, tree, k, xs, **options):
        return self.layers[k].apply({"params": tree[f"layers_{k}"]}, xs, **options)


class NNX:
    """Layers of NNX, with random weights."""

    def __init__(self, cells, dtype):
        self.graphs, self.states, widths = [], [], [I]
        for cell in cells:
            names = cell if isinstance(cell, tuple) else (cell,)

            def make(names=names, width=widths[-1]):
                rngs, options = nnx.Rngs(0), {"param_dtype": dtype, "dtype": dtype}
                rnns = [nnx.RNN(getattr(nnx, name)(width, H, rngs=rngs, **options), rngs=False) for name in names]
                return rnns[0] if len(rnns) == 1 else nnx.Bidirectional(*rnns, rngs=False)

            graph, state = nnx.split(nnx.eval_shape(make))
            self.graphs.append(graph)
            self.states.append(state)
            widths.append(len(names) * H)
        self.tree = {"layers": drawn({k: nnx.to_pure_dict(state) for k, state in enumerate(self.states)}, dtype)}

    def apply(self, tree, k, xs, **options):
        state = jax.tree.map(lambda a: a, self.states[k])
        nnx.replace_by_pure_dict(state, tree["layers"][k])
        return nnx.merge(self.graphs[k], state)(xs, **options)


def with_c_first(states):
    """Our states as Flax's carries."""

    def carry(state):
        if isinstance(state, jl.BidirectionalState):
            return carry(state.forward), carry(state.backward)
        return (state.c, state.h) if isinstance(state, jl.LSTMState) else state.h

    return [carry(state) for state in (states if type(states) is tuple else (states,))]


def unmasked(a):
    """Zeros at masked steps, where Flax and this library return different numbers."""
    return jnp.where(MASK[..., None], a, 0)


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


def check_parity(library, cells, dtype):
    """Compare outputs, last states, and the gradients of inputs, first states and weights, with ragged lengths."""
    theirs = library(cells, dtype)
    cell, params = weights.load(theirs.tree)
    xs = drawn(jax.ShapeDtypeStruct((B, T, I), dtype), dtype, seed=1)
    state = drawn(jax.eval_shape(lambda p: jl.initial_states(cell, p, B), params), dtype, seed=2)
    d_hs = drawn(jax.ShapeDtypeStruct((B, T, cell.output_size), dtype), dtype, seed=3)
    d_carries = drawn(with_c_first(state), dtype, seed=4)

    def of_flax(tree, xs, carries):
        last = []
        for k, carry in enumerate(carries):
            options = {"seq_lengths": LENGTHS, "return_carry": True}
            carry, xs = theirs.apply(tree, k, xs, initial_carry=carry, **options)
            last.append(carry)
        return unmasked(xs), last

    def ours(params, xs, state):
        last, hs = jl.batched(jl.unroll)(cell, params, xs, state, MASK)
        return unmasked(hs), with_c_first(last)

    def run(function, *args):
        outputs, pull = jax.vjp(function, *args)
        return outputs, pull((d_hs, d_carries))

    want, (d_tree, *d_want) = jax.jit(lambda *args: run(of_flax, *args))(theirs.tree, xs, with_c_first(state))
    found, (d_params, d_xs, d_state) = jax.jit(lambda *args: run(ours, *args))(params, xs, state)
    assert_close((found, [d_xs, with_c_first(d_state)]), (want, d_want), TOLERANCE[dtype])
    d_want = weights.load(d_tree)[1]
    if library is NNX:  # Flax has no b_hn there
        d_params, d_want = (
            jax.tree.map(lambda p: p._replace(b_hn=None) if isinstance(p, jl.GRUParams) else p, d, is_leaf=is_params)
            for d in (d_params, d_want)
        )
    assert_close(d_params, d_want, TOLERANCE[dtype])


def is_params(value):
    return isinstance(value, jl.LSTMParams | jl.GRUParams | jl.RNNParams)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("library", [Linen, NNX])
def test_outputs_and_gradients_are_flaxs(library, name, dtype):
    check_parity(library, [name], dtype)


NETWORKS = [
    [("LSTMCell", "GRUCell")],
    ["GRUCell", ("SimpleCell", "LSTMCell")],
    [("GRUCell", "GRUCell"), "OptimizedLSTMCell", ("SimpleCell", "SimpleCell")],
]


@pytest.mark.parametrize("cells", slow_except(NETWORKS[1:2], NETWORKS), ids=len)
@pytest.mark.parametrize("library", [Linen, NNX])
def test_layers_and_directions_are_flaxs(library, cells):
    check_parity(library, cells, "float64")


ROUND_TRIPS = [
    jl.LSTM(I, H),
    jl.GRU(I, H),
    jl.RNN(I, H),
    jl.Bidirectional(jl.LSTM(I, H), jl.GRU(I, 2)),
    jl.Stack((jl.Bidirectional(jl.RNN(I, H)), jl.LSTM(2 * H, H), jl.GRU(H, 1))),
]


def params_of(cell, dtype="float32", zero_b_hn=False):
    """Random params, each leaf with a −0."""

    def with_zeros(path, a):
        a = np.array(a)
        a[..., 0] = -0.0
        return np.zeros_like(a) if zero_b_hn and path[-1] == jax.tree_util.GetAttrKey("b_hn") else a

    return jax.tree_util.tree_map_with_path(with_zeros, drawn(shapes_of(cell), dtype))


def shapes_of(cell):
    return jax.eval_shape(cell.init, jax.random.key(0))


def assert_bits_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert (a.dtype, a.shape) == (d.dtype, d.shape)
        assert np.asarray(a).tobytes() == np.asarray(d).tobytes()


@pytest.mark.parametrize("style", weights.STYLES)
@pytest.mark.parametrize("cell", ROUND_TRIPS, ids=lambda cell: type(cell).__name__)
def test_load_inverts_dump_bit_for_bit(cell, style):
    for dtype in ("float32", "float64", "bfloat16"):
        params = params_of(cell, dtype, zero_b_hn=style != "linen")
        again, found = weights.load(weights.dump(cell, params, style=style))
        assert again == cell
        assert_bits_equal(found, params)


@pytest.mark.parametrize("style", weights.STYLES)
def test_a_dump_has_the_names_and_shapes_of_flax(style):
    lstm = "LSTMCell" if style == "nnx" else "OptimizedLSTMCell"
    library = (Linen if style == "linen" else NNX)([("GRUCell", "SimpleCell"), lstm], "float32")
    cell, params = weights.load(library.tree)
    dumped = weights.dump(cell, params, style=style)
    assert_bits_equal(dumped, library.tree)


def test_nnx_update_takes_a_dump():
    module = nnx.OptimizedLSTMCell(I, H, rngs=nnx.Rngs(0))
    cell = jl.LSTM(I, H)
    params = params_of(cell)
    nnx.update(module, weights.dump(cell, params, style="nnx_optimized"))
    for source in (nnx.state(module), nnx.to_pure_dict(nnx.state(module)), nnx.state(module, nnx.Param)):
        again, found = weights.load(source)
        assert again == cell
        assert_bits_equal(found, params)


def test_a_sequential_of_flax_has_the_names_of_a_dump():
    cell = jl.Stack((jl.RNN(I, H), jl.LSTM(H, H)))
    params = params_of(cell)

    def module(rngs):
        return nnx.Sequential(*(nnx.RNN(c) for c in (nnx.SimpleCell(I, H, rngs=rngs), nnx.LSTMCell(H, H, rngs=rngs))))

    sequential = module(nnx.Rngs(0))
    nnx.update(sequential, weights.dump(cell, params, style="nnx"))
    assert_bits_equal(weights.load(nnx.state(sequential))[1], params)
    sequential = nn.Sequential([nn.RNN(nn.SimpleCell(H)), nn.RNN(nn.OptimizedLSTMCell(H))])
    shapes = jax.eval_shape(sequential.init, jax.random.key(0), jnp.ones((T, I), jnp.float32))
    assert jax.tree.map(np.shape, shapes) == {"params": jax.tree.map(np.shape, weights.dump(cell, params))}


def test_random_state_and_metadata_of_flax_are_left_alone():
    cell, params = ROUND_TRIPS[2], params_of(ROUND_TRIPS[2])
    tree = weights.dump(cell, params)
    boxed = jax.tree.map(lambda a: nn.Partitioned(jnp.asarray(a), (None,) * a.ndim), tree)
    assert_bits_equal(weights.load({"params": {"cell": boxed}, "cache": {}})[1], params)
    assert_bits_equal(weights.load({"cell": tree | {"rngs": {"count": 0}}, "rngs": {}})[1], params)


@pytest.mark.parametrize("name", ["LSTMCell", "SimpleCell"])
def test_named_activations_are_those_of_flax(name):
    module = getattr(nn, name)(H, activation_fn=jax.nn.softplus, param_dtype=jnp.float64)
    options: dict = {"activation": jax.nn.softplus}
    if name == "LSTMCell":
        module = module.clone(gate_fn=jax.nn.hard_sigmoid)
        options["gate_activation"] = "hard_sigmoid"
    x, key = jnp.ones((1, I)), jax.random.key(0)
    carry = module.initialize_carry(key, x.shape)
    tree = drawn(jax.eval_shape(module.init, key, carry, x))
    cell, params = weights.load(tree, **options)
    _, want = module.apply(tree, carry, x)
    _, hs = jl.unroll(cell, params, x)
    np.testing.assert_allclose(hs, want, rtol=1e-12)
    assert_bits_equal(weights.dump(cell, params, **options), tree["params"])
    with pytest.raises(NotImplementedError, match="is 'softplus', but the weights are for a layer with activation='ta"):
        weights.dump(cell, params, **(options | {"activation": "tanh"}))


def test_an_activation_that_the_gru_lacks_is_refused():
    tree = weights.dump(jl.GRU(I, H), params_of(jl.GRU(I, H)))
    with pytest.raises(NotImplementedError, match="activation must be 'tanh' for weights of GRU"):
        weights.load(tree, activation="relu")
    with pytest.raises(NotImplementedError, match="gate_activation must be 'sigmoid' for weights of RNN"):
        weights.load(weights.dump(jl.RNN(I, H), params_of(jl.RNN(I, H))), gate_activation="relu")


def test_a_residual_simple_cell_adds_one_to_the_diagonal():
    module = nn.SimpleCell(H, residual=True, param_dtype=jnp.float64)
    x, h, key = jnp.ones(I), jnp.linspace(-1, 1, H), jax.random.key(0)
    tree = drawn(jax.eval_shape(module.init, key, h, x))["params"]
    want = np.asarray(module.apply({"params": tree}, h, x)[1])
    tree["h"]["kernel"] += np.eye(H)
    cell, params = weights.load(tree)
    np.testing.assert_allclose(jl.step(cell, params, jl.RNNState(h), x)[1], want, rtol=1e-12)


REFUSED = [
    (jl.LSTM(I, H, peephole=True), "no peephole=True of LSTM; interop.onnx keeps it"),
    (jl.LSTM(I, H, projection=2), "no projection=2 of LSTM; interop.torch keeps it"),
    (jl.LSTM(I, H, clip=3.0), "no clip=3.0 of LSTM"),
    (jl.LSTM(I, H, layer_norm=True), "no layer_norm=True of LSTM; interop.safetensors"),
    (jl.GRU(I, H, reset_after=False), "no reset_after=False of GRU"),
    (jl.RNN(I, H, leak=0.5), "no leak=0.5 of RNN"),
    (jl.Stack((jl.RNN(H, H), jl.RNN(H, H)), residual=True), "no residual=True of Stack"),
    (jl.MinGRU(I, H), "no MinGRU, only LSTM, GRU and RNN"),
    (jl.RNN(I, H, activation="relu"), "activation of RNN is 'relu', but the weights are for a layer with"),
]


@pytest.mark.parametrize(("cell", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_dump_refuses_by_name_what_flax_lacks(cell, message):
    with pytest.raises(NotImplementedError, match=message):
        weights.dump(cell, params_of(cell))


def test_dropout_and_options_of_init_are_left_out():
    cell = jl.Stack((jl.Dropout(jl.LSTM(I, H, forget_bias=2.0), inputs=0.5), jl.RNN(H, H)), dropout=0.1)
    again, params = weights.load(weights.dump(cell, params_of(cell)))
    assert again == jl.Stack((jl.LSTM(I, H), jl.RNN(H, H)))
    assert_bits_equal(params, params_of(cell))


def test_a_second_bias_that_nnx_lacks_is_refused():
    cell = jl.GRU(I, H)
    with pytest.raises(
        NotImplementedError, match=r"NNX's GRUCell has no b_hn, but params.b_hn is not 0; style='linen'"
    ):
        weights.dump(cell, params_of(cell), style="nnx")
    zero = params_of(cell, zero_b_hn=True)
    with pytest.raises(NotImplementedError, match=r"params.b_hn is not 0"):  # `load` would return 0 for −0
        weights.dump(cell, zero._replace(b_hn=-zero.b_hn), style="nnx")
    with pytest.raises(ValueError, match="style must be one of linen, nnx, nnx_optimized, but is 'haiku'"):
        weights.dump(cell, params_of(cell), style="haiku")


KERNEL, BIAS = np.ones((H, H)), np.ones(H)
MALFORMED = [
    ({"hf": {"kernel": np.ones((H, 2)), "bias": BIAS}}, ValueError, r"hf.kernel must have shape \(4, 4\)"),
    ({"ig": {"kernel": np.ones((H, I))}}, ValueError, r"ig.kernel must have shape \(3, 4\).* \(4, 3\); transpose it"),
    ({"hi": {"kernel": BIAS, "bias": BIAS}}, ValueError, r"hi.kernel must be a matrix, but has shape \(4,\)"),
    ({"ho": {"kernel": KERNEL}}, ValueError, "ho.bias is missing"),
    ({"ii": {}}, ValueError, "ii.kernel is missing"),
    ({"ii": {"kernel": np.ones((I, H)), "bias": BIAS}}, ValueError, "'ii.bias' in tree is not a weight"),
    ({"hx": {"kernel": KERNEL}}, ValueError, "'hx.kernel' in tree is not a weight"),
    ({"hf": KERNEL}, TypeError, "hf must be a dict of arrays, but is an array"),
    ({"hf": {"kernel": [[1.0]], "bias": BIAS}}, TypeError, "hf.kernel must be an array, but is"),
    ({"hf": {"kernel": KERNEL.astype(int), "bias": BIAS}}, TypeError, "hf.kernel must hold floats, but holds int64"),
    (
        {"hf": {"kernel": KERNEL, "bias": BIAS.astype("float16")}},
        TypeError,
        "one dtype, but ii.kernel is float64 and hf",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), MALFORMED)
def test_an_error_names_the_leaf(changed, error, message):
    message = f"interop.flax.load: .*{message}"
    tree = weights.dump(jl.LSTM(I, H), params_of(jl.LSTM(I, H), "float64"))
    with pytest.raises(error, match=message):
        weights.load(tree | changed)


STRUCTURES = [
    ({}, ValueError, "tree must have the weights of one layer of Flax, .* but has nothing"),
    ([], TypeError, r"tree must be a dict of arrays, but is \[\]"),
    (nn.GRUCell(H), TypeError, r"tree must be a dict of arrays, but is a module; pass nnx.state\(module\)"),
    (
        {"params": {"LSTMCell_0": {}, "Dense_0": {}}},
        ValueError,
        "but has 'LSTMCell_0', 'Dense_0'; pass the part of one",
    ),
    ({name: {} for name in ("if", "in", "hf", "hn")}, NotImplementedError, "tree has the weights of Flax's MGUCell"),
    ({"cell": {"ih": {}, "hh": {}}}, NotImplementedError, "cell has the weights of Flax's ConvLSTMCell"),
    ({"forward_rnn": {"cell": {"i": {}}}}, ValueError, "forward_rnn.cell.i.kernel is missing"),
    ({"backward_rnn": {}}, ValueError, "forward_rnn is missing"),
    ({"forward_rnn": {}, "backward_rnn": {}, "merge": {}}, ValueError, "'merge' in tree is not a weight"),
    (
        {"dense_i": {"kernel": KERNEL}, "dense_h": {"kernel": np.ones((H, 5))}},
        ValueError,
        "dense_h.kernel must have 4",
    ),
]


@pytest.mark.parametrize(("tree", "error", "message"), STRUCTURES)
def test_a_tree_of_another_form_is_refused(tree, error, message):
    with pytest.raises(error, match=f"interop.flax.load: .*{message}"):
        weights.load(tree)


def test_directions_with_other_inputs_or_layers_are_refused():
    def tree(cell):
        return weights.dump(cell, params_of(cell))

    narrow, wide = {"cell": tree(jl.RNN(I, H))}, {"cell": tree(jl.RNN(2, H))}
    with pytest.raises(ValueError, match="backward_rnn must take the 3 features that forward_rnn takes, but takes 2"):
        weights.load({"forward_rnn": narrow, "backward_rnn": wide})
    with pytest.raises(ValueError, match="layers_1 must take the 4 outputs of the layer below, but takes 2 features"):
        weights.load({"layers_0": narrow, "layers_1": wide})
    deep = tree(jl.Stack((jl.RNN(I, H), jl.RNN(H, H))))
    with pytest.raises(NotImplementedError, match="backward_rnn must hold one cell, but holds layers"):
        weights.load({"forward_rnn": narrow, "backward_rnn": deep})
    cell = jl.Bidirectional(jl.Stack((jl.RNN(I, H), jl.RNN(H, H))))
    with pytest.raises(NotImplementedError, match="Flax has one cell for each direction of a layer"):
        tree(cell)


def test_dump_checks_the_params():
    cell = jl.LSTM(I, H)
    with pytest.raises(ValueError, match=r"interop.flax.dump: params.w_x has shape \(3, 16\), but cell LSTM takes"):
        weights.dump(dataclasses.replace(cell, input_size=5), params_of(cell))


def test_modules_of_other_libraries_import_none_of_them():
    names = ("flax", "keras", "haiku", "equinox")
    imports = "; ".join(f"import jax_lstm.interop.{name}" for name in names)
    code = f"import sys; {imports}; assert not {{*{names}, 'h5py', 'torch'}} & set(sys.modules), 'imported'"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
