"""Give arrays the sharding and batch axes of the data, because the carry of a loop must not change its type."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm.engines.engine import Given


def match_sharding(state: Any, *data: Any) -> Any:
    """The same state with the sharding and batch axes of the data.

    On an explicit mesh and inside shard_map an array's type includes its sharding; under vmap a value may or may not
    have a batch axis. `where(never, s, s)`, with a predicate computed from the data, gives `s` the type of the data.
    The predicate is False even for NaN. XLA removes the select, or reads only a slice of the data.
    """
    never = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(data):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        # A slice has the type of the whole array and is faster to read. An axis that is sharded is not sliced.
        leaf = leaf[tuple(slice(1) if axis is None else slice(None) for axis in jax.typeof(leaf).sharding.spec)]
        never = never | (leaf < leaf).any()
    return jax.tree.map(lambda s: jnp.where(never, s, s), place_on_mesh(state))


def match_sharding_batched(state: Any, xs: Float[Array, "T *B I"], params: Any, given: Given) -> Any:
    """`match_sharding` to xs, params, noise and constants, for a state that has the batch axes of xs."""
    if xs.ndim == 2:
        return match_sharding(state, xs, params, given)
    return jax.vmap(match_sharding_batched, (0, 1, None, Given(1, 0, 0)))(state, xs, params, given)  # pyrefly: ignore


def place_on_mesh(tree: Any) -> Any:
    """The same values, each float leaf multiplied by 1, which places it on the mesh.

    An array made before `jax.set_mesh` is on no mesh until something is computed with it. Without that, a vmap over a
    sharded axis would return it unsharded. A learned initial state among the params is such an array.
    """
    return jax.tree.map(lambda a: a * jnp.ones((), a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)
