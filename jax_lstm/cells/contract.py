"""Checks of a cell's functions, made when they are traced: conditions for a correct gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.cells import base
from jax_lstm.cells.base import PARTS


def no_closed_over_tracer(where: str, cell: Any, params: Any, state: Any, xs: jax.Array) -> None:
    """Refuse a cell whose functions close over a tracer: its gradient would be lost, or the tracer would leak."""
    x = jax.ShapeDtypeStruct(xs.shape[-1:], xs.dtype)

    def everything(params: Any, state: Any, x: jax.Array) -> Any:
        made = [cell.step(params, state, x), cell.initial_state(params)]
        if all(hasattr(cell, part) for part in PARTS):
            parts = cell.update(params, state, cell.project(params, x), cell.recur(params, state))
            made.append(base.mix(cell, params, parts))
        return made

    consts = jax.make_jaxpr(everything)(params, state, x).consts
    if any(isinstance(c, jax.core.Tracer) for c in consts):
        raise TypeError(
            f"{where}: the functions of cell {type(cell).__name__} must depend on their arguments only, but one closes "
            "over a traced array; put that array in params, so that transformations see it"
        )


def splits_well(where: str, cell: Any, params: Any, state: Any, xs: jax.Array) -> None:
    """Refuse parts that the engine cannot differentiate: values that are not floats, a nonlinear `recur` or `mix`."""
    zx = jax.eval_shape(cell.project, params, jax.ShapeDtypeStruct(xs.shape[-1:], xs.dtype))
    zh = jax.eval_shape(cell.recur, params, state)
    for name, tree in (("the state", state), ("the output of project", zx), ("the output of recur", zh)):
        leaves = jax.tree.leaves(tree)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            held = ", ".join(str(leaf.dtype) for leaf in leaves) or "no array"
            raise TypeError(
                f'{where}: {name} of cell {type(cell).__name__} must hold floats for engine="hoisted", '
                f'but holds {held}; use engine="plain"'
            )
    before_mix = jax.eval_shape(cell.update, params, state, zx, zh)
    for name, part, s in (("recur", cell.recur, state), ("mix", partial(base.mix, cell), before_mix)):
        try:
            given = jax.eval_shape(part, params, s)
            jax.eval_shape(jax.linear_transpose(partial(part, params), s), given)
        except (NotImplementedError, AssertionError, ValueError, TypeError) as error:
            raise ValueError(
                f"{where}: {name} of cell {type(cell).__name__} must be linear in the state, but is not; move the "
                'nonlinear part into update, or use engine="plain"'
            ) from error
