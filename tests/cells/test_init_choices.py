"""Choices of `init` that may be arrays: the forget bias, chrono, and the leak of each unit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config
from tiers import slow_except

import jax_lstm as jl

I, H = 3, 4
KEY = jax.random.key
BIASES = np.array([-1.0, 0.0, 2.5])


@pytest.fixture
def as_users_call():
    """The library's own messages speak, not those of the type checker."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def lstm(params):
    return params.b[..., H : 2 * H]


def janet(params):
    return params.b[..., :H]


def bidirectional(params):
    assert np.array_equal(lstm(params.forward), lstm(params.backward))
    return lstm(params.forward)


# A cell, the class that makes it with a forget bias in its field, and the part of its params that holds the bias.
CELLS = {
    "LSTM": (lambda **b: jl.LSTM(I, H, **b), lstm),
    "peephole": (lambda **b: jl.LSTM(I, H, peephole=True, **b), lstm),
    "JANET": (lambda **b: jl.JANET(I, H, **b), janet),
    "SLSTM": (lambda **b: jl.SLSTM(I, H, 2, **b), lstm),
    "Dropout": (lambda **b: jl.Dropout(jl.LSTM(I, H, **b), hidden=0.2), lstm),
    "learned": (lambda **b: jl.LearnedInitialState(jl.JANET(I, H, **b)), lambda p: janet(p.cell)),
    "Truncated": (lambda **b: jl.gradflow.Truncated(jl.LSTM(I, H, **b)), lstm),
    "Bidirectional": (lambda **b: jl.Bidirectional(jl.LSTM(I, H, **b)), bidirectional),
    "Stack": (lambda **b: jl.Stack((jl.JANET(I, H, **b), jl.SLSTM(H, H, **b))), lambda p: lstm(p[1])),
    "Model": (lambda **b: jl.Model(jl.LSTM(I, H, **b), 2), lambda p: lstm(p.cell)),
}


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", slow_except(["LSTM"], CELLS))
def test_the_forget_bias_of_a_draw_may_be_vmapped(name):
    make, b_f = CELLS[name]
    cell = make()
    many = jax.jit(jax.vmap(lambda b: cell.init(KEY(0), jnp.float64, forget_bias=b)))(BIASES)
    np.testing.assert_array_equal(b_f(many), np.repeat(BIASES[:, None], H, 1))
    one = make(forget_bias=2.5).init(KEY(0), jnp.float64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[2], b, atol=1e-14), many, one)
    per_unit = cell.init(KEY(0), forget_bias=np.arange(4.0))
    np.testing.assert_array_equal(b_f(per_unit), np.arange(4, dtype=np.float32))
    assert_same(cell.init(KEY(0), forget_bias=None), cell.init(KEY(0)))


@pytest.mark.parametrize("name", slow_except(["LSTM"], ["LSTM", "JANET"]))
def test_chrono_of_a_draw_may_be_traced_or_per_unit(name):
    make, b_f = {"LSTM": (partial(jl.LSTM, I, H), lstm), "JANET": (partial(jl.JANET, I, H), janet)}[name]
    cell, longest = make(), np.array([3.0, 10.0, 100.0, 1e4])
    drawn = jax.jit(lambda T: cell.init(KEY(0), jnp.float64, chrono=T))
    field = make(chrono=50.0).init(KEY(0), jnp.float64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), drawn(50.0), field)
    assert_same(cell.init(KEY(0), jnp.float64, chrono=50), field)
    # u = (exp(b_f) − 1) / (T_max − 2) is the same uniform number for every T_max.
    u = (np.exp(b_f(field)) - 1) / 48
    np.testing.assert_allclose(np.exp(b_f(drawn(longest))), 1 + u * (longest - 2), rtol=1e-12)
    if name == "LSTM":
        np.testing.assert_array_equal(drawn(longest).b[:H], -b_f(drawn(longest)))
    # A choice of the draw takes the place of both fields.
    np.testing.assert_array_equal(b_f(make(chrono=50.0).init(KEY(0), forget_bias=0.5)), np.full(H, 0.5))

    assert_same(make(forget_bias=7.0).init(KEY(0), jnp.float64, chrono=50.0), field)


def test_a_gradient_passes_from_the_loss_to_the_forget_bias():
    cell, xs = jl.LSTM(I, H), np.random.default_rng(0).normal(size=(5, I))

    def loss(b):
        return jnp.sum(jl.unroll(cell, cell.init(KEY(0), jnp.float64, forget_bias=b), xs)[1])

    slope = jax.grad(loss)(0.7)
    np.testing.assert_allclose(slope, (loss(0.7 + 1e-6) - loss(0.7 - 1e-6)) / 2e-6, rtol=1e-6)


# A learned leak.

LEAKY = jl.RNN(I, H, leak=0.2, learned_leak=True)


def test_the_initial_leak_may_be_per_unit_traced_and_vmapped():
    params = LEAKY.init(KEY(0))
    np.testing.assert_allclose(jax.nn.sigmoid(params.alpha), np.full(H, 0.2), rtol=1e-6)
    assert type(params) is jl.LeakyRNNParams
    fixed = jl.RNN(I, H).init(KEY(0))
    assert type(fixed) is jl.RNNParams
    assert_same(params[:3], tuple(fixed))
    taus = np.geomspace(1.5, 1e5, H)
    alpha = jax.jit(lambda a: LEAKY.init(KEY(0), jnp.float64, leak=a))(1 / taus).alpha
    np.testing.assert_allclose(1 / jax.nn.sigmoid(alpha), taus, rtol=1e-9)
    many = jax.vmap(lambda a: LEAKY.init(KEY(0), leak=a))(jnp.array([0.1, 0.9], jnp.float32))
    np.testing.assert_allclose(jax.nn.sigmoid(many.alpha[:, 0]), [0.1, 0.9], rtol=1e-6)
    stack = jl.Stack((LEAKY, jl.RNN(H, H, leak=0.5, learned_leak=True))).init(KEY(0), leak=0.3)
    np.testing.assert_allclose(jax.nn.sigmoid(stack[1].alpha), np.full(H, 0.3), rtol=1e-6)
    assert LEAKY.init(KEY(0), jnp.bfloat16).alpha.dtype == jnp.bfloat16


