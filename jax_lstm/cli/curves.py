"""The figure of the learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with any colour vision; the line styles tell them apart without any.
STYLES = {"lstm": ("#0072B2", "-"), "rnn": ("#D55E00", "--"), "gru": ("#009E73", "-.")}


class Curve(NamedTuple):
    """One run: the cell, and its metrics.jsonl."""

    cell: str
    records: Sequence[dict[str, Any]]


class Panel(NamedTuple):
    """One task."""

    task: str
    metric: str
    blind: float
    blind_label: str
    log: bool
    curves: Sequence[Curve]


def plot_learning_curves(panels: Sequence[Panel], path: Path) -> None:
    """The validation score over steps: a panel a task, a bold line a cell for the mean, thin lines for its seeds."""
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for cell, records in panel.curves:
            validations = [r for r in records if r["split"] == "validation"]
            steps = [r["step"] for r in validations]
            scores = np.array([r[panel.metric] for r in validations])
            colour, style = STYLES[cell]
            axes.plot(steps, scores, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
            label = f"{cell.upper()}, mean of {scores.shape[1]} seeds"
            axes.plot(steps, scores.mean(axis=1), color=colour, linestyle=style, linewidth=2.4, label=label)
        axes.axhline(panel.blind, color="0.35", linestyle=":", linewidth=1.5, label=panel.blind_label)
        if panel.log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.set(title=panel.task, xlabel="training step", ylabel=f"validation {panel.metric}")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
