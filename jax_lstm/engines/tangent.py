"""The tangent of a recurrence, and the transpose of that, the adjoint recurrence.

With s_{t−1} and z_t of all steps, all other values of a step are elementwise functions. The forward loop saves
s_{t−1}, and z_t or the gates (saving.py). The tangent and the adjoint compute the rest again, each in its own loop:

    dz_t = JVP of project and recur for (dparams, dx_t), with s_{t−1} held fixed    all steps at once, before the loop
    ds_t = JVP of mix ∘ update at (s_{t−1}, z_t) for (ds_{t−1}, dz_t + JVP of recur for ds_{t−1})             the loop

    (s̄_{t−1}, z̄_t) = VJP of mix ∘ update at (s_{t−1}, z_t) for s̄_t;  s̄_{t−1} += VJP of recur for z̄_t         the loop
    gradients = VJP of project and recur for z̄_1, …, z̄_T                            all steps at once, after the loop

The adjoint recurrence is backpropagation through time as written by hand. Its loop multiplies by the recurrent weights
only, and the gradient of each weight is one matrix product after the loop. Differentiating the forward loop would add a
gradient as large as the weights at every step. The gradient of a vector that `update` reads, such as a bias, is added
up in the loop, for each sequence by itself: devices that share a batch exchange nothing there. The gradient of a matrix
that `update` or `mix` reads is computed after the loop.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.cell import add_preactivations
from jax_lstm.checks import is_at_least
from jax_lstm.engines.engine import Given, Inputs
from jax_lstm.engines.layout import choose_layout, small_weights, vmap_n
from jax_lstm.engines.masking import StepMasks, apply_mask, apply_reset, where_or
from jax_lstm.engines.program import Axes
from jax_lstm.engines.recurrence import NOTHING, Recurrence, at_step, merged
from jax_lstm.engines.saving import Saved, again
from jax_lstm.engines.sharding import match_sharding
from jax_lstm.gates import at_least_float32


class _Parts:
    """The parts of a step that are differentiated apart, and which active leaves of `Inputs` each of them reads.

    of_z: those that `project` and `recur` read, for all steps at once.
    in_loop: those of the size of a state that `update` reads, such as a bias, in the loop.
    of_state: those that `mix` reads, and larger ones that `update` reads, such as a matrix; for all steps at once.
    """

    def __init__(self, r: Recurrence, active: Sequence[bool], inputs: Inputs, s_ins: Any, saved: Saved):
        self.r, self.inputs, self.s_ins, self.y = r, inputs, s_ins, saved.y
        one = r.one_step(inputs)
        z = jax.eval_shape(r.preactivation, one, one.s_0)
        self.zs = self.filled(saved.z, z)
        u = jax.eval_shape(r.update, one, one.s_0, z)

        def flags(f: Callable, *shapes: Any) -> list[bool]:
            return [on and read for on, read in zip(active, r.read_by(f, one, *shapes), strict=True)]

        size_of_z = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(z))
        large = [
            math.prod(leaf.shape) > size_of_z and name != "noise_steps"
            for leaf, name in zip(jax.tree.leaves(one), r.fields, strict=True)
        ]
        of_update, self.of_mix = flags(r.update, one.s_0, z), flags(r.mix, u)
        self.of_z = flags(r.preactivation, one.s_0)
        self.in_loop = [on and not is_large for on, is_large in zip(of_update, large, strict=True)]
        self.large = [on and is_large for on, is_large in zip(of_update, large, strict=True)]
        self.of_state = [a or b for a, b in zip(self.of_mix, self.large, strict=True)]
        self.zero = self.zeros(inputs.s_0)

    def preactivations(self, moved: Inputs) -> Any:
        """All z_t, with s_{t−1} held fixed."""
        return self.r.at_every_step(self.r.preactivation, merged(self.inputs, moved), self.s_ins)

    def preactivations_of_step(self, moved: Inputs, x: Any, given: Given, s: Any) -> Any:
        """z_t of every sequence, with s_{t−1} held fixed; `moved` are the leaves at this step."""
        per_sequence = NOTHING._replace(xs=0, noise_steps=0, noise=0, constants=0)

        def one(moved: Inputs, x: Any, given: Given, s: Any) -> Any:
            return self.r.preactivation(merged(at_step(self.inputs, x, given), moved), s)

        for _ in range(self.inputs.batch_axes):
            one = jax.vmap(one, (per_sequence, 0, 0, 0))
        return one(moved, x, given, s)

    def update(self, inputs: Inputs, s: Any, z: Any, y: Any) -> Any:
        """The state before `mix`, of one step of one sequence, from what was saved."""
        return again(self.r.update, y, inputs, s, z)

    def states(self, moved: Inputs) -> Any:
        """All s_t, with s_{t−1}, z_t and the leaves in the loop held fixed."""
        r, of_update = self.r, merged(self.inputs, self.r.select(moved, self.large))
        us = r.at_every_step(self.update, of_update, self.s_ins, self.zs, self.y)
        return r.at_every_step(r.mix, merged(self.inputs, r.select(moved, self.of_mix)), us)

    def step(self, given: Given, y: Any, looped: Inputs, s: Any, z: Any) -> Any:
        """s_t of every sequence, from s_{t−1} and z_t; `looped` has the leaves that `update` reads."""

        def one(given: Given, y: Any, looped: Inputs, s: Any, z: Any) -> Any:
            here = at_step(self.inputs, None, given)
            return self.r.mix(here, self.update(merged(here, looped), s, z, y))

        return vmap_n(one, self.inputs.batch_axes)(given, y, looped, s, z)

    def recur(self, transposed: bool = False) -> Callable[[Any], Any]:
        """z_t of every sequence as a function of s_{t−1}, with a zero in place of the input's part."""
        inputs = self.inputs
        params = _transposed(inputs.params) if transposed else inputs.params
        zero = self.zeros(jax.tree.map(lambda z: z[0], self.zs))

        def one(given: Given, s: Any, zero: Any) -> Any:
            here = at_step(inputs, None, given)._replace(params=_transposed(params) if transposed else params)
            return add_preactivations(self.r.cell, zero, self.r.recur(here, s))

        return lambda s: vmap_n(one, inputs.batch_axes)(inputs.given.lasting(), s, zero)

    def looped(self, inputs: Inputs) -> tuple[Inputs, Any]:
        """The leaves in the loop: those of a sequence, with a copy of the params for each, and those of steps."""
        params, _, _, _, steps, noise, constants, *_ = self.r.select(inputs, self.in_loop)
        return NOTHING._replace(params=self.spread(params), noise=noise, constants=constants), steps

    def filled(self, saved_zs: Any, z: Any) -> Any:
        """The saved leaves of all z_t, and zeros in place of the others, which are not read; z gives their shapes."""

        def zeros(inputs: Inputs, s: Any) -> Any:
            return match_sharding(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), z), s)

        zs = self.r.at_every_step(zeros, self.inputs, self.s_ins)
        return jax.tree.map(lambda zero, saved: zero if saved is None else saved, zs, saved_zs)

    def zeros(self, tree: Any) -> Any:
        """Zeros, sharded as the state is, for a tree with leaves (*B, ...)."""
        zeros = vmap_n(lambda a, s: match_sharding(jax.tree.map(jnp.zeros_like, a), s), self.inputs.batch_axes)
        return zeros(tree, self.inputs.s_0)

    def spread(self, params: Any) -> Any:
        """Each leaf, repeated for every sequence, and sharded as the state is."""
        repeat = match_sharding
        for _ in range(self.inputs.batch_axes):
            repeat = jax.vmap(repeat, (None, 0))
        return repeat(params, self.inputs.s_0)

    def unspread(self, params: Any, bars: Any) -> Any:
        """The transpose of `spread`: sums over the batch."""
        return jax.vjp(self.spread, _wide(params))[1](bars)[0]


