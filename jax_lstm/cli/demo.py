"""`jax-lstm demo`: compare an LSTM and a tanh RNN of the same width on handwritten digits and the adding problem."""

import json
import shutil
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from jax_lstm.cli.build import Experiment, build_model, steps_of_all
from jax_lstm.cli.configs import configs_dir
from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.curves import Curve, Panel, plot_learning_curves
from jax_lstm.cli.evaluate import evaluate
from jax_lstm.cli.parser import add_imports, experiment_parser, parse_experiment, take_imports
from jax_lstm.cli.profile import Profile, profiles
from jax_lstm.cli.train import describe, train
from jax_lstm.gradflow.plots import plot_profile
from jax_lstm.tasks import Task
from jax_lstm.train import count_devices, open_run, read_metrics

TASKS, CELLS = ("digits", "adding"), ("LSTM", "RNN")
REPORT = "demo.json"  # a directory with this file was written by the demo and may be replaced
SEQUENCES = 4  # sequences per seed that gradient norms are averaged over
NOTES = (
    "baseline: the score of the best prediction that ignores the input.",
    "horizon on data: time steps over which the gradient norm falls by a factor of e; inf: it does not fall.",
    "log10 ‖∂s_T/∂s_0‖: the gradient norm over the whole sequence, as a power of 10; 0: unchanged; -3: 1/1000 is left.",
)
FILES = {
    "learning_curves.png": "look here first: validation scores during training, and the baseline",
    "gradient_flow.png": "how far gradients reach back in time in the trained networks",
    REPORT: "the numbers in the table, and gradient norms at every step",
    "TASK-CELL/": "one directory per run: config, metrics, checkpoints, test score",
}


class Row(NamedTuple):
    """One run of the demo.

    Args:
        experiment: its options.
        scores: the test score of each seed.
        seconds: the time to train all seeds, including compilation.
        profiles: the gradient norms of each seed after training.
    """

    experiment: Experiment
    scores: list[float]
    seconds: float
    profiles: list[Profile]

    def as_data(self) -> dict[str, Any]:
        """The run as plain data, for demo.json."""
        task = self.experiment.build_task()
        return {
            "task": self.experiment.task.label,
            "cell": self.experiment.model.cell.label,
            "metric": f"test {task.metric}",
            "scores": self.scores,
            "mean": float(np.mean(self.scores)),
            "baseline": _baseline(task)[1],
            "train_seconds": round(self.seconds, 1),
            "gradient_flow": [p.as_data() for p in self.profiles],
        }


