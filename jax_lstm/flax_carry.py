"""Conversion between a cell's state and the carry of a Flax cell, and one step on a carry.

The carry is (c, h) for an LSTM. For a cell whose state holds a single array, such as h of a GRU, it is that array. For
any other cell it is the state itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_lstm import checks
from jax_lstm.cells.lstm import LSTMState
from jax_lstm.flax_run import as_floats, is_stochastic


def step(cell: Any, params: Any, carry: Any, inputs: ArrayLike, *, deterministic: bool) -> tuple[Any, jax.Array]:
    """One step with any leading batch axes: from carry, leaves (*B, H), and inputs (*B, I) to (carry, y (*B, H))."""
    if is_stochastic(cell) and not deterministic:
        raise ValueError(
            f"RecurrentCell: cell {type(cell).__name__} draws random numbers in training mode, but a RecurrentCell "
            "draws none; train with Recurrent, or set deterministic=True"
        )
    params, dtype = checks.check_params("RecurrentCell", cell, params)
    x = as_floats("RecurrentCell", "inputs", inputs, dtype)
    state = _state_of(cell, params, carry, x)

    def over_batch(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return cell.step(params, state, checks.check_input("RecurrentCell", "inputs", x, cell, dtype, "(I,)"))

    for _ in x.shape[:-1]:
        over_batch = jax.vmap(over_batch, in_axes=(None, 0, 0))
    state, y = over_batch(params, state, x)
    return carry_of(state), y


def first(cell: Any, params: Any, batch_shape: tuple[int, ...]) -> Any:
    """The cell's initial state, not yet a carry; every leaf has the leading axes `batch_shape`."""
    state = cell.initial_state(params)
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*batch_shape, *a.shape)), state)


def carry_of(state: Any) -> Any:
    """Convert a state to a carry."""
    if isinstance(state, LSTMState):
        return state.c, state.h
    leaves = jax.tree.leaves(state)
    return leaves[0] if len(leaves) == 1 else state


def _state_of(cell: Any, params: Any, carry: Any, x: jax.Array) -> Any:
    """Convert a carry to a state, the inverse of `carry_of`; check it against the cell and x."""
    s_0 = cell.initial_state(params)
    if isinstance(s_0, LSTMState):
        # An LSTMState is a pair too, but the other way round.
        if isinstance(carry, LSTMState) or not isinstance(carry, tuple | list) or len(carry) != 2:
            raise TypeError(
                f"RecurrentCell: carry must be Flax's pair (c, h), but is a {type(carry).__name__}; "
                "make one with initialize_carry"
            )
        state = LSTMState(h=carry[1], c=carry[0])
    else:
        leaves, treedef = jax.tree.flatten(s_0)
        state = treedef.unflatten([carry]) if len(leaves) == 1 else carry
        if jax.tree.structure(state) != treedef:
            raise TypeError(
                "RecurrentCell: carry must have the structure that initialize_carry gives for cell "
                f"{type(cell).__name__}, {jax.tree.structure(carry_of(s_0))}, but has {jax.tree.structure(carry)}"
            )
    for leaf in jax.tree.leaves(state):
        if jnp.shape(leaf)[: x.ndim - 1] != x.shape[:-1]:
            raise ValueError(
                f"RecurrentCell: every leaf of carry must have the leading axes {x.shape[:-1]} of inputs, "
                f"but one has shape {jnp.shape(leaf)}"
            )
    return state
