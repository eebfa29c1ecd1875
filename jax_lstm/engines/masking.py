"""Apply masks and resets to the state, input and output of a step, in the same way in all engines."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


class StepMasks(NamedTuple):
    """mask and reset, each (T, *B), or (*B) for one step; None if the run has no mask, or no reset."""

    mask: Bool[Array, "..."] | None
    reset: Bool[Array, "..."] | None


def apply_reset(masks_t: StepMasks, s_initial: Any, s_tm1: Any) -> Any:
    """The state before a step: s_initial where the step is reset, else s_{t−1}."""
    return where_or(masks_t.reset, s_initial, s_tm1, absent=s_tm1)


def apply_mask(masks_t: StepMasks, s_tm1: Any, s_t: Any) -> Any:
    """The state after a step: s_{t−1} where the step is masked, else s_t."""
    return where_or(masks_t.mask, s_t, s_tm1, absent=s_t)


def zero_masked(mask: Bool[Array, "..."] | None, xs: Any) -> Any:
    """xs with zeros at masked steps, so that no value there, not even NaN, enters a computation."""
    return xs if mask is None else where_or(mask, xs, jax.tree.map(jnp.zeros_like, xs), absent=xs)


def where_or(mask: Bool[Array, "..."] | None, a: Any, b: Any, *, absent: Any) -> Any:
    """a where the mask is True, else b, leaf by leaf, broadcast over trailing axes; `absent` if the mask is None."""
    if mask is None:
        return absent
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(mask.shape + (1,) * (b.ndim - mask.ndim)), a, b), a, b)
