"""Tangents of which some leaves are known to be zero: those are None, and cost nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def moving(tangent: Any, primal: Any) -> Any:
    """The tangent, with None for each leaf that is known to be zero; None where all of them are."""
    leaves = jax.tree.structure(primal).flatten_up_to(tangent)
    if all(isinstance(t, SymbolicZero) for t in leaves):
        return None
    return jax.tree.structure(primal).unflatten([None if isinstance(t, SymbolicZero) else t for t in leaves])


def whole(tangent: Any, primal: Any) -> Any:
    """The tangent with zeros as arrays; None is left as None."""
    if tangent is None:
        return None
    return jax.tree.map(lambda p, t: jnp.zeros_like(p) if t is None else t, primal, tangent)


def jvp(f: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """f, and ∂f along those leaves of the tangents that are not None; None where all are.

    A weight that is not trained does not move, nor does a mask among the params.
    """
    leaves, tree = jax.tree.flatten(primals)
    along = []
    for p, t in zip(primals, tangents, strict=True):
        part = jax.tree.structure(p)
        along += [None] * part.num_leaves if t is None else part.flatten_up_to(t)
    moving = [k for k, t in enumerate(along) if t is not None]
    if not moving:
        return f(*primals), None

    def g(*moved: Any) -> Any:
        everything = list(leaves)
        for k, a in zip(moving, moved, strict=True):
            everything[k] = a
        return f(*tree.unflatten(everything))

    return jax.jvp(g, [leaves[k] for k in moving], [along[k] for k in moving])
