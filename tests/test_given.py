"""What a run gives to a cell besides inputs: noise and constants have slots of their own."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.cell import Noise
from jax_lstm.engines.engine import Options
from jax_lstm.engines.run import ENGINES, compiled_run

B, T, I, H = 3, 7, 2, 4
close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)


@dataclass(frozen=True)
class Catchment(jl.SplitCell):
    """An RNN whose leak and bias are read from constants of the sequence: floats, and a symbol."""

    input_size: int = I
    hidden_size: int = H

    def init(self, key, dtype=jnp.float32):
        keys = jax.random.split(key, 4)
        shapes = {"w_x": (I, H), "w_h": (H, H), "w_c": (2, H), "kinds": (5, H)}
        return {n: jax.random.normal(k, s, dtype) / 2 for k, (n, s) in zip(keys, shapes.items(), strict=True)}

    def initial_state(self, params, like=None):
        return jl.RNNState(jnp.zeros_like(params["w_h"][0]))

    def project(self, params, x, constants: Any = None):
        return x @ params["w_x"] + params["kinds"][constants["kind"]]

    def recur(self, params, state, constants: Any = None):
        return (state.h * constants["area"][0]) @ params["w_h"]

    def update(self, params, state, zx, zh, constants: Any = None):
        a = jax.nn.sigmoid(constants["area"] @ params["w_c"])
        return jl.RNNState((1 - a) * state.h + a * jnp.tanh(zx + zh))


def data(seed=0):
    rng = np.random.default_rng(seed)
    xs = jnp.asarray(rng.normal(size=(T, B, I)))
    constants = {"area": jnp.asarray(rng.normal(size=(B, 2))), "kind": jnp.asarray(rng.integers(0, 5, B))}
    state = jl.RNNState(jnp.asarray(rng.normal(size=(B, H))))
    return xs, constants, state, jnp.asarray(rng.random((T, B)) < 0.7), jnp.asarray(rng.random((T, B)) < 0.3)


def in_batch(cell, params, area, state, xs, engine, options, mask=None, reset=None, kind=None):
    constants = {"area": area, "kind": kind}
    return compiled_run(cell, params, xs, state, mask, reset, None, constants, engine=ENGINES[engine], options=options)


def one_by_one(cell, params, area, state, xs, mask, reset, kind):
    """The same as a Python loop over sequences and steps."""
    ends, outputs = [], []
    for b in range(B):
        s = jax.tree.map(lambda a, b=b: a[b], state)
        constants, ys = {"area": area[b], "kind": kind[b]}, []
        for t in range(T):
            s_in = cell.initial_state(params) if reset[t, b] and mask[t, b] else s
            s_t, y = cell.step(params, s_in, xs[t, b], constants=constants)
            s = s_t if mask[t, b] else s
            ys.append(y if mask[t, b] else jnp.zeros(H))
        ends.append(s)
        outputs.append(jnp.stack(ys))
    return jax.tree.map(lambda *a: jnp.stack(a), *ends), jnp.stack(outputs, axis=1)


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_constants_reach_every_step_and_get_their_gradient(engine):
    cell = Catchment()
    params, (xs, constants, state, mask, reset) = cell.init(jax.random.key(0), jnp.float64), data()
    rest = mask, reset, constants["kind"]

    def loss(run, *args):
        s_T, ys = run(*args)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(s_T.h**2)

    args = params, constants["area"], state, xs
    expected = jax.value_and_grad(lambda *a: loss(partial(one_by_one, cell), *a, *rest), (0, 1, 2, 3))(*args)
    for options in (Options(), Options(remat_every=3)):
        run = partial(in_batch, cell, engine=engine, options=options, mask=mask, reset=reset, kind=constants["kind"])
        jax.tree.map(close, jax.value_and_grad(partial(loss, run), (0, 1, 2, 3))(*args), expected)


@pytest.mark.parametrize("truncate", [None, (4, 2)])
def test_the_engines_agree_on_constants_to_second_order(truncate):
    cell = Catchment()
    params, (xs, constants, state, *_) = cell.init(jax.random.key(0), jnp.float64), data()

    def curvature(engine):
        run = partial(in_batch, cell, engine=engine, options=Options(truncate=truncate), kind=constants["kind"])
        gradient = jax.grad(lambda area: jnp.sum(jnp.sin(run(params, area, state, xs)[1])))
        return jax.jvp(gradient, (constants["area"],), (jnp.cos(constants["area"]),))

    jax.tree.map(close, curvature("auto"), curvature("plain"))


@dataclass(frozen=True)
class OwnNoise(jl.RNN):
    """An RNN whose noise has the scale b, so that b gets a gradient through the noise too."""

    noise: float = 1.0

    def sample_noise(self, params, key, T):
        return Noise(steps=params.b[None] * jax.random.normal(key, (T, self.hidden_size), params.b.dtype))


@dataclass(frozen=True)
class FoundNoise(OwnNoise):
    """The same with the derivative that JAX finds."""

    own_derivative = False


def test_a_gradient_passes_through_noise_that_depends_on_params():
    gradients = []
    for cell, engine in ((OwnNoise(I, H), "hoisted"), (FoundNoise(I, H), "hoisted"), (OwnNoise(I, H), "plain")):
        params = cell.init(jax.random.key(0), jnp.float64)
        params = params._replace(b=params.b + 0.3)
        xs = data()[0].swapaxes(0, 1)

        def loss(p, cell=cell, engine=engine, xs=xs):
            return jnp.sum(jl.batched(jl.unroll)(cell, p, xs, key=jax.random.key(5), engine=engine)[1] ** 2)

        gradients.append(jax.grad(loss)(params))
    jax.tree.map(close, gradients[0], gradients[2])
    jax.tree.map(close, gradients[1], gradients[2])
    still = jax.grad(lambda p: jnp.sum(jl.batched(jl.unroll)(jl.RNN(I, H), p, xs)[1] ** 2))(params)
    assert np.abs(gradients[0].b - still.b).max() > 1e-3


def test_a_dropout_also_draws_the_noise_of_the_cell_inside():
    inside, xs = jl.RNN(I, H, noise=0.5), data()[0][:, 0]
    params = inside.init(jax.random.key(0), jnp.float64)
    noisy, still = (jl.Dropout(cell, zoneout=0.2) for cell in (inside, jl.RNN(I, H)))
    drawn, masked = (jl.unroll(cell, params, xs, key=jax.random.key(1))[1] for cell in (noisy, still))
    assert np.abs(drawn - masked).max() > 1e-3
    plain = jl.unroll(noisy, params, xs, key=jax.random.key(1), engine="plain")[1]
    close(drawn, plain)
