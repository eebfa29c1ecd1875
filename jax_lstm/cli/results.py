"""What `jax-lstm experiment` wrote, as a figure and as one table."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots import plot_profile
from jax_lstm.gradflow.plots.canvas import styles

HEAD = """# Experiments

What was published, and what came out here: `jax-lstm experiment --list` names them, `jax-lstm experiment NAME` does one
again and writes NAME.json and NAME.png, and `jax-lstm experiment --table` writes this page from the JSON. Scores are of
the test split, for the params that were best on validation; every seed counts. Sequences are those that a seed had
trained on when it first met the experiment's own criterion on validation. The horizon is the median over seeds.

"""


def plot_experiment(result: dict[str, Any], path: Path) -> None:
    """Learning curves against sequences, every seed, and the mean profile of the gradient after training."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, run), (colour, style) in zip(result["results"].items(), styles(), strict=False):
        x, y = run["curve"]["sequences"], np.array(run["curve"]["validation"])
        left.plot(x, y, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
        left.plot(
            x, y.mean(axis=1), color=colour, linestyle=style, linewidth=2.2, label=f"{name}, mean of {y.shape[1]}"
        )
    first = next(iter(result["results"].values()))
    left.axhline(first["blind"], color="0.35", linestyle=":", linewidth=1.5, label="best constant")
    if first["maximise"]:
        left.set_ylim(0, 1.02)
    else:
        left.set_yscale("log")
    left.set(title=result["title"], xlabel="training sequences", ylabel=f"validation {first['metric']}")
    left.set_xlim(left=0)
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize="small")
    plot_profile(
        {name: np.array([-math.inf if x is None else x for x in run["ln_norm_ds_T_ds_k"]])
         for name, run in result["results"].items()},
        title="After training; mean over seeds and sequences", axes=right,
    )  # fmt: skip
    figure.savefig(path, dpi=120)


def rows(folder: Path) -> str:
    """The table: a row a run of every NAME.json of the folder."""
    lines = [
        "| experiment | run | test score of each seed | sequences, mean (least to most) | horizon on data, steps |",
        "|---|---|---|---|---|",
    ]
    for result in _results(folder):
        for name, run in result["results"].items():
            scores = " ".join(f"{score:.3g}" for score in run["score"])
            seen = [n for n in run["sequences"] if n is not None]
            sequences = f"{np.mean(seen):,.0f} ({min(seen):,} to {max(seen):,})" if seen else "never"
            if seen and len(seen) < len(run["sequences"]):
                sequences += f", {len(seen)} of {len(run['sequences'])} seeds"
            horizons = [math.inf if h is None else h for h in run["data_horizon"]]
            lines.append(
                f"| {result['title']} | {name} | {run['metric']} {scores} (blind {run['blind']:.3g}) | {sequences} | "
                f"{np.median(horizons):.1f} |"
            )
    return "\n".join(lines)


def page(folder: Path) -> str:
    """The table and, for each experiment, its source, its marks and its figure, as Markdown."""
    parts = [HEAD + rows(folder)]
    for result in _results(folder):
        seconds = sum(run["seconds"] for run in result["results"].values())
        parts += [
            f"## {result['title']}",
            f"Source: {result['source']}. Published: {result['published']} Another reproduction: "
            f"{result['reproduction']} Deviations here: {result['deviations']} Training took {seconds:.0f} s "
            "on two cores.",
            "\n".join(f"- {say(mark)}" for mark in result["marks"]),
            f"![{result['title']}]({result['name']}.png)",
        ]
    return "\n\n".join(parts) + "\n"


def _results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def say(mark: dict[str, Any]) -> str:
    """A mark, and what came of it."""
    bounds = [
        f"{word} {mark[key]:,}" for key, word in (("at_least", "at least"), ("at_most", "at most")) if key in mark
    ]
    met = "met" if mark["seeds_that_do"] >= mark["seeds"] else "NOT met"
    return (
        f"{mark['run']}, {mark['of']} {' and '.join(bounds)}: wanted of {mark['seeds']} seeds, "
        f"came of {mark['seeds_that_do']}: {met}"
    )
