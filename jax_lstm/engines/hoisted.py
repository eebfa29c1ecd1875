"""The engine "hoisted" runs a split cell in a loop, and differentiates the recurrence, not the loop, by a custom JVP.

The tangent of the recurrence is an affine recurrence, and the transpose of that is backpropagation through time as
written by hand (tangent.py): one reverse loop for the adjoint states, whose only matrix product is with the weights
of `recur`, then one matrix product for the gradient of each weight.

Because this is a `custom_jvp`, all transformations and all orders of derivatives work. Derivatives of second and higher
order are those of JAX: they differentiate the loops of the first.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

from jax_lstm.abilities import is_split, output
from jax_lstm.cell import SplitCell, add_preactivations
from jax_lstm.engines.collect import collected
from jax_lstm.engines.engine import Given, Inputs, Options
from jax_lstm.engines.program import Program, run_program
from jax_lstm.engines.recurrence import Forward, Recurrence
from jax_lstm.engines.tangent import Tangent


@jax.tree_util.register_static
@dataclass(frozen=True)
class Hoisted:
    """The custom JVP of the recurrence, for a `SplitCell`: all weight gradients in one product after the backward loop.

    Every transformation and every order of derivative works. Memory is O(T) in forward mode too. It refuses a cell
    with side effects, such as `jax.debug.print`: it runs a step's functions for all steps at once, and in the backward
    pass again.
    """

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        """Refuse a cell that does not split its step, or whose parts this engine cannot differentiate."""
        name = type(cell).__name__
        if isinstance(cell, SplitCell) and not cell.splits:
            return f'engine "hoisted": cell {name} does not split its step with these options; use engine="auto"'
        if not is_split(cell):
            return (
                f'engine "hoisted": the cell must be a SplitCell that inherits step, but {name} is not; '
                'use engine="auto"'
            )
        return _not_differentiable(cell, inputs)

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        """Compute the states, then the outputs from them."""
        if inputs.T == 0:
            s_T, states = inputs.s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), inputs.s_0)
        else:
            s_T, states = trajectory(cell, options.reverse, inputs)
        return s_T, collected(cell, inputs, options, states)


def _not_differentiable(cell: Any, inputs: Inputs) -> str | None:
    """Why the engine refuses a split cell: callbacks, or values that are not floats."""
    params, state, x, given = inputs.one_step()

    def one_step(params: Any, state: Any, x: Any, given_t: Given) -> tuple[Any, ...]:
        zx = given_t.call(cell.project, params, x)
        z = add_preactivations(cell, zx, given_t.lasting().call(cell.recur, params, state))
        return z, output(cell, cell.mix(params, given_t.call(cell.update, params, state, z)))

    jaxpr, (z, _) = jax.make_jaxpr(one_step, return_shape=True)(params, state, x, given)
    # A collective over a named axis, such as psum, and a checkify.check are effects too, but may run in any order.
    if any(type(effect).__name__ not in ("NamedAxisEffect", "ErrorEffect") for effect in jaxpr.effects):
        return (
            f'engine "hoisted": cell {type(cell).__name__} has side effects, such as jax.debug.print, which would run '
            'out of order and more than once; use engine="plain"'
        )
    for what, tree in (("the state", state), ("the pre-activation", z)):
        leaves = jax.tree.leaves(tree)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            held = ", ".join(str(leaf.dtype) for leaf in leaves) or "no array"
            return (
                f'engine "hoisted": {what} of cell {type(cell).__name__} must hold floats, but holds {held}; '
                'use engine="plain"'
            )
    return None


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def trajectory(cell: Any, reverse: bool, inputs: Inputs) -> tuple[Any, Any]:
    """s_T, and all states s_t (T, *B, ...)."""
    leaves, tree = jax.tree.flatten(inputs)
    return run_program(Program(Forward(Recurrence(cell, reverse, tree))), *leaves)


def _check_again(r: Recurrence, inputs: Inputs, s_ins: Any) -> None:
    """Run the checks of `checkify` in a step for all steps at once: under `jax.grad` JAX drops those in a loop."""

    def step(inputs: Inputs, s: Any) -> Any:
        return r.mix(inputs, r.update(inputs, s, r.preactivation(inputs, s)))

    one = r.one_step(inputs)
    effects = jax.make_jaxpr(step)(one, one.s_0).effects
    if any(type(effect).__name__ == "ErrorEffect" for effect in effects):
        r.at_every_step(step, inputs, s_ins)


@partial(trajectory.defjvp, symbolic_zeros=True)
def _trajectory_jvp(cell: Any, reverse: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    leaves, tree = jax.tree.flatten(primals[0])
    moved = tree.flatten_up_to(tangents[0])
    recurrence = Recurrence(cell, reverse, tree)
    active = tuple(not isinstance(t, SymbolicZero) for t in moved)
    saving = recurrence.saving(primals[0], active)
    s_T, states, s_ins, saved = run_program(Program(Forward(recurrence, saving)), *leaves)
    _check_again(recurrence, primals[0], s_ins)
    states, s_ins = checkpoint_name((states, s_ins), "jax_lstm.state")
    saved = checkpoint_name(saved, "jax_lstm.preactivation")
    tangent = Program(Tangent(recurrence, jax.tree.structure(saved), active))
    residuals = *leaves, *jax.tree.leaves((s_ins, saved))
    return (s_T, states), run_program(tangent, *residuals, *(t for t, on in zip(moved, active, strict=True) if on))
