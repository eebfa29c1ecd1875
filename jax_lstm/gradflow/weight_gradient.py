"""The gradient of a loss with respect to the weights, split into the contributions of the steps.

G_t = (∂⁺s_t/∂W)ᵀ λ_t        λ_t = dL/ds_t        ∂⁺: s_{t−1} held fixed
dL/dW = Σ_t G_t
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cell import Cell
from jax_lstm.gradflow.bound import weights_of, with_weights
from jax_lstm.gradflow.trajectory import checked, loss_by_states, states_before


def weight_gradient_by_step(
    loss: Callable,
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    *,
    truncate: str | None = None,
    constants: Any = None,
) -> Any:
    """Gradient of a loss with respect to the params, split into the contributions of the steps.

    As if by::

        def L(params_of_step):                           # params, once for every step
            for t in range(T):
                state, _ = cell.step(params_of_step[t], state, xs[t])
                states[t] = state
            return loss(states)
        parts[t] = jax.grad(L)([params] * T)[t]

    Args:
        loss: function of the states of all steps, stacked over time as `unroll_states` returns them. It returns one
            float.
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence.
        state: s_0, the state before the first step, held fixed; None: `cell.initial_state(params)`.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        The type of params, each leaf with an additional leading axis of T steps; it takes T times the memory of params.
        Its sum over that axis is the gradient of ``loss(unroll_states(cell, params, xs, state))`` with s_0 held fixed,
        also if s_0 is computed from params.

    Raises:
        ValueError: `loss` does not return a scalar; other cases as for `unroll`.
        TypeError: `loss` is not callable or does not return a float; other cases as for `unroll`.

    Source: Pascanu, Mikolov & Bengio 2013, eq. 4.
    """
    cell, params, xs, state = checked("weight_gradient_by_step", cell, params, xs, state, truncate, constants)
    dstates = loss_by_states("weight_gradient_by_step", loss, cell, params, xs, state)
    return _by_step(cell, params, xs, state, dstates)


@partial(jax.jit, static_argnames="cell")
def _by_step(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any, dstates: Any) -> Any:
    s_tm1s = states_before("weight_gradient_by_step", cell, params, xs, state)

    def body(later: Any, stream: tuple) -> tuple[Any, Any]:
        s_tm1, x_t, ds_t = stream
        adjoint = jax.tree.map(jnp.add, ds_t, later)  # λ_t
        _, transpose = jax.vjp(lambda w, s: cell.step(with_weights(params, w), s, x_t)[0], weights_of(params), s_tm1)
        G_t, later = transpose(adjoint)
        return later, G_t

    nothing = jax.tree.map(jnp.zeros_like, state)
    return jax.lax.scan(body, nothing, (s_tm1s, xs, dstates), reverse=True)[1]
