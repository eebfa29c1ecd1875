"""The adjoint states against automatic differentiation by a nudge of every state, in a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagonal import Diagonal, DiagonalState

import jax_lstm as jl
from jax_lstm.gradflow import adjoint_norms

I, H, T = 3, 4, 6


def problem(cell, dtype=jnp.float64):
    """Params, inputs and a state other than zero."""
    params = cell.init(jax.random.key(0), dtype)
    state = jax.tree.map(lambda s: s + 0.3, cell.initial_state(params))
    return params, jax.random.normal(jax.random.key(1), (T, I), dtype), state


def loss(states):
    """Of every leaf and every step, each with its own weight."""
    return sum((jnp.sin(leaf.ravel()) * jnp.arange(1.0, leaf.size + 1)).sum() for leaf in jax.tree.leaves(states))


def nudged(cell, params, xs, state):
    """log ‖dL/d nudge‖ of every step's state and leaf, at nudge 0."""

    def L(nudges):
        s, states = state, []
        for x, nudge in zip(xs, nudges, strict=True):
            s = jax.tree.map(jnp.add, cell.step(params, s, x)[0], nudge)
            states.append(s)
        return loss(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    grads = jax.grad(L)([jax.tree.map(jnp.zeros_like, state)] * len(xs))
    return jax.tree.map(lambda *leaves: np.log([np.linalg.norm(leaf) for leaf in leaves]), *grads)


def test_adjoint_norms_are_gradient_norms_of_each_state(cell):
    params, xs, state = problem(cell)
    got = adjoint_norms(loss, cell, params, xs, state)
    assert type(got) is type(state)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        got,
        nudged(cell, params, xs, state),
    )
    a_step_late = jax.tree.map(lambda leaf: jnp.roll(leaf, 1), got)
    assert np.abs(a_step_late.h - nudged(cell, params, xs, state).h).max() > 1e-2


def test_the_path_from_c_to_h_within_a_step_is_not_counted():
    """A loss of the last h alone: dL/dc_T is zero with c_T apart, and is not if c_T also moves h_T."""
    cell = jl.LSTM(I, H)
    params, xs, state = problem(cell)
    got = adjoint_norms(lambda states: states.h[-1].sum(), cell, params, xs, state)
    assert got.c[-1] == -jnp.inf
    np.testing.assert_allclose(got.h[-1], 0.5 * np.log(H), rtol=1e-14)
    assert np.isfinite(got.c[:-1]).all()


def test_later_steps_are_included(cell):
    params, xs, state = problem(cell)
    got = adjoint_norms(lambda states: states.h[-1].sum(), cell, params, xs, state)
    of_its_own_step_alone = jnp.where(jnp.arange(T) == T - 1, got.h, -jnp.inf)
    assert np.isfinite(got.h).all()
    assert (got.h != of_its_own_step_alone).sum() == T - 1


def test_a_gradient_far_below_float32_is_still_there():
    cell = Diagonal()
    xs = jnp.full((500, 2), 0.1, jnp.float32).at[:, 1].set(1e-3)
    got = adjoint_norms(lambda s: s.a[-1].sum() + s.b[-1].sum(), cell, cell.init(None, jnp.float32), xs)
    back = np.arange(499, -1, -1)
    np.testing.assert_allclose(got.a, back * np.log(0.1), rtol=1e-5, atol=1e-6)
    reached = back < 18  # until the faster leaf is 10⁻³⁸ of the slower one, the range that one vector has
    np.testing.assert_allclose(got.b[reached], back[reached] * np.log(1e-3), rtol=1e-5, atol=1e-6)


def test_a_loss_with_zero_gradient_gives_minus_infinity():
    cell = Diagonal()
    params = cell.init(None, jnp.float64)
    got = adjoint_norms(lambda s: 0.0 * s.a.sum(), cell, params, jnp.ones((3, 2)))
    jax.tree.map(np.testing.assert_array_equal, got, DiagonalState(*[np.full(3, -np.inf)] * 2))


def test_a_batch_with_its_own_targets_is_a_vmap(cell):
    params, xs, _ = problem(cell)
    batch, targets = jnp.stack([xs, 2 * xs]), jnp.array([0.5, -1.0])

    def one(xs, target):
        return adjoint_norms(lambda states: jnp.square(states.h[-1] - target).sum(), cell, params, xs)

    together = jax.jit(jax.vmap(one))(batch, targets)
    for b in range(2):
        jax.tree.map(
            lambda a, want, b=b: np.testing.assert_allclose(a[b], want, rtol=1e-12, atol=1e-12),
            together,
            one(batch[b], targets[b]),
        )


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            lambda s: s.h,
            ValueError,
            r"adjoint_norms: loss must return a scalar, but returns an array of shape \(\d+, 4\)",
        ),
        (lambda s: (s.h > 0).sum(), TypeError, r"adjoint_norms: loss must return a float, but returns int"),
        (3.0, TypeError, r"adjoint_norms: loss must be a function of the stacked states, but is a float"),
    ],
)
def test_an_invalid_loss_is_refused(wrong, error, message):
    cell = jl.LSTM(I, H)
    with pytest.raises(error, match=message):
        adjoint_norms(wrong, cell, *problem(cell))
