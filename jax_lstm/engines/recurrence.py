"""The recurrence of a split cell over time.

    z_t = project(params, x_t) + recur(params, s_{t−1})
    s_t = mix(params, update(params, s_{t−1}, z_t))

For derivatives (tangent.py) the forward loop saves s_{t−1}, and z_t or the gates (saving.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax.interpreters import partial_eval as pe

from jax_lstm.cell import add_preactivations
from jax_lstm.engines.engine import Given, Inputs
from jax_lstm.engines.joint import joint_product
from jax_lstm.engines.layout import choose_layout, joins_products, vmap_n, vmap_time_and_batch
from jax_lstm.engines.masking import StepMasks, apply_mask, apply_reset
from jax_lstm.engines.program import Axes
from jax_lstm.engines.saving import Saving, choose_saving

# Where the batch axes of each field of `Inputs` are; params have none.
AXES = dict(zip(Inputs._fields, (None, 0, 0, 1, 1, 0, 0, 1, 1), strict=True))
NOTHING: Any = Inputs(*(None for _ in Inputs._fields))  # pyrefly: ignore[bad-argument-type]


@dataclass(frozen=True)
class Recurrence:
    """A cell, the direction, and the structure of the `Inputs`."""

    cell: Any
    reverse: bool
    tree: Any

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The field of `Inputs` that each leaf belongs to."""
        parts = self.tree.unflatten(range(self.tree.num_leaves))
        return tuple(name for name, part in zip(Inputs._fields, parts, strict=True) for _ in jax.tree.leaves(part))

    @property
    def in_axes(self) -> Axes:
        """The batch axis of each leaf of the inputs."""
        return tuple(AXES[name] for name in self.fields)

    @property
    def state_tree(self) -> Any:
        """The structure of a state."""
        return jax.tree.structure(self.tree.unflatten(range(self.tree.num_leaves)).s_0)

    # Functions of one step of one sequence. `inputs` holds the inputs of that step; what it does not read may be None.

    def project(self, inputs: Inputs) -> Any:
        """The input's part of z_t."""
        return inputs.given.call(self.cell.project, inputs.params, inputs.xs)

    def recur(self, inputs: Inputs, s: Any) -> Any:
        """The state's part of z_t."""
        return inputs.given.lasting().call(self.cell.recur, inputs.params, s)

    def update(self, inputs: Inputs, s: Any, z: Any) -> Any:
        """The state before `mix`."""
        return inputs.given.call(self.cell.update, inputs.params, s, z)

    def mix(self, inputs: Inputs, u: Any) -> Any:
        """The state s_t."""
        return self.cell.mix(inputs.params, u)

    def preactivation(self, inputs: Inputs, s: Any) -> Any:
        """z_t."""
        return add_preactivations(self.cell, self.project(inputs), self.recur(inputs, s))

    def joint(self, inputs: Inputs) -> Callable | None:
        """z_t by one product, as a function of the inputs of a step without params, and of s_{t−1}; None: by two."""
        one = self.one_step(inputs)
        z = jax.eval_shape(self.preactivation, one, one.s_0)
        if not joins_products(inputs.T, inputs.xs.shape[1:-1], inputs.params, z):
            return None

        def preactivation(params: Any, here: Inputs, s: Any) -> Any:
            return self.preactivation(here._replace(params=params), s)

        here = at_step(one, one.xs, one.given)._replace(params=None)
        return joint_product(preactivation, inputs.params, here, one.s_0)

    def at_every_step(self, f: Callable, inputs: Inputs, *trees: Any) -> Any:
        """f of the inputs and trees of one step, for all steps at once."""

        def one(x: Any, given: Given, *parts: Any) -> Any:
            return f(at_step(inputs, x, given), *parts)

        return vmap_time_and_batch(one, inputs.batch_axes + 1)(inputs.xs, inputs.given, *trees)

    def one_step(self, inputs: Inputs) -> Inputs:
        """The shapes of one step of one sequence."""
        axes = {None: 0, 0: inputs.batch_axes, 1: inputs.batch_axes + 1}
        leaves = zip(jax.tree.leaves(inputs), self.in_axes, strict=True)
        return self.tree.unflatten([jax.ShapeDtypeStruct(a.shape[axes[axis] :], a.dtype) for a, axis in leaves])

    def read_by(self, f: Callable, inputs: Inputs, *shapes: Any) -> list[bool]:
        """For each leaf of the inputs of one step, whether f(inputs, *shapes) reads it."""
        jaxpr = jax.make_jaxpr(f)(inputs, *shapes).jaxpr
        return list(pe.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][: self.tree.num_leaves])

    def saving(self, inputs: Inputs, active: Sequence[bool]) -> Saving:
        """What the forward loop saves for the derivative by the leaves that are `active`."""

        def update(fixed: Inputs, moved: Inputs, s: Any, z: Any) -> Any:
            return self.update(merged(fixed, moved), s, z)

        one = self.one_step(inputs)
        z = jax.eval_shape(self.preactivation, one, one.s_0)
        return choose_saving(update, one, self.select(one, active), one.s_0, z)

    def select(self, inputs: Inputs, flags: Sequence[bool]) -> Inputs:
        """The leaves that are flagged; None in place of the others."""
        leaves = zip(self.tree.flatten_up_to(inputs), flags, strict=True)
        return self.tree.unflatten([a if flag else None for a, flag in leaves])


