"""The state of a cell may be any pytree: one array, a dict, a list inside a tuple. Every entry point takes it.

Each cell below computes the same network. `Named` holds its state as the cells of the library do, and is the reference.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl

B, T, I, H = 2, 6, 3, 4
XS = np.random.default_rng(0).normal(size=(B, T, I))
MASK, RESET = np.arange(T) < np.array([[4], [6]]), np.arange(T) == np.array([[2], [3]])
close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)


@dataclass(frozen=True)
class Named:
    """h_t = tanh([x_t, h_{t−1}] w), with a state RNNState(h). It has no base class, as one writes a first cell."""

    input_size: int = I
    hidden_size: int = H

    def init(self, key, dtype=jnp.float32):
        return {"w": jax.random.normal(key, (I + H, H), dtype) / 2, "start": jnp.full(H, 0.5, dtype)}

    def initial_state(self, params) -> Any:
        return self.state(params["start"])

    def step(self, params, state, x) -> Any:
        h = jnp.tanh(jnp.concatenate([x, self.h(state)]) @ params["w"])
        return self.state(h), h

    def state(self, h) -> Any:
        return jl.RNNState(h)

    def h(self, state):
        return state.h


class Bare(Named):
    def state(self, h):
        return h

    def h(self, state):
        return state


class Keyed(Named):
    def state(self, h):
        return {"h": h}

    def h(self, state):
        return state["h"]


class Nested(Named):
    def state(self, h):
        return [(h[:1], {}), [h[1:]]]

    def h(self, state):
        return jnp.concatenate(jax.tree.leaves(state))


@dataclass(frozen=True)
class BareSplit(jl.SplitCell):
    """The same with one array as its state, for the engine "hoisted"."""

    input_size: int = I
    hidden_size: int = H
    init = Named.init

    def initial_state(self, params):
        return params["start"]

    def project(self, params, x):
        return x @ params["w"][:I]

    def recur(self, params, state):
        return state @ params["w"][I:]

    def update(self, params, state, z):
        return jnp.tanh(z)


OTHERS = [Bare(), Keyed(), Nested(), BareSplit()]


def params_of(cell):
    return cell.init(jax.random.key(0), jnp.float64)


def start(cell, params):
    """A state that is not the initial one: one step after it."""
    return cell.step(params, cell.initial_state(params), XS[0, 0])[0]


def flat(tree, lead=0):
    """All leaves side by side: the numbers of a state, whatever holds them."""
    return np.concatenate([np.reshape(leaf, (*leaf.shape[:lead], -1)) for leaf in jax.tree.leaves(tree)], axis=-1)


def sequences(cell, params):
    s = start(cell, params)
    rest = MASK[0], RESET[0]
    loss = lambda run: jax.grad(lambda p, s: jnp.sum(jnp.sin(run(cell, p, XS[0], s, *rest)[1])), (0, 1))(params, s)  # noqa: E731
    state, hs = jl.unroll(cell, params, XS[0], s, *rest)
    yield flat(state), hs
    yield flat(jl.unroll_states(cell, params, XS[0], s, *rest, reverse=True), 1)
    dparams, dstate = loss(partial(jl.unroll, remat_every=4))
    yield dparams, flat(dstate)
    dparams, dstate = loss(partial(jl.tbptt, window=4, stride=2))
    yield dparams, flat(dstate)


def steps(cell, params):
    s = start(cell, params)
    for state, h in (
        jl.step(cell, params, s, XS[0, 1]),
        jl.step(cell, params, None, XS[0, 1], True, True),
        jl.stream(cell).step(params, start(cell, params), XS[0, 1]),
        jl.stream(cell).step(params, cell.initial_state(params), XS[0, 1]),  # an initial state that is a param
        jl.stream(cell).chunk(params, None, XS[0]),
    ):
        yield flat(state), h


def batches(cell, params):
    states = jax.vmap(lambda x: cell.step(params, cell.initial_state(params), x)[0])(XS[:, 0])
    for state, h in (
        jl.batched(jl.unroll)(cell, params, XS, states, MASK, RESET),
        jl.batched(jl.step)(cell, params, states, XS[:, 1]),
        jl.stream(cell, batch=True).step(params, jl.initial_states(cell, params, B), XS[:, 1]),
    ):
        yield flat(state, 1), h


def measurements(cell, params):
    s, measure = start(cell, params), jl.gradflow
    yield measure.sensitivity(cell, params, XS[0], s)
    yield measure.horizon(cell, params, s, XS[0, 0])
    yield measure.step_jacobians(cell, params, XS[0], s), measure.input_jacobians(cell, params, XS[0], s)
    points = measure.fixed_points(cell, params, XS[0, 0], jax.tree.map(lambda a: a[None], s), iterations=20)
    yield flat(points.points, 1), points.speeds
    yield flat(measure.retention(cell, params, XS[0], s), 1)


def layers(cell, params):
    readout = jl.Readout(H, 2).init(jax.random.key(1), jnp.float64)
    zero = jax.tree.map(lambda a: jnp.full_like(a, 0.25), cell.initial_state(params))
    of_layers = {
        jl.Bidirectional(cell): jl.BidirectionalParams(params, params),
        jl.Stack((cell, jl.RNN(H, H))): (params, jl.RNN(H, H).init(jax.random.key(2), jnp.float64)),
        jl.LearnedInitialState(cell): jl.LearnedParams(params, zero),
    }
    for layer, own in of_layers.items():
        state, ys = jl.batched(jl.unroll)(layer, own, XS, None, MASK, RESET)
        yield flat(state, 1), ys
    state, ys = jl.batched(jl.Model(cell, 2).apply)(jl.ModelParams(params, readout), XS, None, MASK)
    yield flat(state, 1), ys


ROWS = [(entry, cell) for entry in (sequences, steps, batches, measurements, layers) for cell in OTHERS]
MOST = (sequences, measurements)
QUICK = [(f, cell) for f, cell in ROWS if f in (steps, batches) or (isinstance(cell, Bare) and f in MOST)]


@pytest.mark.parametrize(("entry", "cell"), slow_except([*QUICK, (sequences, BareSplit())], ROWS))
def test_any_state_gives_the_numbers_of_a_named_one(entry, cell):
    params = params_of(cell)
    for ours, expected in zip(entry(cell, params), entry(Named(), params), strict=True):
        jax.tree.map(close, ours, expected)


@dataclass(frozen=True)
class Counting(Keyed):
    """The same with a count of the steps, an integer."""

    def initial_state(self, params):
        return {"h": params["start"], "steps": jnp.zeros((), jnp.int32)}

    def step(self, params, state, x):
        s_t, h = super().step(params, state, x)
        return s_t | {"steps": state["steps"] + 1}, h


def test_integers_in_a_state_run_and_are_not_measured():
    cell, params = Counting(), params_of(Named())
    state, hs = jl.batched(jl.unroll)(cell, params, XS, None, MASK)
    np.testing.assert_array_equal(state["steps"], MASK.sum(1))
    close(hs, jl.batched(jl.unroll)(Named(), params, XS, None, MASK)[1])
    learned = jl.LearnedInitialState(cell)
    assert jl.step(learned, learned.init(jax.random.key(0), jnp.float64), None, XS[0, 0])[0]["steps"] == 1
    grads = [
        jax.grad(lambda p, c=c: jnp.sum(jl.unroll(c, p, XS[0], remat_every=2)[1]))(params) for c in (cell, Named())
    ]
    jax.tree.map(close, *grads)
    for measure in (jl.gradflow.sensitivity, jl.gradflow.retention, jl.gradflow.data_horizon):
        with pytest.raises(TypeError, match=f"{measure.__name__}: state must hold floats.*steps is int32"):
            measure(cell, params, XS[0])


def test_a_wrong_state_is_named_whatever_it_should_be():
    for cell, wrong, words in (
        (Bare(), {"h": np.zeros(H)}, "state must be one array, but is a dict"),
        (Bare(), np.zeros(H + 1), "has shape"),
        (Keyed(), np.zeros(H), "state must be a dict, but is an array"),
        (Named(), (np.zeros(H),), "state must be a RNNState, but is a tuple"),
    ):
        params = params_of(cell)
        with pytest.raises((TypeError, ValueError), match=words):
            jl.unroll(cell, params, XS[0], wrong)
        with pytest.raises((TypeError, ValueError), match=words):
            jl.step(cell, params, wrong, XS[0, 0])


@dataclass(frozen=True)
class Random(Named):
    """Its state is one random key."""

    def initial_state(self, params):
        return jax.random.key(7)

    def step(self, params, state, x) -> Any:
        state, k = jax.random.split(state)
        return state, x @ params["w"][:I] + jax.random.normal(k, (H,), params["w"].dtype)


def test_a_state_that_is_one_random_key_is_passed_on():
    cell, params = Random(), params_of(Named())
    _, hs = jl.unroll(cell, params, XS[0])
    state, first = jl.unroll(cell, params, XS[0, :3])
    close(np.concatenate([first, jl.unroll(cell, params, XS[0, 3:], state)[1]]), hs)
    close(jl.step(cell, params, state, XS[0, 3])[1], hs[3])
    close(jl.batched(jl.unroll)(cell, params, XS, jl.initial_states(cell, params, B))[1][0], hs)
