"""The scores of a task, in the units of its data.

    score = f(unscaled(y), unscaled(target), weights)

Only a task with a `scaling` has scaled batches; the loss compares scaled numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_lstm.data.scores import SCORES
from jax_lstm.tasks import Batch, Split, Task
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.predictor import STEPS

OF_A_SPLIT = ("nse", "kge")  # not finite where the targets are constant, as they may be in a training batch


def function_of(task: Task, name: str) -> Callable[..., Array]:
    """A loss or score by name: (ys, targets, weights) -> a scalar.

    A task with several scores has those over a whole split (data/scores.py). The others have means over sequences
    (train/losses.py).
    """
    of_split, of_sequences = SCORES.get(name), BY_NAME.get(name)
    first, second = (of_split, of_sequences) if hasattr(task, "scores") else (of_sequences, of_split)
    found = first or second
    if found is None:
        raise ValueError(f"{type(task).__name__}: wanted a score of {', '.join({**BY_NAME, **SCORES})}, but got {name}")
    return found


def names_of(task: Task) -> tuple[str, ...]:
    """The scores of a task; the first selects checkpoints."""
    return (task.metric, *(name for name in getattr(task, "scores", ()) if name != task.metric))


def names_on(task: Task, batch: Batch) -> tuple[str, ...]:
    """The scores of a task that are defined on a batch: nse and kge are not where the targets do not vary.

    Raises:
        ValueError: the first is not defined.
    """
    names = names_of(task)
    if len(names) == 1:
        return names
    numbers = jnp.issubdtype(batch.targets.dtype, jnp.floating)
    exact = batch.targets if numbers else jax.nn.one_hot(batch.targets, task.output_size)
    found = {name: bool(jnp.isfinite(score)) for name, score in scores_of(task, names, exact, batch).items()}
    if not found[task.metric]:
        raise ValueError(
            f"data: wanted a metric that is defined for the validation part, but {task.metric} is not, because the "
            "targets do not vary there; choose another metric or other fractions"
        )
    return tuple(name for name in names if found[name])


def scores_of(
    task: Task, names: Sequence[str], ys: Float[Array, "B *T O"], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """Scores by name.

    Args:
        task: the task.
        names: the names of scores, in train/losses.py or data/scores.py.
        ys: the outputs for a batch of the task.
        batch: the batch.
    """
    ys, targets = _in_units(task, ys, batch)
    return {name: function_of(task, name)(ys, targets, batch.weights) for name in names}


def scores_in_chunks(
    task: Task, names: Sequence[str], outputs: Callable[[Batch], Float[Array, "C *T O"]], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """The same scores, from some sequences at a time, so that the outputs of all are never in memory together.

    A task with one score, which has no sums to merge, is run at once.

    Args:
        task: the task.
        names: the names of scores.
        outputs: a function that runs the model on a batch of C sequences.
        batch: B sequences.
    """
    (B, T), known = batch.xs.shape[:2], all(name in SCORES for name in names)
    C = max(1, STEPS // T)
    if B <= C or not known or not hasattr(task, "scores"):
        return scores_of(task, names, outputs(batch), batch)

    def sums(rows: Int[Array, " C"]) -> dict[str, Any]:
        chunk = jax.tree.map(lambda a: a[rows % B], batch)
        ys, targets = _in_units(task, outputs(chunk), chunk)
        weights = jnp.ones(targets.shape[:1], ys.dtype) if chunk.weights is None else chunk.weights
        here = (rows < B).reshape(-1, *(1,) * (weights.ndim - 1))  # the last chunk is filled up with first rows
        return {name: SCORES[name].sums(ys, targets, jnp.where(here, weights, 0)) for name in names}

    stacked = jax.lax.map(sums, jnp.arange(-(-B // C) * C, dtype=jnp.int32).reshape(-1, C))
    return {name: SCORES[name].value(stacked[name]) for name in names}


def _in_units(task: Task, ys: Array, batch: Batch) -> tuple[Array, Array]:
    """Outputs and targets in the units of the data; classes as they are."""
    scaling = getattr(task, "scaling", None)
    if scaling is None or not jnp.issubdtype(batch.targets.dtype, jnp.floating):
        return ys, batch.targets
    return scaling.unscaled(ys), scaling.unscaled(batch.targets)


def baseline_scores(task: Task, split: Split) -> dict[str, dict[str, float]]:
    """The scores of each baseline, by the names of the baseline and the score; at least the main score."""
    if hasattr(task, "baseline_scores"):
        return task.baseline_scores(split)
    return {name: {task.metric: score} for name, score in task.baselines(split).items()}


def in_words(scores: dict[str, float]) -> str:
    """Scores for a line of text, the main one first: "mse 0.0100 (mae 0.0800, nse 0.9100)"."""
    shown = {name: f"{name} {score:.4f}" for name, score in scores.items()}
    first, *others = [text for name, text in shown.items() if name == next(iter(scores)) or np.isfinite(scores[name])]
    return f"{first} ({', '.join(others)})" if others else first
