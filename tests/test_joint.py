"""One product for z_t in place of two: where it is taken, and that the numbers stay."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import products, scans

import jax_lstm as jl

B, T, I, H = 3, 9, 2, 5


class Doubled(jl.LSTM):
    """Its z_t has a factor 2 after the product."""

    def recur(self, params, state):
        return 2 * super().recur(params, state)


class Shared(jl.RNN):
    """Both products read one matrix."""

    def recur(self, params, state):
        return state.h[: self.input_size] @ params.w_x


class ReadTwice(jl.LSTM):
    """Another equation reads the product with the state, although nothing needs its result."""

    def recur(self, params, state):
        zh = super().recur(params, state)
        _ = zh * params.b
        return zh


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The tests run with several devices, which may share a batch."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


LSTM = jl.LSTM(I, H)
# How many products the loop has.
CELLS = {
    "LSTM": (LSTM, 1),
    "RNN": (jl.RNN(I, H), 1),
    "JANET": (jl.JANET(I, H), 1),
    "peephole": (jl.LSTM(I, H, peephole=True), 1),
    "dropout": (jl.Dropout(LSTM, inputs=0.4, hidden=0.4), 1),
    "GRU": (jl.GRU(I, H), 2),
    "layer norm": (jl.LSTM(I, H, layer_norm=True), 2),
    "bfloat16 products": (jl.LSTM(I, H, compute_dtype="bfloat16"), 2),
    "doubled": (Doubled(I, H), 2),
    "shared": (Shared(I, H), 1),
    "read twice": (ReadTwice(I, H), 1),
    "MinLSTM": (jl.MinLSTM(I, H), 1),
}


def run(cell, engine, key, params, xs):
    return jl.batched(jl.unroll)(cell, params, xs, engine=engine, key=key)[1]


def data(cell, batch=B, dtype=jnp.float64):
    xs = jax.random.normal(jax.random.key(1), (batch, T, I), dtype)
    key = jax.random.key(2) if getattr(cell, "has_noise", False) else None
    return key, cell.init(jax.random.key(0), dtype), xs


@pytest.mark.parametrize("name", CELLS)
def test_numbers_and_products_of_the_loop(name):
    cell, expected = CELLS[name]
    key, params, xs = data(cell)
    ours, plain = (
        jax.jit(jax.value_and_grad(lambda *a, e=e: jnp.sum(run(cell, e, key, *a) ** 2), (0, 1)))
        for e in ("auto", "plain")
    )
    tolerance = 1e-2 if name == "bfloat16 products" else 1e-10
    for a, b in zip(jax.tree.leaves(ours(params, xs)), jax.tree.leaves(plain(params, xs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    (loop,) = scans(jax.make_jaxpr(partial(run, cell, "auto", key))(params, xs))
    assert products(loop.params["jaxpr"]) == expected


@pytest.mark.parametrize(("batch", "steps", "width"), [(1, T, H), (2, 2, H), (B, 2000, 300)])
def test_one_sequence_or_large_weights_keep_two_products(batch, steps, width):
    cell = jl.LSTM(I, width)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((batch, steps, I), jnp.float32)
    (loop,) = scans(jax.make_jaxpr(partial(run, cell, "auto", None))(params, xs))
    assert products(loop.params["jaxpr"]) == 2
