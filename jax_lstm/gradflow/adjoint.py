"""Adjoint states: the derivatives of a loss with respect to the states, by backpropagation through time.

    λ_t = dL/ds_t = ∂L/∂s_t + J_{t+1}ᵀ λ_{t+1}        J_t = ∂s_t/∂s_{t−1}

The vector is kept as e^a v with max |v| = 1, so that it neither underflows nor overflows in the backward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.trajectory import checked, loss_by_states, states_before


def adjoint_norms(
    loss: Callable,
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    *,
    truncate: str | None = None,
    constants: Any = None,
) -> Any:
    """Log-norm of the adjoint state at every step, dL/ds_t, with the effect of all later steps included.

        log ‖λ_t‖₂        λ_t = dL/ds_t        h_t and c_t are independent variables

    dL/dc_t excludes the effect of c_t on h_t within step t. That effect belongs to dL/dh_t.

    As if by::

        def L(nudges):                                   # a zero state for every step
            for t in range(T):
                state, _ = cell.step(params, state, xs[t])
                state = states[t] = state + nudges[t]
            return loss(states)
        log_norms[t] = np.log(np.linalg.norm(jax.grad(L)(zeros)[t]))    # of each leaf

    Args:
        loss: function of the states of all steps, stacked over time as `unroll_states` returns them. It returns one
            float.
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence.
        state: the state before the first step; None: `cell.initial_state(params)`.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        The cell's state type with leaves of shape (T,), in the params' dtype or float32, whichever is wider. For the
        LSTM, h[t] = log ‖dL/dh_{t+1}‖₂ and c[t] = log ‖dL/dc_{t+1}‖₂: row t belongs to the state after step t + 1.
        Natural logs (nats); −inf where the norm is exactly zero.

    Raises:
        ValueError: `loss` does not return a scalar; other cases as for `unroll`.
        TypeError: `loss` is not callable or does not return a float; other cases as for `unroll`.

    Source: Werbos 1990.
    """
    cell, params, xs, state = checked("adjoint_norms", cell, params, xs, state, truncate, constants)
    # The loss is differentiated outside of the jitted function, so that a new lambda does not recompile the recursion.
    dstates = loss_by_states("adjoint_norms", loss, cell, params, xs, state)
    return _adjoint_norms(cell, params, xs, state, dstates)


@partial(jax.jit, static_argnames="cell")
def _adjoint_norms(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any, dstates: Any) -> Any:
    s_tm1s = states_before("adjoint_norms", cell, params, xs, state)
    dtype = flatten_state(state).dtype
    wide = at_least_float32(dtype)

    def body(later: tuple, stream: tuple) -> tuple[tuple, Any]:
        s_tm1, x_t, ds_t = stream
        v, a = _sum(later, _rescaled(flatten_state(ds_t).astype(wide), 0.0))  # λ_t
        log_norms = jax.tree.map(lambda leaf: _log_norm(leaf, a), unflatten_state(v, state))
        _, J_T = jax.vjp(lambda s: cell.step(params, s, x_t)[0], s_tm1)
        (w,) = J_T(unflatten_state(v.astype(dtype), state))
        return _rescaled(flatten_state(w).astype(wide), a), log_norms

    with jax.default_matmul_precision("highest"):
        nothing = _rescaled(jnp.zeros_like(flatten_state(state), wide), 0.0)
        return jax.lax.scan(body, nothing, (s_tm1s, xs, dstates), reverse=True)[1]


def _rescaled(v: Float[Array, "*n"], a: Any) -> tuple[Float[Array, "*n"], Float[Array, ""]]:
    """Rescale e^a v to e^b u with max |u| = 1; a zero vector has b = −inf."""
    size = jnp.abs(v).max()
    return v / jnp.where(size == 0, 1, size), a + jnp.log(size)


def _sum(first: tuple, second: tuple) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """e^a v + e^b w, rescaled."""
    (v, a), (w, b) = first, second
    top = jnp.maximum(a, b)
    top = jnp.where(top == -jnp.inf, 0, top)
    return _rescaled(jnp.exp(a - top) * v + jnp.exp(b - top) * w, top)


def _log_norm(v: Float[Array, "*n"], a: Float[Array, ""]) -> Float[Array, ""]:
    """Log of ‖e^a v‖₂; v is rescaled first, because the squares of small entries would underflow."""
    u, b = _rescaled(v, a)
    return b + jnp.log(jnp.linalg.norm(u.ravel()))
