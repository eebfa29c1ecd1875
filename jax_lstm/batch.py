"""A batch of sequences: what `jax.vmap` with the right axes gives, and faster on a CPU."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.call import call_batch
from jax_lstm.cells import door
from jax_lstm.cells.textbook import cell_for
from jax_lstm.sequence import lstm, tbptt, unroll, unroll_states

ARRAYS = ("xs", "state", "mask", "reset")


def batched(fn: Callable, *, time_major: bool = False) -> Callable:
    """`fn` over a batch: as `jax.vmap` with the right axes for every array, by position or by keyword.

    xs, mask and reset get a batch axis: (B, T, ...), or (T, B, ...) if `time_major`; the state's leaves get a
    leading one; params have none. So do the results.

    Args:
        fn: `unroll`, `unroll_states`, `lstm` or `tbptt`, or a `functools.partial` of one that fixes choices.
        time_major: whether time comes before the batch.

    Returns:
        A function with fn's arguments.

    Raises:
        TypeError: fn is none of these, or `time_major` is no bool.
        ValueError: xs has no batch axis, or a batch axis of mask, reset or state differs from that of xs.
    """
    fixed = fn if isinstance(fn, partial) else partial(fn)
    plain = fixed.func
    if plain not in (unroll, unroll_states, lstm, tbptt):
        raise TypeError(f"batched: fn must be jl.unroll, jl.unroll_states, jl.lstm or jl.tbptt, but is {fn!r}")
    axis = 1 if door.flag("batched", "time_major", time_major) else 0
    signature = inspect.signature(plain)

    def run_batch(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*fixed.args, *args, **fixed.keywords | kwargs).arguments
        arrays = {name: given.pop(name) for name in ARRAYS if given.get(name) is not None}
        if "xs" not in arrays:
            raise TypeError("batched: xs must be a JAX or NumPy array with a batch axis, but is not given or None")
        _check_batch(arrays, axis)
        given = {name: value for name, value in given.items() if name not in ARRAYS}
        params = given.pop("params", None)
        cell = cell_for("lstm", params) if plain is lstm else given.pop("cell", None)
        state, ys = call_batch(plain.__name__, cell, params, arrays, axis, **given)
        return ys if plain is unroll_states else (state, ys)

    return run_batch


def _check_batch(arrays: dict[str, Any], axis: int) -> None:
    """Every batch axis as long, and lying on devices, as that of xs."""
    shapes = {name: door.array("batched", name, a) for name, a in arrays.items() if name != "state"}
    xs = shapes["xs"]
    if xs.ndim != 3:
        layout = "(T, B, I)" if axis else "(B, T, I)"
        raise ValueError(f"batched: xs must be {layout}, but has {xs.ndim} axes (xs.shape={xs.shape})")
    for name, a in shapes.items():
        if name != "xs" and a.shape != xs.shape[:-1]:
            raise ValueError(f"batched: {name} must have shape {xs.shape[:-1]}, as xs has, but has {a.shape}")
        door.same_placement("batched", name, a, xs)
    for leaf in jax.tree.leaves(arrays.get("state")):
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != xs.shape[axis]:
            raise ValueError(
                f"batched: every leaf of state must have a leading batch axis of {xs.shape[axis]}, as xs says, "
                f"but one has shape {jnp.shape(leaf)}"
            )
