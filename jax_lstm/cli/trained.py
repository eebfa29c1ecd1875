"""A model as it is trained on batches of a task.

    s_t = cell over x_1..x_T        y_t = h_t w + b

The loss and the score, by the names that the task gives them, compare y_T, or every y_t, with the target.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import jax_lstm as jl
from jax_lstm.cells import base
from jax_lstm.cli.profile import largest_exponents
from jax_lstm.layers import ModelParams
from jax_lstm.tasks import Batch
from jax_lstm.train.losses import BY_NAME


class Trained(NamedTuple):
    """A model, and how it is trained; static."""

    net: jl.Model
    window: int | None = None
    flossed: bool = False

    @property
    def cell(self) -> jl.Cell:
        """The model's cell."""
        return self.net.cell

    @property
    def readout(self) -> jl.Readout:
        """The model's readout."""
        return self.net.readout

    def init(self, key: Key[Array, ""]) -> ModelParams:
        """Draw the params."""
        return self.net.init(key)

    def first_states(self, size: int, params: ModelParams) -> Any:
        """The initial state of so many sequences."""
        state = self.cell.initial_state(params.cell)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (size, *a.shape)), state)

    def outputs(
        self, params: ModelParams, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[Any, Float[Array, "B *T O"]]:
        """The last states, and the readout of them, or of every step where the batch weighs them.

        Of a cell that is flossed, its largest exponents along each sequence. `state` is the one before the first step;
        the cell draws from `key` if it draws at all.
        """
        if self.flossed:
            return None, largest_exponents(self.cell, params.cell, batch.xs, self.readout.output_size)
        run = jl.unroll if self.window is None else partial(jl.tbptt, window=self.window)
        xs = self.net.embedded(params, batch.xs)
        key = key if base.draws(self.cell) else None
        state, hs = jl.batched(run)(self.cell, params.cell, xs, state, batch.mask, key=key)
        shown = base.output(self.cell, state) if batch.weights is None else hs
        return state, self.readout.apply(params.readout, shown)

    def values(
        self, names: tuple[str, ...], params: ModelParams, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[tuple[Float[Array, ""], ...], Any]:
        """Losses and scores, by their names, and the last states."""
        state, ys = self.outputs(params, batch, state, key)
        return tuple(BY_NAME[name](ys, batch.targets, batch.weights) for name in names), state

    def features(self, params: ModelParams, xs: Array) -> Float[Array, "S N T I"]:
        """What the cell reads of xs, for each seed of the params."""
        return jax.vmap(self.net.embedded, (0, None))(params, xs)
