"""The engine "associative": a parallel prefix over the steps s ↦ a_t ⊙ s + b_t (Blelloch 1990)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_lstm.abilities import is_linear
from jax_lstm.engines.collect import collected
from jax_lstm.engines.engine import Given, Inputs, Options
from jax_lstm.engines.layout import vmap_time_and_batch
from jax_lstm.engines.masking import StepMasks, apply_mask, apply_reset


@jax.tree_util.register_static
@dataclass(frozen=True)
class Associative:
    """A parallel prefix over time, for a cell that is linear in its state, such as MinLSTM.

    Work O(T), depth O(log T). JAX differentiates it, to every order. Memory is O(T) in forward mode too.
    """

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        """Refuse a cell that is not linear in its state, and a symbolic T, which `lax.associative_scan` cannot take."""
        if is_linear(cell):
            if isinstance(inputs.T, int):
                return None
            return (
                f'engine "associative": T must be known, but is {inputs.T}; use engine="auto" when exporting, or '
                "export with a fixed T"
            )
        return (
            'engine "associative": the cell must be linear in its state and define `affine`, but '
            f'{type(cell).__name__} does not; use engine="auto"'
        )

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        """Compute the coefficients of all steps, compose all prefixes of steps, and apply them to s_0."""
        params, s_0, s_initial, xs = inputs[:4]
        masks, resets = StepMasks(inputs.mask, inputs.reset), StepMasks(None, inputs.reset)

        def affine(x: Any, given_t: Given) -> tuple[Any, Any]:
            return given_t.call(cell.affine, params, x)

        a, b = vmap_time_and_batch(affine, xs.ndim - 1)(xs, inputs.given)
        # A coefficient may have fewer axes than the state, such as one gate for all units.
        a, b = (jax.tree.map(lambda s, c: _like_state(s, c, inputs), s_0, c) for c in (a, b))
        if inputs.reset is not None:
            fresh = jax.tree.map(lambda a, b, s: a * jnp.broadcast_to(s, a.shape) + b, a, b, s_initial)
            b = apply_reset(resets, fresh, b)
            a = apply_reset(resets, jax.tree.map(jnp.zeros_like, a), a)
        if inputs.mask is not None:
            a = apply_mask(masks, jax.tree.map(jnp.ones_like, a), a)
            b = apply_mask(masks, jax.tree.map(jnp.zeros_like, b), b)

        def after(one: Any, other: Any) -> Any:
            (a_1, b_1), (a_2, b_2) = one, other
            return jax.tree.map(jnp.multiply, a_2, a_1), jax.tree.map(lambda a, b, c: a * b + c, a_2, b_1, b_2)

        if inputs.T:
            a, b = jax.lax.associative_scan(after, (a, b), reverse=options.reverse)
        states = jax.tree.map(lambda a, b, s: a * s[None] + b, a, b, s_0)
        last = 0 if options.reverse else -1
        s_T = jax.tree.map(lambda s: s[last], states) if inputs.T else s_0
        return s_T, collected(cell, inputs, options, states)


def _like_state(s: Array, c: Array, inputs: Inputs) -> Array:
    """A coefficient (T, *B, ...), broadcast to the shape of a leaf of the state for every step."""
    lead = inputs.batch_axes + 1
    c = c.reshape(*c.shape[:lead], *(1,) * (s.ndim + 1 - c.ndim), *c.shape[lead:])
    return jnp.broadcast_to(c, (inputs.T, *s.shape))
