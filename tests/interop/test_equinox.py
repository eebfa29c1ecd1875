"""Weights of Equinox: the numbers and gradients of both libraries, round trips and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.interop import equinox as weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

I, H, T = 3, 4, 5
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
KINDS = ["LSTMCell", "GRUCell"]


def drawn(shapes, dtype="float64", seed=0):
    """A tree of random arrays, biases too; small enough that a recurrence forgets rounding errors."""
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([jnp.asarray(0.5 * rng.normal(size=leaf.shape), dtype) for leaf in leaves])


def module_of(kind, dtype="float64", **options):
    """A module with random weights."""
    eqx = pytest.importorskip("equinox")
    shapes = eqx.filter_eval_shape(lambda: getattr(eqx.nn, kind)(I, H, dtype=dtype, key=jax.random.key(0), **options))
    return drawn(shapes, dtype)


def assert_close(actual, desired, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, rtol=tolerance, atol=tolerance), actual, desired)


def assert_bits_equal(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert (a.dtype, a.shape) == (d.dtype, d.shape)
        assert np.asarray(a).tobytes() == np.asarray(d).tobytes()


def check_parity(module, dtype):
    """Compare outputs, last states, and the gradients of inputs, first states and weights."""
    cell, params = weights.load(module)
    xs, d_hs = drawn([jax.ShapeDtypeStruct((T, n), dtype) for n in (I, H)], dtype, seed=1)
    state, d_state = (drawn(jax.eval_shape(cell.initial_state, params), dtype, seed) for seed in (2, 3))

    def in_theirs(state):
        return tuple(state) if isinstance(state, jl.LSTMState) else state.h

    def of_equinox(module, xs, state):
        def body(state, x):
            state = module(x, state)
            return state, state[0] if isinstance(state, tuple) else state

        return jax.lax.scan(body, in_theirs(state), xs)

    def ours(params, xs, state):
        state, hs = jl.unroll(cell, params, xs, state)
        return in_theirs(state), hs

    def run(function, *args):
        outputs, pull = jax.vjp(function, *args)
        return outputs, pull((in_theirs(d_state), d_hs))

    want, (d_module, *d_want) = jax.jit(lambda *args: run(of_equinox, *args))(module, xs, state)
    found, (d_params, *d_found) = jax.jit(lambda *args: run(ours, *args))(params, xs, state)
    assert_close((found, d_found), (want, d_want), TOLERANCE[dtype])
    if module.use_bias:
        assert_close(d_params, weights.load(d_module)[1], TOLERANCE[dtype])
    else:
        assert_close(d_params[:2], weights.load(d_module)[1][:2], TOLERANCE[dtype])
        assert not any(np.any(leaf) for leaf in params[2:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_equinox(kind, dtype):
    check_parity(module_of(kind, dtype), dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_without_biases_gets_zeros(kind):
    check_parity(module_of(kind, use_bias=False), "float64")


@pytest.mark.parametrize("cell", [jl.LSTM(I, H), jl.GRU(I, H)], ids=lambda cell: type(cell).__name__)
def test_load_inverts_dump_bit_for_bit(cell):
    eqx = pytest.importorskip("equinox")
    for dtype in ("float32", "float64", "bfloat16"):
        params = jax.tree.map(lambda a: a.at[..., 0].set(-0.0), drawn(shapes_of(cell), dtype))
        arrays = weights.dump(cell, params)
        module = module_of(f"{type(cell).__name__}Cell", dtype)
        values = list(map(jnp.asarray, arrays.values()))
        module = eqx.tree_at(lambda m: [getattr(m, name) for name in arrays], module, values)  # noqa: B023
        for source in (arrays, module):
            again, found = weights.load(source)
            assert again == cell
            assert_bits_equal(found, params)


def shapes_of(cell):
    return jax.eval_shape(cell.init, jax.random.key(0))


def test_dropout_is_left_out():
    cell = jl.Dropout(jl.LSTM(I, H), inputs=0.5)
    params = drawn(shapes_of(cell), "float32")
    again, found = weights.load(weights.dump(cell, params))
    assert again == cell.cell
    assert_bits_equal(found, params)


REFUSED = [
    (jl.LSTM(I, H, peephole=True), "no peephole=True of LSTM; interop.onnx keeps it"),
    (jl.LSTM(I, H, projection=2), "no projection=2 of LSTM; interop.torch keeps it"),
    (jl.GRU(I, H, reset_after=False), "no reset_after=False of GRU; interop.onnx keeps it"),
    (jl.LSTM(I, H, cell_activation="relu"), "no cell_activation='relu' of LSTM"),
    (jl.RNN(I, H), "no RNN, only LSTM and GRU"),
    (jl.Stack((jl.LSTM(I, H), jl.LSTM(H, H))), "Equinox has single cells, and no Stack; call dump for each"),
    (jl.Bidirectional(jl.LSTM(I, H)), "Equinox has single cells, and no Bidirectional"),
]


@pytest.mark.parametrize(("cell", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_dump_refuses_by_name_what_equinox_lacks(cell, message):
    with pytest.raises(NotImplementedError, match=message):
        weights.dump(cell, drawn(shapes_of(cell), "float32"))


def ones(*shape):
    return np.ones(shape, np.float32)


LSTM, GRU = ({"weight_ih": ones(n * H, I), "weight_hh": ones(n * H, H), "bias": ones(n * H)} for n in (4, 3))
MALFORMED = [
    ({"weight_ih": ones(16, I)}, ValueError, "weight_hh is missing"),
    (LSTM | {"weight_hh": None}, ValueError, "weight_hh is missing"),
    (LSTM | {"weight_hh": ones(16)}, ValueError, r"weight_hh must be a matrix, but has shape \(16,\)"),
    (LSTM | {"weight_hh": ones(4, 16)}, ValueError, r"weight_hh must have 4 .* has shape \(4, 16\); transpose it"),
    (LSTM | {"weight_hh": ones(15, 4)}, ValueError, r"weight_hh must have 4 .* has shape \(15, 4\)"),
    (LSTM | {"weight_ih": ones(12, I)}, ValueError, r"weight_ih must have shape \(16, 3\)"),
    (LSTM | {"bias": ones(4)}, ValueError, r"bias must have shape \(16,\)"),
    (LSTM | {"bias_n": ones(4)}, ValueError, "'bias_n' in weights of LSTMCell is not a weight"),
    (LSTM | {"bias_i": ones(4)}, ValueError, "'bias_i' in module is not a weight"),
    (LSTM | {"bias": [1.0]}, TypeError, "bias must be an array, but is"),
    (LSTM | {"bias": ones(16).astype(int)}, TypeError, "bias must hold floats, but holds int64"),
    (LSTM | {"bias": np.ones(16)}, TypeError, "one dtype"),
    (GRU, ValueError, "bias_n is missing; pass both biases or none"),
    (GRU | {"bias_n": ones(12)}, ValueError, r"bias_n must have shape \(4,\)"),
    (3, TypeError, "module must be an LSTMCell or GRUCell of Equinox, or a dict of its arrays, but is 3"),
]


@pytest.mark.parametrize(("source", "error", "message"), MALFORMED)
def test_an_error_names_the_array(source, error, message):
    with pytest.raises(error, match=f"interop.equinox.load: .*{message}"):
        weights.load(source)
