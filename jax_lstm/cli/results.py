"""Figures and tables of the results of `jax-lstm experiment`.

NAME.json holds what was run and measured. The texts and criteria are in configs/experiments/NAME.yaml. Both are read
together, so that a text can be changed without touching a result.
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

Published experiments, reproduced with several seeds. `jax-lstm experiment --list` lists them.
`jax-lstm experiment NAME` runs one and writes NAME.json and NAME.png. `jax-lstm experiment --table` writes this page
from the JSON files.

- **Test score**: one score per seed, on the test split, of the params with the best validation score. No seed is left
  out.
- **Baseline**: the score of the best prediction that ignores the input.
- **Training sequences until solved**: the sequences a seed had trained on when its validation score first reached the
  experiment's own threshold.
- **Horizon on data**: the time steps over which the norm of the gradient falls by a factor of e after training, as the
  median over seeds; `inf`: it does not fall. For tasks with targets at every step, it is measured over the first 600
  steps.
- **Time**: training, scoring and measuring on two CPU cores, including compilation.

"""
# What the measured quantities (measures.py) are called on the page, where their key is not clear enough.
MEASURED = {
    "largest exponent": "largest Lyapunov exponent (nats per step)",
    "rest radius": "spectral radius of the Jacobian at rest",
} | {f"exponent {i}": f"Lyapunov exponent {i} (nats per unit of the task's time)" for i in (1, 2, 3)}
# What a criterion can be about, in words.
QUANTITIES = MEASURED | {"score": "test score", "sequences": "training sequences until solved"}


def plot_experiment(result: dict[str, Any], path: Path) -> None:
    """Plot learning curves of every seed, and gradient norms after training (and during it, if measured); write a PNG.

    Args:
        result: what `joined` returned.
        path: where to write the figure.
    """
    first = next(iter(result["results"].values()))
    points = first["while_training"]
    figure = Figure(figsize=(19 if points else 13, 4.8), layout="constrained")
    left, right, *more = figure.subplots(1, 3 if points else 2)
    for (name, run), (colour, style) in zip(result["results"].items(), styles(), strict=False):
        x, y = run["curve"]["sequences"], np.array(run["curve"]["validation"])
        left.plot(x, y, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
        left.plot(
            x, y.mean(axis=1), color=colour, linestyle=style, linewidth=2.2, label=f"{name}, mean of {y.shape[1]} seeds"
        )
    if first["baseline"] is not None:
        left.axhline(first["baseline"], color="0.35", linestyle=":", linewidth=1.5, label="baseline")
    if first["maximize"]:
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
        title="Gradient norm after training (mean over seeds and sequences)", axes=right,
    )  # fmt: skip
    for axes in more:
        plot_profile(
            {f"{p['when']}, step {p['step']:,}": np.array(p["ln_norm"], float) for p in points},
            title=f"Gradient norm during training: {next(iter(result['results']))} (mean over seeds)",
            axes=axes,
        )
    figure.savefig(path, dpi=120)


def rows(results: list[dict[str, Any]]) -> str:
    """The full table of results as Markdown: one row per run."""
    lines = [
        "| experiment | run | test score of each seed | training sequences until solved, mean (min to max) "
        "| horizon on data, steps |",
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
                f"| {result['title']} | {name} | {run['metric']} {scores}{_baseline(run)} | {sequences} | "
                f"{np.median(horizons):.1f} |"
            )
    return "\n".join(lines)


def summary(results: list[dict[str, Any]]) -> str:
    """The short table of results as Markdown: one row per experiment."""
    lines = [
        "| experiment | published result | test score here, worst to best seed "
        "| training sequences until solved, first run, mean | criteria met |",
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
            f"| {result['title']} | {result['published']} | {first['metric']} {scores}{_baseline(first)} | "
            f"{sequences}| {met} of {len(result['marks'])} |"
        )
    return "\n".join(lines)


def _range(run: dict[str, Any]) -> str:
    scores = sorted(run["score"], reverse=not run["maximize"])
    worst, best = (f"{score:.4g}" for score in (scores[0], scores[-1]))
    return worst if worst == best else f"{worst} to {best}"


