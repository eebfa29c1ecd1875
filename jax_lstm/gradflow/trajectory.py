"""Shared first steps of the measurements: check the arguments, and compute the states before each step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.abilities import check_pure
from jax_lstm.engines.arguments import Arguments, check_arguments
from jax_lstm.gradflow.bound import bound, states_of
from jax_lstm.gradflow.truncated import truncated


def checked(
    caller: str, cell: Any, params: Any, xs: Any, state: Any, truncate: str | None = None, constants: Any = None
) -> tuple[Any, Any, Float[Array, "T I"], Any]:
    """Check the arguments as `unroll` does; a state of None becomes the initial state.

    Returns:
        (cell, params, xs, state); with constants the cell and params of `bound`.
    """
    cell = truncated(caller, checks.check_cell(caller, cell), truncate)
    arguments = check_arguments(caller, cell, Arguments(params, xs, state, constants=constants), "xs")
    check_measurable(caller, arguments.state)
    return *bound(cell, arguments.params, arguments.constants), arguments.xs, arguments.state


def checked_step(caller: str, cell: Any, params: Any, x: Any, state: Any, constants: Any) -> tuple[Any, Any, Any, Any]:
    """`checked` for one step, with x (I,)."""
    arguments = check_arguments(caller, cell, Arguments(params, x, state, constants=constants), "x")
    check_measurable(caller, arguments.state)
    return *bound(cell, arguments.params, arguments.constants), arguments.xs, arguments.state


def check_measurable(caller: str, state: Any) -> Any:
    """Check that the state holds floats only; return it."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise TypeError(
                f"{caller}: state must hold floats, because derivatives are measured, but {name} is {leaf.dtype}; keep "
                "integers out of the state"
            )
    return state


def states_before(caller: str, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """s_0 .. s_{T−1}, stacked: the state before each step."""
    check_pure(cell, params, state, xs)
    states = states_of(cell, params, xs, state)
    return jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]])[: xs.shape[0]], state, states)


def loss_by_states(caller: str, loss: Any, cell: Any, params: Any, xs: Float[Array, "T I"], state: Any) -> Any:
    """∂L/∂s_t for every t with the other states held fixed, stacked over time: the start of a backward pass."""
    if not callable(loss):
        raise TypeError(
            f"{caller}: loss must be a function of the stacked states, but is a {type(loss).__name__}; "
            "pass one that takes what unroll_states returns"
        )
    states = states_of(cell, params, xs, state)
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