@dataclass(frozen=True)
class Tangent:
    """(ds_T, all ds_t), linear in the tangents of the leaves of `Inputs` that are `active`.

    From the leaves of `Inputs`, those of all s_{t−1}, those of `Saved` of all steps, and the tangents.
    """

    recurrence: Recurrence
    saved_tree: Any
    active: tuple[bool, ...]

    @property
    def residual_axes(self) -> Axes:
        """The batch axes of all arguments but the tangents."""
        r = self.recurrence
        return r.in_axes + (1,) * (r.state_tree.num_leaves + self.saved_tree.num_leaves)

    @property
    def in_axes(self) -> Axes:
        """The batch axes of the arguments."""
        return self.residual_axes + tuple(a for a, on in zip(self.recurrence.in_axes, self.active, strict=True) if on)

    @property
    def out_axes(self) -> Any:
        """The batch axes of the results."""
        return 0, 1

    def residuals(self, arrays: Sequence[Any]) -> tuple[Inputs, Any, Any, list[Any]]:
        """The inputs, all s_{t−1}, `Saved` of all steps, and the other arrays."""
        r = self.recurrence
        ends = r.tree.num_leaves, r.tree.num_leaves + r.state_tree.num_leaves, len(self.residual_axes)
        return (
            r.tree.unflatten(arrays[: ends[0]]),
            r.state_tree.unflatten(arrays[ends[0] : ends[1]]),
            self.saved_tree.unflatten(arrays[ends[1] : ends[2]]),
            list(arrays[ends[2] :]),
        )

    def transposed(self, linear: tuple[bool, ...], nonzero: tuple[bool, ...]) -> "Adjoint":
        """The adjoint recurrence."""
        wanted = iter(linear[len(self.residual_axes) :])
        return Adjoint(self, tuple(on and next(wanted) for on in self.active), nonzero)

    def __call__(self, members: int, *arrays: Any) -> Any:
        inputs, s_ins, saved, moved = self.residuals(arrays)
        r, tangents = self.recurrence, iter(moved)
        dinputs = r.tree.unflatten([next(tangents) if on else None for on in self.active])
        parts = _Parts(r, self.active, inputs, s_ins, saved)

        def jvp(f: Callable, flags: Sequence[bool]) -> Any:
            """The tangent of f, a function of the flagged leaves; None if there are none."""
            if not any(flags):
                return None
            return jax.jvp(f, (r.select(inputs, flags),), (r.select(dinputs, flags),))[1]

        dzs, ds_of_leaves = jvp(parts.preactivations, parts.of_z), jvp(parts.states, parts.of_state)
        lasting, steps = parts.looped(inputs)
        dlasting, dsteps = parts.looped(dinputs)
        ds_0, ds_initial = (_filled(ds, parts.zero) for ds in (dinputs.s_0, dinputs.s_initial))
        recur = parts.recur()

        def body(ds_tm1: Any, stream: Any) -> Any:
            s_in, z_t, y_t, dz_t, ds_of_leaves_t, moved_t, noise_t, masks_t = stream
            ds_in = apply_reset(masks_t, ds_initial, ds_tm1)
            dz_t = _sum(dz_t, jax.jvp(recur, (s_in,), (ds_in,))[1])
            looped = lasting._replace(noise_steps=moved_t[0]), dlasting._replace(noise_steps=moved_t[1])
            step = partial(parts.step, inputs.given._replace(steps=noise_t), y_t)
            ds_t = jax.jvp(step, (looped[0], s_in, z_t), (looped[1], ds_in, dz_t))[1]
            ds_t = apply_mask(masks_t, ds_tm1, _sum(ds_t, ds_of_leaves_t))
            return ds_t, ds_t

        masks = StepMasks(inputs.mask, inputs.reset)
        streams = s_ins, parts.zs, parts.y, dzs, ds_of_leaves, (steps, dsteps), inputs.noise_steps, masks
        layout = choose_layout(inputs.xs.shape[1:-1], members)
        with jax.named_scope("tangent_loop"):
            return jax.lax.scan(body, ds_0, streams, reverse=r.reverse, unroll=layout.unroll)


