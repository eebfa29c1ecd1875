"""What `jax-lstm experiment` wrote, as a figure and as one table.

NAME.json holds what was run and measured; words and marks are those of configs/experiments/NAME.yaml. Both are read
together, so that a word can be mended without touching a result.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots import plot_profile
from jax_lstm.gradflow.plots.canvas import styles

HEAD = """# Experiments

What was published, and what came out here: `jax-lstm experiment --list` names them, `jax-lstm experiment NAME` does one
again and writes NAME.json and NAME.png, and `jax-lstm experiment --table` writes this page from the JSON. Scores are of
the test split, for the params that were best on validation; every seed counts. Sequences are those that a seed had
trained on when it first met the experiment's own criterion on validation. The horizon is the median over seeds. Seconds
are those of training, scoring and measuring on two cores, compiling included. Where something is asked for at every
step the gradient is measured over the first 600 steps.

"""


def plot_experiment(result: dict[str, Any], path: Path) -> None:
    """Learning curves against sequences, every seed, and the mean profile of the gradient after training."""
    first = next(iter(result["results"].values()))
    points = first["while_training"]
    figure = Figure(figsize=(19 if points else 13, 4.8), layout="constrained")
    left, right, *more = figure.subplots(1, 3 if points else 2)
    for (name, run), (colour, style) in zip(result["results"].items(), styles(), strict=False):
        x, y = run["curve"]["sequences"], np.array(run["curve"]["validation"])
        left.plot(x, y, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
        left.plot(
            x, y.mean(axis=1), color=colour, linestyle=style, linewidth=2.2, label=f"{name}, mean of {y.shape[1]}"
        )
    if first["blind"] is not None:
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
    for axes in more:
        plot_profile(
            {f"{p['when']}, step {p['step']:,}": np.array(p["ln_norm"], float) for p in points},
            title=f"While it is trained: {next(iter(result['results']))}; mean over seeds",
            axes=axes,
        )
    figure.savefig(path, dpi=120)


def rows(results: list[dict[str, Any]]) -> str:
    """The table: a row a run."""
    lines = [
        "| experiment | run | test score of each seed | sequences, mean (least to most) | horizon on data, steps |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        for name, run in result["results"].items():
            scores = " ".join(f"{score:.3g}" for score in run["score"])
            seen = [n for n in run["sequences"] if n is not None]
            sequences = f"{np.mean(seen):,.0f} ({min(seen):,} to {max(seen):,})" if seen else "never"
            if seen and len(seen) < len(run["sequences"]):
                sequences += f", {len(seen)} of {len(run['sequences'])} seeds"
            horizons = [math.inf if h is None else h for h in run["data_horizon"]]
            lines.append(
                f"| {result['title']} | {name} | {run['metric']} {scores}{_blind(run)} | {sequences} | "
                f"{np.median(horizons):.1f} |"
            )
    return "\n".join(lines)


def summary(results: list[dict[str, Any]]) -> str:
    """The short table: a row an experiment."""
    lines = [
        "| experiment | published | here, worst to best seed | sequences of the first run, mean | marks met |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        runs = result["results"].items()
        first = next(iter(result["results"].values()))
        scores = "; ".join(f"{name}: {_range(run)}" for name, run in runs)
        seen = [n for n in first["sequences"] if n is not None]
        met = sum(is_met(mark) for mark in result["marks"])
        sequences = f"{np.mean(seen):,.0f} " if seen else ""
        if 0 < len(seen) < len(first["sequences"]):
            sequences += f"({len(seen)} of {len(first['sequences'])} seeds) "
        lines.append(
            f"| {result['title']} | {result['published']} | {first['metric']} {scores}{_blind(first)} | "
            f"{sequences}| {met} of {len(result['marks'])} |"
        )
    return "\n".join(lines)


def _range(run: dict[str, Any]) -> str:
    scores = sorted(run["score"], reverse=not run["maximise"])
    worst, best = (f"{score:.4g}" for score in (scores[0], scores[-1]))
    return worst if worst == best else f"{worst} to {best}"


def _blind(run: dict[str, Any]) -> str:
    return "" if run["blind"] is None else f" (blind {run['blind']:.3g})"


def seconds(result: dict[str, Any]) -> float:
    """What an experiment took."""
    return sum(run["seconds"] for run in result["results"].values())


def page(results: list[dict[str, Any]]) -> str:
    """The table, how long each part took, and for each experiment its source, its marks and its figure, as Markdown."""
    parts = [HEAD + rows(results)]
    took: dict[str, float] = {}
    for result in results:
        took[result["part"]] = took.get(result["part"], 0) + seconds(result)
    parts.append("\n".join(f"- {part}: {total:,.0f} s altogether" for part, total in took.items()))
    for result in results:
        parts += [
            f"## {result['title']}",
            f"Source: {result['source']}. Published: {result['published']} Another reproduction: "
            f"{result['reproduction']} Deviations here: {result['deviations']} It took {seconds(result):.0f} s.",
            "\n".join([f"- {say(mark)}" for mark in result["marks"]] + _measured(result)),
            f"![{result['title']}]({result['name']}.png)",
        ]
    return "\n\n".join(parts) + "\n"


def _measured(result: dict[str, Any]) -> list[str]:
    """What was measured beside the score, a line a run and name."""
    return [
        f"- {name}, {what} of each seed: {' '.join(f'{value:.3g}' for value in values)}"
        for name, run in result["results"].items()
        for what, values in run["measured"].items()
    ]


def read_spec(path: Path) -> dict[str, Any]:
    """What an experiment is: title, part, source, minutes, runs, solved, marks, published, reproduction, deviations.

    Some also have: measure, names from measures.py; overnight, true where nobody waits for it.
    """
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_results(folder: Path, specs: Path) -> list[dict[str, Any]]:
    """Every NAME.json of a folder with its spec, and with how many seeds meet each mark."""
    results = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        results.append(joined(result, read_spec(specs / f"{result['name']}.yaml")))
    return results


def joined(result: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A result with the words of its spec, and its marks with what came of them."""
    marks = [mark | {"seeds_that_do": count(mark, result["results"])} for mark in spec["marks"]]
    return spec | result | {"marks": marks}


