"""Weights of Haiku: the numbers and gradients of both libraries, round trips and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.interop import haiku as weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

I, H, T = 3, 4, 5
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
CELLS = {
    "LSTM": lambda hk, H: hk.LSTM(H),
    "GRU": lambda hk, H: hk.GRU(H),
    "VanillaRNN": lambda hk, H: hk.VanillaRNN(H),
    "one bias": lambda hk, H: hk.VanillaRNN(H, double_bias=False),
}


@pytest.fixture(autouse=True)
def as_haiku_runs():
    """Haiku does not run with JAX's strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def drawn(shapes, dtype="float64", seed=0):
    """A tree of random arrays, biases too; small enough that a recurrence forgets rounding errors."""
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([(0.5 * rng.normal(size=leaf.shape)).astype(dtype) for leaf in leaves])


def in_haiku(kinds):
    """A network of these cells."""
    hk = pytest.importorskip("haiku")

    def network(xs):
        cells = [CELLS[kind](hk, H) for kind in kinds]
        core = cells[0] if len(cells) == 1 else hk.DeepRNN(cells)
        return hk.dynamic_unroll(core, xs, jax.tree.map(lambda a: a.astype(xs.dtype), core.initial_state(None)))[0]

    return hk.without_apply_rng(hk.transform(network))


def random_params(network, dtype):
    xs = jax.ShapeDtypeStruct((T, I), dtype)
    return drawn(jax.eval_shape(network.init, jax.random.key(0), xs), dtype)


def minus_one(d_params):
    """What `load` adds to b_f, taken away: gradients have no constant."""
    if isinstance(d_params, jl.LSTMParams):
        return d_params._replace(b=d_params.b.at[H : 2 * H].add(-1))
    return tuple(map(minus_one, d_params)) if type(d_params) is tuple else d_params


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


def assert_bits_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert (a.dtype, a.shape) == (d.dtype, d.shape)
        assert np.asarray(a).tobytes() == np.asarray(d).tobytes()


def check_parity(kinds, dtype, order=""):
    """Compare outputs and the gradients of inputs and weights."""
    network = in_haiku(kinds)
    tree = random_params(network, dtype)
    cell, params = weights.load(tree, order)
    xs, d_hs = drawn([jax.ShapeDtypeStruct((T, n), dtype) for n in (I, H)], dtype, seed=1)

    def run(function, *args):
        hs, pull = jax.vjp(function, *args)
        return hs, pull(jnp.asarray(d_hs))

    want, (d_tree, d_xs_want) = jax.jit(lambda *args: run(network.apply, *args))(tree, xs)
    ours = jax.jit(lambda *args: run(lambda p, xs: jl.unroll(cell, p, xs)[1], *args))
    hs, (d_params, d_xs) = ours(params, xs)
    assert_close((hs, d_xs), (want, d_xs_want), TOLERANCE[dtype])
    for name in d_tree:  # both biases of a VanillaRNN have the gradient of their sum, and load adds them
        second = d_tree.get(f"{name}_1", {})
        if name.endswith("/linear") and "b" in second:
            d_tree[name]["b"] = second["b"] = second["b"] / 2
    assert_close(d_params, minus_one(weights.load(d_tree, order)[1]), TOLERANCE[dtype])
    assert any(np.abs(leaf).max() > 0.1 for leaf in jax.tree.leaves(d_params))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CELLS)
def test_outputs_and_gradients_are_haikus(kind, dtype):
    check_parity([kind], dtype)


def test_layers_of_a_deep_rnn_are_haikus():
    check_parity(["LSTM", "LSTM", "LSTM"], "float64")
    check_parity(["GRU", "VanillaRNN", "LSTM"], "float64", ["gru", "vanilla_rnn", "lstm"])


ROUND_TRIPS = [
    (jl.LSTM(I, H), ""),
    (jl.GRU(I, H, reset_after=False), ""),
    (jl.RNN(I, H, activation="relu"), ""),
    (jl.Stack(tuple(jl.LSTM(n, 2) for n in (I, *[2] * 11))), ""),
    (jl.Stack((jl.GRU(I, 2, reset_after=False), jl.LSTM(2, H))), ["gru", "lstm"]),
]


