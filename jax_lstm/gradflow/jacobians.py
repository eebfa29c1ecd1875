"""Jacobians of one step, with respect to the full previous state (s = (h, c) for the LSTM) and to the input."""

from functools import partial
from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cell import Cell
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.trajectory import checked, states_before


def step_jacobians(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, truncate: str | None = None, constants: Any = None
) -> Float[Array, "T N N"]:
    """Jacobian of every step along a sequence.

        J_t = ∂s_t/∂s_{t−1}

    As if by::

        for t in range(T):
            J[t] = jax.jacobian(lambda s: cell.step(params, s, xs[t])[0])(state)   # flattened
            state, _ = cell.step(params, state, xs[t])

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence. For a batch xs (B, T, I):
            `jax.vmap(lambda xs: jl.gradflow.step_jacobians(cell, params, xs))(xs)`.
        state: the state before the first step; None: `cell.initial_state(params)`.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        (T, N, N), in the state's dtype, N the number of entries of the state. Entry [t, m, n] is the derivative of
        entry m of the state after step t + 1 with respect to entry n of the state before it. Entries are in the order
        of `flatten_state`.

    Raises:
        ValueError, TypeError: as for `unroll`.
    """
    return _step_jacobians(*checked("step_jacobians", cell, params, xs, state, truncate, constants))


@partial(jax.jit, static_argnames="cell")
def _step_jacobians(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T N N"]:
    s_tm1s = states_before("step_jacobians", cell, params, xs, state)
    return jax.vmap(partial(jacobian, cell, params))(s_tm1s, xs)


def input_jacobians(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, constants: Any = None
) -> Float[Array, "T N I"]:
    """Jacobian of every step's new state with respect to that step's input.

        ∂s_t/∂x_t        s_{t−1} held fixed

    The derivative of the last state follows by multiplication: ∂s_T/∂x_t = J_T … J_{t+1} ∂s_t/∂x_t.

    Args:
        cell, params, xs, state: as for `step_jacobians`.
        constants: as for `unroll`.

    Returns:
        (T, N, I), in the state's dtype; rows are in the order of `flatten_state`.

    Raises:
        ValueError, TypeError: as for `unroll`.
    """
    return _input_jacobians(*checked("input_jacobians", cell, params, xs, state, None, constants))


@partial(jax.jit, static_argnames="cell")
def _input_jacobians(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T N I"]:
    def of_step(s_tm1: Any, x_t: Float[Array, " I"]) -> Float[Array, "N I"]:
        x_t = x_t.astype(flatten_state(s_tm1).dtype)  # a derivative has its argument's dtype
        return jax.jacrev(lambda x: flatten_state(cell.step(params, s_tm1, x)[0]))(x_t)

    s_tm1s = states_before("input_jacobians", cell, params, xs, state)
    with jax.default_matmul_precision("highest"):
        return jax.vmap(of_step)(s_tm1s, xs)


def jacobian(cell: Any, params: Any, state: Any, x: Float[Array, " I"]) -> Float[Array, "N N"]:
    """Jacobian ∂s_t/∂s_{t−1} of one step, at s_{t−1} = state and x_t = x."""

    def F(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return flatten_state(cell.step(params, unflatten_state(s, state), x)[0])

    # By default, accelerators round the operands of float32 products; a measurement needs full precision.
    with jax.default_matmul_precision("highest"):
        return jax.jacfwd(F)(flatten_state(state))
