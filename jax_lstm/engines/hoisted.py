"""The engine "hoisted" runs a split cell in a loop, and differentiates the recurrence, not the loop, by a custom JVP.

The states of a cell that splits its step are

    s_t  = mix(params, update(params, s_{t−1}, project(params, x_t), recur(params, s_{t−1})))

The tangent of this recurrence is an affine recurrence; the custom JVP computes it in a loop of its own. L_t below is
the linearization of update at step t. A cell with its own derivative (its update reads only the sum zx + zh) returns
the residuals of L_t from the forward loop. The tangents of params and inputs enter through the pre-activation z:

    dz_t = JVP of z_t for (dparams, dx_t), with s_{t−1} held fixed   for all steps at once, before the loop
    ds_t = L_t(ds_{t−1}, dz_t + recur(params, ds_{t−1}))             the loop

Both lines avoid sums of an array that has a batch axis and one that has none, and never concatenate arrays that have a
time axis: under `vmap` JAX would move the batch axis before the time axis, and copy every stream.

For any other cell JAX linearizes update, for all steps at once. The tangents of params and inputs enter through the
state, because update may read any parameter:

    u_t  = JVP of mix ∘ update for (dparams, dzx_t, dzh_t), where dzh_t = JVP of recur for dparams; s_{t−1} held fixed
    ds_t = mix(params, L_t(ds_{t−1}, recur(params, ds_{t−1}))) + u_t

JAX transposes this tangent. The result is backpropagation through time as written by hand: one reverse loop for the
adjoint states, whose only matrix product is with the weights of recur, then one matrix product for all weight
gradients. Differentiating the loop itself would instead add a weight gradient, as large as the weights, at every step.
Because this is a `custom_jvp`, all transformations and all orders of derivatives work. Only reverse-over-reverse
differentiation accumulates weight gradients in a loop.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from jax_lstm.abilities import has_own_derivative, is_split, output
from jax_lstm.cell import Noise, SplitCell
from jax_lstm.engines.collect import collected
from jax_lstm.engines.engine import Given, Inputs, Options
from jax_lstm.engines.layout import Layout, choose_layout, vmap_n, vmap_time_and_batch
from jax_lstm.engines.masking import StepMasks, apply_mask, apply_reset
from jax_lstm.engines.sharding import match_sharding
from jax_lstm.engines.symbolic_zeros import instantiate_zeros, jvp, nonzero_tangents


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
            layout = choose_layout(cell, inputs.xs, options.num_sequences)
            s_T, states = trajectory(cell, options.reverse, layout, inputs)
        return s_T, collected(cell, inputs, options, states)


def _not_differentiable(cell: Any, inputs: Inputs) -> str | None:
    """Why the engine refuses a split cell: callbacks, values that are not floats, a nonlinear `recur` or `mix`."""
    params, state, x, given = inputs.one_step()

    def one_step(params: Any, state: Any, x: Any, given_t: Given) -> tuple[Any, ...]:
        zx = given_t.call(cell.project, params, x)
        zh = given_t.lasting().call(cell.recur, params, state)
        before_mix = given_t.call(cell.update, params, state, zx, zh)
        return zx, zh, before_mix, output(cell, cell.mix(params, before_mix))

    jaxpr, (zx, zh, before_mix, _) = jax.make_jaxpr(one_step, return_shape=True)(params, state, x, given)
    # A collective over a named axis, such as psum, and a checkify.check are effects too, but may run in any order.
    if any(type(effect).__name__ not in ("NamedAxisEffect", "ErrorEffect") for effect in jaxpr.effects):
        return (
            f'engine "hoisted": cell {type(cell).__name__} has side effects, such as jax.debug.print, which would run '
            'out of order and more than once; use engine="plain"'
        )
    for what, tree in (("the state", state), ("the output of project", zx), ("the output of recur", zh)):
        leaves = jax.tree.leaves(tree)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            held = ", ".join(str(leaf.dtype) for leaf in leaves) or "no array"
            return (
                f'engine "hoisted": {what} of cell {type(cell).__name__} must hold floats, but holds {held}; '
                'use engine="plain"'
            )
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), given.lasting())

    def recur(params: Any, state: Any) -> Any:
        return zero.call(cell.recur, params, state)

    for name, part, s in (("recur", recur, state), ("mix", cell.mix, before_mix)):
        try:
            out = jax.eval_shape(part, params, s)
            jax.eval_shape(jax.linear_transpose(partial(part, inputs.params), s), out)
        except (NotImplementedError, AssertionError, ValueError, TypeError):
            return (
                f'engine "hoisted": {name} of cell {type(cell).__name__} must be linear in the state, but is not; '
                'move the nonlinear part into update, or use engine="plain"'
            )
    return None


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def trajectory(cell: Any, reverse: bool, layout: Layout, inputs: Inputs) -> tuple[Any, Any]:
    """s_T, and all states s_t (T, *B, ...), computed with this layout (layout.py)."""

    def update(s: Any, zx: Any, given_t: Given) -> tuple[Any, None]:
        zh = given_t.lasting().call(cell.recur, inputs.params, s)
        return cell.mix(inputs.params, given_t.call(cell.update, inputs.params, s, zx, zh)), None

    s_T, (states, _) = _forward(reverse, inputs, *_projected(cell, layout, inputs, update))
    return s_T, states


@partial(trajectory.defjvp, symbolic_zeros=True)
def _trajectory_jvp(cell: Any, reverse: bool, layout: Layout, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (inputs,), (dinputs,) = primals, tangents
    _, s_0, s_initial, *_ = inputs
    own = has_own_derivative(cell) and not cell.noise_in_update(Noise(inputs.noise_steps, inputs.noise))
    parts = _own_parts if own else _linearized_parts
    s_T, states, linear = parts(cell, reverse, layout, inputs)

    # Checkpoint the tangent so that only forward residuals are saved, not values derived from them, such as a
    # transposed weight or x with a column of ones.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dparams: Any, ds_0: Any, ds_initial: Any, dxs: Any, dgiven: Any) -> tuple[Any, Any]:
        update_jvp, recur, Ls, dzs, us = linear(dparams, dxs, dgiven)

        # The loop must contain tangent arithmetic only: JAX would compute anything else, even a broadcast of a mask or
        # a zero, in a third loop. So everything that the loop reads is broadcast to its full shape before the loop.
        masks = StepMasks(*(None if m is None else jax.tree.map(partial(_full, m), states) for m in inputs[-2:]))
        masks, ds_reset, Ls = match_sharding((masks, _zeros(s_0), Ls), states)
        ds_reset = ds_reset if ds_initial is None else instantiate_zeros(ds_initial, s_initial)

        def body(ds_tm1: Any, stream: Any) -> tuple[Any, Any]:
            L_t, dz_t, u_t, masks_t = stream
            ds_in = ds_tm1 if masks_t.reset is None else jax.tree.map(jax.lax.select, masks_t.reset, ds_reset, ds_tm1)
            ds_t = _sum(u_t, update_jvp(L_t, ds_in, _sum(dz_t, recur(ds_in))))
            ds_t = ds_t if masks_t.mask is None else jax.tree.map(jax.lax.select, masks_t.mask, ds_t, ds_tm1)
            return ds_t, ds_t

        ds_0 = _zeros(s_0) if ds_0 is None else instantiate_zeros(ds_0, s_0)
        return jax.lax.scan(body, ds_0, (Ls, dzs, us, masks), reverse=reverse)

    moved = [nonzero_tangents(t, p) for t, p in zip(dinputs[:4], inputs[:4], strict=True)]
    return (s_T, states), tangent(*moved, nonzero_tangents(dinputs.given, inputs.given))


def _own_parts(cell: Any, reverse: bool, layout: Layout, inputs: Inputs) -> tuple[Any, Any, Callable]:
    """For a cell with its own derivative: s_T, all states, and a function that returns the parts of the tangent loop.

    It maps (dparams, dxs, dgiven) to (update_jvp, recur, L, dz, u), as in the equations above.
    """
    params, xs, given, B = inputs.params, inputs.xs, inputs.given, inputs.batch_axes
    packed, unpacked = _packing(cell, inputs) if layout.packed else (lambda L: L, lambda L: L)

    def update(s: Any, zx: Any, given_t: Given) -> tuple[Any, Any]:
        s_t, L_t = cell.update_with_residuals(params, s, zx + given_t.lasting().call(cell.recur, params, s))
        return s_t, (s, packed(L_t))

    s_T, (states, (s_ins, Ls)) = _forward(reverse, inputs, *_projected(cell, layout, inputs, update))
    states, s_ins = checkpoint_name((states, s_ins), "jax_lstm.state")
    Ls = checkpoint_name(Ls, "jax_lstm.preactivation")

    # Without the checkpoint, what `update_jvp` computes from L_t alone would go into a third loop (see above).
    @partial(jax.checkpoint, prevent_cse=False)
    def update_jvp(L: Any, ds: Any, dz: Any) -> Any:
        return cell.update_jvp(unpacked(L), ds, dz)

    def linear(dparams: Any, dxs: Any, dgiven: Any) -> tuple[Any, ...]:
        dparams = instantiate_zeros(dparams, params)

        def preactivation_jvp(x: Any, dx: Any, s: Any, given_t: Given) -> Any:
            return given_t.call(cell.preactivation_jvp, params, dparams, x, dx, s)

        def given_jvp(x: Any, s: Any, given_t: Given, dgiven_t: Given) -> Any:
            def z(given_t: Given) -> Any:
                zh = given_t.lasting().call(cell.recur, params, s)
                return given_t.call(cell.project, params, x) + zh

            return jvp(z, (given_t,), (dgiven_t,))[1]

        dzs = vmap_time_and_batch(preactivation_jvp, B + 1)(xs, dxs, s_ins, given)
        if dgiven is not None:
            dzs = _sum(dzs, vmap_time_and_batch(given_jvp, B + 1)(xs, s_ins, given, dgiven))
        recur = cell.recur_transposed(params) if layout.transposed else partial(cell.recur, params)
        return vmap_n(update_jvp, B), _with(given, recur, B), Ls, dzs, None

    return s_T, states, linear


def _packing(cell: Any, inputs: Inputs) -> tuple[Callable, Callable]:
    """Two functions: L_t of one example to one vector, and back."""
    _, s, x, given = inputs.one_step()

    def residuals(s: Any, x: Any, given: Given) -> Any:
        return cell.update_with_residuals(inputs.params, s, given.call(cell.project, inputs.params, x))[1]

    leaves, tree = jax.tree.flatten(jax.eval_shape(residuals, s, x, given))
    ends = list(itertools.accumulate(leaf.shape[-1] for leaf in leaves))[:-1]
    return lambda L: jnp.concatenate(jax.tree.leaves(L)), lambda a: jax.tree.unflatten(tree, jnp.split(a, ends))


def _linearized_parts(cell: Any, reverse: bool, layout: Layout, inputs: Inputs) -> tuple[Any, Any, Callable]:
    """`_own_parts` for any split cell: JAX linearizes its update, for all steps at once."""
    params, xs, given, B = inputs.params, inputs.xs, inputs.given, inputs.batch_axes

    def update(s: Any, zx: Any, given_t: Given) -> tuple[Any, Any]:
        zh = given_t.lasting().call(cell.recur, params, s)
        return cell.mix(params, given_t.call(cell.update, params, s, zx, zh)), (s, zh)

    zxs, _ = _projected(cell, layout._replace(inline=False), inputs, update)
    s_T, (states, (s_ins, zhs)) = _forward(reverse, inputs, zxs, vmap_n(update, B))
    states, s_ins = checkpoint_name((states, s_ins), "jax_lstm.state")
    zhs = checkpoint_name(zhs, "jax_lstm.preactivation")

    # As in `_own_parts`: otherwise a constant times a coefficient would go into a third loop.
    @partial(jax.checkpoint, prevent_cse=False)
    def update_jvp(L: Any, ds: Any, dz: Any) -> Any:
        return cell.mix(params, L(ds, dz))

    full_params = match_sharding(params, zhs)  # params that update reads, such as peepholes, are coefficients of L_t

    def linearized(s: Any, zx: Any, zh: Any, given_t: Given) -> Any:
        L = jax.linearize(lambda s, zh: given_t.call(cell.update, full_params, s, zx, zh), s, zh)[1]
        return match_sharding(L, zh)  # a coefficient may be a constant, which has no batch axis

    Ls = vmap_time_and_batch(linearized, B + 1)(s_ins, zxs, zhs, given)

    def linear(dparams: Any, dxs: Any, dgiven: Any) -> tuple[Any, ...]:
        def step_jvp(x: Any, dx: Any, s: Any, zx: Any, zh: Any, given_t: Given, dgiven_t: Any) -> Any:
            def project(params: Any, x: Any, given_t: Given) -> Any:
                return given_t.call(cell.project, params, x)

            def recur(params: Any, s: Any, given_t: Given) -> Any:
                return given_t.lasting().call(cell.recur, params, s)

            def after(params: Any, s: Any, zx: Any, zh: Any, given_t: Given) -> Any:
                return cell.mix(params, given_t.call(cell.update, params, s, zx, zh))

            dzx = jvp(project, (params, x, given_t), (dparams, dx, dgiven_t))[1]
            dzh = jvp(recur, (params, s, given_t), (dparams, None, dgiven_t))[1]
            return jvp(after, (params, s, zx, zh, given_t), (dparams, None, dzx, dzh, dgiven_t))[1]

        us = vmap_time_and_batch(step_jvp, B + 1)(xs, dxs, s_ins, zxs, zhs, given, dgiven)
        recur = jax.linearize(_with(given, partial(cell.recur, params), B), inputs.s_0)[1]
        return vmap_n(update_jvp, B), recur, Ls, None, us

    return s_T, states, linear


def _with(given: Given, recur: Callable, batch_axes: int) -> Callable[[Any], Any]:
    """`recur` of a state with batch axes, with the noise and constants that last over all steps."""
    lasting = given.lasting()
    mapped = vmap_n(lambda s, given_t: given_t.call(recur, s), batch_axes)
    return lambda s: mapped(s, lasting)


def _projected(cell: Any, layout: Layout, inputs: Inputs, step: Callable) -> tuple[Any, Callable]:
    """The stream that the loop reads, xs or zxs, and its step, from a step (s_{t−1}, zx_t, given_t) -> (s_t, more)."""

    def project(x: Any, given_t: Given) -> Any:
        return given_t.call(cell.project, inputs.params, x)

    if layout.inline:
        return inputs.xs, vmap_n(lambda s, x, given_t: step(s, project(x, given_t), given_t), inputs.batch_axes)
    zxs = vmap_time_and_batch(project, inputs.batch_axes + 1)(inputs.xs, inputs.given)
    return zxs, vmap_n(step, inputs.batch_axes)


def _forward(reverse: bool, inputs: Inputs, streams: Any, step: Callable) -> tuple[Any, Any]:
    """Run the forward loop; return (s_T, (all s_t, all other results of `step`))."""
    given, masks = inputs.given, StepMasks(inputs.mask, inputs.reset)

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        input_t, noise_t, masks_t = stream
        s_in = apply_reset(masks_t, inputs.s_initial, s_tm1)
        s_t, more = step(s_in, input_t, given._replace(steps=noise_t))
        s_t = apply_mask(masks_t, s_tm1, s_t)
        return s_t, (s_t, more)

    return jax.lax.scan(body, inputs.s_0, (streams, given.steps, masks), reverse=reverse)


def _full(mask: Bool[Array, "T *B"], s: Float[Array, "T *B n"]) -> Bool[Array, "T *B n"]:
    """The mask, broadcast to the shape of a leaf of the state."""
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (s.ndim - mask.ndim)), s.shape)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _sum(a: Any, b: Any) -> Any:
    """a + b, leaf by leaf; None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(jnp.add, a, b)
