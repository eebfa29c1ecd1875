"""What the Flax modules share: a state as the carry of a Flax cell, one step on it, and the names of params.

A carry is (c, h) for an LSTM, h for a cell whose state is h alone, and the state as it is for any other.
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_lstm.cells import door
from jax_lstm.cells.lstm import LSTMState


def step(cell: Any, params: Any, carry: Any, inputs: ArrayLike) -> tuple[Any, jax.Array]:
    """One step over any leading batch axes: carry leaves (*B, H) and inputs (*B, I) to carry and output (*B, H)."""
    x = door.array("LSTMCell", "inputs", inputs)
    state, over_batch = _state_of(cell, params, carry, x), cell.step
    for _ in x.shape[:-1]:
        over_batch = jax.vmap(over_batch, in_axes=(None, 0, 0))
    state, y = over_batch(params, state, x)
    return carry_of(state), y


def first(cell: Any, params: Any, batch_shape: tuple[int, ...]) -> Any:
    """The cell's initial state with leading batch axes."""
    state = cell.initial_state(params)
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*batch_shape, *a.shape)), state)


def carry_of(state: Any) -> Any:
    """Flax's form of a state."""
    if isinstance(state, LSTMState):
        return state.c, state.h
    leaves = jax.tree.leaves(state)
    return leaves[0] if len(leaves) == 1 else state


def named(params: Any) -> dict[str, Any]:
    """Params as nested dicts, a dict a level of their tree: {"0": {"w_x": …}, "1": {…}} for a stack.

    The params inside a layer are called `of`, not `cell`, which is what a module calls its cell.

    Raises:
        ValueError: two leaves of one name.
    """
    tree: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *outer, last = names(path)
        at = tree
        for name in outer:
            at = at.setdefault(name, {})
        if last in at:
            raise ValueError(f"LSTM: two leaves of params would both be called {'.'.join((*outer, last))}; rename one")
        at[last] = leaf
    return tree


def from_named(where: str, cell: Any, tree: Any) -> Any:
    """The inverse of `named`.

    Raises:
        ValueError: a leaf that is not there, by its name.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(door.params_shapes(cell))
    leaves = []
    for path in (names(path) for path, _ in paths):
        try:
            leaves.append(reduce(lambda at, name: at[name], path, tree))
        except KeyError:
            raise ValueError(
                f"{where}: params lacks {'.'.join(path)}, which cell {type(cell).__name__} needs"
            ) from None
    return treedef.unflatten(leaves)


def names(path: Any) -> tuple[str, ...]:
    """The names on the way to a leaf of params, from the outside in."""
    each = [jax.tree_util.keystr((entry,), simple=True) for entry in path]
    return tuple("of" if name == "cell" else name for name in each) or ("w",)


def _state_of(cell: Any, params: Any, carry: Any, x: jax.Array) -> Any:
    """The inverse of `carry_of`, checked against x."""
    s_0 = cell.initial_state(params)
    if isinstance(s_0, LSTMState):
        # An LSTMState is a pair too, but the other way round.
        if isinstance(carry, LSTMState) or not isinstance(carry, tuple | list) or len(carry) != 2:
            raise TypeError(f"LSTMCell: carry must be Flax's pair (c, h), but is a {type(carry).__name__}")
        state = LSTMState(h=carry[1], c=carry[0])
    else:
        leaves, treedef = jax.tree.flatten(s_0)
        state = treedef.unflatten([carry]) if len(leaves) == 1 else carry
        if jax.tree.structure(state) != treedef:
            raise TypeError(
                f"LSTMCell: carry must have the parts that initialize_carry gives for cell {type(cell).__name__}, "
                f"{jax.tree.structure(carry_of(s_0))}, but has {jax.tree.structure(carry)}"
            )
    for leaf in jax.tree.leaves(state):
        if jnp.shape(leaf)[: x.ndim - 1] != x.shape[:-1]:
            raise ValueError(
                f"LSTMCell: every leaf of carry must have the leading axes {x.shape[:-1]} of inputs, "
                f"but one has shape {jnp.shape(leaf)}"
            )
    return state
