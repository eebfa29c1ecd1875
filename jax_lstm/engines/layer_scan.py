"""Run equal layers as one loop over their stacked arrays, which is traced and compiled once.

    stack_trees((a_1, …, a_n))_k = a_k        unstack_tree(a)_k = a_k

If the index of a slice is a constant, XLA compiles one kernel per slice; if it is an operand, one kernel for all. So
the index of a layer is an operand here, computed so that XLA cannot fold it to a constant.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_lstm.engines.sharding import match_sharding


def scan_layers(layer: Callable[[Array, Any], tuple[Array, Any]], x: Array, layers: list[Any]) -> tuple[Array, list]:
    """Run x, more_k = layer(x, layers[k]) for every k as one loop; return the last x and the list of all more_k.

    Args:
        layer: the function of one layer; it returns x with the same shape and dtype.
        x: the input of the first layer.
        layers: one tuple of arrays or pytrees for each layer, all of the same shapes. Its first entry is the params.
    """
    params = layers[0][0]
    x = match_sharding(x.astype(jax.tree.leaves(params)[0].dtype), params)
    x, more = jax.lax.scan(layer, x, stack_trees(layers))
    return x, unstack_tree(more, len(layers))


def stack_trees(trees: list[Any]) -> Any:
    """Stack n trees of equal shapes into one tree, each leaf (n, …)."""
    return jax.tree.map(lambda *leaves: _stacked(*leaves), *trees)


def unstack_tree(tree: Any, n: int) -> list[Any]:
    """Split a tree with leaves (n, …) into n trees, the inverse of `stack_trees`."""
    return [jax.tree.map(partial(_part, k), tree) for k in _indices(n)]


@jax.custom_jvp
def _stacked(*parts: Float[Array, "..."]) -> Float[Array, "n ..."]:
    return jnp.stack(parts)


@_stacked.defjvp
def _stacked_jvp(parts: tuple, dparts: tuple) -> tuple[Array, Array]:
    """The JVP for all parts; its transpose is `unstack_tree`."""
    stacked = _stacked(*parts)
    zeros = jnp.zeros_like(stacked)
    alone = [_with_part(k, zeros, d) for k, d in zip(_indices(len(parts)), dparts, strict=True)]
    return stacked, sum(alone, start=zeros)


def _part(k: Int[Array, ""], a: Array) -> Array:
    part = jax.lax.dynamic_slice(a, _start(k, a), (1, *a.shape[1:]), allow_negative_indices=False)
    return jax.lax.squeeze(part, (0,))


def _with_part(k: Int[Array, ""], a: Array, part: Array) -> Array:
    part = jax.lax.expand_dims(part, (0,))
    return jax.lax.dynamic_update_slice(a, part, _start(k, a), allow_negative_indices=False)


def _start(k: Int[Array, ""], a: Array) -> list[Any]:
    return [k] + [0] * (a.ndim - 1)


def _indices(n: int) -> tuple[Int[Array, ""], ...]:
    """0, …, n − 1, from a loop that counts up and shifts a tuple by one place: XLA only copies, and folds nothing."""
    zero = jnp.zeros((), int)
    moved = jax.lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, *s[:-1]), (zero,) * (n + 1))
    return moved[:0:-1]
