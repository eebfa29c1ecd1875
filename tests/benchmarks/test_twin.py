"""The hand-written twin that the benchmarks compare with is the same function."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import twin

B, T, I, H = 3, 6, 2, 4


@pytest.mark.parametrize("inline", [False, True])
def test_the_hand_written_twin_has_our_outputs_and_gradients(inline):
    cell = jl.LSTM(I, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    rng = np.random.default_rng(0)
    xs, g = jnp.asarray(rng.normal(size=(T, B, I))), jnp.asarray(rng.normal(size=(T, B, H)))
    ours = lambda params, xs: jl.batched(jl.unroll, time_major=True)(cell, params, xs)[1]  # noqa: E731
    answers = [
        jax.value_and_grad(lambda p, x, f=f: jnp.vdot(g, f(p, x)), (0, 1))(params, xs)
        for f in (ours, partial(twin.lstm, inline))
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), *answers)
