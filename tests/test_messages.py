"""Error messages: swapped arguments are named, and a message stays short, whatever a user passes."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tiers import slow_except

import jax_lstm as jl
from jax_lstm import checks

I, H, T = 3, 4, 6
CELL = jl.LSTM(I, H)
RNG = np.random.default_rng(0)
PARAMS = jl.LSTMParams(*(RNG.normal(size=s) for s in [(I, 4 * H), (H, 4 * H), (4 * H,)]))
XS, MASK = RNG.normal(size=(T, I)), np.arange(T) < 4
STATE = jl.LSTMState(*RNG.normal(size=(2, H)))
LIMIT = 360  # the names of all activations take 240


@dataclass(frozen=True)
class Bare(jl.SplitCell):
    """Params and state are one array each: h_t = tanh(w ⊙ h_{t−1} + x_t)."""

    input_size: int = H
    hidden_size: int = H

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (H,), dtype)

    def initial_state(self, params, like=None):
        return jl.RNNState(jnp.zeros_like(params))

    def project(self, params, x):
        return x

    def recur(self, params, state):
        return params * state.h

    def update(self, params, state, z):
        return jl.RNNState(jnp.tanh(z))


class Hidden(NamedTuple):
    v: Any


@dataclass(frozen=True)
class Unnamed(Bare):
    """A state without h."""

    def initial_state(self, params, like=None):  # pyrefly: ignore[bad-override]
        return Hidden(jnp.zeros_like(params))

    def recur(self, params, state):
        return params * state.v

    def update(self, params, state, z):  # pyrefly: ignore[bad-override]
        return Hidden(jnp.tanh(z))


@dataclass(frozen=True)
class Named(Unnamed):
    def output(self, state):
        return state.v


class Minimal:
    """A cell with the five parts of the protocol only. Its state does not contain its output."""

    input_size = hidden_size = H

    def init(self, key, dtype=jnp.float32):
        return {"w": jax.random.normal(key, (H,), dtype)}

    def initial_state(self, params, like=None):
        return {"v": jnp.zeros_like(params["w"])}

    def step(self, params, state, x):
        v = jnp.tanh(params["w"] * state["v"] + x)
        return {"v": v}, 2 * v


SWAPPED = {
    "step: x and state": (lambda: jl.step(CELL, PARAMS, XS[0], STATE), "step: x .*LSTMState; x and state look swapped"),
    "unroll: xs and state": (lambda: jl.unroll(CELL, PARAMS, STATE, XS), "unroll: xs .*; xs and state look swapped"),
    "unroll: params and xs": (
        lambda: jl.unroll(CELL, XS, PARAMS),
        r"unroll: params must be LSTMParams, but is an array float64\[6, 3\]; params and xs look swapped",
    ),
    "unroll: params and state": (
        lambda: jl.unroll(CELL, STATE, XS, PARAMS),
        "unroll: params .*; params and state look",
    ),
    "unroll: state is the params": (
        lambda: jl.unroll(CELL, PARAMS, XS, PARAMS),
        "unroll: state .*; state and params lo",
    ),
    "unroll: cell and params": (
        lambda: jl.unroll(PARAMS, CELL, XS),
        "LSTMParams has no init; the cell comes before its",
    ),
    "unroll: state and mask": (
        lambda: jl.unroll(CELL, PARAMS, XS, MASK),
        r"unroll: state must be a LSTMState, but is an array bool\[6\]; pass a mask as mask=",
    ),
    "unroll: mask is the state": (
        lambda: jl.unroll(CELL, PARAMS, XS, None, STATE),
        "unroll: mask must hold bools, but is a LSTMState; check the order",
    ),
    "unroll: state is a key": (
        lambda: jl.unroll(CELL, PARAMS, XS, jax.random.key(0)),
        "unroll: state must be a LSTMState, but is a random key; pass it as key=",
    ),
    "unroll: state is an old key": (
        lambda: jl.unroll(CELL, PARAMS, XS, jax.random.PRNGKey(0)),
        "unroll: state .*; pass it as key=",
    ),
    "unroll: xs is a key": (lambda: jl.unroll(CELL, PARAMS, jax.random.key(0)), "unroll: xs .* random key; pass it as"),
    "unroll: params is a cell": (lambda: jl.unroll(CELL, CELL, XS), "unroll: params .* a LSTM; params and cell look"),
    "batched: xs and state": (
        lambda: jl.batched(jl.unroll)(CELL, PARAMS, STATE, XS[None]),
        "batched: xs must be a JAX or NumPy array, but is a LSTMState; check the order of the arguments",
    ),
    "lstm: params and xs": (lambda: jl.lstm(XS, PARAMS), r"lstm: params must be LSTMParams.*"),
    "gradflow: params and xs": (lambda: jl.gradflow.lyapunov_spectrum(CELL, XS, PARAMS), "params and xs look swapped"),
}


@pytest.mark.parametrize("pair", SWAPPED)
def test_swapped_arguments_are_named(pair):
    call, says = SWAPPED[pair]
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        call()
    assert "asarray" not in str(caught.value)
    assert len(str(caught.value)) < LIMIT


@pytest.mark.parametrize("wrong", [np.zeros(H + 1), np.zeros((2, H))])
def test_one_array_as_params_is_called_params(wrong):
    with pytest.raises(ValueError, match=rf"unroll: params has shape \({wrong.shape[0]}"):
        jl.unroll(Bare(), wrong, np.zeros((T, H)))
    with pytest.raises(TypeError, match="unroll: params must hold floats, but holds int"):
        jl.unroll(Bare(), np.zeros(H, int), np.zeros((T, H)))
    with pytest.raises(ValueError, match=r"unroll: params must be an array of shape \(4,\) .* but is a dict"):
        jl.unroll(Bare(), {"w": wrong}, np.zeros((T, H)))
    state, _ = jl.unroll(Bare(), np.full(H, 0.5), np.ones((1, H)))
    np.testing.assert_allclose(state.h, np.tanh(1))


class Talkative:
    def __repr__(self):
        return "words " * 200


class Mute:
    def __repr__(self):
        raise RuntimeError("no repr")


HUGE = {
    "an array": np.zeros((50, 50)),
    "a list": list(range(1000)),
    "a tuple": tuple(range(1000)),
    "params": jl.LSTMParams(np.zeros((20, 400)), np.zeros((100, 400)), np.zeros(400)),
    "a dict": {f"a_long_name_{k}": np.zeros(9) for k in range(200)},
    "a string": "x" * 5000,
    "a large integer": -(10**400),
    "a larger integer": 10**5000,
    "an object": Talkative(),
    "a function": partial(jl.unroll, np.zeros((50, 50))),
    "a cell": jl.Stack((jl.LSTM(3, 3),) * 30),
    "None": None,
}
TAKERS = {
    "LSTM input_size": lambda v: jl.LSTM(v, H),
    "LSTM forget_bias": lambda v: jl.LSTM(I, H, forget_bias=v, chrono=v),
    "LSTM chrono": lambda v: jl.LSTM(I, H, chrono=v),
    "LSTM without": lambda v: jl.LSTM(I, H, without=v),
    "LSTM peephole": lambda v: jl.LSTM(I, H, peephole=v),
    "LSTM compute_dtype": lambda v: jl.LSTM(I, H, compute_dtype=v),
    "RNN activation": lambda v: jl.RNN(I, H, v),
    "RNN leak": lambda v: jl.RNN(I, H, leak=v),
    "SLSTM heads": lambda v: jl.SLSTM(I, H, heads=v),
    "SLSTM forget_gate": lambda v: jl.SLSTM(I, H, forget_gate=v),
    "init key": lambda v: CELL.init(v),
    "init dtype": lambda v: CELL.init(jax.random.key(0), v),
    "cell": lambda v: jl.unroll(v, PARAMS, XS),
    "params": lambda v: jl.unroll(CELL, v, XS),
    "xs": lambda v: jl.unroll(CELL, PARAMS, v),
    "state": lambda v: jl.unroll(CELL, PARAMS, XS, v),
    "mask": lambda v: jl.unroll(CELL, PARAMS, XS, None, v),
    "reset": lambda v: jl.unroll(CELL, PARAMS, XS, None, None, v),
    "key": lambda v: jl.unroll(jl.Dropout(CELL, inputs=0.5), PARAMS, XS, key=v),
    "reverse": lambda v: jl.unroll(CELL, PARAMS, XS, reverse=v),
    "remat_every": lambda v: jl.unroll(CELL, PARAMS, XS, remat_every=v),
    "engine": lambda v: jl.unroll(CELL, PARAMS, XS, engine=v),
    "window": lambda v: jl.tbptt(CELL, PARAMS, XS, window=v),
    "stride": lambda v: jl.tbptt(CELL, PARAMS, XS, window=4, stride=v),
    "step x": lambda v: jl.step(CELL, PARAMS, STATE, v),
    "step state": lambda v: jl.step(CELL, PARAMS, v, XS[0]),
    "lstm params": lambda v: jl.lstm(v, XS),
    "batched fn": lambda v: jl.batched(v),
    "batched time_major": lambda v: jl.batched(jl.unroll, time_major=v),
    "batched xs": lambda v: jl.batched(jl.unroll)(CELL, PARAMS, v),
    "batched state": lambda v: jl.batched(jl.unroll)(CELL, PARAMS, XS[None], v),
    "explain xs": lambda v: jl.engines.explain(CELL, v),
    "params_from": lambda v: CELL.params_from(v),
    "from_config": lambda v: jl.from_config({"cell": v}),
    "from_config field": lambda v: jl.from_config({"cell": "LSTM", "input_size": 3, "hidden_size": v}),
    "to_config": lambda v: jl.to_config(v),
    "register_cell": lambda v: jl.register_cell(v),
    "Stack": lambda v: jl.Stack(v),
    "Stack of": lambda v: jl.Stack((v,)),
    "Stack dropout": lambda v: jl.Stack((CELL,), dropout=v),
    "Bidirectional": lambda v: jl.Bidirectional(v),
    "Dropout": lambda v: jl.Dropout(v, inputs=0.5),
    "Dropout rate": lambda v: jl.Dropout(CELL, inputs=v),
    "drop_weights": lambda v: jl.drop_weights(PARAMS, jax.random.key(0), v),
    "LearnedInitialState": lambda v: jl.LearnedInitialState(v),
    "Model cell": lambda v: jl.Model(v, 2),
    "Model output_size": lambda v: jl.Model(CELL, v),
    "Model params": lambda v: jl.Model(CELL, 2).apply(v, XS),
    "Embedding vocabulary": lambda v: jl.Embedding(v, 2),
    "Embedding params": lambda v: jl.Embedding(5, 2).apply(v, np.arange(3)),
    "Embedding symbols": lambda v: jl.Embedding(5, 2).apply(jl.EmbeddingParams(np.zeros((5, 2))), v),
    "Readout h": lambda v: jl.Readout(5, 2).apply(jl.ReadoutParams(np.zeros((5, 2)), np.zeros(2)), v),
    "sample model": lambda v: jl.sample(v, PARAMS, jax.random.key(0), np.arange(3), steps=2),
    "sensitivity truncate": lambda v: jl.gradflow.sensitivity(CELL, PARAMS, XS, truncate=v),
    "singular_values k": lambda v: jl.gradflow.singular_values(CELL, PARAMS, XS, k=v),
    "fixed_points starts": lambda v: jl.gradflow.fixed_points(CELL, PARAMS, XS[0], v),
    "fixed_points iterations": lambda v: jl.gradflow.fixed_points(CELL, PARAMS, XS[0], STATE, iterations=v),
    "adjoint_norms loss": lambda v: jl.gradflow.adjoint_norms(v, CELL, PARAMS, XS),
}


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize("taker", TAKERS)
def test_a_message_about_a_huge_value_is_short(taker):
    for name, value in (HUGE | {"a JAX array": jnp.asarray(HUGE["an array"])}).items():
        try:
            TAKERS[taker](value)
        except (TypeError, ValueError) as error:
            message = str(error)
            assert len(message) < LIMIT, f"{name}: {message}"
            assert "\n" not in message
        except Exception as error:
            pytest.fail(f"{taker}, {name}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros((2, 3)), "an array float64[2, 3]"),
        (np.float64(2.5), "np.float64(2.5)"),
        (["plain"], "['plain']"),
        (list(range(10)), "a list"),
        ([np.zeros(2)], "a list"),
        (PARAMS, "a LSTMParams"),
        ("tanhh", "'tanhh'"),
        (jl.unroll, "unroll"),
        (int, "<class 'int'>"),
        (2.5, "2.5"),
        (Mute(), "a Mute"),
        (10**5000, "a int"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_is_shown_by_what_matters(value, says):
    assert checks.shown(value) == says


def test_a_jax_array_is_shown_by_dtype_and_shape():
    assert checks.shown(jnp.zeros((), jnp.float32)) == "an array float32[]"
    assert jax.jit(lambda x: checks.shown(x) == "an array float64[6, 3]")(XS)


def test_a_long_list_of_leaves_is_cut():
    names = [f"layer_{k}" for k in range(100)]
    assert checks.listed(names[:3]) == "layer_0, layer_1, layer_2"
    assert checks.listed(names).endswith(" more")
    assert len(checks.listed(names)) < 130


NO_H = "cell Unnamed: the output is state.h by default, but the state is a Hidden without h; define output"


@pytest.mark.parametrize(
    "call",
    [
        lambda cell, params: jl.unroll(cell, params, XS @ np.ones((I, H))),
        lambda cell, params: jl.step(cell, params, cell.initial_state(params), np.ones(H)),
        lambda cell, params: jl.Model(cell, 2).apply_last(
            jl.ModelParams(params, jl.ReadoutParams(np.ones((H, 2)), np.ones(2))), np.ones((T, H))
        ),
    ],
)
def test_a_cell_whose_state_has_no_h_must_define_output(call):
    with pytest.raises(TypeError, match=NO_H):
        call(Unnamed(), np.full(H, 0.5))
    call(Named(), np.full(H, 0.5))


def test_apply_last_wants_the_output_from_the_state():
    model = jl.Model(Minimal(), 2)
    params = model.init(jax.random.key(0), jnp.float64)
    xs = np.ones((1, H))
    np.testing.assert_allclose(model.apply(params, xs)[1][0], 2 * np.tanh(1) * params.readout.w.sum(0), rtol=1e-12)
    with pytest.raises(TypeError, match=r"cell Minimal: .* the state is a dict without h; define output\(state\)"):
        model.apply_last(params, xs)


def sharded(mesh, leaf, spec):
    params = jax.device_put(PARAMS, jax.NamedSharding(mesh, jax.P()))
    return params._replace(**{leaf: jax.device_put(getattr(PARAMS, leaf), jax.NamedSharding(mesh, spec))})


@pytest.mark.parametrize(
    ("leaf", "spec", "axis"),
    slow_except(
        [("w_x", jax.P(None, "data"), "data"), ("b", jax.P("model"), "model")],
        [
            ("w_x", jax.P(None, "data"), "data"),
            ("w_h", jax.P("data", None), "data"),
            ("b", jax.P(("model", "data")), "data"),
            ("b", jax.P("model"), "model"),
        ],
    ),
)
def test_sharded_params_are_refused_by_leaf_and_axis(leaf, spec, axis):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        params = sharded(mesh, leaf, spec)
        xs = jax.device_put(np.stack([XS, -XS]), jax.NamedSharding(mesh, jax.P("data")))
        says = rf"params\.{leaf} must not be sharded over the mesh axis '{axis}'.*reshard"
        for call in (jl.batched(jl.unroll), jax.jit(jl.batched(jl.unroll)), jl.batched(jl.unroll_states)):
            with pytest.raises(ValueError, match=says) as caught:
                call(CELL, params, xs)
            assert len(str(caught.value)) < LIMIT
        if spec != jax.P("data", None):  # rows of w_h are summed over, so that the state is not sharded
            with pytest.raises(ValueError, match=says):
                jax.vmap(lambda x: jl.step(CELL, params, STATE, x))(xs[:, 0])
        replicated = jax.sharding.reshard(params, jax.P())
        np.testing.assert_allclose(
            np.asarray(jl.batched(jl.unroll)(CELL, replicated, xs)[1])[0],
            jl.unroll(CELL, PARAMS, XS)[1],
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jl.LSTM(3, 4).init(jax.random.key(0), forget_bias=1e39), ValueError, "must be finite in float32"),
        (lambda: jl.LSTM(3, 4, forget_bias=1e39).init(jax.random.key(0)), ValueError, "must be finite in float32"),
        (lambda: jl.SLSTM(3, 4).init(jax.random.key(0), jnp.float16, forget_bias=1e5), ValueError, "finite in float16"),
        (lambda: jl.initial_states(CELL, 2, PARAMS), (TypeError, ValueError), "params come before it|params must be"),
        (lambda: jl.initial_states(CELL, PARAMS, PARAMS), TypeError, "batch_size must be .*params come before it"),
        (lambda: jl.stream(jl.Model(CELL, 2)), TypeError, "a Model has no step; pass its field cell"),
        (lambda: jl.unroll(CELL, PARAMS, XS, None, jnp.asarray(3)), TypeError, "for lengths pass jnp.arange"),
        (lambda: jl.gradflow.fixed_points(CELL, PARAMS, STATE, XS[0]), TypeError, "fixed_points: x must be"),
        (lambda: jl.unroll(CELL, PARAMS, jax.ShapeDtypeStruct((2, 3), jnp.float32)), TypeError, "without values"),
    ],
)
def test_an_error_gives_the_right_advice(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_leak_close_to_0_or_1_stays_finite():
    for leak in (1 - 1e-9, 1e-40):
        alpha = jl.RNN(3, 4, leak=0.5, learned_leak=True).init(jax.random.key(0), leak=leak).alpha
        np.testing.assert_allclose(alpha, np.log(leak) - np.log1p(-leak), rtol=1e-6)
