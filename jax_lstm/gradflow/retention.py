"""Retention: the diagonal of the product of Jacobians, one entry per unit of the state.

v_j ← v_j J_t        row j of ∂s_T/∂s_k, from k = T back to 0, stored as e^a v with max |v| = 1
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.jacobians import jacobian
from jax_lstm.gradflow.trajectory import checked, states_before


def retention(
    cell: Cell, params: Any, xs: ArrayLike, state: Any = None, *, truncate: str | None = None, constants: Any = None
) -> Any:
    """Log derivative of each entry of the last state with respect to the same entry of each of the states s_0 … s_T.

        log |∂s_{T,j}/∂s_{k,j}|        s_k the state after k steps

    All paths count. With `truncate="1997"` the leaf c of an LSTM is Σ log f, the product of its forget gates alone.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence.
        state: s_0, the state before the first step; None: `cell.initial_state(params)`.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        The cell's state type, each leaf with an additional leading axis of T + 1, in the params' dtype or float32,
        whichever is wider. Natural logs (nats); the last row is 0.
        −inf means zero, or smaller than the largest entry of ∂s_{T,j}/∂s_k by more than the range of that dtype: 38
        decades in float32, 308 in float64.

    Raises:
        ValueError, TypeError: as for `unroll`.
    """
    return _retention(*checked("retention", cell, params, xs, state, truncate, constants))


@partial(jax.jit, static_argnames="cell")
def _retention(cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    s_tm1s = states_before("retention", cell, params, xs, state)
    s = flatten_state(state)
    wide = at_least_float32(s.dtype)

    def body(rows: tuple, stream: tuple) -> tuple[tuple, Float[Array, " N"]]:
        v, a = rows
        v = v @ jacobian(cell, params, *stream).astype(wide)
        size = jnp.abs(v).max(axis=1)
        v, a = v / jnp.where(size == 0, 1, size)[:, None], a + jnp.log(size)
        return (v, a), a + jnp.log(jnp.abs(jnp.diagonal(v)))

    with jax.default_matmul_precision("highest"):
        start = jnp.eye(s.size, dtype=wide), jnp.zeros(s.size, wide)
        _, logs = jax.lax.scan(body, start, (s_tm1s, xs), reverse=True)
    logs = jnp.concatenate([logs, jnp.zeros((1, s.size), wide)])
    return jax.vmap(partial(unflatten_state, like=state))(logs)
