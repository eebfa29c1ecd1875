"""The engine "hoisted": the states of a split cell, with a custom JVP of the recurrence instead of the loop.

The states of a cell that splits its step are

    s_t  = mix(params, update(params, s_{t−1}, project(params, x_t), recur(params, s_{t−1})))

The tangent of this recurrence is an affine recurrence, and the custom JVP computes it as such. A cell with its own
derivative (its update reads only the sum zx + zh) returns the residuals L_t from the forward loop. The tangents of the
params and of the inputs then enter through the pre-activation z:

    dz_t = JVP of z_t for (dparams, dx_t), with s_{t−1} held fixed   for all steps at once, before the loop
    ds_t = L_t(ds_{t−1}, dz_t + recur(params, ds_{t−1}))             the loop

No operation there combines an array that has a batch axis with one that has none, or concatenates two arrays. Under
`vmap` JAX would then move the batch axis before the time axis, and copy every stream.

For any other cell JAX linearizes update, for all steps at once. The tangents of the params and of the inputs then enter
through the state, because update may read any parameter:

    u_t  = JVP of mix ∘ update for (dparams, dzx_t), with recur(dparams, s_{t−1}) as the part of zh_t
    ds_t = mix(params, L_t(ds_{t−1}, recur(params, ds_{t−1}))) + u_t

JAX transposes this tangent, and the result is backpropagation through time as written by hand: one reverse loop for the
adjoint states, whose only matrix product is with the weights of recur, then one matrix product for all weight
gradients. Differentiating the loop itself would instead add a weight gradient, as large as the weights, at every step.
Because this is a `custom_jvp`, all transformations and all orders of derivatives work. Only the reverse pass over a
reverse pass accumulates weight gradients in its loop.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from jax_lstm.cells import base
from jax_lstm.schedule import Plan, merges
from jax_lstm.tangents import jvp, moving, whole


class Flags(NamedTuple):
    """The flags live and restart, (T, *B) each; None if every step is live, or if none restarts.

    Where `live` is False the state stays. Where `restart` is True the state is first set to `s_restart`.
    """

    live: Bool[Array, "T *B"] | None
    restart: Bool[Array, "T *B"] | None


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def trajectory(
    cell: Any,
    reverse: bool,
    plan: Plan,
    params: Any,
    s_0: Any,
    s_restart: Any,
    xs: Float[Array, "T *B I"],
    flags: Flags,
) -> tuple[Any, Any]:
    """s_T and every s_t, computed with the layout `plan` (schedule.py)."""

    def update(s: Any, zx: Any) -> tuple[Any, None]:
        return base.mix(cell, params, cell.update(params, s, zx, cell.recur(params, s))), None

    s_T, (states, _) = _forward(reverse, *_inputs(cell, plan, params, xs, update), s_0, s_restart, flags)
    return s_T, states


@partial(trajectory.defjvp, symbolic_zeros=True)
def _trajectory_jvp(cell: Any, reverse: bool, plan: Plan, primals: Any, tangents: Any) -> tuple[Any, Any]:
    _, s_0, s_restart, _, flags = primals
    parts = _own_parts if base.is_linearised(cell) else _found_parts
    s_T, states, linear = parts(cell, reverse, plan, primals)

    # Checkpoint the tangent so that only forward residuals are saved, not values derived from them, such as a
    # transposed weight or x with a column of ones.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dparams: Any, ds_0: Any, ds_restart: Any, dxs: Any) -> tuple[Any, Any]:
        along, recur, Ls, dzs, us = linear(dparams, dxs)

        # The loop must contain tangent arithmetic only: JAX would compute anything else, even a broadcast of a flag or
        # a zero, in a third loop. So everything that the loop reads is broadcast to its full shape before the loop.
        masks = Flags(*(None if f is None else jax.tree.map(partial(_full, f), states) for f in flags))
        masks, fresh, Ls = like_data((masks, _zeros(s_0), Ls), states)
        fresh = fresh if ds_restart is None else whole(ds_restart, s_restart)

        def body(ds_tm1: Any, stream: Any) -> tuple[Any, Any]:
            L_t, dz_t, u_t, masks_t = stream
            ds_in = ds_tm1 if masks_t.restart is None else jax.tree.map(jax.lax.select, masks_t.restart, fresh, ds_tm1)
            ds_t = _sum(u_t, along(L_t, ds_in, _sum(dz_t, recur(ds_in))))
            ds_t = ds_t if masks_t.live is None else jax.tree.map(jax.lax.select, masks_t.live, ds_t, ds_tm1)
            return ds_t, ds_t

        ds_0 = _zeros(s_0) if ds_0 is None else whole(ds_0, s_0)
        return jax.lax.scan(body, ds_0, (Ls, dzs, us, masks), reverse=reverse)

    return (s_T, states), tangent(*(moving(t, p) for t, p in zip(tangents[:4], primals[:4], strict=True)))


def _own_parts(cell: Any, reverse: bool, plan: Plan, primals: Any) -> tuple[Any, Any, Callable]:
    """The forward loop of a cell with its own derivative, and a function that makes the parts of the tangent loop."""
    params, s_0, s_restart, xs, flags = primals
    packed, unpacked = _packing(cell, params, s_0, xs) if plan.packed else (lambda L: L, lambda L: L)

    def linearise(s: Any, zx: Any) -> tuple[Any, Any]:
        s_t, L_t = cell.linearise(params, s, zx + cell.recur(params, s))
        return s_t, (s, packed(L_t))

    inputs = _inputs(cell, plan, params, xs, linearise)
    s_T, (states, (s_ins, Ls)) = _forward(reverse, *inputs, s_0, s_restart, flags)
    states, s_ins = checkpoint_name((states, s_ins), "jax_lstm.state")
    Ls = checkpoint_name(Ls, "jax_lstm.preactivation")

    # Without the checkpoint, what `along` computes from L_t alone would go into a third loop (see above).
    @partial(jax.checkpoint, prevent_cse=False)
    def along(L: Any, ds: Any, dz: Any) -> Any:
        return cell.along(unpacked(L), ds, dz)

    def linear(dparams: Any, dxs: Any) -> tuple[Any, ...]:
        dzs = in_bulk(partial(cell.drive, params, whole(dparams, params)), xs.ndim - 1)(xs, dxs, s_ins)
        recur = cell.recur_along(params) if plan.transposed else partial(cell.recur, params)
        return each(along, xs.ndim - 2), each(recur, xs.ndim - 2), Ls, dzs, None

    return s_T, states, linear


def _packing(cell: Any, params: Any, s_0: Any, xs: Any) -> tuple[Callable, Callable]:
    """Two functions: L_t of one example to one vector, and back."""
    x = jax.ShapeDtypeStruct(xs.shape[-1:], xs.dtype)
    s = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[xs.ndim - 2 :], a.dtype), s_0)
    L = jax.eval_shape(lambda s, x: cell.linearise(params, s, cell.project(params, x))[1], s, x)
    leaves, tree = jax.tree.flatten(L)
    ends = list(itertools.accumulate(leaf.shape[-1] for leaf in leaves))[:-1]
    return lambda L: jnp.concatenate(jax.tree.leaves(L)), lambda a: jax.tree.unflatten(tree, jnp.split(a, ends))


def _found_parts(cell: Any, reverse: bool, plan: Plan, primals: Any) -> tuple[Any, Any, Callable]:
    """The same for any split cell: JAX linearizes its update, for all steps at once."""
    params, s_0, s_restart, xs, flags = primals
    axes = xs.ndim - 1

    def update(s: Any, zx: Any) -> tuple[Any, Any]:
        zh = cell.recur(params, s)
        return base.mix(cell, params, cell.update(params, s, zx, zh)), (s, zh)

    zxs = in_bulk(partial(cell.project, params), axes)(xs)
    s_T, (states, (s_ins, zhs)) = _forward(reverse, zxs, each(update, axes - 1), s_0, s_restart, flags)
    states, s_ins = checkpoint_name((states, s_ins), "jax_lstm.state")
    zhs = checkpoint_name(zhs, "jax_lstm.preactivation")

    def mixed(params: Any, *parts: Any) -> Any:
        return base.mix(cell, params, cell.update(params, *parts))

    # As above: a constant times a coefficient would go into a third loop.
    @partial(jax.checkpoint, prevent_cse=False)
    def along(L: Any, ds: Any, dz: Any) -> Any:
        return base.mix(cell, params, L(ds, dz))

    full_params = like_data(params, zhs)  # a peephole is a coefficient too

    def linearised(s: Any, zx: Any, zh: Any) -> Any:
        return jax.linearize(lambda s, zh: cell.update(full_params, s, zx, zh), s, zh)[1]

    Ls = in_bulk(linearised, axes)(s_ins, zxs, zhs)

    def linear(dparams: Any, dxs: Any) -> tuple[Any, ...]:
        def drive(x: Any, dx: Any, s: Any, zx: Any, zh: Any) -> Any:
            dzx = jvp(cell.project, (params, x), (dparams, dx))[1]
            dzh = jvp(cell.recur, (params, s), (dparams, None))[1]
            return jvp(mixed, (params, s, zx, zh), (dparams, None, dzx, dzh))[1]

        us = in_bulk(drive, axes)(xs, dxs, s_ins, zxs, zhs)
        recur = jax.linearize(each(partial(cell.recur, params), axes - 1), s_0)[1]
        return each(along, axes - 1), recur, Ls, None, us

    return s_T, states, linear


def _inputs(cell: Any, plan: Plan, params: Any, xs: Float[Array, "T *B I"], step: Callable) -> tuple[Any, Callable]:
    """The streams that the loop reads, and its step on them, from a `step` (s_{t−1}, zx_t) -> (s_t, more)."""
    project, batch = partial(cell.project, params), xs.ndim - 2
    if plan.inline:
        return xs, each(lambda s, x: step(s, project(x)), batch)
    return in_bulk(project, batch + 1)(xs), each(step, batch)


def _forward(
    reverse: bool, streams: Any, step: Callable[[Any, Any], tuple[Any, Any]], s_0: Any, s_restart: Any, flags: Flags
) -> tuple[Any, Any]:
    """s_T, and for every t s_t and what else `step` returns."""

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        input_t, flags_t = stream
        s_t, more = step(enter(flags_t, s_restart, s_tm1), input_t)
        s_t = leave(flags_t, s_tm1, s_t)
        return s_t, (s_t, more)

    return jax.lax.scan(body, s_0, (streams, flags), reverse=reverse)


def each(f: Callable, axes: int) -> Callable:
    """`f`, a function of one example, mapped over this many leading batch axes."""
    for _ in range(axes):
        f = jax.vmap(f)
    return f


def in_bulk(f: Callable, axes: int) -> Callable:
    """`f`, a function of one step of one example, mapped over the `axes` leading axes of arrays (T, *B, ...).

    Time and batch are merged into one axis first if the batch is not sharded over devices. A matrix product that sums
    over one axis reads its operands in place; for one that sums over two, XLA copies the larger operand on a CPU.
    """

    def merged(*args: Any) -> Any:
        lead = jax.tree.leaves(args)[0].shape[:axes]
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[axes:]), args)
        return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), jax.vmap(f)(*flat))

    return merged if axes > 1 and merges() else each(f, axes)


def enter(flags_t: Flags, s_restart: Any, s_tm1: Any) -> Any:
    """The state that a step starts from: s_restart where the step restarts."""
    return where(flags_t.restart, s_restart, s_tm1, absent=s_tm1)


def leave(flags_t: Flags, s_tm1: Any, s_t: Any) -> Any:
    """The state that a step ends in: s_{t−1} where the step is not live."""
    return where(flags_t.live, s_t, s_tm1, absent=s_t)


def where(flag: Bool[Array, "..."] | None, a: Any, b: Any, *, absent: Any) -> Any:
    """a where the flag is True, else b, leaf by leaf, the flag broadcast over trailing axes; `absent` if it is None."""
    if flag is None:
        return absent
    return jax.tree.map(lambda a, b: jnp.where(flag.reshape(flag.shape + (1,) * (b.ndim - flag.ndim)), a, b), a, b)


def without_dead(live: Bool[Array, "*T"] | None, xs: Any) -> Any:
    """xs with zeros where a step is not live, so that no value there, not even NaN, enters a computation."""
    return where(live, xs, _zeros(xs), absent=xs)


def like_data(state: Any, *data: Any) -> Any:
    """The same state with the sharding and batch axes of the data: a loop carry must keep its type.

    On an explicit mesh and inside shard_map an array's type includes its sharding; under vmap a value may or may not
    have a batch axis. `where(never, s, s)`, with a predicate computed from the data, gives `s` the type of the data.
    The predicate is False even for NaN. XLA removes the select, or reads one element.
    """
    never = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(data):
        # A slice has the type of the whole array and is faster to read. An axis that is sharded is not sliced.
        leaf = leaf[tuple(slice(1) if axis is None else slice(None) for axis in jax.typeof(leaf).sharding.spec)]
        never = never | (leaf < leaf).any()
    return jax.tree.map(lambda s: jnp.where(never, s, s), on_the_mesh(state))


def on_the_mesh(tree: Any) -> Any:
    """The same values, after a computation with each float leaf, which places it on the mesh.

    An array made before `jax.set_mesh` is not on the mesh until something is computed with it, and would come out of a
    vmap over a sharded axis unsharded. A learned initial state among the params is such an array.
    """
    return jax.tree.map(lambda a: a * jnp.ones((), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def as_data(state: Any, xs: Float[Array, "T *B I"], params: Any) -> Any:
    """`like_data` for a state that has the batch axes of xs."""
    if xs.ndim == 2:
        return like_data(state, xs, params)
    return jax.vmap(as_data, (0, 1, None))(state, xs, params)


def _full(flags: Bool[Array, "T *B"], s: Float[Array, "T *B n"]) -> Bool[Array, "T *B n"]:
    """The flags, broadcast to the shape of a leaf of the state."""
    return jnp.broadcast_to(flags.reshape(flags.shape + (1,) * (s.ndim - flags.ndim)), s.shape)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _sum(a: Any, b: Any) -> Any:
    """a + b, leaf by leaf; None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(jnp.add, a, b)
