"""Give arrays the sharding and batch axes of the data, because the carry of a loop must not change its type."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.engines.engine import Given, Inputs


def check_params_sharding(cell: Any, inputs: Inputs) -> None:
    """Refuse params whose sharding, on an explicit mesh, would change that of the state in a step: a loop cannot."""
    if not any(any(jax.typeof(p).sharding.spec) for p in jax.tree.leaves(inputs.params)):
        return
    B, (_, _, _, given) = inputs.batch_axes, inputs.one_step()

    def one(axes: int, tree: Any) -> Any:
        def typed(a: Array) -> jax.ShapeDtypeStruct:
            placed = jax.typeof(a).sharding
            placed = None if placed.mesh.empty else placed.update(spec=jax.P(*placed.spec[axes:]))
            return jax.ShapeDtypeStruct(a.shape[axes:], a.dtype, sharding=placed)

        return jax.tree.map(typed, tree)

    def after(params: Any, state: Any, x: Array, given_t: Given) -> Any:
        return given_t.call(cell.step, params, state, x)[0]

    def axes_of(tree: Any) -> set[str]:
        return checks.mesh_axes(*(entry for a in jax.tree.leaves(tree) for entry in a.sharding.spec))

    state = one(B, inputs.s_0)
    jaxpr = jax.make_jaxpr(after)(one(0, inputs.params), state, one(B + 1, inputs.xs), given)
    added = axes_of(jaxpr.out_avals) - axes_of([jax.typeof(s) for s in jax.tree.leaves(inputs.s_0)])
    checks.check_params_sharding(f"cell {type(cell).__name__}", inputs.params, added, "because the state would be too")


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
