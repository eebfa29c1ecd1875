"""A model with the loss and score of a task.

    s_t, h_t = cell(s_{t−1}, x_t)        y_t = h_t w + b

The task names the loss and the score. They compare y_T, or every y_t, with the targets.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

import jax_lstm as jl
from jax_lstm.abilities import has_noise, output
from jax_lstm.layers import ModelParams
from jax_lstm.tasks import Batch
from jax_lstm.train.losses import BY_NAME


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
        run = jl.unroll if self.window is None else partial(jl.tbptt, window=self.window)
        xs = self.net.embedded(params, batch.xs, batch.mask)
        key = key if has_noise(self.cell) else None
        state, hs = jl.batched(run)(self.cell, params.cell, xs, state, batch.mask, key=key)
        shown = self._last(state, hs, batch.mask) if batch.weights is None else hs
        return state, self.readout.apply(params.readout, shown)

    def _last(self, state: Any, hs: Float[Array, "B T H"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B H"]:
        """The output of the cell at the last unmasked step of each sequence."""
        if hasattr(self.cell, "output") or hasattr(state, "h"):
            return output(self.cell, state)
        if mask is None:
            return hs[:, -1]
        last = hs.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        return jnp.take_along_axis(hs, last[:, None, None], axis=1)[:, 0]

    def values(
        self, names: tuple[str, ...], params: ModelParams, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[tuple[Float[Array, ""], ...], Any]:
        """The losses and scores with these names (train/losses.py), and the last states; arguments as in `outputs`."""
        state, ys = self.outputs(params, batch, state, key)
        return tuple(BY_NAME[name](ys, batch.targets, batch.weights) for name in names), state

    def features(self, params: ModelParams, xs: Array) -> Float[Array, "S N T I"]:
        """The inputs of the cell for xs, embedded with the params of each of S seeds, whose leaves are (S, ...)."""
        return jax.vmap(self.net.embedded, (0, None))(params, xs)
