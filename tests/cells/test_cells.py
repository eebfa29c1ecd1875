"""Cells: their fields, how their weights are drawn, and their equations written again in NumPy."""

import inspect
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config

import jax_lstm as jl

I, H, T = 3, 4, 6


@pytest.fixture
def as_users_call():
    """The suite checks every signature; users do not. Without that, the library's own messages speak."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def params_of(cell, seed=0, dtype=np.float64):
    """Params of the cell's shapes with every number drawn, biases too."""
    shapes = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.map(lambda s: normal([seed, *s.shape], *s.shape).astype(dtype) / 2, shapes)


def σ(z):
    return 1 / (1 + np.exp(-z))


# Fields.


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("kind", [jl.LSTM, jl.RNN, jl.GRU])
@pytest.mark.parametrize("name", ["input_size", "hidden_size"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError), (None, TypeError),
     (np.bool_(True), TypeError), (np.float32(3), TypeError), ((3,), TypeError)],
)  # fmt: skip
def test_a_size_is_a_positive_integer_or_is_refused_by_name(kind, name, value, error):
    with pytest.raises(error, match=rf"{kind.__name__}: {name} must be .*but is .*{re.escape(str(value))}"):
        kind(**({"input_size": 3, "hidden_size": 4} | {name: value}))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_a_numpy_integer_is_a_size_and_becomes_a_python_one(cell, integer):
    twin = type(cell)(integer(3), integer(4))
    assert twin == cell
    assert hash(twin) == hash(cell)
    assert type(twin.input_size) is int
    assert type(twin.hidden_size) is int
    assert type(cell)(integer(3), integer(5)) != cell


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: jl.LSTM(I, H, forget_bias="1"), TypeError, "forget_bias must be a Python number.*'1'"),  # pyrefly: ignore
        (lambda: jl.LSTM(I, H, forget_bias=True), TypeError, "forget_bias must be a Python number.*True"),
        (lambda: jl.LSTM(I, H, forget_bias=float("nan")), ValueError, "forget_bias must be finite.*nan"),
        (lambda: jl.LSTM(I, H, chrono=2), ValueError, "chrono must be greater than 2.*but is 2"),
        (lambda: jl.LSTM(I, H, chrono="20"), TypeError, "chrono must be a Python number.*'20'"),  # pyrefly: ignore
        (lambda: jl.LSTM(I, H, chrono=20, forget_bias=1.0), ValueError, "chrono.*forget_bias=1.0.*give one"),
        (lambda: jl.LSTM(I, H, chrono=20, forget_bias=0.0), ValueError, "chrono.*forget_bias=0.0.*give one"),
        (lambda: jl.LSTM(I, H, compute_dtype="int8"), TypeError, "compute_dtype must be a floating dtype.*int8"),
        (lambda: jl.GRU(I, H, compute_dtype="quick"), TypeError, "compute_dtype must be a floating dtype.*'quick'"),
        (lambda: jl.RNN(I, H, activation="softmax"), ValueError, "activation.*tanh, sigmoid, relu, linear.*'softmax'"),
        (lambda: jl.RNN(I, H, activation=jnp.sin), ValueError, "activation.*tanh, sigmoid, relu, linear"),  # pyrefly: ignore
    ],
)  # fmt: skip
def test_a_choice_out_of_range_is_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.usefixtures("as_users_call")
def test_a_compute_dtype_is_kept_as_its_name():
    for dtype in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")):
        assert jl.GRU(I, H, compute_dtype=dtype) == jl.GRU(I, H, compute_dtype="bfloat16")
    assert jl.GRU(I, H, compute_dtype="bfloat16") != jl.GRU(I, H)


def test_a_cell_is_static_frozen_and_equal_by_value(cell):
    assert jax.tree.leaves(cell) == []
    assert type(cell)(3, 4) == cell
    assert type(cell)(3, 5) != cell
    with pytest.raises(AttributeError):
        cell.hidden_size = 5
    params, xs = params_of(cell), normal(1, T, I)
    _, hs = jax.jit(jl.unroll)(cell, params, xs)  # no static_argnums
    np.testing.assert_allclose(hs, jl.unroll(cell, params, xs)[1], atol=1e-12)


