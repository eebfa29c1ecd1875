"""A cell whose initial state is learned, and is what a reset goes back to.

s_0 = the cell's own initial state + params.state
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jax_lstm.cells import base
from jax_lstm.layers.around import Around


class LearnedParams(NamedTuple):
    """The cell's params, and what is added to its own initial state."""

    cell: Any
    state: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class LearnedState(Around):
    """A cell with a learned initial state, itself a cell. It starts as the cell's own initial state.

    Of an sLSTM h alone is learned: its own m is so low that the first step forgets c, n and m, whatever is added.

    Args:
        cell: any cell or layer.

    Raises:
        TypeError: cell is none.
    """

    @property
    def draws(self) -> bool:
        """Whether the cell does."""
        return base.draws(self.cell)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LearnedParams:
        """Draw the cell's params; nothing is added to its initial state yet."""
        params = self.cell.init(key, dtype)
        return LearnedParams(params, jax.tree.map(jnp.zeros_like, self.cell.initial_state(params)))

    def initial_state(self, params: LearnedParams, like: Array | None = None) -> Any:
        """The learned state, with `like`'s leading axes before it."""
        own = self.cell.initial_state(params.cell, like)
        return jax.tree.map(lambda s, learned: s + jnp.broadcast_to(learned, s.shape), own, params.state)

    def step(self, params: LearnedParams, state: Any, x: Array) -> tuple[Any, Array]:
        """The cell's step."""
        return self.cell.step(params.cell, state, x)

    def draw(self, params: LearnedParams, key: Array, steps: int) -> base.Drawn:
        """What the cell draws."""
        return self.cell.draw(params.cell, key, steps)

    def over_time(
        self, run: Callable, params: LearnedParams, s_0: Any, s_restart: Any, xs: Array, flags: Any, *, reverse: bool
    ) -> tuple[Any, Any, Array]:
        """The cell's own run."""
        return run(self.cell, params.cell, s_0, s_restart, xs, flags, reverse=reverse)
