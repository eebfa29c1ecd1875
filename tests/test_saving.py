"""What the forward loop saves of a step, the gates or z, and the derivatives of every order that come of it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import equations, scans
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.engines.engine import Inputs
from jax_lstm.engines.recurrence import Recurrence
from jax_lstm.engines.saving import Saving

T, I, H = 4, 2, 3
LSTM = jl.LSTM(I, H)


class Params(NamedTuple):
    w_x: jax.Array  # (I, 2H)
    w_h: jax.Array  # (H, 2H)
    w_u: jax.Array  # (H, 2H), larger than z
    leak: jax.Array  # (H,)


@dataclass(frozen=True)
class Mixed(jl.SplitCell):
    """A gate that reads z, one that reads a matrix too, one of a parameter alone; and results that nothing reads."""

    input_size: int = I
    hidden_size: int = H
    reads_z: bool = False

    def init(self, key, dtype=jnp.float32):
        keys = jax.random.split(key, 4)
        shapes = (self.input_size, 2 * self.hidden_size), (H, 2 * H), (H, 2 * H), (H,)
        return Params(*(jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)))

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros(self.hidden_size, params.leak.dtype))

    def project(self, params, x):
        return x @ params.w_x

    def recur(self, params, state):
        return state.h @ params.w_h

    def update(self, params, state, z):
        z_g, _ = jnp.split(z, 2)
        _, z_f = jnp.split(z + state.h @ params.w_u, 2)
        g, f, a = jnp.tanh(z_g), jax.nn.sigmoid(z_f), jax.nn.sigmoid(params.leak)
        return jl.RNNState(f * state.h + a * g + (jnp.sin(z_g) if self.reads_z else 0))


CELLS = {
    "LSTM": (LSTM, Saving((False,), 4)),
    "peephole": (jl.LSTM(I, H, peephole=True), Saving((False,), 4)),
    "projection": (jl.LSTM(I, H, projection=2), Saving((False,), 4)),
    "coupled": (jl.LSTM(I, H, coupled=True), Saving((False,), 3)),
    "GRU": (jl.GRU(I, H), Saving((False, False, False, True), 3)),
    "RNN": (jl.RNN(I, H), Saving((False,), 1)),
    "zoneout": (jl.Dropout(LSTM, zoneout=0.5), Saving((False,), 4)),
    "mixed": (Mixed(), Saving((False,), 2)),
    # The derivative reads z, or there are more gates than leaves of z.
    "layer norm": (jl.LSTM(I, H, layer_norm=True), Saving((True, True), 0)),
    "clip": (jl.LSTM(I, H, clip=1.0), Saving((True,), 0)),
    "relu": (jl.LSTM(I, H, gate_activation="relu", cell_activation="relu"), Saving((True,), 0)),
    "JANET": (jl.JANET(I, H), Saving((True,), 0)),
    "mixed, z": (Mixed(reads_z=True), Saving((True,), 0)),
}


def data(cell):
    params = cell.init(jax.random.key(0), jnp.float64)
    params = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(1), a.shape, a.dtype), params)
    return params, jax.random.normal(jax.random.key(2), (T, I), jnp.float64)


@pytest.mark.parametrize("name", CELLS)
def test_gates_are_saved_in_place_of_z_if_they_are_enough(name):
    cell, expected = CELLS[name]
    params, xs = data(cell)
    given = () if not getattr(cell, "has_noise", False) else cell.sample_noise(params, jax.random.key(3), T)
    steps, sequence = (given.steps, given.sequence) if given else (None, None)
    inputs = Inputs(params, cell.initial_state(params), None, xs, steps, sequence, None, None, None)
    tree = jax.tree.structure(inputs)
    active = [jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(inputs)]
    assert Recurrence(cell, False, tree).saving(inputs, active) == expected


@pytest.mark.parametrize("name", slow_except(["LSTM", "GRU", "mixed", "clip"], CELLS))
def test_derivatives_of_every_order_equal_those_of_plain(name):
    cell = CELLS[name][0]
    params, xs = data(cell)
    key = jax.random.key(4) if getattr(cell, "has_noise", False) else None

    def orders(engine):
        def loss(*args):
            return jnp.sum(jnp.sin(jl.unroll(cell, *args, engine=engine, key=key)[1]))

        grad = jax.grad(loss, (0, 1))

        def slope(*args):
            return jax.jvp(loss, args, args)[1]

        def size_of_grad(*args):
            return sum(jnp.vdot(a, jnp.cos(a)) for a in jax.tree.leaves(grad(*args)))

        def all_orders(*args):
            second = jax.grad(slope, (0, 1))(*args), jax.grad(size_of_grad, (0, 1))(*args), jax.jvp(slope, args, args)
            return grad(*args), second

        return jax.jit(all_orders)(params, xs)

    for ours, plain in zip(jax.tree.leaves(orders("hoisted")), jax.tree.leaves(orders("plain")), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("cell", "left"), [(LSTM, {"tanh": 1}), (jl.GRU(I, H), {}), (jl.RNN(I, H), {})])
def test_the_backward_loop_computes_no_gate_again(cell, left):
    params, xs = data(cell)
    jaxpr = jax.make_jaxpr(jax.grad(lambda *args: jnp.sum(jl.unroll(cell, *args)[1])))(params, xs)
    names = [eqn.primitive.name for eqn in equations(scans(jaxpr)[-1].params["jaxpr"])]
    assert {name: names.count(name) for name in ("tanh", "logistic") if name in names} == left
