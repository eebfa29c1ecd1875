"""What both `Recurrent` modules do around a run: their options, integer inputs, and any number of batch axes."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_lstm import checks
from jax_lstm.abilities import has_noise
from jax_lstm.batch import batched
from jax_lstm.engines.arguments import batch_keys
from jax_lstm.engines.run import check_engine, check_options
from jax_lstm.sequence import unroll


def check_run_options(*, time_major: Any, reverse: Any, remat_every: Any, engine: Any) -> None:
    """Check the options of a `Recurrent` when it is made, so that an error comes there and not at the first call."""
    checks.check_bool("Recurrent", "time_major", time_major)
    check_options("Recurrent", 1, reverse=reverse, remat_every=remat_every)
    check_engine("Recurrent", engine)


def check_deterministic(value: Any) -> bool:
    """Check `deterministic`, a Python bool."""
    if isinstance(value, jax.Array):
        raise TypeError(
            "Recurrent: deterministic must be True or False, but is a traced or device array; make it a static "
            "argument of jax.jit or nnx.jit"
        )
    return checks.check_bool("Recurrent", "deterministic", value)


@lru_cache(maxsize=256)
def is_stochastic(cell: Any) -> bool:
    """Whether a run with a key draws random numbers. A `Stack` without dropout takes a key, but draws nothing."""
    if not has_noise(cell):
        return False
    key = jax.eval_shape(lambda: jax.random.key(0))
    noise = jax.eval_shape(lambda params, key: cell.sample_noise(params, key, 1), checks.params_shapes(cell), key)
    return bool(jax.tree.leaves(noise))


def run(
    cell: Any, params: Any, xs: Any, state: Any, mask: Any, reset: Any, constants: Any, *, key: Any, time_major: Any,
    **options: Any,
) -> tuple[Any, jax.Array]:  # fmt: skip
    """Run xs (*B, T, I), or (T, *B, I) if `time_major`, with any number of batch axes; the key is split over them."""
    time_major = checks.check_bool("Recurrent", "time_major", time_major)
    params, dtype = checks.check_params("Recurrent", cell, params)
    xs = as_floats("Recurrent", "xs", xs, dtype)
    if xs.ndim < 2:
        wanted = "(T, *B, I)" if time_major else "(*B, T, I)"
        raise ValueError(f"Recurrent: xs must be {wanted}, but has the shape {xs.shape}; add the missing axes")
    mask, reset = (checks.check_mask("Recurrent", n, a, xs) for n, a in (("mask", mask), ("reset", reset)))
    batch = xs.shape[1:-1] if time_major else xs.shape[:-2]
    for path, leaf in jax.tree_util.tree_leaves_with_path({"state": state, "constants": constants}):
        if jnp.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"Recurrent: every leaf of {path[0].key} must have the batch axes {batch} of xs, but one has shape "
                f"{jnp.shape(leaf)}; give one per sequence"
            )
    if not batch:
        return unroll(cell, params, xs, state, mask, reset, key=key, constants=constants, **options)
    run_batch = partial(batched(unroll, time_major=time_major), cell, params, **options)

    def over_batch(xs: Any, state: Any, mask: Any, reset: Any, constants: Any, key: Any) -> tuple[Any, jax.Array]:
        return run_batch(xs, state, mask, reset, constants=constants, key=key)

    axis = 1 if time_major else 0
    for _ in batch[1:]:
        over_batch = _over_axis(over_batch, axis)
    return over_batch(xs, state, mask, reset, constants, key)


def _over_axis(run: Callable, axis: int) -> Callable:
    """The same for one batch axis more: at `axis` of xs, mask, reset and hs, and at 0 of the states."""

    def over_axis(xs: jax.Array, *rest: Any) -> tuple[Any, jax.Array]:
        *arrays, key = rest
        keys = None if key is None else batch_keys(checks.check_key("Recurrent", key), xs, axis)
        return jax.vmap(run, (axis, 0, axis, axis, 0, 0), (0, axis))(xs, *arrays, keys)

    return over_axis


def as_floats(caller: str, name: str, value: ArrayLike, dtype: Any) -> jax.Array:
    """An array; integers and bools are cast to the params' dtype, as Flax's own cells do."""
    x = checks.as_array(caller, name, value)
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == jnp.bool_ else x