def test_the_initial_state_is_zero(cell):
    params = params_of(cell, dtype=np.float32)
    for leaf in jax.tree.leaves(cell.initial_state(params)):
        np.testing.assert_array_equal(leaf, np.zeros(H, np.float32), strict=True)
    # In a batch too, even if the data that it is placed like is full of NaN.
    nan = jnp.full((5, T, I), jnp.nan, jnp.float32)
    for like in (None, nan, nan[:, 0], nan[:, :0]):
        for leaf in jax.tree.leaves(jl.initial_states(cell, params, 5, like)):
            np.testing.assert_array_equal(leaf, np.zeros((5, H), np.float32), strict=True)


# Weights.

WIDE = {"LSTM": (jl.LSTM(400, 64), 4), "RNN": (jl.RNN(400, 64), 1), "GRU": (jl.GRU(400, 64), 3)}


@pytest.fixture(scope="module", params=list(WIDE))
def drawn(request):
    """A wide cell's number of gates, and its weights in float64."""
    cell, gates = WIDE[request.param]
    return gates, jax.tree.map(np.asarray, cell.init(jax.random.key(3), jnp.float64))


def test_input_weights_have_lecun_variance_and_zero_mean(drawn):
    gates, params = drawn
    for w in np.split(params.w_x, gates, axis=1):
        # 25,600 draws a gate: the variance is known to 1 %, and another fan (H, or all gates) would be far off.
        np.testing.assert_allclose(w.var() * 400, 1, atol=0.05)
        np.testing.assert_allclose(w.mean() * 20, 0, atol=0.03)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose((1.05 * params.w_x).var() * 400, 1, atol=0.05)


def test_the_recurrent_weights_are_orthogonal_for_every_gate(drawn):
    gates, params = drawn
    for w in np.split(params.w_h, gates, axis=1):
        np.testing.assert_allclose(w.T @ w, np.eye(64), atol=1e-12)
    # The whole is not: its columns outnumber its rows.
    if gates > 1:
        assert not np.allclose(params.w_h.T @ params.w_h, np.eye(64 * gates), atol=1e-2)


def test_every_gate_is_drawn_on_its_own(drawn):
    gates, params = drawn
    for w in (params.w_x, params.w_h):
        blocks = [b.ravel() for b in np.split(w, gates, axis=1)]
        correlations = np.corrcoef(blocks) if gates > 1 else np.eye(1)
        np.testing.assert_allclose(correlations, np.eye(gates), atol=0.06)


def test_biases_are_zero_but_for_the_forget_gates_one(drawn):
    gates, params = drawn
    expected = np.zeros(64 * gates)
    if gates == 4:
        expected[64:128] = 1
    np.testing.assert_array_equal(params.b, expected)
    if gates == 3:
        np.testing.assert_array_equal(params.b_hn, np.zeros(64))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("forget_bias", [0.0, -2.5, 3])
def test_the_forget_bias_has_the_given_value(forget_bias):
    b_i, b_f, b_g, b_o = np.split(jl.LSTM(I, H, forget_bias=forget_bias).init(jax.random.key(0)).b, 4)
    np.testing.assert_array_equal(b_f, np.full(H, forget_bias))
    np.testing.assert_array_equal([b_i, b_g, b_o], np.zeros((3, H)))