def main(argv: Sequence[str]) -> int:
    """Train the four runs, print a table, and write figures."""
    make_cores_devices()
    parser = ArgumentParser(
        prog="jax-lstm demo",
        description="Train an LSTM and a tanh RNN of the same width on two tasks: digits (classify handwritten digits, "
        "one pixel per step) and adding (add two marked numbers in a long sequence). Prints a table of test scores and "
        "gradient norms, and writes figures. Any key of a config, such as --train.steps 100, changes all four runs; "
        "jax-lstm train --help lists the keys.",
    )
    parser.add_argument("--configs", help="folder of digits.yaml and adding.yaml; default: the packaged configs")
    parser.add_argument("--out", default="runs/demo", help="output folder; an earlier demo there is replaced")
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values, overrides = parser.parse_known_args(argv)
    configs, out = Path(values.configs or configs_dir()), Path(values.out)
    missing = [name for name in TASKS if not (configs / f"{name}.yaml").is_file()]
    if missing:
        parser.error(
            f"--configs: wanted a folder with digits.yaml and adding.yaml, but {configs} has no {missing[0]}.yaml; "
            "leave --configs out to use the packaged configs"
        )
    if out.exists() and not (out / REPORT).is_file() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"--out: {out} exists and was not written by the demo; move it, or name another directory")
    experiments = [
        parse_experiment(
            experiment_parser("demo", ""),
            [str(configs / f"{task}.yaml"), *overrides, "--model.cell", cell, "--run_dir", str(out / f"{task}-{cell}")],
            packages,
        )[0]
        for task in TASKS
        for cell in CELLS
    ]
    try:
        for experiment in experiments:
            count_devices(experiment.train)
    except ValueError as error:
        parser.error(str(error))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / REPORT).write_text("[]\n", encoding="utf-8")
    console = Console()
    _say(console, f"Training an LSTM and a tanh RNN on {' and '.join(TASKS)}: {len(experiments)} runs, into {out}/")
    rows = []
    for number, experiment in enumerate(experiments, 1):
        title = f"{experiment.task.label}, {experiment.model.cell.label}"
        _say(console, describe(f"[{number}/{len(experiments)}]", title, experiment.train))
        rows.append(_run(experiment, console))
    (out / REPORT).write_text(json.dumps([row.as_data() for row in rows], indent=2) + "\n", encoding="utf-8")
    plot_learning_curves([_panel(task, rows) for task in TASKS], out / "learning_curves.png")
    flows = {
        f"{row.experiment.model.cell.label}, {row.experiment.task.label}": np.mean(
            [p.log_norms for p in row.profiles], axis=0
        )
        for row in rows
    }
    plot_profile(
        flows, path=out / "gradient_flow.png", title="Gradient norm after training (mean over seeds and sequences)"
    )
    console.print(_table(rows))
    for line in NOTES:
        _say(console, line)
    _say(console, f"\nFiles in {out}/:")
    for name, what in FILES.items():
        _say(console, f"  {name:21s} {what}")
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _run(experiment: Experiment, console: Console) -> Row:
    """Train, score the best params on the test split (once), and measure them on validation sequences."""
    run_dir = Path(experiment.run_dir)
    devices = count_devices(experiment.train)
    open_run(run_dir, experiment.as_data(), experiment.train.seeds, devices, resume=False)
    start = time.perf_counter()
    state = train(experiment, resume=False, console=console)
    seconds = time.perf_counter() - start
    _say(console, f"  trained in {seconds:.0f} s; scoring on the test split and measuring gradients")
    scores = evaluate(experiment, state.best, "test", run_dir)["scores"]
    task = experiment.build_task()
    model, params = build_model(experiment, task), state.best.params
    xs = model.features(params, steps_of_all(task.validation(), SEQUENCES))
    return Row(experiment, scores, seconds, profiles(model.cell, params.cell, xs))


def _baseline(task: Task) -> tuple[str, float]:
    """The best prediction that ignores the input, and its test score."""
    return next(iter(task.baselines("test").items()))


def _panel(name: str, rows: Sequence[Row]) -> Panel:
    runs = [row.experiment for row in rows if row.experiment.task.label == name]
    task = runs[0].build_task()
    name_of_baseline, score = _baseline(task)
    return Panel(
        task=f"{name} (T = {task.length} steps)",
        metric=task.metric,
        baseline=score,
        baseline_label=f"baseline: {name_of_baseline}",
        log=not task.maximize,
        curves=[Curve(e.model.cell.label, read_metrics(Path(e.run_dir))) for e in runs],
    )


def _table(rows: Sequence[Row]) -> Table:
    """Narrow enough for 80 columns."""
    seeds = ", ".join(map(str, rows[0].experiment.train.seeds))
    table = Table(title=f"Same width, steps, batches and optimizer; mean and each of seeds {seeds}")
    for name in ("task", "cell"):
        table.add_column(name)
    for name in ("test score", "baseline", "time,\ns", "horizon\non data,\nsteps", "log10\n‖∂s_T/∂s_0‖"):
        table.add_column(name, justify="right")
    for row in rows:
        task, flow = row.experiment.build_task(), row.profiles
        table.add_row(
            f"{row.experiment.task.label}\nT = {task.length}",
            row.experiment.model.cell.label,
            f"{task.metric} {np.mean(row.scores):.4f}\n" + " ".join(f"{score:.4f}" for score in row.scores),
            f"{_baseline(task)[1]:.4f}",
            f"{row.seconds:.0f}",
            f"{np.median([p.data_horizon for p in flow]):.1f}",
            f"{np.mean([p.log10_norm(task.length) for p in flow]):.1f}",
            end_section=True,
        )
    return table
