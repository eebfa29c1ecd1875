"""A cell over time, with its own linearisation: differentiate the recurrence, not the loop.

A cell that splits its step is unrolled as

    zx_t = project(params, x_t)                                  all steps in one product, before the loop
    s_t  = update(params, s_{t−1}, zx_t, recur(params, s_{t−1})) the loop

Its tangent is an affine recurrence, and is given to JAX as that:

    u_t  = ∂update along (dparams, dzx_t), with zh_t's own part recur(dparams, s_{t−1})    in bulk, before the loop
    ds_t = L_t(ds_{t−1}, recur(params, ds_{t−1})) + u_t                                    the loop

L_t linearises update in (s, zh) alone, also in bulk. JAX transposes this by itself, and the transpose is
backpropagation through time as one would write it: one reverse loop for the adjoint states, whose only product is
with recur's weights, and then one product for all weight gradients. Plain differentiation of the loop would add a
weight gradient, the size of the weights, at every step instead. As this is a `custom_jvp`, every transformation
and every order of derivative stays; the second reverse pass over a first accumulates in its loop as usual.

Two optional streams of bools act on a step. Where `live` is False the state stays, and x is not looked at.
Where `restart` is True the state is first set to `s_restart`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from jax_lstm.cells import base


class Flags(NamedTuple):
    """live and restart, (T,) each, or None where every step lives, or none restarts."""

    live: Bool[Array, " T"] | None
    restart: Bool[Array, " T"] | None


def run(
    cell: Any,
    params: Any,
    s_0: Any,
    s_restart: Any,
    xs: Float[Array, "T I"],
    flags: Flags,
    *,
    reverse: bool,
    hoist: bool,
    remat_every: int | None,
    keep: str,
) -> tuple[Any, Any]:
    """The last state, and the "states" or "outputs" of every step, whichever `keep` names.

    `hoist` picks the engine above rather than the plain scan of `step`. With `remat_every` = n only every n-th
    state is kept for the backward pass, and the steps between are computed again there.
    """
    segment = partial(_hoisted if hoist else _plain, cell, reverse=reverse, keep=keep)
    steps = xs.shape[0]
    if remat_every is None or steps == 0:
        return segment(params, s_0, s_restart, (xs, flags))
    return _segmented(segment, params, s_0, s_restart, (xs, flags), remat_every, reverse)


def _segmented(
    segment: Callable, params: Any, s_0: Any, s_restart: Any, streams: Any, n: int, reverse: bool
) -> tuple[Any, Any]:
    """Segments of n steps, the shorter one last in the order of processing, each checkpointed."""
    steps = jax.tree.leaves(streams)[0].shape[0]
    whole = steps - steps % n
    body_at, rest_at = (
        (slice(steps - whole, None), slice(0, steps - whole)) if reverse else (slice(whole), slice(whole, None))
    )

    def body(s: Any, part: Any) -> tuple[Any, Any]:
        return jax.checkpoint(segment, prevent_cse=False)(params, s, s_restart, part)

    s, ys, parts = _like_data(s_0, streams[0], params), None, []
    if whole:
        cut = jax.tree.map(lambda a: a[body_at].reshape(whole // n, n, *a.shape[1:]), streams)
        s, ys = jax.lax.scan(body, s, cut, reverse=reverse)
        parts.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), ys))
    if steps > whole:
        s, ys = jax.checkpoint(segment)(params, s, s_restart, jax.tree.map(lambda a: a[rest_at], streams))
        parts.append(ys)
    return s, jax.tree.map(lambda *a: jnp.concatenate(a[:: -1 if reverse else 1]), *parts)


def _plain(
    cell: Any, params: Any, s_0: Any, s_restart: Any, streams: Any, *, reverse: bool, keep: str
) -> tuple[Any, Any]:
    """A scan of the cell's own step: for cells that do not split it, and as the engine's slow twin."""
    xs, flags = streams
    xs = _without_dead(flags.live, xs)

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        x, flags_t = stream
        s_t, y_t = cell.step(params, _enter(flags_t, s_restart, s_tm1), x)
        s_t = _leave(flags_t, s_tm1, s_t)
        return s_t, s_t if keep == "states" else y_t

    s_0 = _like_data(s_0, xs, params)
    if xs.shape[0] == 0:  # lax.scan refuses T = 0 where jit is disabled
        x = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
        _, y = jax.eval_shape(lambda s, x: body(s, (x, Flags(None, None))), s_0, x)
        return s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), y)
    s_T, ys = jax.lax.scan(body, s_0, (xs, flags), reverse=reverse)
    return s_T, ys if keep == "states" else _without_dead(flags.live, ys)


def _hoisted(
    cell: Any, params: Any, s_0: Any, s_restart: Any, streams: Any, *, reverse: bool, keep: str
) -> tuple[Any, Any]:
    """The engine: everything that can leave the loop has left it."""
    xs, flags = streams
    zxs = jax.vmap(cell.project, (None, 0))(params, _without_dead(flags.live, xs))
    s_0 = _like_data(s_0, zxs)
    if xs.shape[0] == 0:
        s_T, states = s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), s_0)
    else:
        s_T, states = trajectory(cell, reverse, params, s_0, s_restart, zxs, flags)
    if keep == "states":
        return s_T, states
    return s_T, _without_dead(flags.live, jax.vmap(partial(base.output, cell))(states))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def trajectory(
    cell: Any, reverse: bool, params: Any, s_0: Any, s_restart: Any, zxs: Any, flags: Flags
) -> tuple[Any, Any]:
    """s_T and every s_t, from the projected inputs."""
    s_T, states, _ = _forward(cell, reverse, params, s_0, s_restart, zxs, flags)
    return s_T, states


@partial(trajectory.defjvp, symbolic_zeros=True)
def _trajectory_jvp(cell: Any, reverse: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    params, s_0, s_restart, zxs, flags = primals
    dparams, ds_0, ds_restart, dzxs = (_moving(t, p) for t, p in zip(tangents[:4], primals[:4], strict=True))

    s_T, states, zhs = _forward(cell, reverse, params, s_0, s_restart, zxs, flags)
    states = checkpoint_name(states, "jax_lstm.state")
    zhs = checkpoint_name(zhs, "jax_lstm.preactivation")
    s_ins = jax.vmap(_enter, (0, None, 0))(flags, s_restart, _before(states, s_0, reverse))

    # The drive u_t: what reaches s_t from this step's own input and parameters, whatever came before.
    def drive(s: Any, zx: Any, zh: Any, dzx: Any, flags_t: Flags) -> Any:
        ds = None
        if flags_t.restart is not None and ds_restart is not None:
            ds = _where(flags_t.restart, ds_restart, _zeros(s), absent=None)
        dzh = _pushforward(cell.recur, (params, s), (dparams, ds))
        du = _pushforward(cell.update, (params, s, zx, zh), (dparams, ds, dzx, dzh))
        return None if du is None else _without_dead(flags_t.live, du)

    # Nothing but tangent arithmetic may be left in the loop: JAX would compute the rest, a mere broadcast of a flag,
    # a zero or a peephole, in a third loop. So what the loop reads has its full shape, batch axes and all, before it.
    masks = Flags(*(None if f is None else jax.vmap(_like_state)(f, states) for f in flags))
    masks, nought, full_params = _like_data((masks, _zeros(s_0), params), zhs)

    # The coefficients of the loop, a pytree of streams that scan hands out step by step.
    def linearised(s: Any, zx: Any, zh: Any) -> Any:
        return jax.linearize(lambda s, zh: cell.update(full_params, s, zx, zh), s, zh)[1]

    us = jax.vmap(drive)(s_ins, zxs, zhs, dzxs, flags)
    Ls = _like_data(jax.vmap(linearised)(s_ins, zxs, zhs), zhs)
    recur = jax.linearize(partial(cell.recur, params), s_0)[1]

    def body(ds_tm1: Any, stream: Any) -> tuple[Any, Any]:
        L_t, u_t, masks_t = stream
        ds_in = ds_tm1 if masks_t.restart is None else jax.tree.map(jax.lax.select, masks_t.restart, nought, ds_tm1)
        ds_t = L_t(ds_in, recur(ds_in))
        ds_t = ds_t if masks_t.live is None else jax.tree.map(jax.lax.select, masks_t.live, ds_t, ds_tm1)
        ds_t = ds_t if u_t is None else jax.tree.map(jnp.add, ds_t, u_t)
        return ds_t, ds_t

    ds_0 = _zeros(s_0) if ds_0 is None else ds_0
    ds_T, dstates = jax.lax.scan(body, ds_0, (Ls, us, masks), reverse=reverse)
    return (s_T, states), (ds_T, dstates)


def _forward(
    cell: Any, reverse: bool, params: Any, s_0: Any, s_restart: Any, zxs: Any, flags: Flags
) -> tuple[Any, Any, Any]:
    """s_T, every s_t and every zh_t. What is not used afterwards is not kept."""

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        zx_t, flags_t = stream
        s_in = _enter(flags_t, s_restart, s_tm1)
        zh_t = cell.recur(params, s_in)
        s_t = _leave(flags_t, s_tm1, cell.update(params, s_in, zx_t, zh_t))
        return s_t, (s_t, zh_t)

    s_T, (states, zhs) = jax.lax.scan(body, s_0, (zxs, flags), reverse=reverse)
    return s_T, states, zhs


def _enter(flags_t: Flags, s_restart: Any, s_tm1: Any) -> Any:
    """The state that a step starts from."""
    return _where(flags_t.restart, s_restart, s_tm1, absent=s_tm1)


def _leave(flags_t: Flags, s_tm1: Any, s_t: Any) -> Any:
    """The state that a step ends in."""
    return _where(flags_t.live, s_t, s_tm1, absent=s_t)


def _before(states: Any, s_0: Any, reverse: bool) -> Any:
    """s_{t−1} for every t, in the order of processing."""
    if reverse:
        return jax.tree.map(lambda s, a: jnp.concatenate([s[1:], a[None]]), states, s_0)
    return jax.tree.map(lambda s, a: jnp.concatenate([a[None], s[:-1]]), states, s_0)


def _where(flag: Bool[Array, "..."] | None, a: Any, b: Any, *, absent: Any) -> Any:
    """a where the flag is True, else b, leaf by leaf; a flag a step meets leaves a step; without a flag, `absent`."""
    if flag is None:
        return absent
    return jax.tree.map(lambda a, b: jnp.where(flag.reshape(flag.shape + (1,) * (b.ndim - flag.ndim)), a, b), a, b)


def _like_state(flag: Bool[Array, ""], state: Any) -> Any:
    """The flag, once for every entry of the state."""
    return jax.tree.map(lambda s: jnp.broadcast_to(flag, s.shape), state)


def _without_dead(live: Bool[Array, "*T"] | None, xs: Any) -> Any:
    """xs with zeros where a step does not live, so that nothing there, NaN included, is ever computed with."""
    return _where(live, xs, _zeros(xs), absent=xs)


def _like_data(state: Any, *data: Any) -> Any:
    """state, bit for bit, with the type that follows from the data: a carry must not change its type in the loop.

    On an explicit mesh and inside shard_map a type says how an array lies on devices, and under vmap a value may have
    a batch axis or none. The choice below is between two equal values, by a flag of the data's type, which is False
    for NaN too; the compiler removes both.
    """
    never = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(data):
        never = never | (leaf < leaf).any()
    return jax.tree.map(lambda s: jnp.where(never, s, s), state)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _moving(tangent: Any, primal: Any) -> Any:
    """The tangent with zeros as arrays, or None where all of it is known to be zero."""
    leaves = jax.tree.leaves(tangent, is_leaf=lambda t: isinstance(t, SymbolicZero))
    if all(isinstance(t, SymbolicZero) for t in leaves):
        return None
    return jax.tree.map(
        lambda t, p: jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t,
        tangent,
        primal,
        is_leaf=lambda t: isinstance(t, SymbolicZero),
    )


def _pushforward(f: Callable, primals: tuple, tangents: tuple) -> Any:
    """∂f along the tangents that are not None; None where all are."""
    moving = [i for i, t in enumerate(tangents) if t is not None]
    if not moving:
        return None

    def g(*args: Any) -> Any:
        everything = list(primals)
        for i, a in zip(moving, args, strict=True):
            everything[i] = a
        return f(*everything)

    return jax.jvp(g, [primals[i] for i in moving], [tangents[i] for i in moving])[1]