def test_chrono_forget_biases_are_logs_of_uniform_numbers():
    T_max, width = 1000.0, 4000
    # Only b is looked at, so the weights' products are never made: jit drops them.
    b = jax.jit(lambda key: jl.LSTM(1, width, chrono=T_max).init(key).b)
    b_i, b_f, b_g, b_o = np.split(np.asarray(b(jax.random.key(5)), np.float64), 4)
    np.testing.assert_array_equal(b_i, -b_f)
    np.testing.assert_array_equal([b_g, b_o], np.zeros((2, width)))
    # exp(b_f) is uniform on (1, T_max - 1): compare the quantiles, which 4,000 draws know to about 2 %.
    quantiles = np.linspace(0.05, 0.95, 10)
    uniform = (np.quantile(np.exp(b_f), quantiles) - 1) / (T_max - 2)
    np.testing.assert_allclose(uniform, quantiles, atol=0.03)
    assert b_f.min() >= 0
    assert b_f.max() <= np.log(T_max - 1) + 1e-6
    with pytest.raises(AssertionError):
        np.testing.assert_allclose((np.quantile(b_f, quantiles) - 1) / (T_max - 2), quantiles, atol=0.03)


def test_weights_are_drawn_wide_and_then_cast(cell):
    wide = cell.init(jax.random.key(7))
    for dtype in (jnp.bfloat16, jnp.float16, "float16"):
        narrow = cell.init(jax.random.key(7), dtype)
        jax.tree.map(lambda n, w: np.testing.assert_array_equal(n, w.astype(n.dtype), strict=True), narrow, wide)
        assert {a.dtype for a in narrow} == {jnp.dtype(dtype)}
    assert not np.array_equal(wide.w_x, wide.w_x.astype(jnp.bfloat16).astype(jnp.float32))


def test_only_equal_keys_draw_equal_weights(cell):
    params, again, other = cell.init(jax.random.key(1)), cell.init(jax.random.key(1)), cell.init(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    for name in ("w_x", "w_h"):
        assert not np.array_equal(getattr(params, name), getattr(other, name))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, bool, "wide"])
def test_weights_are_floats(cell, dtype):
    with pytest.raises(TypeError, match=r"init: dtype must be a floating dtype, but is "):
        cell.init(jax.random.key(0), dtype)


# Equations.


def run_numpy(step, state, xs):
    hs = []
    for x in xs:
        state = step(state, x)
        hs.append(state[0])
    return state, np.stack(hs)


def assert_unrolls_as(cell, params, step, leaves):
    """The cell's outputs and last state are those of a NumPy step over the same numbers."""
    xs, s_0 = normal(8, T, I), [normal(9 + n, H) for n in range(leaves)]
    want_s, want_hs = run_numpy(step, s_0, xs)
    state, hs = jl.unroll(cell, params, xs, type(cell.initial_state(params))(*s_0))
    np.testing.assert_allclose(hs, want_hs, rtol=0, atol=1e-12)
    for ours, theirs in zip(state, want_s, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def textbook_step(t, state, x):
    """One step as textbooks print it: one matrix a gate, acting on the column [h, x]."""
    h, C = state
    hx = np.concatenate([h, x])
    f = σ(t.W_f @ hx + t.b_f)
    i = σ(t.W_i @ hx + t.b_i)
    C̃ = np.tanh(t.W_C @ hx + t.b_C)
    C = f * C + i * C̃
    o = σ(t.W_o @ hx + t.b_o)
    return o * np.tanh(C), C


def a_textbook(seed):
    return jl.TextbookParams(
        *(normal([seed, n], H, H + I) / 2 for n in range(4)), *(normal([seed, 4 + n], H) / 2 for n in range(4))
    )


def test_the_textbooks_equations_on_h_and_x_are_the_lstm():
    cell, params = jl.LSTM(I, H), params_of(jl.LSTM(I, H))
    assert_unrolls_as(cell, params, partial(textbook_step, jax.tree.map(np.asarray, jl.to_textbook(params))), 2)
    # And the other way: weights that were written down as the textbook's.
    book = a_textbook(1)
    assert_unrolls_as(cell, jl.from_textbook(book), partial(textbook_step, book), 2)


@pytest.mark.parametrize("other", [{"W_f": "W_i", "W_i": "W_f"}, {"b_C": "b_o", "b_o": "b_C"}])
def test_the_textbook_comparison_notices_swapped_gates(other):
    book = a_textbook(1)
    swapped = book._replace(**{name: getattr(book, source) for name, source in other.items()})
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unrolls_as(jl.LSTM(I, H), jl.from_textbook(book), partial(textbook_step, swapped), 2)


def test_the_textbook_view_and_back_is_the_identity_bit_for_bit():
    params, book = params_of(jl.LSTM(I, H)), a_textbook(2)
    jax.tree.map(np.testing.assert_array_equal, jl.from_textbook(jl.to_textbook(params)), params)
    jax.tree.map(np.testing.assert_array_equal, jl.to_textbook(jl.from_textbook(book)), book)
    assert jl.to_textbook(params).W_C.shape == (H, H + I)


@pytest.mark.parametrize(("name", "wrong"), [("W_i", normal(0, H, H)), ("W_o", normal(0, 7, H)), ("b_o", normal(0, I))])
def test_a_textbook_whose_shapes_do_not_agree_is_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=rf"from_textbook: {name} has shape .*{wrong.shape[0]}.*\(H, H \+ I\)"):
        jl.from_textbook(a_textbook(3)._replace(**{name: wrong}))


