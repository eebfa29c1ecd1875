"""What it takes to predict with a trained network: the model, the scaling of its data, and when it gives outputs.

y = unscaled(model(scaled inputs))        after the last step of a sequence, or at every step
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_lstm import abilities
from jax_lstm.batch import batched
from jax_lstm.data import Batch, Scaling, few_lengths
from jax_lstm.data.arrays import Wanted, sequences_of
from jax_lstm.layers.model import Model
from jax_lstm.registry import from_config, to_config
from jax_lstm.sequence import tbptt, unroll

STEPS = 1 << 16  # steps that are run at a time; a chunk has at least one sequence
ROWS = 256  # sequences that are run at a time, at most


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model with all that its predictions need, except the params. It holds no params, and is equal to itself only.

    Args:
        model: a cell, whose outputs are then the predictions, or a `jl.Model`.
        scaling: of inputs and outputs; None: the model reads and gives original units.
        every_step: True: outputs at every step; False: after the last step of each sequence.
        window: the model was trained with gradients of this many steps, with `tbptt`; None: with whole gradients. It
            changes no output.
    """

    model: Any
    scaling: Scaling | None = None
    every_step: bool = False
    window: int | None = None

    @property
    def cell(self) -> Any:
        """The cell of the model."""
        return self.model.cell if isinstance(self.model, Model) else self.model

    def outputs(
        self, params: Any, batch: Batch, state: Any = None, key: Any = None
    ) -> tuple[Any, Float[Array, "B *T O"]]:
        """Run the model on a batch, in scaled units.

        Args:
            params: what `model.init` returns.
            batch: B sequences with scaled inputs; targets and weights are not read.
            state: the states before the first step, each leaf (B, ...); None: the initial state.
            key: one random key, for dropout and noise; ignored if the cell draws nothing.

        Returns:
            The last states, and the outputs: (B, T, O) with `every_step`, else the last ones (B, O).
        """
        return _outputs(self.model, self.every_step, self.window, params, batch, state, key)

    def predict(self, params: Any, inputs: Any, lengths: Any = None, mask: Any = None) -> Any:
        """Predict in original units. The outputs for classes are logits: the class is `predict(...).argmax(-1)`.

        Sequences are run in chunks of at most 256. A program is compiled for each shape of a chunk.

        Args:
            params: what `model.init` returns, such as the params of a run.
            inputs: (N, T, I) numbers, or tokens (N, T) for a `Model` with a vocabulary; or a list of N sequences (T, I)
                of any lengths, or of tokens (T,).
            lengths: (N,) the number of steps of each sequence; the others are padding. Not for a list.
            mask: (N, T) bools, instead of lengths: False at padding.

        Returns:
            (N, O) after the last step; or (N, T, O) at every step, NaN where there is padding: for a list a list of
            (T, O).

        Raises:
            ValueError: the shapes do not fit, an input is NaN, or a sequence without a step has no last output.
            TypeError: the inputs are not arrays of numbers.
        """
        data = sequences_of(wanted("predict", self.model), inputs, lengths=lengths, mask=mask)
        if not self.every_step and (data.lengths == 0).any():
            raise ValueError(
                f"predict: wanted at least 1 step in every sequence, but sequence {int(data.lengths.argmin())} has "
                "none; leave it out"
            )
        T = max(1, int(data.lengths.max(initial=0)))
        rows_of_chunk = min(ROWS, max(1, STEPS // T), 1 << (len(data.lengths) - 1).bit_length())
        found: dict[int, np.ndarray] = {}
        for rows, length in _chunks(data.lengths, rows_of_chunk, ragged=isinstance(inputs, list | tuple)):
            batch = data.take(np.resize(rows, rows_of_chunk), length)  # a last chunk is filled up: one shape
            ys = np.asarray(_predicted(self.model, self.every_step, self.scaling, params, batch.xs, batch.mask))
            found.update(zip(rows.tolist(), ys, strict=False))
        outputs = [found[row] for row in range(len(data.lengths))]
        if not self.every_step:
            return np.stack(outputs) if outputs else np.zeros((0, self.output_size), np.float32)
        if isinstance(inputs, list | tuple):
            return [y[:length] for y, length in zip(outputs, data.lengths.tolist(), strict=True)]
        N, T = np.shape(inputs)[:2]
        ys = np.full((N, T, self.output_size), np.nan, np.float32)
        for row, y in enumerate(outputs):
            steps = min(T, len(y))
            ys[row, :steps] = np.where(data.valid(row, steps)[:, None], y[:steps], np.nan)
        return ys

    @property
    def output_size(self) -> int:
        """O, the number of outputs of a step."""
        return self.model.output_size if isinstance(self.model, Model) else abilities.output_size(self.model)

    def to_config(self) -> dict[str, Any]:
        """Plain data for JSON. The model is None if its class is not registered: `from_config` then needs it."""
        try:
            model = to_config(self.model)
        except TypeError:
            model = None
        scaling = None if self.scaling is None else self.scaling.to_dict()
        return {"model": model, "scaling": scaling, "every_step": self.every_step, "window": self.window}

    @classmethod
    def from_config(cls, config: dict[str, Any], model: Any = None) -> Self:
        """The predictor that `to_config` wrote.

        Args:
            config: what `to_config` returned; other keys are ignored.
            model: the cell or model, for a class that is not registered; None: made from the config.

        Raises:
            ValueError: the config has no model, and none is given.
        """
        if model is None and config.get("model") is None:
            raise ValueError(
                "Predictor.from_config: wanted the config of a model, but got none, because its class is not "
                "registered; pass model=, or decorate the class with jl.register_cell before training"
            )
        scaling = config.get("scaling")
        return cls(
            from_config(config["model"]) if model is None else model,
            None if scaling is None else Scaling.from_dict(scaling),
            bool(config.get("every_step", False)),
            config.get("window"),
        )


def wanted(caller: str, model: Any, **more: Any) -> Wanted:
    """What the inputs of a model must be; `more` are other fields of `Wanted`."""
    if isinstance(model, Model) and model.vocabulary is not None:
        return Wanted(caller, vocabulary=model.vocabulary, **more)
    return Wanted(caller, features=model.cell.input_size if isinstance(model, Model) else model.input_size, **more)


def model_inputs(model: Any, scaling: Scaling | None, xs: Array) -> Array:
    """Inputs as the model reads them: tokens of 32 bits, or scaled float32 features."""
    if isinstance(model, Model) and model.vocabulary is not None:
        return xs.astype(jnp.int32)
    xs = xs.astype(jnp.float32)
    return xs if scaling is None else scaling.inputs(xs)


def _chunks(lengths: np.ndarray, size: int, ragged: bool) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of similar length, at most `size` at a time, and the number of steps to run: one of a few."""
    if not len(lengths):
        return
    few = few_lengths(lengths) if ragged else (max(1, int(lengths.max())),)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield rows, next(length for length in few if length >= lengths[rows].max())


def _outputs(
    model: Any, every_step: bool, window: int | None, params: Any, batch: Batch, state: Any = None, key: Any = None
) -> tuple[Any, Float[Array, "B *T O"]]:
    net = model if isinstance(model, Model) else None
    cell, cell_params = (model, params) if net is None else (net.cell, params.cell)
    run = unroll if window is None else partial(tbptt, window=window)
    xs = batch.xs if net is None else net.embedded(params, batch.xs, batch.mask)
    key = key if abilities.has_noise(cell) else None
    state, hs = batched(run)(cell, cell_params, xs, state, batch.mask, key=key)
    shown = hs if every_step else _last(cell, state, hs, batch.mask)
    return state, shown if net is None else net.readout.apply(params.readout, shown)


def _last(cell: Any, state: Any, hs: Float[Array, "B T H"], mask: Any) -> Float[Array, "B H"]:
    """The output of the cell at the last unmasked step of each sequence."""
    if hasattr(cell, "output") or hasattr(state, "h"):
        with contextlib.suppress(ValueError):  # the output of a residual stack is not part of its state
            return abilities.output(cell, state)
    if mask is None:
        return hs[:, -1]
    last = hs.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(hs, last[:, None, None], axis=1)[:, 0]


@partial(jax.jit, static_argnums=(0, 1))
def _predicted(
    model: Any, every_step: bool, scaling: Scaling | None, params: Any, xs: Array, mask: Any
) -> Float[Array, "B *T O"]:
    """The outputs in original units; compiled once for each model and shape."""
    batch = Batch(model_inputs(model, scaling, xs), None, mask)  # pyrefly: ignore[bad-argument-type]
    ys = _outputs(model, every_step, None, params, batch)[1]
    return ys if scaling is None else scaling.unscaled(ys)
