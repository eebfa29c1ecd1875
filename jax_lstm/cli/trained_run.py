"""A model with the loss and score of a task.

    s_t, h_t = cell(s_{t−1}, x_t)        y_t = h_t w + b

The task names the loss and the score. They compare y_T, or every y_t, with the targets.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import jax_lstm as jl
from jax_lstm.layers import ModelParams
from jax_lstm.tasks import Batch
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.predictor import Predictor


class TrainedRun(NamedTuple):
    """A model, and the window of its gradients. It holds no arrays; `init` draws the params.

    Args:
        net: cell, readout and embedding.
        window: truncate gradients after this many steps, with `tbptt`; None: never.
    """

    net: jl.Model
    window: int | None = None

    @property
    def cell(self) -> jl.Cell:
        """The cell of the model."""
        return self.net.cell

    @property
    def readout(self) -> jl.Readout:
        """The readout of the model."""
        return self.net.readout

    def init(self, key: Key[Array, ""]) -> ModelParams:
        """Draw the params of one seed."""
        return self.net.init(key)

    def first_states(self, size: int, params: ModelParams) -> Any:
        """The initial state of `size` sequences; every leaf is (size, ...)."""
        state = self.cell.initial_state(params.cell)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (size, *a.shape)), state)

    def outputs(
        self, params: ModelParams, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[Any, Float[Array, "B *T O"]]:
        """Run the model on a batch.

        Args:
            params: the params of one seed.
            batch: B sequences.
            state: the states before the first step, each leaf (B, ...); None: the initial state.
            key: one random key, for dropout and noise; ignored if the cell draws nothing.

        Returns:
            The last states, and the outputs: (B, T, O) if the batch has weights, else the last ones (B, O).
        """
        predictor = Predictor(self.net, every_step=batch.weights is not None, window=self.window)
        return predictor.outputs(params, batch, state, key)

    def values(
        self, names: tuple[str, ...], params: ModelParams, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[tuple[Float[Array, ""], ...], Any]:
        """The losses and scores with these names (train/losses.py), and the last states; arguments as in `outputs`."""
        state, ys = self.outputs(params, batch, state, key)
        return tuple(BY_NAME[name](ys, batch.targets, batch.weights) for name in names), state

    def features(self, params: ModelParams, xs: Array) -> Float[Array, "S N T I"]:
        """The inputs of the cell for xs, embedded with the params of each of S seeds, whose leaves are (S, ...)."""
        return jax.vmap(self.net.embedded, (0, None))(params, xs)
