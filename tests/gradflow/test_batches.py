"""A batch is a vmap, for the measurements whose own files do not say so already."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm import gradflow

I, H, T, B = 3, 4, 6, 2
CELL = jl.LSTM(I, H)
XS = np.random.default_rng(1).normal(size=(B, T, I))


@cache
def cell_params():
    return CELL.init(jax.random.key(0), jnp.float64)


@pytest.mark.parametrize(
    "measure",
    [
        gradflow.retention,
        gradflow.input_jacobians,
        partial(gradflow.paths, through="hidden"),
        partial(gradflow.adjoint_norms, lambda states: states.h[-1].sum()),
    ],
    ids=["retention", "input_jacobians", "paths", "adjoint_norms"],
)
def test_over_sequences_under_jit(measure):
    together = jax.jit(jax.vmap(partial(measure, CELL, cell_params())))(XS)
    one_by_one = jax.tree.map(lambda *a: jnp.stack(a), *(measure(CELL, cell_params(), x) for x in XS))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), together, one_by_one)
    assert any(np.abs(leaf[0] - leaf[1]).max() > 1e-3 for leaf in jax.tree.leaves(one_by_one))


def test_fixed_points_over_inputs_under_jit():
    """A bistable unit, pushed one way and the other."""
    cell = jl.RNN(1, 1)
    params = jl.RNNParams(jnp.ones((1, 1)), jnp.full((1, 1), 2.0), jnp.zeros(1))
    starts, xs = jl.RNNState(jnp.array([[0.1]])), jnp.array([[0.5], [-0.5]])
    together = jax.jit(jax.vmap(lambda x: gradflow.fixed_points(cell, params, x, starts)))(xs)
    one_by_one = [gradflow.fixed_points(cell, params, x, starts).points.h for x in xs]
    np.testing.assert_allclose(together.points.h, one_by_one, rtol=1e-10)
    assert (together.speeds < 1e-9).all()