@dataclass(frozen=True)
class Adjoint:
    """The transpose of a `Tangent`: the gradients of the leaves of `Inputs` that are `wanted`.

    From the leaves of `Inputs`, those of all s_{t−1}, those of `Saved` of all steps, and the cotangents of s_T and of
    all s_t, of which only those that are `nonzero` are given.
    """

    tangent: Tangent
    wanted: tuple[bool, ...]
    nonzero: tuple[bool, ...]

    @property
    def in_axes(self) -> Axes:
        """The batch axes of the arguments."""
        n = self.tangent.recurrence.state_tree.num_leaves
        axes = zip((0,) * n + (1,) * n, self.nonzero, strict=True)
        return self.tangent.residual_axes + tuple(axis for axis, on in axes if on)

    @property
    def out_axes(self) -> Any:
        """The batch axes of the results."""
        return [axis for axis, on in zip(self.tangent.recurrence.in_axes, self.wanted, strict=True) if on]

    def __call__(self, members: int, *arrays: Any) -> list[Any]:
        inputs, s_ins, saved, given_bars = self.tangent.residuals(arrays)
        r, bars, n = self.tangent.recurrence, iter(given_bars), self.tangent.recurrence.state_tree.num_leaves
        bars = [next(bars) if on else None for on in self.nonzero]
        s_T_bar, s_bars = r.state_tree.unflatten(bars[:n]), r.state_tree.unflatten(bars[n:])
        parts = _Parts(r, self.wanted, inputs, s_ins, saved)
        lasting, steps = parts.looped(inputs)
        zero = parts.zero
        layout = choose_layout(inputs.xs.shape[1:-1], members)
        recur = parts.recur(layout.transposed)
        wants_initial = any(on for on, name in zip(self.wanted, r.fields, strict=True) if name == "s_initial")
        in_steps = is_at_least(members, 2) and small_weights(inputs.params, (inputs.xs, s_ins, saved), inputs.T)
        at_once = r.select(inputs, parts.of_z) if in_steps else NOTHING
        summed = NOTHING._replace(params=at_once.params, noise=at_once.noise, constants=at_once.constants)

        def body(carry: Any, stream: Any) -> Any:
            s_bar, looped_bar, initial_bar, summed_bar = carry
            s_in, z_t, y_t, s_bar_t, steps_t, (x_t, noise_t), at_once_t, (mask, reset) = stream
            s_bar = _sum(s_bar, s_bar_t)
            kept = where_or(mask, zero, s_bar, absent=None)
            s_bar = where_or(mask, s_bar, zero, absent=s_bar)
            step = partial(parts.step, inputs.given._replace(steps=noise_t), y_t)
            _, pull = jax.vjp(step, lasting._replace(noise_steps=steps_t), s_in, z_t)
            moved_bar, s_in_bar, z_bar = pull(s_bar)
            s_in_bar = _sum(s_in_bar, jax.vjp(recur, s_in)[1](z_bar)[0])
            if initial_bar is not None:
                initial_bar = _sum(initial_bar, _wide(where_or(reset, s_in_bar, zero, absent=zero)))
            s_in_bar = where_or(reset, zero, s_in_bar, absent=s_in_bar)
            looped_bar = _sum(looped_bar, _wide(moved_bar._replace(noise_steps=None)))
            emitted: Any = z_bar
            if in_steps:
                moved = summed._replace(xs=at_once_t[0], noise_steps=at_once_t[1])
                given = inputs.given._replace(steps=noise_t)
                _, pull = jax.vjp(lambda moved: parts.preactivations_of_step(moved, x_t, given, s_in), moved)
                emitted = pull(z_bar)[0]
                summed_bar = Inputs(*map(_sum, summed_bar, _wide(emitted._replace(xs=None, noise_steps=None))))
                emitted = NOTHING._replace(xs=emitted.xs, noise_steps=emitted.noise_steps)
            emitted = emitted, moved_bar.noise_steps, s_bar if any(parts.of_state) else None
            return (_sum(s_in_bar, kept), looped_bar, initial_bar, summed_bar), emitted

        start = (
            _filled(s_T_bar, zero),
            parts.zeros(_wide(lasting)),
            _wide(zero) if wants_initial else None,
            parts.zeros(_wide(summed._replace(params=None)))._replace(
                params=jax.tree.map(jnp.zeros_like, _wide(summed.params))
            ),
        )
        streams = (
            s_ins, parts.zs, parts.y, s_bars, steps, (inputs.xs, inputs.noise_steps), (at_once.xs, at_once.noise_steps),
            StepMasks(inputs.mask, inputs.reset),
        )  # fmt: skip
        with jax.named_scope("adjoint_loop"):
            ends, emitted = jax.lax.scan(body, start, streams, reverse=not r.reverse, unroll=layout.unroll)
        (s_0_bar, looped_bar, initial_bar, summed_bar), (z_bars, steps_bar, s_bars_of_leaves) = ends, emitted

        def vjp(f: Callable, flags: Sequence[bool], cotangents: Any) -> Any:
            """The gradients of f, a function of the flagged leaves; None if there are none."""
            return jax.vjp(f, r.select(inputs, flags))[1](cotangents)[0] if any(flags) else None

        with jax.named_scope("weight_gradient"):
            of_z = Inputs(*map(_sum, summed_bar, z_bars)) if in_steps else vjp(parts.preactivations, parts.of_z, z_bars)
            of_state = vjp(parts.states, parts.of_state, s_bars_of_leaves)
        moved = r.select(inputs, parts.in_loop).params
        gradients = NOTHING._replace(s_0=s_0_bar, s_initial=initial_bar, noise_steps=steps_bar)
        for part in (looped_bar._replace(params=parts.unspread(moved, looped_bar.params)), of_z, of_state):
            gradients = Inputs(*map(_sum, _wide(gradients), _wide(part or NOTHING)))
        gradients = r.tree.unflatten([None] * r.tree.num_leaves)._replace(
            **{name: a for name, a in gradients._asdict().items() if a is not None}
        )
        leaves = zip(r.tree.flatten_up_to(gradients), jax.tree.leaves(inputs), self.wanted, strict=True)
        return [jnp.zeros_like(a) if bar is None else bar.astype(a.dtype) for bar, a, on in leaves if on]


def _transposed(params: Any) -> Any:
    """The params with the last two axes of every matrix swapped."""
    return jax.tree.map(lambda w: jnp.swapaxes(w, -1, -2) if w.ndim > 1 else w, params)


def _sum(a: Any, b: Any) -> Any:
    """a + b, leaf by leaf; None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(lambda a, b: b if a is None else a if b is None else a + b, a, b, is_leaf=_is_none)


def _filled(tree: Any, zero: Any) -> Any:
    """The tree, with zeros in place of None."""
    return zero if tree is None else jax.tree.map(lambda z, a: z if a is None else a, zero, tree)


def _wide(tree: Any) -> Any:
    """The same values in float32 or wider, so that a sum over many steps loses nothing."""
    return jax.tree.map(lambda a: a.astype(at_least_float32(a.dtype)), tree)


def _is_none(a: Any) -> bool:
    return a is None
