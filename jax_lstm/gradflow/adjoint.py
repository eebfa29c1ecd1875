"""The adjoint states: what the loss feels of every state, λ_t = dL/ds_t, as backpropagation through time carries it.

    λ_t = ∂L/∂s_t + J_{t+1}ᵀ λ_{t+1}        J_t = ∂s_t/∂s_{t−1}

The vector is kept as e^a v with max |v| = 1, so that it can neither underflow nor overflow on its way back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cells.base import Cell
from jax_lstm.cells.weights import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.trajectory import checked, loss_by_states, states_before


def adjoint_norms(
    loss: Callable, cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, truncate: str | None = None
) -> Any:
    """The log-norm of the loss's derivative by every state, all later steps included.

        λ_t = dL/ds_t        h_t and c_t as independent entries

    The way from c_t to h_t *inside* step t is not counted in λ_t's part c: it belongs to h_t.

    As if by::

        def L(nudges):                                   # a zero state for every step
            for t in range(T):
                state, _ = cell.step(params, state, xs[t])
                state = states[t] = state + nudges[t]
            return loss(states)
        log_norms[t] = np.log(np.linalg.norm(jax.grad(L)(zeros)[t]))    # of each leaf

    Args:
        loss: from what `unroll_states` returns, every state stacked over time, to one float.
        cell: any cell; one with only `step` too.
        params: what `cell.init` gave.
        xs: (T, I), one sequence.
        state: the state before the first step; `cell.initial_state(params)` if None.
        truncate: "1997" cuts the gradient at every h that enters a step (truncated.py).

    Returns:
        The cell's own state type with leaves (T,): for the LSTM, h[t] = log ‖dL/dh_{t+1}‖₂ and c[t] likewise, so
        that row t belongs to the state that step t made. Natural logs (nats) in the params' dtype or float32,
        whichever is wider; −inf where the norm is exactly zero.

    Raises:
        ValueError: `loss` does not give one number; the rest as `unroll`.
        TypeError: `loss` is not callable, or does not give a float; the rest as `unroll`.

    Source: Werbos 1990.
    """
    cell, params, xs, state = checked("adjoint_norms", cell, params, xs, state, truncate)
    # The loss is differentiated out here, so that a new lambda does not compile the recursion anew.
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
    """e^a v as e^b u with max |u| = 1; zero is b = −inf."""
    size = jnp.abs(v).max()
    return v / jnp.where(size == 0, 1, size), a + jnp.log(size)


def _sum(first: tuple, second: tuple) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """e^a v + e^b w, rescaled."""
    (v, a), (w, b) = first, second
    top = jnp.maximum(a, b)
    top = jnp.where(top == -jnp.inf, 0, top)
    return _rescaled(jnp.exp(a - top) * v + jnp.exp(b - top) * w, top)


def _log_norm(v: Float[Array, "*n"], a: Float[Array, ""]) -> Float[Array, ""]:
    """The log of ‖e^a v‖₂; rescaled once more, because small entries would vanish when squared."""
    u, b = _rescaled(v, a)
    return b + jnp.log(jnp.linalg.norm(u.ravel()))
