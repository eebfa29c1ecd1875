"""The Jacobian of one step, ∂s_t/∂s_{t−1}, of the full state s = (h, c): both the way through h and through c."""

from functools import partial
from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cells.base import Cell
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.trajectory import checked, states_before


def step_jacobians(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, truncate: str | None = None
) -> Float[Array, "T N N"]:
    """The Jacobian of every step along a sequence.

        J_t = ∂s_t/∂s_{t−1}

    As if by::

        for t in range(T):
            J[t] = jax.jacobian(lambda s: cell.step(params, s, xs[t])[0])(state)   # flattened
            state, _ = cell.step(params, state, xs[t])

    Args:
        cell: any cell; one with only `step` too.
        params: what `cell.init` gave.
        xs: (T, I), one sequence. A batch: `jax.vmap(step_jacobians, in_axes=(None, None, 0))`.
        state: the state before the first step; `cell.initial_state(params)` if None.
        truncate: "1997" cuts the gradient at every h that enters a step (truncated.py).

    Returns:
        (T, N, N), in the state's dtype: [t, m, n] is the derivative of entry m of s_t by entry n of s_{t−1}, both in
        the order of `flatten_state`.

    Raises:
        ValueError, TypeError: as `unroll`.
    """
    return _step_jacobians(*checked("step_jacobians", cell, params, xs, state, truncate))


@partial(jax.jit, static_argnames="cell")
def _step_jacobians(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T N N"]:
    s_tm1s = states_before("step_jacobians", cell, params, xs, state)
    return jax.vmap(partial(jacobian, cell, params))(s_tm1s, xs)


def input_jacobians(cell: Cell, params: Any, xs: ArrayLike, state: Any = None) -> Float[Array, "T N I"]:
    """What every step's state feels of that step's input.

        ∂s_t/∂x_t        s_{t−1} held fixed

    What s_T feels of x_t is this behind a product of Jacobians: ∂s_T/∂x_t = J_T … J_{t+1} ∂s_t/∂x_t.

    Args:
        cell, params, xs, state: as for `step_jacobians`.

    Returns:
        (T, N, I), in the state's dtype; rows in the order of `flatten_state`.

    Raises:
        ValueError, TypeError: as `unroll`.
    """
    return _input_jacobians(*checked("input_jacobians", cell, params, xs, state))


@partial(jax.jit, static_argnames="cell")
def _input_jacobians(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, "T N I"]:
    def of_step(s_tm1: Any, x_t: Float[Array, " I"]) -> Float[Array, "N I"]:
        x_t = x_t.astype(flatten_state(s_tm1).dtype)  # a derivative has its argument's dtype
        return jax.jacrev(lambda x: flatten_state(cell.step(params, s_tm1, x)[0]))(x_t)

    s_tm1s = states_before("input_jacobians", cell, params, xs, state)
    with jax.default_matmul_precision("highest"):
        return jax.vmap(of_step)(s_tm1s, xs)


def jacobian(cell: Any, params: Any, state: Any, x: Float[Array, " I"]) -> Float[Array, "N N"]:
    """∂s_t/∂s_{t−1} at s_{t−1} = state, x_t = x."""

    def F(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return flatten_state(cell.step(params, unflatten_state(s, state), x)[0])

    # Accelerators round the operands of float32 products unless told not to; a measurement must not.
    with jax.default_matmul_precision("highest"):
        return jax.jacfwd(F)(flatten_state(state))
