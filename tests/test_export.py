"""`jax.export`: one exported program runs any batch and any length, and is lowered for every platform."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_lstm as jl

CELL = jl.LSTM(3, 5)
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")


def forward(params, xs):
    return jl.batched(jl.unroll)(CELL, params, xs)


def gradient(params, xs):
    return jax.value_and_grad(lambda params, xs: jnp.sum(forward(params, xs)[1] ** 2), (0, 1))(params, xs)


FUNCTIONS = {"forward": forward, "gradient": gradient}


@cache
def exported(name):
    b, t = export.symbolic_shape("b, t")
    params = jax.eval_shape(CELL.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((b, t, CELL.input_size), jnp.float32)
    return export.export(jax.jit(FUNCTIONS[name]), platforms=PLATFORMS)(params, xs)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("b", "t"), [(2, 7), (9, 4)])
def test_an_export_with_unknown_batch_and_length_is_the_function(name, b, t):
    params = CELL.init(jax.random.key(1), jnp.float32)
    xs = jax.random.normal(jax.random.key(2), (b, t, CELL.input_size), jnp.float32)
    ours = jax.tree.leaves(exported(name).call(params, xs))
    for a, expected in zip(ours, jax.tree.leaves(FUNCTIONS[name](params, xs)), strict=True):
        np.testing.assert_allclose(a, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_export_is_for_every_platform(name):
    assert exported(name).platforms == PLATFORMS
