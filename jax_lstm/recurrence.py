"""Run a cell over time: choose the engine, and run it in one piece, in segments or truncated.

Engine "hoisted" runs a cell that splits its step by `trajectory` (trajectory.py), which defines its own derivative.
Engine "plain", and "hoisted" for any other cell, is a `lax.scan` of the cell's step. Engine "associative" is a parallel
prefix, for a cell that is linear in its state. A cell made of cells runs each of its parts in this way.

Two optional streams of bools act on a step. Where `live` is False the state stays, and x is not read.
Where `restart` is True the state is first set to `s_restart`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.cells import base, contract
from jax_lstm.schedule import plan
from jax_lstm.trajectory import Flags, as_data, each, enter, in_bulk, leave, trajectory, without_dead


class Choices(NamedTuple):
    """The options of a run: Python values, already checked.

    where: the name of the public function, for messages.
    keep: what to return of every step: its "states", its "outputs", or "both" as a pair.
    reverse: whether to process the steps from last to first.
    engine: "hoisted", "plain" or "associative".
    rows: the number of sequences, including vmaps around the call (schedule.py).
    remat_every: n, to save only every n-th state for the backward pass and recompute the others there.
    truncate: (window, stride) of truncated backpropagation through time.
    """

    where: str
    keep: str = "outputs"
    reverse: bool = False
    engine: str = "plain"
    rows: int | None = 1
    remat_every: int | None = None
    truncate: tuple[int, int] | None = None


def run(
    choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, xs: Float[Array, "T *B I"], flags: Flags
) -> tuple[Any, Any]:
    """The last state, and of every step what `choices.keep` names.

    xs may have batch axes after time; every leaf of a state then has them as leading axes.
    """
    n, truncate, steps = choices.remat_every, choices.truncate, xs.shape[0]
    in_one = choices._replace(remat_every=None, truncate=None)
    args = params, s_0, s_restart, (xs, flags)
    if truncate is not None and truncate[0] < steps:
        return _truncated(partial(_through, in_one._replace(reverse=False), cell), *args, *truncate, choices.reverse)
    if n is None or steps == 0:
        return _through(in_one, cell, *args)
    if not base.is_causal(cell):  # no segment of it can be run alone; its parts take theirs
        return _through(choices, cell, *args)
    return _segmented(partial(_through, in_one, cell), *args, n, choices.reverse)


def _through(choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, streams: Any) -> tuple[Any, Any]:
    """Run all steps in one piece."""
    xs, flags = streams
    xs = without_dead(flags.live, xs)
    if hasattr(cell, "over_time"):
        s_T, states, ys = cell.over_time(
            partial(_part, choices), params, s_0, s_restart, xs, flags, reverse=choices.reverse
        )
        return s_T, {"states": states, "outputs": ys, "both": (states, ys)}[choices.keep]
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[xs.ndim - 2 :], a.dtype), s_0)
    contract.no_closed_over_tracer(choices.where, cell, params, one, xs)
    if choices.engine == "associative":
        unrolled = _associative
    elif choices.engine == "hoisted" and base.is_split(cell):
        contract.splits_well(choices.where, cell, params, one, xs)
        unrolled = _split
    else:
        unrolled = _plain
    return unrolled(choices, cell, params, as_data(s_0, xs, params), s_restart, xs, flags)


def _part(
    choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, xs: Any, flags: Flags, *, reverse: bool
) -> tuple[Any, Any, Any]:
    """Run one part of a cell made of cells: its last state, its states (None if not wanted), its outputs."""
    keep = "outputs" if choices.keep == "outputs" else "both"
    s_T, kept = run(choices._replace(keep=keep, reverse=reverse), cell, params, s_0, s_restart, xs, flags)
    return (s_T, None, kept) if keep == "outputs" else (s_T, *kept)


def _segmented(
    segment: Callable, params: Any, s_0: Any, s_restart: Any, streams: Any, n: int, reverse: bool
) -> tuple[Any, Any]:
    """Run segments of n steps, each checkpointed; the last one in the order of processing may be shorter."""
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
    """Run blocks of `stride` steps, each from a state cut off from its past, `window` steps before the block's end.

    Masked steps are added before the first step and after the last, so that all blocks have the same shape. They leave
    the state as it is, and pass the gradient on to s_0.
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
    choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, xs: Any, flags: Flags
) -> tuple[Any, Any]:
    """A `lax.scan` of the cell's own step."""
    step = each(partial(cell.step, params), xs.ndim - 2)

    def body(s_tm1: Any, stream: Any) -> tuple[Any, Any]:
        x, flags_t = stream
        s_t, y_t = step(enter(flags_t, s_restart, s_tm1), x)
        s_t = leave(flags_t, s_tm1, s_t)
        return s_t, {"states": s_t, "outputs": y_t, "both": (s_t, y_t)}[choices.keep]

    if xs.shape[0] == 0:  # lax.scan refuses T = 0 where jit is disabled
        x = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
        _, y = jax.eval_shape(lambda s, x: body(s, (x, Flags(None, None))), s_0, x)
        return s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), y)
    s_T, kept = jax.lax.scan(body, s_0, (xs, flags), reverse=choices.reverse)
    if choices.keep == "both":
        return s_T, (kept[0], without_dead(flags.live, kept[1]))
    return s_T, kept if choices.keep == "states" else without_dead(flags.live, kept)


