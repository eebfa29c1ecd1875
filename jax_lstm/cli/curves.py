"""The figure with the learning curves of the demo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

# Okabe & Ito's palette, distinct for color-blind readers; the line styles are distinct without color.
STYLES = {"LSTM": ("#0072B2", "-"), "RNN": ("#D55E00", "--"), "GRU": ("#009E73", "-.")}


class Curve(NamedTuple):
    """One run.

    Args:
        cell: the name of the cell: LSTM, RNN or GRU.
        records: the records of its metrics.jsonl.
    """

    cell: str
    records: Sequence[dict[str, Any]]


class Panel(NamedTuple):
    """One panel of the figure: one task.

    Args:
        task: the title of the panel.
        metric: the name of the score.
        baseline: the score of the baseline.
        baseline_label: what the legend calls the baseline.
        log: True for a logarithmic score axis; False for an axis from 0 to 1.
        curves: the runs.
    """

    task: str
    metric: str
    baseline: float
    baseline_label: str
    log: bool
    curves: Sequence[Curve]


def plot_learning_curves(panels: Sequence[Panel], path: Path) -> None:
    """Plot validation scores over training steps and write a PNG: one panel per task, one color per cell.

    Bold lines are means over seeds, thin lines single seeds.

    Args:
        panels: the panels, from left to right.
        path: where to write the figure.
    """
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for cell, records in panel.curves:
            validations = [r for r in records if r["split"] == "validation"]
            steps = [r["step"] for r in validations]
            scores = np.array([r[panel.metric] for r in validations])
            colour, style = STYLES[cell]
            axes.plot(steps, scores, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
            label = f"{cell}, mean of {scores.shape[1]} seeds"
            axes.plot(steps, scores.mean(axis=1), color=colour, linestyle=style, linewidth=2.4, label=label)
        axes.axhline(panel.baseline, color="0.35", linestyle=":", linewidth=1.5, label=panel.baseline_label)
        if panel.log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.set(title=panel.task, xlabel="training steps", ylabel=f"validation {panel.metric}")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.suptitle("Validation score during training; thin lines: single seeds")
    figure.savefig(path, dpi=150)