@pytest.mark.parametrize("engine", slow_except(["hoisted"], ["hoisted", "plain"]))
def test_a_learned_leak_gives_the_values_and_gradients_of_a_loop(engine):
    rng = np.random.default_rng(1)
    xs, taus = rng.normal(size=(6, I)), np.geomspace(1.2, 20, H)
    params = LEAKY.init(KEY(0), jnp.float64, leak=1 / taus)
    mask, reset = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 0, 1, 0, 0], bool)

    def ours(params, xs):
        return jnp.sum(jl.unroll(LEAKY, params, xs, None, mask, reset, engine=engine)[1] ** 2)

    def loop(params, xs):
        w_x, w_h, b, alpha = params
        a, h, total = 1 / (1 + jnp.exp(-alpha)), jnp.zeros(H), 0.0
        for t in range(6):
            if mask[t]:
                h = jnp.zeros(H) if reset[t] else h
                h = (1 - a) * h + a * jnp.tanh(xs[t] @ w_x + h @ w_h + b)
                total += jnp.sum(h**2)
        return total

    mine, theirs = (jax.value_and_grad(f, (0, 1))(params, xs) for f in (ours, loop))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), mine, theirs)
    assert np.abs(mine[1][0].alpha).min() > 1e-4  # every unit's leak has a gradient of its own


def test_a_learned_leak_goes_through_configs_dicts_and_layers():
    assert jl.from_config(jl.to_config(LEAKY)) == LEAKY
    params, xs = LEAKY.init(KEY(0)), np.ones((2, 5, I), np.float32)
    assert_same(LEAKY.params_from(params._asdict()), params)
    w_x, w_h, b = jl.RNN(I, H, leak=0.2).init(KEY(0))
    fixed = jl.batched(jl.unroll)(jl.RNN(I, H, leak=0.2), jl.RNNParams(w_x, w_h, b), xs)
    learned = jl.batched(jl.unroll)(LEAKY, params, xs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), learned, fixed)
    dropout = jl.Dropout(LEAKY, zoneout=0.5)
    h = np.zeros(H, np.float32)
    for x in xs[0]:
        h = 0.5 * h + 0.5 * (0.8 * h + 0.2 * np.tanh(x @ w_x + h @ w_h))
    np.testing.assert_allclose(jl.unroll(dropout, params, xs[0])[0].h, h, atol=1e-6)


# Refusals.


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("cell", "choices", "error", "words"),
    [
        (jl.LSTM(I, H), {"forget_bias": np.ones(3)}, ValueError, r"LSTM.init: forget_bias must .*\(4,\).*\(3,\)"),
        (jl.LSTM(I, H), {"forget_bias": "1"}, TypeError, r"LSTM.init: forget_bias must be a number.*'1'"),
        (jl.LSTM(I, H), {"forget_bias": np.ones(4, bool)}, TypeError, r"forget_bias must hold real numbers.*bool"),
        (jl.SLSTM(I, H), {"forget_bias": float("nan")}, ValueError, r"SLSTM.init: forget_bias must be finite.*nan"),
        (jl.JANET(I, H), {"chrono": np.array([9, 9, 2, 9])}, ValueError, r"JANET.init: chrono must be above 2.*is 2"),
        (jl.LSTM(I, H), {"chrono": 9, "forget_bias": 1}, ValueError, r"LSTM.init: chrono and forget_bias.*give one"),
        (
            jl.LSTM(I, H, without="forget_gate"), {"forget_bias": 1}, ValueError,
            r"LSTM.init: forget_bias sets the bias of the forget gate, but without='forget_gate'",
        ),
        (LEAKY, {"leak": np.array([0.1, 0.2, 1.0, 0.3])}, ValueError, r"RNN.init: leak must be above 0 and below 1.*1"),
        (jl.RNN(I, H, leak=0.1), {"leak": 0.2}, ValueError, r"RNN.init: leak.*fixed leak 0.1.*learned_leak=True"),
        (jl.Dropout(jl.GRU(I, H)), {"forget_bias": 1}, TypeError, r"Dropout.init: init of cell GRU takes no forget_b"),
        (
            jl.Stack((jl.LSTM(I, H), jl.GRU(H, H))), {"forget_bias": 1}, TypeError,
            r"Stack.init: init of cell GRU takes no forget_bias; leave it out",
        ),
        (
            jl.Bidirectional(jl.LearnedInitialState(jl.RNN(I, H))), {"chrono": 9}, TypeError,
            r"LearnedInitialState.init: init of cell RNN takes no chrono",
        ),
    ],
)  # fmt: skip
def test_a_wrong_choice_of_a_draw_is_refused_by_name(cell, choices, error, words):
    with pytest.raises(error, match=words):
        cell.init(KEY(0), **choices)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"learned_leak": True}, ValueError, "RNN: leak must be below 1 with learned_leak=True"),
        ({"learned_leak": 1, "leak": 0.5}, TypeError, "RNN: learned_leak must be True or False"),
    ],
)
def test_a_wrong_field_of_a_leaky_network_is_refused(fields, error, words):
    with pytest.raises(error, match=words):
        jl.RNN(I, H, **fields)