def params_of(cell, dtype="float32"):
    """Random params, each leaf with a −0, except for b_f of an LSTM, which is from 0.5 to 8."""
    params = drawn(jax.eval_shape(cell.init, jax.random.key(0)), dtype)
    for leaf in jax.tree.leaves(params):
        leaf[..., 0] = -0.0
    for p in jax.tree.leaves(params, is_leaf=lambda p: isinstance(p, jl.LSTMParams)):
        if isinstance(p, jl.LSTMParams):
            _, b_f, *_ = np.split(p.b, 4)
            b_f[:] = np.exp2(np.random.default_rng(9).uniform(-1, 3, b_f.shape))
    return params


@pytest.mark.parametrize(("cell", "prefix"), ROUND_TRIPS, ids=lambda value: type(value).__name__)
def test_load_inverts_dump_bit_for_bit(cell, prefix):
    for dtype in ("float32", "float64", "bfloat16"):
        params = params_of(cell, dtype)
        again, found = weights.load(weights.dump(cell, params), prefix)
        assert again == cell
        assert_bits_equal(found, params)


def forget_bias_again(b_f, dtype):
    """b_f after dump and load."""
    b_f = np.asarray(b_f, dtype)
    cell, zero = jl.LSTM(1, len(b_f)), np.zeros((1, 4 * len(b_f)), dtype)
    b = np.concatenate([b_f * 0, b_f, b_f * 0, b_f * 0])
    params = jl.LSTMParams(zero, np.zeros((len(b_f), 4 * len(b_f)), dtype), b)
    return b_f, np.split(np.asarray(weights.load(weights.dump(cell, params))[1].b), 4)[1]


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 24), ("float64", 53), ("bfloat16", 8)])
def test_a_forget_bias_comes_back_as_documented(dtype, digits):
    rng = np.random.default_rng(0)
    exact, again = forget_bias_again([0.5, 1.0, 2.0**digits, *np.exp2(rng.uniform(-1, digits, 300))], dtype)
    np.testing.assert_array_equal(again, exact)
    small, again = forget_bias_again([0.0, -1.0, *rng.uniform(-1, 0.5, 300)], dtype)
    below = np.abs(again.astype(float) - small.astype(float))
    assert np.all(below <= np.where(small > 0, 2.0 ** -(digits + 1), 2.0**-digits))
    assert np.mean(below > 0) > 0.1  # no params of Haiku give these


@pytest.mark.parametrize("kinds", [["LSTM", "LSTM"], ["GRU", "VanillaRNN"]])
def test_a_dump_has_the_names_and_shapes_of_haiku(kinds):
    tree = random_params(in_haiku(kinds), "float32")
    cell, params = weights.load(tree, "" if kinds[0] == kinds[1] else ["gru", "vanilla_rnn"])
    dumped = weights.dump(cell, params)
    assert jax.tree.map(np.shape, dumped) == jax.tree.map(np.shape, tree)
    assert_bits_equal(dumped["gru"] if "gru" in tree else {}, tree.get("gru", {}))


def test_a_prefix_names_one_of_several_modules():
    lstm, gru = jl.LSTM(I, H), jl.GRU(5, 2, reset_after=False)
    tree = weights.dump(lstm, params_of(lstm), name="net/~/lstm") | weights.dump(gru, params_of(gru), name="net/gru_2")
    tree["linear"] = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    assert weights.load(tree, "net/gru_2")[0] == gru
    for prefix in ("net/~", "net/~/lstm", ["net/~/lstm"]):
        assert weights.load(tree, prefix)[0] == lstm
    assert weights.load({k: v for k, v in tree.items() if "gru" not in k})[0] == lstm
    with pytest.raises(ValueError, match=r"the params have 'net/~/lstm', 'net/gru_2'; pass one of them, or a list"):
        weights.load(tree)
    with pytest.raises(
        ValueError, match=r"must have an LSTM, .* with prefix 'net/l', but have 'net/~/lstm', 'net/gru_2"
    ):
        weights.load(tree, "net/l")
    with pytest.raises(ValueError, match=r"net/~/lstm must take the 2 features of the module before it, but takes 3"):
        weights.load(tree, ["net/gru_2", "net/~/lstm"])


