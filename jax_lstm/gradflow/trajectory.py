"""Shared first steps of the measurements: check the arguments, and compute the states before each step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cell import check_pure
from jax_lstm.gradflow.truncated import truncated
from jax_lstm.sequence import unroll_states


def checked(
    caller: str, cell: Any, params: Any, xs: Any, state: Any, truncate: str | None = None
) -> tuple[Any, Any, Float[Array, "T I"], Any]:
    """Check cell, params, xs and state as `unroll` does; a state of None becomes the initial state."""
    cell = truncated(caller, checks.check_cell(caller, cell), truncate)
    params, dtype = checks.check_params(caller, cell, params)
    xs = checks.check_input(caller, "xs", xs, cell, dtype, "(T, I)")
    state = cell.initial_state(params) if state is None else checks.check_state(caller, cell, state, dtype)
    return cell, params, xs, state


def states_before(caller: str, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """s_0 .. s_{T−1}, stacked: the state before each step."""
    check_pure(cell, params, state, xs)
    states = unroll_states(cell, params, xs, state)
    return jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]])[: xs.shape[0]], state, states)


def loss_by_states(caller: str, loss: Any, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """∂L/∂s_t for every t with the other states held fixed, stacked over time: the start of a backward pass."""
    if not callable(loss):
        raise TypeError(
            f"{caller}: loss must be a function of the stacked states, but is a {type(loss).__name__}; "
            "pass one that takes what unroll_states returns"
        )
    states = unroll_states(cell, params, xs, state)
    value = jax.eval_shape(loss, states)
    shape = getattr(value, "shape", None)
    if shape != ():
        came = f"a {type(value).__name__}" if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"{caller}: loss must return a scalar, but returns {came}; reduce it, for example with .mean()"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{caller}: loss must return a float, but returns {value.dtype}; an integer or bool has no gradient, "
            "so return a differentiable function of the states"
        )
    return jax.grad(loss)(states)
