"""Run a sequence in checkpointed segments: save only every n-th state for the backward pass (`remat_every`)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm.engines.engine import Inputs
from jax_lstm.engines.sharding import match_sharding_batched


def segmented(run: Callable[[Inputs], tuple[Any, Any]], inputs: Inputs, n: int, reverse: bool) -> tuple[Any, Any]:
    """Run segments of n steps, each under `jax.checkpoint`; the one processed last may be shorter.

    `run` maps the inputs of a segment to (its last state, its collected steps).
    """
    T = inputs.T
    full_steps = T - T % n
    body_at, rest_at = (
        (slice(T - full_steps, None), slice(0, T - full_steps))
        if reverse
        else (slice(full_steps), slice(full_steps, None))
    )

    def body(s: Any, streams: Any) -> tuple[Any, Any]:
        return jax.checkpoint(run, prevent_cse=False)(inputs._replace(s_0=s).with_streams(streams))

    s, ys, parts = match_sharding_batched(inputs.s_0, inputs.xs, inputs.params, inputs.given), None, []
    if full_steps:
        cut = jax.tree.map(lambda a: a[body_at].reshape(full_steps // n, n, *a.shape[1:]), inputs.streams)
        s, ys = jax.lax.scan(body, s, cut, reverse=reverse)
        parts.append(jax.tree.map(lambda a: a.reshape(full_steps, *a.shape[2:]), ys))
    if full_steps < T:
        rest = jax.tree.map(lambda a: a[rest_at], inputs.streams)
        s, ys = jax.checkpoint(run)(inputs._replace(s_0=s).with_streams(rest))
        parts.append(ys)
    return s, jax.tree.map(lambda *a: jnp.concatenate(a[:: -1 if reverse else 1]), *parts)


def segment_length(steps: int) -> int:
    """About √T; a divisor of T if one is between √T/2 and 2√T, because a shorter last segment needs a copy."""
    root = max(1, math.isqrt(steps))
    divisors = [n for n in range((root + 1) // 2, 2 * root + 1) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)
