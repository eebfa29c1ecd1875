"""What every measurement along a sequence starts from: checked arguments, and the states that the steps start from."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells import contract, door
from jax_lstm.sequence import unroll_states


def checked(where: str, cell: Any, params: Any, xs: Any, state: Any) -> tuple[Any, Any, Float[Array, "T I"], Any]:
    """The arguments as `unroll` checks them: cell, params, xs, state; the initial state if none is given."""
    cell = door.cell(where, cell)
    params, dtype = door.params(where, cell, params)
    xs = door.data(where, "xs", xs, cell, dtype, "(T, I)")
    state = cell.initial_state(params) if state is None else door.state(where, cell, state, dtype)
    return cell, params, xs, state


def states_before(where: str, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """s_0 .. s_{T−1}, stacked: the state that each step starts from."""
    contract.no_closed_over_tracer(where, cell, params, state, xs)
    states = unroll_states(cell, params, xs, state)
    return jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]])[: len(xs)], state, states)
