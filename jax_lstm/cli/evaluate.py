"""`jax-lstm evaluate`: score the best checkpoint of each seed on the test or validation split."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from jax_lstm.cli.build import Experiment, build_model, restore
from jax_lstm.cli.parser import add_imports, experiment_of_run, parse, take_imports
from jax_lstm.cli.profile import json_ready
from jax_lstm.cli.scores import baseline_scores, names_of, scores_in_chunks
from jax_lstm.cli.trained import with_facts
from jax_lstm.tasks import Split
from jax_lstm.train import Best
from jax_lstm.train.step import over_seeds


def main(argv: Sequence[str]) -> int:
    """Score a run, print a table, and write SPLIT.json into its directory."""
    parser = ArgumentParser(
        prog="jax-lstm evaluate",
        description="Score the best checkpoint of each seed of a run, which is "
        "the one with the best validation score. Prints a table, and writes test.json or validation.json into run_dir. "
        "Scores are in the units of the data.",
    )
    parser.add_argument("run_dir", type=str, help="directory of a run, made by jax-lstm train")
    parser.add_argument("--split", type=Split, default="test", help="split to score on")
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    run_dir = Path(values.run_dir)
    experiment = experiment_of_run(parser, run_dir, packages)
    try:
        state = restore(experiment, run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    report = evaluate(experiment, state.best, values.split, run_dir)
    console = Console()
    console.print(_table(run_dir, report))
    console.print(f"Written to {run_dir / f'{values.split}.json'}", soft_wrap=True)
    return 0


def _table(run_dir: Path, report: dict[str, Any]) -> Table:
    """The scores of each seed, their means, and the baselines."""
    more = report["more"]
    table = Table("seed", "best step", f"{report['split']} {report['metric']}", *more, title=f"{run_dir}")
    for n, seed in enumerate(report["seeds"]):
        scores = [report["scores"][n], *(score["scores"][n] for score in more.values())]
        table.add_row(str(seed), str(report["best_step"][n]), *map(_shown, scores))
    means = [report["mean"], *(score["mean"] for score in more.values())]
    table.add_row("mean", "", *map(_shown, means), style="bold")
    for name, score in report["baselines"].items():
        others = [values["baselines"].get(name) for values in more.values()]
        table.add_row(f"baseline: {name}", "", *map(_shown, [score, *others]), style="dim")
    return table


def _shown(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def evaluate(experiment: Experiment, best: Best, split: Split, run_dir: Path) -> dict[str, Any]:
    """Score the best params of each seed, and write the result to run_dir/SPLIT.json.

    Args:
        experiment: the options of the run.
        best: the best params of each seed.
        split: "test" or "validation".
        run_dir: the directory of the run.

    Returns:
        What was written. `scores` has one score per seed, in the order of train.seeds, and `more` has the other scores
        of the task by name; all in the units of its data. A score that is not finite is None.
    """
    task = with_facts(experiment.build_task(), run_dir)
    model = build_model(experiment, task)
    batch = task.test() if split == "test" else task.validation()

    @jax.jit
    def score(params, batch):  # the batch is an argument: as a constant it would be a part of the program
        def of_one(p):
            return scores_in_chunks(task, names_of(task), lambda chunk: model.outputs(p, chunk)[1], batch)

        return over_seeds(of_one, None)(params)

    metric, *others = names_of(task)
    found: dict[str, Any] = score(best.params, batch)
    scores = {name: np.asarray(values, np.float64) for name, values in found.items()}
    baselines = baseline_scores(task, split)
    report = json_ready(
        {
            "split": split,
            "metric": metric,
            "size": len(batch.xs),
            "seeds": list(experiment.train.seeds),
            "best_step": best.step,
            "scores": scores[metric],
            "mean": float(scores[metric].mean()),
            "baselines": {name: values[metric] for name, values in baselines.items()},
            "more": {
                other: {
                    "scores": scores[other],
                    "mean": float(scores[other].mean()),
                    "baselines": {name: values[other] for name, values in baselines.items() if other in values},
                }
                for other in others
            },
        }
    )
    (run_dir / f"{split}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report
