"""What every measurement along a sequence starts from: checked arguments, and the states that the steps start from."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells import contract, door
from jax_lstm.gradflow.truncated import truncated
from jax_lstm.sequence import unroll_states


def checked(
    where: str, cell: Any, params: Any, xs: Any, state: Any, truncate: str | None = None
) -> tuple[Any, Any, Float[Array, "T I"], Any]:
    """The arguments as `unroll` checks them: cell, params, xs, state; the initial state if none is given."""
    cell = truncated(where, door.cell(where, cell), truncate)
    params, dtype = door.params(where, cell, params)
    xs = door.data(where, "xs", xs, cell, dtype, "(T, I)")
    state = cell.initial_state(params) if state is None else door.state(where, cell, state, dtype)
    return cell, params, xs, state


def states_before(where: str, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """s_0 .. s_{T−1}, stacked: the state that each step starts from."""
    contract.no_closed_over_tracer(where, cell, params, state, xs)
    states = unroll_states(cell, params, xs, state)
    return jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]])[: len(xs)], state, states)


def loss_by_states(where: str, loss: Any, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """∂L/∂s_t of every t, each state taken for itself: what a backward pass starts from. Stacked over time."""
    if not callable(loss):
        raise TypeError(f"{where}: loss must be a function of the stacked states, but is a {type(loss).__name__}")
    states = unroll_states(cell, params, xs, state)
    value = jax.eval_shape(loss, states)
    if getattr(value, "shape", None) != ():
        raise ValueError(f"{where}: loss must give one number, but gives {value}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{where}: loss must give a float, but gives {value.dtype}")
    return jax.grad(loss)(states)
