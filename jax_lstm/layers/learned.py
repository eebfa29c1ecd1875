"""A cell with a learned initial state, which a reset returns to.

s_0 = cell.initial_state(params.cell) + params.state
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
    """Params of a `LearnedState`.

    cell: the params of the cell inside.
    state: the learned part of the initial state, with the shapes of the cell's state.
    """

    cell: Any
    state: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class LearnedState(Around):
    """A cell with a learned initial state: s_0 = cell.initial_state(params.cell) + params.state.

    It is a cell itself. It has the state and the sizes of the cell inside, and its params are a `LearnedParams`. A
    reset sets the state to the learned s_0. `init` sets params.state to 0. For an SLSTM only h is learned: its initial
    m is so low that the first step forgets c, n and m, whatever is added to them.

    Args:
        cell: any cell or layer.

    Raises:
        TypeError: cell is not a cell.
    """

    @property
    def draws(self) -> bool:
        """Whether the cell inside draws random numbers."""
        return base.draws(self.cell)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LearnedParams:
        """Draw the params of the cell inside; the learned part of the initial state is 0.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            LearnedParams(cell params, state of zeros).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        params = self.cell.init(key, dtype)
        return LearnedParams(params, jax.tree.map(jnp.zeros_like, self.cell.initial_state(params)))

    def initial_state(self, params: LearnedParams, like: Array | None = None) -> Any:
        """The learned initial state.

        Args:
            params: what `init` returns.
            like: data (*B, T, I) of a batch. If given, every leaf has the leading axes *B, sharded like the data.

        Returns:
            A state of the cell inside.
        """
        own = self.cell.initial_state(params.cell, like)
        return jax.tree.map(lambda s, learned: s + jnp.broadcast_to(learned, s.shape), own, params.state)

    def step(self, params: LearnedParams, state: Any, x: Array) -> tuple[Any, Array]:
        """One step of the cell inside.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.

        Returns:
            (state, y): the next state, and the output y (output_size,).
        """
        return self.cell.step(params.cell, state, x)

    def draw(self, params: LearnedParams, key: Array, steps: int) -> base.Drawn:
        """Draw the random numbers of the cell inside for `steps` steps."""
        return self.cell.draw(params.cell, key, steps)

    def over_time(
        self, run: Callable, params: LearnedParams, s_0: Any, s_restart: Any, xs: Array, flags: Any, *, reverse: bool
    ) -> tuple[Any, Any, Array]:
        """Run the cell inside over time.

        Used by `unroll`. xs is (T, *B, I), and every leaf of a state has the leading axes *B.
        """
        return run(self.cell, params.cell, s_0, s_restart, xs, flags, reverse=reverse)