def _split(
    choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, xs: Any, flags: Flags
) -> tuple[Any, Any]:
    """Run a cell that splits its step by `trajectory`, then compute its outputs."""
    if xs.shape[0] == 0:
        s_T, states = s_0, jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), s_0)
    else:
        layout = plan(cell, xs, choices.rows)
        s_T, states = trajectory(cell, choices.reverse, layout, params, s_0, s_restart, xs, flags)
    return s_T, _kept(choices, cell, states, xs, flags)


def _associative(
    choices: Choices, cell: Any, params: Any, s_0: Any, s_restart: Any, xs: Any, flags: Flags
) -> tuple[Any, Any]:
    """A parallel prefix over the steps s ↦ a_t ⊙ s + b_t (Blelloch 1990): work T log T, depth log T."""
    if not base.has_part(cell, "affine"):
        raise ValueError(
            f'{choices.where}: engine "associative" takes a cell that is linear in its state and defines `affine`, '
            f'but cell {type(cell).__name__} does not; use engine="hoisted"'
        )
    a, b = in_bulk(partial(cell.affine, params), xs.ndim - 1)(xs)
    if flags.restart is not None:
        fresh = jax.tree.map(lambda a, b, s: a * jnp.broadcast_to(s, a.shape) + b, a, b, s_restart)
        b = enter(Flags(None, flags.restart), fresh, b)
        a = enter(Flags(None, flags.restart), jax.tree.map(jnp.zeros_like, a), a)
    a = leave(flags, jax.tree.map(jnp.ones_like, a), a)
    b = leave(flags, jax.tree.map(jnp.zeros_like, b), b)

    def after(one: Any, other: Any) -> Any:
        (a_1, b_1), (a_2, b_2) = one, other
        return jax.tree.map(jnp.multiply, a_2, a_1), jax.tree.map(lambda a, b, c: a * b + c, a_2, b_1, b_2)

    if xs.shape[0]:
        a, b = jax.lax.associative_scan(after, (a, b), reverse=choices.reverse)
    states = jax.tree.map(lambda a, b, s: a * s[None] + b, a, b, s_0)
    last = 0 if choices.reverse else -1
    s_T = jax.tree.map(lambda s: s[last], states) if xs.shape[0] else s_0
    return s_T, _kept(choices, cell, states, xs, flags)


def _kept(choices: Choices, cell: Any, states: Any, xs: Any, flags: Flags) -> Any:
    """What `choices.keep` names, of a cell whose outputs are functions of its states."""
    if choices.keep == "states":
        return states
    ys = without_dead(flags.live, in_bulk(partial(base.output, cell), xs.ndim - 1)(states))
    return ys if choices.keep == "outputs" else (states, ys)
