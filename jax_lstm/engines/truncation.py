"""Truncated backpropagation through time: run blocks of steps whose gradients stop at an earlier state (`tbptt`)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_lstm.engines.engine import Inputs
from jax_lstm.engines.sharding import match_sharding_batched


def truncated(
    run: Callable[[Inputs], tuple[Any, Any]], inputs: Inputs, window: int, stride: int, reverse: bool
) -> tuple[Any, Any]:
    """Run blocks of `stride` steps. The run for a block starts `window` steps before the block's end.

    No gradient passes to the steps before that start. `run` processes the steps of a block from first to last. Masked
    steps are added before the first step and after the last, so that all blocks have the same shape. They keep the
    state, and pass the gradient on to s_0.
    """
    T, xs = inputs.T, inputs.xs
    blocks, overlap = -(-T // stride), window // stride
    mask = jnp.ones_like(xs[..., 0], dtype=bool) if inputs.mask is None else inputs.mask

    def padded(a: Array) -> Array:
        return jnp.pad(a, [(window - stride, blocks * stride - T)] + [(0, 0)] * (a.ndim - 1))

    def repeated(a: Array) -> Array:  # of noise, where zeros could be a value that the cell cannot take
        return a[jnp.clip(jnp.arange(stride - window, blocks * stride), 0, T - 1)]

    def cut(pad: Callable, a: Array) -> Array:
        a = pad(a[::-1] if reverse else a)
        a = a.reshape(blocks + overlap - 1, stride, *a.shape[1:])
        return jnp.concatenate([a[k : k + blocks] for k in range(overlap)], axis=1)

    def segment(s: Any, streams: Any) -> tuple[Any, Any]:
        return run(inputs._replace(s_0=s).with_streams(streams))

    def block(s: Any, streams: Any) -> tuple[Any, Any, Any]:
        early, late = jax.tree.map(lambda a: a[:stride], streams), jax.tree.map(lambda a: a[stride:], streams)
        s_next, ys = segment(s, early)
        if window == stride:
            return s_next, s_next, ys
        s_end, more = segment(s_next, late)
        return s_next, s_end, jax.tree.map(lambda a, b: jnp.concatenate([a, b])[-stride:], ys, more)

    def body(s: Any, stream: Any) -> tuple[Any, Any]:
        streams, begins = stream
        s_next, s_end, ys = jax.checkpoint(block, prevent_cse=False)(s, streams)
        cut_off = jax.lax.stop_gradient(s_next)
        return jax.tree.map(partial(jnp.where, begins), s_next, cut_off), (s_end, ys)

    begins = jnp.arange(blocks) < overlap - 1  # the next window starts in the padding: its state is s_0, not cut off
    _, noise_steps, _, reset = inputs.streams
    xs_cut, mask_cut, reset_cut = jax.tree.map(partial(cut, padded), (xs, mask, reset))
    parts = xs_cut, jax.tree.map(partial(cut, repeated), noise_steps), mask_cut, reset_cut
    s_0 = match_sharding_batched(inputs.s_0, xs, inputs.params, inputs.given)
    _, (ends, ys) = jax.lax.scan(body, s_0, (parts, begins))
    ys = jax.tree.map(lambda a: a.reshape(blocks * stride, *a.shape[2:])[:T], ys)
    return jax.tree.map(lambda a: a[-1], ends), jax.tree.map(lambda a: a[::-1], ys) if reverse else ys
