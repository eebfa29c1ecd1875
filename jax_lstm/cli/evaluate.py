"""`jax-lstm evaluate`: score the best checkpoint of each seed on the test or validation split."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from jax_lstm.cli.build import Experiment, build_model, restore
from jax_lstm.cli.parser import add_imports, experiment_of_run, parse, take_imports
from jax_lstm.tasks import Split
from jax_lstm.train import TrainState
from jax_lstm.train.step import over_seeds


def main(argv: Sequence[str]) -> int:
    """Score a run, print a table, and write SPLIT.json into its directory."""
    parser = ArgumentParser(
        prog="jax-lstm evaluate",
        description="Score the best checkpoint of each seed of a run, which is "
        "the one with the best validation score. Prints a table, and writes test.json or validation.json into run_dir.",
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
    scores = evaluate(experiment, state, values.split, run_dir)
    task = experiment.build_task()
    table = Table("seed", "best step", f"{values.split} {task.metric}", title=f"{run_dir}")
    for seed, step, score in zip(experiment.train.seeds, state.best.step, scores, strict=True):
        table.add_row(str(seed), str(int(step)), f"{score:.4f}")
    table.add_row("mean", "", f"{np.mean(scores):.4f}", style="bold")
    for name, score in task.baselines(values.split).items():
        table.add_row(f"baseline: {name}", "", f"{score:.4f}", style="dim")
    console = Console()
    console.print(table)
    console.print(f"Written to {run_dir / f'{values.split}.json'}", soft_wrap=True)
    return 0


def evaluate(experiment: Experiment, state: TrainState, split: Split, run_dir: Path) -> list[float]:
    """Score the best params of each seed, and write the result to run_dir/SPLIT.json.

    Args:
        experiment: the options of the run.
        state: its newest state.
        split: "test" or "validation".
        run_dir: its directory.

    Returns:
        One score per seed, in the order of train.seeds.
    """
    task = experiment.build_task()
    model = build_model(experiment, task)
    batch = task.test() if split == "test" else task.validation()

    @jax.jit
    @partial(over_seeds, vmap=None)
    def score(params):
        return model.values((task.metric,), params, batch)[0][0]

    scores = np.asarray(score(state.best.params), np.float64).tolist()
    report = {
        "split": split,
        "metric": task.metric,
        "size": len(batch.xs),
        "seeds": list(experiment.train.seeds),
        "best_step": state.best.step.tolist(),
        "scores": scores,
        "mean": float(np.mean(scores)),
        "baselines": task.baselines(split),
    }
    (run_dir / f"{split}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return scores
