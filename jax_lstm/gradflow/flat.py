"""A state as one vector: its leaves in their order, each raveled. For the LSTM s = (h, c), h first, N = 2H."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm.cells import door


def flatten_state(state: Any) -> Float[Array, " N"]:
    """s, the state as one vector.

    As if by::

        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(state)])

    Args:
        state: one state: a pytree of float arrays of one dtype. States stacked over time: `jax.vmap(flatten_state)`.

    Returns:
        (N,), in the leaves' dtype; N = 2H for the LSTM, H for RNN and GRU.

    Raises:
        TypeError: leaves that are not float arrays of one dtype.
    """
    leaves = [door.array("flatten_state", "every leaf of state", leaf) for leaf in jax.tree.leaves(state)]
    dtypes = sorted({str(leaf.dtype) for leaf in leaves})
    if len(dtypes) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(
            f"flatten_state: state must hold floats of one dtype, but holds {', '.join(dtypes) or 'no arrays'}"
        )
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def unflatten_state(s: ArrayLike, like: Any) -> Any:
    """The state whose vector is s: the inverse of `flatten_state`, bit for bit.

    Args:
        s: (N,).
        like: a state of the wanted type and shapes; its values are not looked at.

    Returns:
        A state as `like`, in the dtype of s.

    Raises:
        ValueError: s is not (N,), with N the number of entries of `like`.
        TypeError: s is no array.
    """
    s = door.array("unflatten_state", "s", s)
    leaves, structure = jax.tree.flatten(like)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    sizes = [math.prod(shape) for shape in shapes]
    if s.shape != (sum(sizes),):
        raise ValueError(f"unflatten_state: s must have shape {(sum(sizes),)}, as `like` says, but has {s.shape}")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = [s[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
    return jax.tree.unflatten(structure, parts)


def part(name: str, state: Any) -> slice:
    """Where in the vector the field of this name lies."""
    before = state._fields.index(name)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(field)) for field in state]
    return slice(sum(sizes[:before]), sum(sizes[: before + 1]))
