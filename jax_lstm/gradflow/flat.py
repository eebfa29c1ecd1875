"""Convert a state to one vector and back. The leaves keep their order and are raveled.

For the LSTM, s = (h, c) with h first, so N = 2H.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_lstm import checks


def flatten_state(state: Any) -> Float[Array, " N"]:
    """Concatenate the leaves of a state into one vector s.

    As if by::

        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(state)])

    Args:
        state: one state, a pytree of float arrays of one dtype. For states stacked over time, use
            `jax.vmap(flatten_state)`.

    Returns:
        (N,), in the dtype of the leaves. N = 2H for the LSTM, H for RNN and GRU.

    Raises:
        TypeError: the leaves are not float arrays of one dtype.
    """
    leaves = [checks.as_array("flatten_state", "every leaf of state", leaf) for leaf in jax.tree.leaves(state)]
    dtypes = sorted({str(leaf.dtype) for leaf in leaves})
    if len(dtypes) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(
            f"flatten_state: state must hold floats of one dtype, but holds {', '.join(dtypes) or 'no arrays'}; "
            "cast its leaves to one float dtype"
        )
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def unflatten_state(s: ArrayLike, like: Any) -> Any:
    """Convert a vector back to a state: the exact inverse of `flatten_state`.

    Args:
        s: (N,).
        like: a state of the wanted type and shapes; its values are not used.

    Returns:
        A state with the type and shapes of `like`, in the dtype of s.

    Raises:
        ValueError: s does not have shape (N,), where N is the number of entries of `like`.
        TypeError: s is not an array.
    """
    s = checks.as_array("unflatten_state", "s", s)
    leaves, structure = jax.tree.flatten(like)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    sizes = [math.prod(shape) for shape in shapes]
    if s.shape != (sum(sizes),):
        raise ValueError(
            f"unflatten_state: s must have shape {(sum(sizes),)}, as many entries as `like` has, but has shape "
            f"{s.shape}; make s with flatten_state from a state of that type"
        )
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = [s[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
    return jax.tree.unflatten(structure, parts)


def part(name: str, state: Any) -> slice:
    """Slice of the state vector that holds the field `name`."""
    before = state._fields.index(name)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(field)) for field in state]
    return slice(sum(sizes[:before]), sum(sizes[: before + 1]))
