"""Tangents in which a leaf that is known to be zero is None, so that nothing is computed for it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def nonzero_tangents(tangent: Any, primal: Any) -> Any:
    """The tangent, with None for each leaf that is known to be zero; None if all of them are."""
    leaves = jax.tree.structure(primal).flatten_up_to(tangent)
    if all(isinstance(t, SymbolicZero) for t in leaves):
        return None
    return jax.tree.structure(primal).unflatten([None if isinstance(t, SymbolicZero) else t for t in leaves])


def instantiate_zeros(tangent: Any, primal: Any) -> Any:
    """The tangent, with an array of zeros for each leaf that is None; a tangent that is None stays None."""
    if tangent is None:
        return None
    return jax.tree.map(lambda p, t: jnp.zeros_like(p) if t is None else t, primal, tangent)


def jvp(f: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """f(*primals) and the JVP of f. A tangent, or a leaf of one, that is None is zero; if all are, the JVP is None.

    For example, a weight that is not trained has the tangent None.
    """
    leaves, tree = jax.tree.flatten(primals)
    leaf_tangents = []
    for p, t in zip(primals, tangents, strict=True):
        part = jax.tree.structure(p)
        leaf_tangents += [None] * part.num_leaves if t is None else part.flatten_up_to(t)
    nonzero = [k for k, t in enumerate(leaf_tangents) if t is not None]
    if not nonzero:
        return f(*primals), None

    def g(*moved: Any) -> Any:
        everything = list(leaves)
        for k, a in zip(nonzero, moved, strict=True):
            everything[k] = a
        return f(*tree.unflatten(everything))

    return jax.jvp(g, [leaves[k] for k in nonzero], [leaf_tangents[k] for k in nonzero])