def count(mark: dict[str, Any], results: dict[str, Any]) -> int:
    """How many seeds meet a mark, such as {run: LSTM, of: score, at_least: 0.99, seeds: 5}.

    Of a mark on an order, {runs: [a, b], of: sequences, seeds: 1}, it is 1 if the runs' means do not fall from one to
    the next and the last is above the first, where a seed that never got there makes a mean infinite; else 0.
    Of one on equality, {runs: [a, b], of: score, apart: interquartile range, seeds: 1}, it is 1 if the runs' means are
    no further apart than the interquartile range of the first one's seeds; else 0.
    """
    if "apart" in mark:
        values = [results[run][mark["of"]] for run in mark["runs"]]
        return int(np.ptp([np.mean(v) for v in values]) <= np.subtract(*np.percentile(values[0], [75, 25])))
    if "runs" in mark:
        means = [np.mean([np.inf if v is None else v for v in results[run][mark["of"]]]) for run in mark["runs"]]
        return int(means == sorted(means) and means[0] < means[-1])
    run = results[mark["run"]]
    values = (run | run["measured"])[mark["of"]]
    least, most = mark.get("at_least", -np.inf), mark.get("at_most", np.inf)
    return sum(value is not None and least <= value <= most for value in values)


def is_met(mark: dict[str, Any]) -> bool:
    """Whether as many seeds as wanted do it."""
    return mark["seeds_that_do"] >= mark["seeds"]


def say(mark: dict[str, Any]) -> str:
    """A mark, and what came of it."""
    met = "met" if is_met(mark) else "NOT met"
    if "apart" in mark:
        return f"mean {mark['of']}: {' = '.join(mark['runs'])}, to the first one's {mark['apart']}: {met}"
    if "runs" in mark:
        return f"mean {mark['of']}: {' ≤ '.join(mark['runs'])}: {met}"
    bounds = [
        f"{word} {mark[key]:,}" for key, word in (("at_least", "at least"), ("at_most", "at most")) if key in mark
    ]
    return (
        f"{mark['run']}, {mark['of']} {' and '.join(bounds)}: wanted of {mark['seeds']} seeds, "
        f"came of {mark['seeds_that_do']}: {met}"
    )
