"""Run a batch of sequences: the same as `jax.vmap` with the right axes, and faster on a CPU."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_lstm import checks
from jax_lstm.cells.lstm import cell_of
from jax_lstm.engines.run import check_arrays, check_run_key, run_checked
from jax_lstm.engines.sharding import place_on_mesh
from jax_lstm.sequence import lstm, tbptt, unroll, unroll_states

ARRAYS = ("xs", "state", "mask", "reset")


def batched(fn: Callable, *, time_major: bool = False) -> Callable:
    """Make `unroll`, `unroll_states`, `lstm` or `tbptt` take a batch of sequences.

    The result is that of `jax.vmap` with the right axes for every array, up to rounding, and on a CPU it is faster than
    `jax.vmap`. Arrays may be passed by position or by keyword. With B sequences of T steps::

        array                     fn            batched(fn)         batched(fn, time_major=True)
        params                    no batch axis, in all three
        xs                        (T, I)        (B, T, I)           (T, B, I)
        mask, reset               (T,)          (B, T)              (T, B)
        state, each leaf          (H,)          (B, H)              (B, H)
        returned last state       (H,)          (B, H)              (B, H)
        returned hs, states       (T, H)        (B, T, H)           (T, B, H)
        key                       one key, split into one per sequence

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> xs, lengths = jnp.ones((2, 6, 3), jnp.float32), jnp.array([6, 4])
    >>> mask = jnp.arange(6)[None] < lengths[:, None]
    >>> state, hs = jl.batched(jl.unroll)(cell, params, xs, mask=mask)
    >>> state.h.shape, hs.shape
    ((2, 4), (2, 6, 4))

    Args:
        fn: `unroll`, `unroll_states`, `lstm` or `tbptt`, or a `functools.partial` of one. Pass options such as `window`
            of `tbptt` when you call the result, or set them with `functools.partial`.
        time_major: whether the time axis comes before the batch axis, in arguments and results.

    Returns:
        A function with the arguments of `fn` that returns what `fn` returns, with the axes above.

    Raises:
        TypeError: `fn` is none of these, or `time_major` is not a bool. When called: as for `fn`.
        ValueError: when called, if xs has no batch axis, if mask, reset or state has another batch size, or as for
            `fn`.
    """
    fixed = fn if isinstance(fn, partial) else partial(fn)
    plain = fixed.func
    if not any(plain is f for f in (unroll, unroll_states, lstm, tbptt)):
        raise TypeError(
            f"batched: fn must be jl.unroll, jl.unroll_states, jl.lstm or jl.tbptt, but is {checks.shown(fn)}"
        )
    axis = 1 if checks.check_bool("batched", "time_major", time_major) else 0
    signature = inspect.signature(plain)

    def run_in_batch(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*fixed.args, *args, **fixed.keywords | kwargs).arguments
        arrays = {name: a for name in ARRAYS if (a := given.pop(name, None)) is not None}
        if "xs" not in arrays:
            raise TypeError(
                "batched: xs must be a JAX or NumPy array with a batch axis, but is missing or None; pass it"
            )
        _check_batch(arrays, axis)
        params = given.pop("params", None)
        cell = cell_of("lstm", params) if plain is lstm else given.pop("cell", None)
        if plain is tbptt:
            given["truncate"] = given.pop("window"), given.pop("stride", None)
        collect = "states" if plain is unroll_states else "outputs"
        xs, state, mask, reset = (arrays.get(name) for name in ARRAYS)
        state, ys = _run_batch(plain.__name__, axis, cell, params, xs, state, mask, reset, collect=collect, **given)
        return ys if plain is unroll_states else (state, ys)

    return run_in_batch


def _check_batch(arrays: dict[str, Any], axis: int) -> None:
    """Check that every array has the batch size of xs, and its sharding."""
    shapes = {name: checks.as_array("batched", name, a) for name, a in arrays.items() if name != "state"}
    xs = shapes["xs"]
    if xs.ndim != 3:
        layout = "(T, B, I)" if axis else "(B, T, I)"
        raise ValueError(f"batched: xs must be {layout}, but has {xs.ndim} axes (xs.shape={xs.shape})")
    for name, a in shapes.items():
        if name != "xs" and a.shape != xs.shape[:-1]:
            raise ValueError(f"batched: {name} must have shape {xs.shape[:-1]}, as xs has, but has {a.shape}")
        checks.check_same_sharding("batched", name, a, xs)
    for leaf in jax.tree.leaves(arrays.get("state")):
        leaf = checks.as_array("batched", "every leaf of state", leaf)
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != xs.shape[axis]:
            raise ValueError(
                f"batched: every leaf of state must have a leading batch axis of {xs.shape[axis]}, as xs has, "
                f"but one has shape {jnp.shape(leaf)}"
            )


def _run_batch(
    caller: str, axis: int, cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, *, key: Any = None,
    **options: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """`run_sequence` for a batch. xs, mask, reset and the collected steps have their batch axis at `axis`, 0 or 1.

    The state and the last state have it at 0. The arguments are checked like those of one sequence. The run gets arrays
    with a batch axis after time, so that it can merge the two axes (engines/layout.py); under `jax.vmap` it could not
    see the batch axis. Every sequence has its own key, split from `key`.
    """
    cell = checks.check_cell(caller, cell)

    def checked(xs: Any, state: Any, mask: Any, reset: Any) -> tuple[Any, ...]:
        params_, xs, state, mask, reset = check_arrays(caller, cell, params, xs, state, mask, reset)
        return params_, xs, place_on_mesh(state), mask, reset

    xs = checks.as_array(caller, "xs", xs)
    keys = _batch_keys(check_run_key(caller, cell, key), xs, axis)
    batch_axes = checks.mesh_axes(jax.typeof(xs).sharding.spec[axis])
    checks.check_params_sharding(caller, params, batch_axes, "over which the batch is sharded")
    over_batch = jax.vmap(checked, (axis, 0, axis, axis), (None, 1, 0, 1, 1))
    params, xs, state, mask, reset = over_batch(xs, state, mask, reset)
    s_T, ys = run_checked(caller, cell, params, xs, state, mask, reset, keys, **options)
    return s_T, ys if axis == 1 else jax.tree.map(lambda a: a.swapaxes(0, 1), ys)


def _batch_keys(key: Any, xs: Array, axis: int) -> Any:
    """One key per sequence, split from `key` and sharded as the batch is."""
    if key is None:
        return None
    keys = jax.random.split(key, xs.shape[axis])
    placed = jax.typeof(xs).sharding
    if placed.spec[axis] is None:
        return keys
    return jax.sharding.reshard(keys, jax.NamedSharding(placed.mesh, jax.P(placed.spec[axis])))
