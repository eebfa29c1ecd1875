"""A cell over time: the engine, the plain scan, and either of them in segments.

A cell that splits its step runs through its trajectory (trajectory.py), which carries its own derivative; any other,
and every one with engine "plain", through a scan of its step.

Two optional streams of bools act on a step. Where `live` is False the state stays, and x is not looked at.
Where `restart` is True the state is first set to `s_restart`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells import base
from jax_lstm.schedule import Plan
from jax_lstm.trajectory import Flags, as_data, each, enter, in_bulk, leave, trajectory, without_dead


def run(
    cell: Any,
    params: Any,
    s_0: Any,
    s_restart: Any,
    xs: Float[Array, "T *B I"],
    flags: Flags,
    *,
    reverse: bool,
    plan: Plan | None,
    remat_every: int | None,
    truncate: tuple[int, int] | None,
    keep: str,
) -> tuple[Any, Any]:
    """The last state, and the "states" or "outputs" of every step, whichever `keep` names.

    xs may have batch axes after time; then every leaf of the states has them first. `plan` lays out
    a cell that splits its step (schedule.py); None is the plain scan. With `remat_every` = n only every n-th state is
    kept for the backward pass, and the steps between are computed again there. `truncate` = (window, stride) cuts the
    gradient instead: no output feels more than the last `window` steps.
    """
    unrolled = _plain if plan is None else partial(_split, plan=plan)
    segment = partial(unrolled, cell, keep=keep, reverse=reverse)
    steps = xs.shape[0]
    if truncate is not None and truncate[0] < steps:
        return _truncated(partial(segment, reverse=False), params, s_0, s_restart, (xs, flags), *truncate, reverse)
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

    s, ys, parts = as_data(s_0, streams[0], params), None, []
    if whole:
        cut = jax.tree.map(lambda a: a[body_at].reshape(whole // n, n, *a.shape[1:]), streams)
        s, ys = jax.lax.scan(body, s, cut, reverse=reverse)
        parts.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), ys))
    if steps > whole:
        s, ys = jax.checkpoint(segment)(params, s, s_restart, jax.tree.map(lambda a: a[rest_at], streams))
        parts.append(ys)
    return s, jax.tree.map(lambda *a: jnp.concatenate(a[:: -1 if reverse else 1]), *parts)


def _truncated(
    segment: Callable,
    params: Any,
    s_0: Any,
    s_restart: Any,
    streams: Any,
    window: int,
    stride: int,
    reverse: bool,
) -> tuple[Any, Any]:
    """Blocks of `stride` steps, each run again from a state without a past, `window` steps before the block's end.

    Dead steps are put before the first step and after the last, so that every block is alike: they leave the state
    as it is, and let the gradient to s_0 through.
    """
    xs, flags = streams
    steps = xs.shape[0]
    blocks, overlap = -(-steps // stride), window // stride
    live = jnp.ones_like(xs[..., 0], dtype=bool) if flags.live is None else flags.live

    def cut(a: Array) -> Array:
        a = a[::-1] if reverse else a
        a = jnp.pad(a, [(window - stride, blocks * stride - steps)] + [(0, 0)] * (a.ndim - 1))
        a = a.reshape(blocks + overlap - 1, stride, *a.shape[1:])
        return jnp.concatenate([a[k : k + blocks] for k in range(overlap)], axis=1)

    def block(s: Any, part: Any) -> tuple[Any, Any, Any]:
        early, late = jax.tree.map(lambda a: a[:stride], part), jax.tree.map(lambda a: a[stride:], part)
        s_next, ys = segment(params, s, s_restart, early)
        if window == stride:
            return s_next, s_next, ys
        s_end, more = segment(params, s_next, s_restart, late)
        return s_next, s_end, jax.tree.map(lambda a, b: jnp.concatenate([a, b])[-stride:], ys, more)

    def body(s: Any, stream: Any) -> tuple[Any, Any]:
        part, begins = stream
        s_next, s_end, ys = jax.checkpoint(block, prevent_cse=False)(s, part)
        cut_off = jax.lax.stop_gradient(s_next)
        return jax.tree.map(partial(jnp.where, begins), s_next, cut_off), (s_end, ys)

    begins = jnp.arange(blocks) < overlap - 1  # no live step yet where the next window starts: that state is s_0
    parts = jax.tree.map(cut, (xs, Flags(live, flags.restart)))
    _, (ends, ys) = jax.lax.scan(body, as_data(s_0, xs, params), (parts, begins))
    ys = jax.tree.map(lambda a: a.reshape(blocks * stride, *a.shape[2:])[:steps], ys)
    return jax.tree.map(lambda a: a[-1], ends), jax.tree.map(lambda a: a[::-1], ys) if reverse else ys


def _plain(
    cell: Any, params: Any, s_0: Any, s_restart: Any, streams: Any, *, reverse: bool, keep: str
) -> tuple[Any, Any]:
    """A scan of the cell's own step: for cells that do not split it, and as the engine's slow twin."""
    xs, flags = streams
    xs = without_dead(flags.live, xs)
    step = each(partial(cell.step, params), xs.ndim - 2)

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        x, flags_t = stream
        s_t, y_t = step(enter(flags_t, s_restart, s_tm1), x)
        s_t = leave(flags_t, s_tm1, s_t)
        return s_t, s_t if keep == "states" else y_t

    s_0 = as_data(s_0, xs, params)
    if xs.shape[0] == 0:  # lax.scan refuses T = 0 where jit is disabled
        x = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
        _, y = jax.eval_shape(lambda s, x: body(s, (x, Flags(None, None))), s_0, x)
        return s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), y)
    s_T, ys = jax.lax.scan(body, s_0, (xs, flags), reverse=reverse)
    return s_T, ys if keep == "states" else without_dead(flags.live, ys)


def _split(
    cell: Any, params: Any, s_0: Any, s_restart: Any, streams: Any, *, reverse: bool, keep: str, plan: Plan
) -> tuple[Any, Any]:
    """The trajectory of a cell that splits its step, and what the cell shows of it."""
    xs, flags = streams
    xs = without_dead(flags.live, xs)
    s_0 = as_data(s_0, xs, params)
    if xs.shape[0] == 0:
        s_T, states = s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), s_0)
    else:
        s_T, states = trajectory(cell, reverse, plan, params, s_0, s_restart, xs, flags)
    if keep == "states":
        return s_T, states
    return s_T, without_dead(flags.live, in_bulk(partial(base.output, cell), xs.ndim - 1)(states))
