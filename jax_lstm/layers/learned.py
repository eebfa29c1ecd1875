"""A cell whose initial state is a parameter: s_0 is learned, and is what a reset goes back to."""

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
    """The cell's params, and its state before the first step."""

    cell: Any
    state: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class LearnedState(Around):
    """A cell with a learned initial state, itself a cell. It starts as the cell's own initial state.

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
        """Draw the cell's params; the state is its initial one."""
        params = self.cell.init(key, dtype)
        return LearnedParams(params, self.cell.initial_state(params))

    def initial_state(self, params: LearnedParams, like: Array | None = None) -> Any:
        """The learned state, with `like`'s leading axes before it."""
        if like is None:
            return params.state
        placed = self.cell.initial_state(params.cell, like)  # for where it lies, not for its values
        return jax.tree.map(lambda z, s: jnp.zeros_like(z) + jnp.broadcast_to(s, z.shape), placed, params.state)

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
