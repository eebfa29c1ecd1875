"""The engine "plain": a `lax.scan` of the cell's own step. It takes any causal cell; JAX differentiates the loop."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.abilities import is_causal
from jax_lstm.engines.collect import pick
from jax_lstm.engines.engine import Given, Inputs, Options
from jax_lstm.engines.layout import vmap_n
from jax_lstm.engines.masking import StepMasks, apply_mask, apply_reset, zero_masked


@jax.tree_util.register_static
@dataclass(frozen=True)
class Plain:
    """A `lax.scan` of `cell.step`, differentiated by JAX: for any causal cell.

    In forward-mode differentiation it needs O(1) memory in T. Its backward loop adds up a weight gradient at every
    step, which the engine "hoisted" avoids.
    """

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        """Refuse a cell that is not causal."""
        if is_causal(cell):
            return None
        return (
            f'engine "plain": cell {type(cell).__name__} must be causal to run step by step, but reads later inputs; '
            "derive it from CompositeCell, so that its parts are run"
        )

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        """Scan the step over time."""
        xs, noise_steps, mask, reset = inputs.streams
        given, masks = inputs.given, StepMasks(mask, reset)

        def one(s: Any, x: Any, given_t: Given) -> tuple[Any, Any]:
            return given_t.call(cell.step, inputs.params, s, x)

        step = vmap_n(one, inputs.batch_axes)

        def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
            x_t, noise_t, masks_t = stream
            s_t, y_t = step(apply_reset(masks_t, inputs.s_initial, s_tm1), x_t, given._replace(steps=noise_t))
            s_t = apply_mask(masks_t, s_tm1, s_t)
            return s_t, pick(options.collect, s_t, y_t)

        streams = xs, noise_steps, masks
        if inputs.T == 0:  # lax.scan raises an error for T = 0 if jit is disabled
            one_step = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), streams)
            _, y = jax.eval_shape(body, inputs.s_0, one_step)
            return inputs.s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), y)
        s_T, collected = jax.lax.scan(body, inputs.s_0, streams, reverse=options.reverse)
        if options.collect == "both":
            return s_T, (collected[0], zero_masked(mask, collected[1]))
        return s_T, collected if options.collect == "states" else zero_masked(mask, collected)
