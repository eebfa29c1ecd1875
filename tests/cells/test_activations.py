"""Activations: the elementwise functions of `jax.nn`, by name or as the function, in the cells that take one."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.gates import ACTIVATIONS, SYNONYMS

I, H, T = 3, 4, 4
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(T, I))
# What jax.nn has besides: not elementwise, not a function of one array, or not defined for negative numbers.
OTHERS = {
    "softmax", "log_softmax", "logsumexp", "logmeanexp", "standardize", "glu", "one_hot", "log1mexp", "initializers",
    "dot_product_attention", "get_scaled_dot_general_config", "scaled_dot_general", "scaled_matmul",
}  # fmt: skip


def test_the_table_has_every_activation_of_jax_nn():
    public = {name for name in dir(jax.nn) if not name.startswith("_")}
    assert public <= {*ACTIVATIONS, *SYNONYMS, *OTHERS}
    for name, f in ACTIVATIONS.items():
        assert f is getattr(jax.nn, name if name != "linear" else "identity")
    for name, known in SYNONYMS.items():
        assert getattr(jax.nn, name) is ACTIVATIONS[known]


def by_name(name):
    """The function as a user of JAX writes it."""
    return getattr(jax.nn, {"linear": "identity"}.get(name, name))


@pytest.mark.parametrize("name", slow_except(["elu"], ACTIVATIONS))
def test_a_step_has_the_value_and_gradient_of_jax_nn(name):
    """In the RNN as φ and in the LSTM as ψ, in three dtypes."""
    f, rnn, lstm = by_name(name), jl.RNN(I, H, name), jl.LSTM(I, H, output_activation=by_name(name))
    w_x, w_h, b = (RNG.normal(size=shape) for shape in ((I, H), (H, H), (H,)))
    for dtype, tolerance in ((jnp.float64, 1e-14), (jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
        params, x, h = jax.tree.map(partial(jnp.asarray, dtype=dtype), (jl.RNNParams(w_x, w_h, b), XS[0], XS[1, :1]))
        h = jnp.broadcast_to(h, (H,))
        z = x @ params.w_x + h @ params.w_h + params.b
        y, pull = jax.vjp(f, z)
        (dz,) = pull(jnp.ones(H, dtype))
        assert y.dtype == dz.dtype == dtype
        db = jax.grad(lambda p, x=x, h=h: jnp.sum(rnn.step(p, jl.RNNState(h), x)[1]))(params).b
        close = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
        close(np.float64(rnn.step(params, jl.RNNState(h), x)[1]), np.float64(y))
        close(np.float64(db), np.float64(dz))
        # The LSTM with weights 0: i = f = o = 1/2 and g = 0, so that h_t = ψ(c / 2) / 2.
        still, c = lstm.init(jax.random.key(0), dtype, forget_bias=0), 2 * z
        still = still._replace(w_x=0 * still.w_x, w_h=0 * still.w_h)
        _, h_t = lstm.step(still, jl.LSTMState(h, c), x)
        close(np.float64(h_t), np.float64(y) / 2)
        dc = jax.grad(lambda c, x=x, h=h, p=still: jnp.sum(lstm.step(p, jl.LSTMState(h, c), x)[1]))(c)
        close(np.float64(dc), np.float64(dz) / 4)


@pytest.mark.parametrize("name", slow_except(["elu"], ACTIVATIONS))
def test_a_run_has_the_gradient_of_a_loop(name):
    """The RNN has a derivative of its own, and JAX derives that of the LSTM."""
    f, cells = by_name(name), (jl.RNN(I, H, name), jl.LSTM(I, H, output_activation=name))

    def rnn(params, h, x):
        h = f(x @ params.w_x + h[0] @ params.w_h + params.b)
        return (h,), h

    def lstm(params, state, x):
        i, r, g, o = jnp.split(x @ params.w_x + state[0] @ params.w_h + params.b, 4)
        c = jax.nn.sigmoid(r) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * f(c)
        return (h, c), h

    for cell, step in zip(cells, (rnn, lstm), strict=True):
        params = cell.init(jax.random.key(0), jnp.float64)
        state = tuple(cell.initial_state(params))

        def ours(params, xs, cell=cell):
            return jnp.sum(jl.unroll(cell, params, xs)[1])

        def loop(params, xs, step=step, state=state):
            return jnp.sum(jax.lax.scan(partial(step, params), state, xs)[1])

        mine, theirs = (jax.jit(jax.value_and_grad(g, (0, 1)))(params, XS) for g in (ours, loop))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), mine, theirs)


@pytest.mark.parametrize("f", [jax.nn.elu, jax.nn.soft_sign, jax.nn.relu, jnp.tanh, jax.nn.swish, jax.nn.identity])
def test_a_function_is_stored_as_its_name(f):
    cell = jl.RNN(I, H, f)
    assert isinstance(cell.activation, str)
    assert ACTIVATIONS[cell.activation] is f
    assert cell == jl.RNN(I, H, cell.activation)
    assert hash(cell) == hash(jl.RNN(I, H, cell.activation))
    assert jl.from_config(json.loads(json.dumps(jl.to_config(cell)))) == cell
    assert dataclasses.replace(cell, hidden_size=5).activation == cell.activation
    lstm = jl.LSTM(I, H, gate_activation=f, cell_activation=f, output_activation=f)
    assert {lstm.gate_activation, lstm.cell_activation, lstm.output_activation} == {cell.activation}


def test_a_second_name_of_a_function_makes_an_equal_cell():
    for name, known in SYNONYMS.items():
        assert jl.RNN(I, H, name) == jl.RNN(I, H, known)
    assert jl.LSTM(I, H, gate_activation=jax.nn.sigmoid, cell_activation=jnp.tanh) == jl.LSTM(I, H)


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (jax.nn.softmax, "softmax"), (jax.nn.glu, "glu"), ("softmax", "'softmax'"), ("reLU", "'reLU'"),
        (jax.nn.one_hot, "one_hot"), (lambda z: z, "<lambda>"), (jnp.sin, "sin"), (None, "None"),
    ],
)  # fmt: skip
def test_what_is_no_activation_is_refused_with_the_list(value, came):
    config.update("jaxtyping_disable", True)  # the library's own message speaks, as it does for users
    try:
        with pytest.raises(ValueError, match=rf"RNN: activation must be one of tanh, .*squareplus, .*but is {came}"):
            jl.RNN(I, H, value)
        with pytest.raises(ValueError, match=rf"LSTM: output_activation must be one of tanh, .*but is {came}"):
            jl.LSTM(I, H, output_activation=value)
    finally:
        config.update("jaxtyping_disable", False)
