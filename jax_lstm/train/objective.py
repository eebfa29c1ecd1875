"""The loss of a batch and the scores of the validation data, as pure functions of the params.

The validation rows are run in chunks of similar length. Each chunk gives sums, and the scores come from all sums, so
the outputs of the cell are never stored for all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_lstm.data import Batch, few_lengths, shortest
from jax_lstm.data.scores import SCORES
from jax_lstm.data.sequences import Sequences
from jax_lstm.data.values import holds_floats
from jax_lstm.train.criterion import Criterion
from jax_lstm.train.predictor import ROWS, STEPS, Predictor, model_inputs
from jax_lstm.train.problem import Problem


class Checked(NamedTuple):
    """The validation data: sequences on the device, the rows of them to use, and how many steps these have."""

    sequences: Sequences
    rows: Int[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Objective:
    """What is minimized and scored.

    Args:
        predictor: model and scaling.
        criterion: the loss, in scaled units.
        names: more scores, in original units.
        uneven: whether some targets may not count.
        partial: whether some, but not all, numbers of a target may be missing.
    """

    predictor: Predictor
    criterion: Criterion
    names: tuple[str, ...]
    uneven: bool
    partial: bool

    def problem(self, sample: Batch, checked: Checked, lengths: tuple[int, ...], **batches: Any) -> Problem:
        """The problem.

        Args:
            sample: a batch, or its shapes: the loss is traced on it, so that an error in it comes now.
            checked: the validation data.
            lengths: the few lengths at which a batch is run.
            batches: the field `batch` or `source` of the problem.
        """
        init = self.predictor.model.init
        key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
        jax.eval_shape(lambda key, batch: self.loss(init(key), batch, key), key, sample)
        scalar = self.criterion.fn is not None and _is_scalar(self, key, sample)
        run = shortest(self.loss, lengths)
        return Problem(
            init=init,
            loss=lambda params, batch, carry, key: run(params, batch, key),
            score=self._score_at_once(checked) if scalar else self._score_in_chunks(checked),
            maximize=SCORES[self.names[0]].maximize if self.names else False,
            metric=self.names[0] if self.names else "loss",
            predictor=self.predictor,
            **batches,
        )

    def loss(self, params: Any, batch: Batch, key: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss of a batch, and metrics: those of the loss, and the scores that a batch has."""
        ys = self._outputs(params, batch, key)
        parts, metrics = self._parts(ys, batch)
        loss = self.criterion.value(jax.tree.map(lambda a: a[None], parts))
        units = self._unscaled(ys)
        names = [name for name in self.names if SCORES[name].of_batches]
        return loss, metrics | {name: SCORES[name](units, batch.targets, batch.weights) for name in names}

    def _outputs(self, params: Any, batch: Batch, key: Any = None) -> Float[Array, "B *T O"]:
        xs = model_inputs(self.predictor.model, self.predictor.scaling, batch.xs)
        return self.predictor.outputs(params, batch._replace(xs=xs), key=key)[1]

    def _parts(self, ys: Array, batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
        return self.criterion.parts(ys, self._scaled(batch.targets), batch.weights, self.uneven, self.partial)

    def _scaled(self, targets: Array) -> Array:
        scaling = self.predictor.scaling
        return targets if scaling is None or not holds_floats(targets) else scaling.targets(targets)

    def _unscaled(self, ys: Array) -> Array:
        return ys if self.predictor.scaling is None else self.predictor.scaling.unscaled(ys)

    def _score_in_chunks(self, checked: Checked) -> Callable[[Any], dict[str, Array]]:
        chunks, present, length, few = _chunks(checked)
        needed = None if present.all() else present

        def parts(params: Any, batch: Batch) -> dict[str, Any]:
            ys = self._outputs(params, batch)
            units = self._unscaled(ys)
            sums = {name: SCORES[name].sums(units, batch.targets, batch.weights) for name in self.names}
            return {"loss": self._parts(ys, batch)[0], **sums}

        run = shortest(parts, few)

        def score(params: Any) -> dict[str, Array]:
            def of_chunk(at: tuple[Array, Array]) -> dict[str, Any]:
                rows, here = at
                return run(params, checked.sequences.take(rows, length, None if needed is None else here))

            stacked = jax.lax.map(of_chunk, (jnp.asarray(chunks), jnp.asarray(present)))
            values = {name: SCORES[name].value(stacked[name]) for name in self.names}
            return {"loss": self.criterion.value(stacked["loss"]), **values}

        return score

    def _score_at_once(self, checked: Checked) -> Callable[[Any], dict[str, Array]]:
        """For a loss that is a scalar of all outputs: these are stored for all rows."""
        chunks, _, length, _ = _chunks(checked)
        n = len(checked.rows)

        def score(params: Any) -> dict[str, Array]:
            ys = jax.lax.map(
                lambda rows: self._outputs(params, checked.sequences.take(rows, length)), jnp.asarray(chunks)
            )
            ys = ys.reshape(-1, *ys.shape[2:])[:n]
            batch = checked.sequences.take(jnp.asarray(chunks.reshape(-1)[:n]), length)
            parts, metrics = self._parts(ys, batch)
            units = self._unscaled(ys)
            values = {name: SCORES[name](units, batch.targets, batch.weights) for name in self.names}
            return {"loss": parts["value"], **metrics, **values}

        return score


def _is_scalar(objective: Objective, key: Any, sample: Batch) -> bool:
    """Whether the loss function returns a scalar."""
    found: list[bool] = []

    def trace(key: Any, batch: Batch) -> Array:
        ys = objective._outputs(objective.predictor.model.init(key), batch)
        targets = objective._scaled(batch.targets)
        found.append(objective.criterion.is_scalar(ys, targets, batch.weights, objective.uneven, objective.partial))
        return ys

    jax.eval_shape(trace, key, sample)
    return found[0]


def _chunks(checked: Checked) -> tuple[np.ndarray, np.ndarray, int, tuple[int, ...]]:
    """Rows (C, R) of similar length, which of them are no filling, the steps to take, and the lengths to run."""
    few = few_lengths(checked.lengths)
    order = checked.rows[np.argsort(checked.lengths, kind="stable")]
    R = min(len(order), ROWS, max(1, STEPS // few[-1]))
    C = -(-len(order) // R)
    present = (np.arange(C * R) < len(order)).reshape(C, R)
    return np.resize(order, (C, R)).astype(np.int32), present, few[-1], few
