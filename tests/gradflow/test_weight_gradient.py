"""The gradient by the weights, apart for every step: against a loop in which every step has weights of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_adjoint_norms import H, I, loss, problem

import jax_lstm as jl
from jax_lstm.gradflow import Truncated, weight_gradient_by_step


def by_hand(cell, params, xs, state):
    """dL by the params of each step."""

    def L(params_of_step):
        s, states = state, []
        for x, p in zip(xs, params_of_step, strict=True):
            s, _ = cell.step(p, s, x)
            states.append(s)
        return loss(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    parts = jax.grad(L)([params] * len(xs))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def close(a, b):
    """Every leaf, to rounding of its largest entry."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max()), a, b)


def test_each_part_is_the_gradient_by_that_steps_own_weights(cell):
    params, xs, state = problem(cell)
    got = weight_gradient_by_step(loss, cell, params, xs, state)
    close(got, by_hand(cell, params, xs, state))
    assert np.abs(got.w_h[0] - got.w_h[1]).max() > 1e-3


def test_the_parts_add_up_to_the_gradient(cell):
    """O10."""
    params, xs, state = problem(cell)
    parts = weight_gradient_by_step(loss, cell, params, xs, state)
    whole = jax.grad(lambda p: loss(jl.unroll_states(cell, p, xs, state)))(params)
    close(jax.tree.map(lambda a: a.sum(axis=0), parts), whole)


def test_truncated_parts_sum_to_the_truncated_cells_gradient():
    cell = jl.LSTM(I, H)
    params, xs, state = problem(cell)
    parts = weight_gradient_by_step(loss, cell, params, xs, state, truncate="1997")
    cut = jax.grad(lambda p: loss(jl.unroll_states(Truncated(cell), p, xs, state)))(params)
    close(jax.tree.map(lambda a: a.sum(axis=0), parts), cut)
    whole = jax.grad(lambda p: loss(jl.unroll_states(cell, p, xs, state)))(params)
    assert np.abs(cut.w_h - whole.w_h).max() > 1e-2


def test_a_batch_is_a_vmap_and_a_jit_changes_nothing(cell):
    params, xs, state = problem(cell)
    f = lambda xs: weight_gradient_by_step(loss, cell, params, xs, state)  # noqa: E731
    batch = jnp.stack([xs, 2 * xs])
    close(jax.jit(jax.vmap(f))(batch), jax.tree.map(lambda *a: np.stack(a), *map(f, batch)))


def test_an_invalid_loss_is_refused():
    cell = jl.LSTM(I, H)
    with pytest.raises(ValueError, match="weight_gradient_by_step: loss must return a scalar"):
        weight_gradient_by_step(lambda states: states.h, cell, *problem(cell))
    with pytest.raises(TypeError, match="weight_gradient_by_step: loss must be a function of the stacked states"):
        weight_gradient_by_step(None, cell, *problem(cell))
