"""A cell with a learned initial state; a reset sets the state to it.

s_0 = cell.initial_state(params.cell) + params.state
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jax_lstm.abilities import has_noise, init_cell, noise_of
from jax_lstm.cell import CompositeCell, Noise, call_given
from jax_lstm.layers.wrapper import CellWrapper


class LearnedParams(NamedTuple):
    """Params of a `LearnedInitialState`.

    cell: the params of the cell inside.
    state: the learned part of the initial state, with the shapes of the cell's state; None for an integer leaf.
    """

    cell: Any
    state: Any


@dataclass(frozen=True)
class LearnedInitialState(CellWrapper, CompositeCell):
    """A cell with a learned initial state: s_0 = cell.initial_state(params.cell) + params.state.

    This layer is a cell. It has the state and the sizes of the cell inside, and its params are a `LearnedParams`. A
    reset sets the state to the learned s_0. `init` sets params.state to 0. For an SLSTM only h is learned: its initial
    m is so low that the first step forgets c, n and m, whatever is added to them.

    Args:
        cell: any cell or layer.

    Raises:
        TypeError: cell is not a cell.
    """

    @property
    def has_noise(self) -> bool:
        """Whether the cell inside draws random numbers."""
        return has_noise(self.cell)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> LearnedParams:
        """Draw the params of the cell inside; the learned part of the initial state is 0.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.
            choices: keyword arguments of the cell's `init`, such as `forget_bias`.

        Returns:
            LearnedParams(cell params, state of zeros).

        Raises:
            TypeError: key is not a random key, dtype is not floating, or the cell does not take one of the choices.
        """
        params = init_cell("LearnedInitialState.init", self.cell, key, dtype, choices)
        return LearnedParams(params, jax.tree.map(_learned_zeros, self.cell.initial_state(params)))

    def initial_state(self, params: LearnedParams) -> Any:
        """The learned initial state.

        Args:
            params: what `init` returns.

        Returns:
            A state of the cell inside.
        """
        leaves, tree = jax.tree.flatten(self.cell.initial_state(params.cell))
        learned = tree.flatten_up_to(params.state)
        return tree.unflatten([s if d is None else s + d for s, d in zip(leaves, learned, strict=True)])

    def step(self, params: LearnedParams, state: Any, x: Array, **given: Any) -> tuple[Any, Array]:
        """One step of the cell inside.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.
            given: the noise and constants of the run, if it has any.

        Returns:
            (state, y): the next state, and the output y (output_size,).
        """
        return call_given(self.cell.step, params.cell, state, x, given=given)

    def sample_noise(self, params: LearnedParams, key: Array, T: Any, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the random numbers of the cell inside; `rates` are those of its `sample_noise`."""
        return noise_of("LearnedInitialState.sample_noise", self.cell, params.cell, key, T, rates)

    def unroll_with(self, run: Callable, inputs: Any, *, reverse: bool) -> tuple[Any, Any, Array]:
        """Run the cell inside over time; see `CompositeCell`."""
        return run(self.cell, inputs._replace(params=inputs.params.cell), reverse=reverse)


def _learned_zeros(leaf: Array) -> Array | None:
    return jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else None