def _baseline(run: dict[str, Any]) -> str:
    return "" if run["baseline"] is None else f" (baseline {run['baseline']:.3g})"


def seconds(result: dict[str, Any]) -> float:
    """The time that an experiment took, in seconds."""
    return sum(run["seconds"] for run in result["results"].values())


def page(results: list[dict[str, Any]]) -> str:
    """The page of results as Markdown: the full table, the time of each part, and a section per experiment."""
    parts = [HEAD + rows(results)]
    took: dict[str, float] = {}
    for result in results:
        took[result["part"]] = took.get(result["part"], 0) + seconds(result)
    parts.append("Time of each part:")
    parts.append("\n".join(f"- {part}: {total:,.0f} s" for part, total in took.items()))
    for result in results:
        parts += [
            f"## {result['title']}",
            "\n".join(
                [
                    f"- Source: {result['source']}.",
                    f"- Published result: {result['published']}",
                    f"- Other reproductions: {result['reproduction']}",
                    f"- Differences from the publication: {result['deviations']}",
                    f"- Time: {seconds(result):.0f} s.",
                ]
            ),
            "Criteria:",
            "\n".join(f"- {say(mark)}" for mark in result["marks"]),
            *_measured(result),
            f"![{result['title']}]({result['name']}.png)",
        ]
    return "\n\n".join(parts) + "\n"


def _measured(result: dict[str, Any]) -> list[str]:
    """What was measured besides the score: one line per run and quantity; empty if nothing was."""
    lines = [
        f"- {name}: {MEASURED.get(what, what)}: {' '.join(f'{value:.3g}' for value in values)}"
        for name, run in result["results"].items()
        for what, values in run["measured"].items()
    ]
    return ["Also measured, for each seed:", "\n".join(lines)] if lines else []


def read_spec(path: Path) -> dict[str, Any]:
    """Read the file of an experiment.

    Its keys are title, part, source, minutes, runs, solved, marks, published, reproduction and deviations; and
    optionally measure (names from measures.py) and overnight (true if it takes hours).
    """
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_results(folder: Path, specs: Path) -> list[dict[str, Any]]:
    """Read every NAME.json of a folder, joined with its file in `specs`; see `joined`."""
    results = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        results.append(joined(result, read_spec(specs / f"{result['name']}.yaml")))
    return results


def joined(result: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A result with the texts of its spec, and the number of seeds that meet each criterion (key "marks")."""
    marks = [mark | {"seeds_that_do": count(mark, result["results"])} for mark in spec["marks"]]
    return spec | result | {"marks": marks}


def count(mark: dict[str, Any], results: dict[str, Any]) -> int:
    """The number of seeds that meet a criterion, such as {run: LSTM, of: score, at_least: 0.99, seeds: 5}.

    Two kinds of criteria compare runs, and give 1 if they are met, else 0. For an order, {runs: [a, b], of: sequences,
    seeds: 1}, the means of the runs must not fall from one run to the next, and the last must be above the first. A
    seed that never solves the task makes a mean infinite. For equality, {runs: [a, b], of: score, apart: interquartile
    range, seeds: 1}, the means must not differ by more than the interquartile range of the first run's seeds.
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
    """Whether enough seeds meet a criterion."""
    return mark["seeds_that_do"] >= mark["seeds"]


def say(mark: dict[str, Any]) -> str:
    """A criterion and its outcome, in words."""
    met = "met" if is_met(mark) else "NOT met"
    of = QUANTITIES.get(mark["of"], mark["of"])
    if "apart" in mark:
        first = mark["runs"][0]
        return f"mean {of}: {' = '.join(mark['runs'])}, to within the {mark['apart']} of {first}: {met}"
    if "runs" in mark:
        return f"mean {of}: {' ≤ '.join(mark['runs'])}: {met}"
    bounds = [
        f"{word} {mark[key]:,}" for key, word in (("at_least", "at least"), ("at_most", "at most")) if key in mark
    ]
    return (
        f"{mark['run']}: {of} {' and '.join(bounds)}, required for {mark['seeds']} seeds, reached by "
        f"{mark['seeds_that_do']}: {met}"
    )
