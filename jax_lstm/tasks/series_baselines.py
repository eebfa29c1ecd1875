"""Scores of simple models on a part of the task `series`."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_lstm.data.baselines import persistence, seasonal_naive
from jax_lstm.data.scores import SCORES
from jax_lstm.data.windows import rows_of


def baseline_scores(task: Any, data: Any, split: str) -> dict[str, dict[str, float]]:
    """Every score of each baseline, in original units.

    Args:
        task: the task `series`.
        data: its loaded file.
        split: the part that is scored.

    Returns:
        The scores by name, by the name of the baseline.
    """
    windows, weights = data.parts[split]
    rows = rows_of(windows)
    inside = np.arange(rows.shape[1]) < windows.lengths[:, None]
    weights = np.where(inside, weights[rows], 0)
    if not task.every_step:
        rows, weights = windows.starts, None
    targets = data.targets[rows]
    if not task.classes:
        targets = np.float32(data.facts.scaling.unscaled(targets.astype(np.float64)))
    wanted = jnp.asarray(targets), None if weights is None else jnp.asarray(weights)
    return {
        baseline: {
            name: float(SCORES[name](jnp.asarray(ys[rows], jnp.float32), *wanted))
            for name in (task.metric, *task.scores)
        }
        for baseline, ys in _predictions(task, data).items()
    }


def _predictions(task: Any, data: Any) -> dict[str, np.ndarray]:
    """The prediction of each baseline for every row, (R, O), in original units; for classes, as one-hot codes."""
    windows, weights = data.parts["train"]
    if task.classes:
        chosen = windows.starts if not task.every_step else np.flatnonzero(weights > 0)
        counts = np.bincount(data.targets[chosen], minlength=data.facts.output_size)
        return {"most frequent": np.eye(len(counts))[np.full(len(data.targets), counts.argmax())]}
    ys, starts, mean = data.ys, data.rows.starts, data.facts.scaling.target_mean.astype(np.float64)
    found = {"mean": np.broadcast_to(mean, ys.shape), "persistence": persistence(ys, starts, task.shift, mean)}
    if task.season is not None:
        found["seasonal naive"] = seasonal_naive(ys, starts, task.shift, task.season, mean)
    return found