REFUSED = [
    (jl.LSTM(I, H, peephole=True), "no peephole=True of LSTM; interop.onnx keeps it"),
    (jl.LSTM(I, H, clip=3.0), "no clip=3.0 of LSTM"),
    (jl.GRU(I, H), "no reset_after=True of GRU; interop.torch and interop.flax keep it"),
    (jl.RNN(I, H), "no activation='tanh' of RNN, only 'relu'"),
    (jl.RNN(I, H, activation="relu", leak=0.5), "no leak=0.5 of RNN"),
    (jl.MinGRU(I, H), "no MinGRU, only LSTM, GRU and VanillaRNN"),
    (jl.Bidirectional(jl.LSTM(I, H)), "Haiku has no Bidirectional; call dump for each of its cells"),
]


@pytest.mark.parametrize(("cell", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_dump_refuses_by_name_what_haiku_lacks(cell, message):
    with pytest.raises(NotImplementedError, match=message):
        weights.dump(cell, params_of(cell))


def ones(*shape):
    return np.ones(shape, np.float32)


MALFORMED = [
    ([], TypeError, "params must be a dict of arrays, but is"),
    ({}, ValueError, "params must have an LSTM, GRU or VanillaRNN with prefix '', but have none of these at all"),
    ({"lstm/linear": ones(7, 16)}, TypeError, "lstm/linear must be a dict of arrays, but is an array"),
    ({"lstm/linear": {"w": ones(7, 16)}}, ValueError, "lstm/linear.b is missing"),
    ({"lstm/linear": {"w": ones(7, 15), "b": ones(15)}}, ValueError, r"lstm/linear.w must have shape \(I \+ H, 4H\)"),
    ({"lstm/linear": {"w": ones(4, 16), "b": ones(16)}}, ValueError, r"lstm/linear.w must have shape .* has \(4, 16\)"),
    ({"lstm/linear": {"w": ones(16), "b": ones(16)}}, ValueError, "lstm/linear.w must be a matrix"),
    ({"lstm/linear": {"w": ones(7, 16), "b": ones(4)}}, ValueError, r"lstm/linear.b must have shape \(16,\)"),
    ({"gru": {"w_i": ones(3, 12), "w_h": ones(4, 12)}}, ValueError, "gru.b is missing"),
    ({"gru": {"w_i": ones(3, 9), "w_h": ones(4, 12), "b": ones(12)}}, ValueError, r"gru.w_i must have shape \(3, 12\)"),
    (
        {"gru": {"w_i": ones(3, 12), "w_h": ones(4, 12), "b": ones(12), "c": ones(1)}},
        ValueError,
        "'gru.c' in params is",
    ),
    (
        {"a/linear": {"w": ones(3, 4), "b": ones(4)}, "a/linear_1": {"w": ones(4, 3)}},
        ValueError,
        "a/linear_1.w must have",
    ),
    ({"gru": {"w_i": ones(3, 12), "w_h": ones(4, 12), "b": [1.0]}}, TypeError, "gru.b must be an array, but is"),
    ({"gru": {"w_i": ones(3, 12), "w_h": ones(4, 12), "b": np.ones(12)}}, TypeError, "one dtype"),
]


@pytest.mark.parametrize(("tree", "error", "message"), MALFORMED)
def test_an_error_names_the_leaf(tree, error, message):
    with pytest.raises(error, match=f"interop.haiku.load: .*{message}"):
        weights.load(tree)


def test_modules_of_a_listed_prefix_are_in_order():
    def module(k):
        return {"w": np.full((2 * H, 4 * H), k, np.float32), "b": np.zeros(4 * H, np.float32)}

    sorted_by_name = {f"net/lstm{f'_{k}' if k else ''}/linear": module(k) for k in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)}
    for prefix in ("net", ["net"], ("net",)):
        _, params = weights.load(sorted_by_name, prefix)
        assert [int(one.w_h[0, 0]) for one in params] == list(range(11))


@pytest.mark.parametrize("prefix", [None, [], [3]])
def test_a_prefix_of_another_type_is_refused(prefix):
    with pytest.raises(TypeError, match=r"interop.haiku.load: prefix must be a name or a list of names, but is"):
        weights.load({"lstm/linear": {}}, prefix)