@pytest.mark.usefixtures("as_users_call")
def test_the_textbook_view_is_refused_for_another_cells_params():
    with pytest.raises(TypeError, match=r"to_textbook: params must be LSTMParams.*GRUParams"):
        jl.to_textbook(params_of(jl.GRU(I, H)))  # pyrefly: ignore


ACTIVATIONS = {"tanh": np.tanh, "sigmoid": σ, "relu": lambda z: np.maximum(z, 0), "linear": lambda z: z}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_equation_of_the_simple_network_is_the_rnn(name):
    cell = jl.RNN(I, H, name)
    p = params_of(cell)
    assert_unrolls_as(cell, p, lambda s, x: (ACTIVATIONS[name](x @ p.w_x + s[0] @ p.w_h + p.b),), 1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unrolls_as(cell, p, lambda s, x: (ACTIVATIONS[name](x @ p.w_x + s[0] @ p.w_h),), 1)


def gru_step(p, state, x, b_hn_inside=True):
    (h,) = state
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x @ p.w_x + p.b, 3), np.split(h @ p.w_h, 3)
    r, z = σ(x_r + h_r), σ(x_z + h_z)
    n = np.tanh(x_n + (r * (h_n + p.b_hn) if b_hn_inside else r * h_n + p.b_hn))
    return ((1 - z) * n + z * h,)


def test_the_equations_of_the_gated_unit_are_the_gru():
    cell = jl.GRU(I, H)
    params = params_of(cell)
    assert_unrolls_as(cell, params, partial(gru_step, params), 1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unrolls_as(cell, params, partial(gru_step, params, b_hn_inside=False), 1)


# Params and configs from plain data.


def test_params_are_read_back_from_a_dict(cell):
    params = params_of(cell)
    for tree in (params._asdict(), params, jax.tree.map(jnp.asarray, params)):
        back = cell.params_from(tree)
        assert type(back) is type(params)
        jax.tree.map(np.testing.assert_array_equal, back, params)
    other = cell.params_from(params._asdict() | {"b": params.b + 1})
    assert not np.array_equal(other.b, params.b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda d: d.pop("b"), ValueError, r"params_from: params lacks b,.*\(\d+,\)"),
        (lambda d: d.update(b=d["b"][:-1]), ValueError, r"params_from: params.b has shape \(\d+,\).*takes \(\d+,\)"),
        (lambda d: d.update(w_y=d["w_x"]), ValueError, r"params_from: 'w_y' is not a leaf of the params.*w_x, w_h, b"),
        (lambda d: d.update({0: d.pop("b")}), ValueError, r"params_from: '0' is not a leaf.*w_x, w_h, b"),
        (lambda d: d.update(b=d["b"].astype(int)), TypeError, r"params_from: params.b must hold floats.*int64"),
        (lambda d: d.update(b=d["b"].astype(np.float32)), TypeError, r"params_from: .*one dtype.*b float32"),
        (lambda d: d.update(b=0.0), TypeError, r"params_from: params.b must be a JAX or NumPy array.*float"),
    ],
)
def test_a_faulty_leaf_in_a_dict_is_named(cell, change, error, words):
    tree = params_of(cell)._asdict()
    change(tree)
    with pytest.raises(error, match=words):
        cell.params_from(tree)