def merged(inputs: Inputs, moved: Inputs) -> Inputs:
    """The inputs, with the leaves of `moved` that are not None."""
    return jax.tree.map(lambda m, a: a if m is None else m, moved, inputs, is_leaf=lambda m: m is None)


def at_step(inputs: Inputs, x: Any, given: Given) -> Inputs:
    """The inputs of one step: what `Recurrence.project`, `recur`, `update` and `mix` read."""
    return Inputs(inputs.params, None, None, x, *given)


@dataclass(frozen=True)
class Forward:
    """(s_T, all s_t), and with `saving` also all s_{t−1}, after resets, and `Saved`, from the leaves of `Inputs`."""

    recurrence: Recurrence
    saving: Saving | None = None

    @property
    def in_axes(self) -> Axes:
        """The batch axes of the inputs."""
        return self.recurrence.in_axes

    @property
    def out_axes(self) -> Any:
        """The batch axes of the results."""
        return (0, 1) if self.saving is None else (0, 1, 1, 1)

    def __call__(self, members: int, *leaves: Any) -> Any:
        r, inputs = self.recurrence, self.recurrence.tree.unflatten(leaves)
        n, masks = inputs.batch_axes, StepMasks(inputs.mask, inputs.reset)
        layout = choose_layout(inputs.xs.shape[1:-1], members)
        with jax.named_scope("input_product"):
            zxs = inputs.xs if layout.inline else r.at_every_step(r.project, inputs)
        joint = r.joint(inputs) if layout.inline else None

        def step(s: Any, zx: Any, given: Given) -> Any:
            here = at_step(inputs, zx if layout.inline else None, given)
            if joint is not None:
                z = joint(here._replace(params=None), s)
            else:
                zx = r.project(here) if layout.inline else zx
                z = add_preactivations(r.cell, zx, r.recur(here, s))
            if self.saving is None:
                return r.mix(here, r.update(here, s, z)), None
            u, saved = self.saving.forward(r.update, here, s, z)
            return r.mix(here, u), saved

        def body(s_tm1: Any, stream: Any) -> Any:
            zx_t, noise_t, masks_t = stream
            s_in = apply_reset(masks_t, inputs.s_initial, s_tm1)
            s_t, saved_t = vmap_n(step, n)(s_in, zx_t, inputs.given._replace(steps=noise_t))
            s_t = apply_mask(masks_t, s_tm1, s_t)
            return s_t, (s_t,) if self.saving is None else (s_t, s_in, saved_t)

        with jax.named_scope("loop"):
            streams = zxs, inputs.noise_steps, masks
            s_T, steps = jax.lax.scan(body, inputs.s_0, streams, reverse=r.reverse, unroll=layout.unroll)
        return s_T, *steps