def test_another_cells_params_are_refused_by_leaf():
    with pytest.raises(ValueError, match=r"params.w_x has shape \(3, 4\), but cell LSTM takes \(3, 16\)"):
        jl.LSTM(I, H).params_from(params_of(jl.RNN(I, H)))
    with pytest.raises(ValueError, match=r"params_from: 'b_hn' is not a leaf of the params of LSTM"):
        jl.LSTM(I, H).params_from(params_of(jl.GRU(I, H))._asdict())


CELLS = [
    jl.LSTM(3, 4),
    jl.LSTM(3, 4, forget_bias=-0.5, compute_dtype="bfloat16"),
    jl.LSTM(3, 4, chrono=50.0),
    jl.RNN(1, 2, activation="relu"),
    jl.GRU(7, 5, compute_dtype="float16"),
]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_cell_goes_through_a_file_and_back(cell):
    config = jl.to_config(cell)
    assert jl.from_config(json.loads(json.dumps(config))) == cell
    assert jl.from_config(config | {"hidden_size": cell.hidden_size + 1}) != cell


def test_absent_fields_of_a_config_take_their_defaults():
    assert jl.from_config({"cell": "GRU", "input_size": 3, "hidden_size": 4}) == jl.GRU(3, 4)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"cell": "LSTM", "hidden": 4}, ValueError, "'hidden' is not a field of LSTM.*hidden_size.*input_size"),
        ({"cell": "RNN", "input_size": 3, "hidden_size": 4, "forget_bias": 1.0}, ValueError, "'forget_bias'.*of RNN"),
        ({"cell": "Transformer"}, ValueError, "cell must be one of LSTM, RNN, GRU, JANET.*'Transformer'"),
        ({"input_size": 3, "hidden_size": 4}, ValueError, "cell must be one of LSTM, RNN, GRU, JANET.*None"),
        ({"cell": ["LSTM"]}, (ValueError, TypeError), "cell must be one of LSTM, RNN, GRU"),
        ({"cell": "LSTM", "input_size": 3}, TypeError, "hidden_size"),
        ({"cell": "LSTM", "input_size": 3, "hidden_size": "4"}, TypeError, "hidden_size must be.*'4'"),
        (["LSTM", 3, 4], TypeError, "config must be a dict.*list"),
    ],
)
def test_a_faulty_config_is_refused_by_name(config, error, words):
    with pytest.raises(error, match=words):
        jl.from_config(config)


def test_only_the_librarys_own_cells_have_a_config():
    class Mine(jl.LSTM):
        pass

    for value in (Mine(3, 4), jl.LSTM, None):
        with pytest.raises(TypeError, match="to_config: cell must be one of LSTM, RNN, GRU"):
            jl.to_config(value)  # pyrefly: ignore


def equations(text):
    """The indented lines with an equation, before the arguments."""
    lines = inspect.cleandoc(text).split("\nArgs:")[0].splitlines()
    return [line.strip() for line in lines if line.startswith("    ") and " = " in line]


@pytest.mark.parametrize(
    "name", ["LSTM", "GRU", "RNN", "JANET", "MinLSTM", "MinGRU", "SLSTM", "Stack", "Bidirectional", "Model"]
)
def test_a_class_docstring_has_the_equations_of_its_module(name):
    cls = getattr(jl, name)
    whole = inspect.getdoc(inspect.getmodule(cls)) or ""
    found = equations(inspect.getdoc(cls) or "")
    assert found
    assert [line for line in found if line not in whole] == []
    assert found[0].replace(" = ", " = −") not in whole
