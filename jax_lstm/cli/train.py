"""`jax-lstm train`: train one network per seed."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jax_lstm.cli.build import Experiment, build_problem
from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.cli.scores import baseline_scores, in_words, names_of
from jax_lstm.cli.trained import check_facts, write_facts
from jax_lstm.tasks import ReadsTokens, Task
from jax_lstm.train import (
    NotFiniteError,
    Problem,
    Run,
    TrainConfig,
    count_devices,
    fit,
    learning_rate,
    open_run,
    optimizer,
)
from jax_lstm.train.metrics import read_metrics


def main(argv: Sequence[str]) -> int:
    """Train an experiment, and print the best validation score of each seed."""
    make_cores_devices()
    parser = experiment_parser(
        "train",
        "Train a network on a task, once per seed. Start from a config file and override any key: jax-lstm train "
        "digits.yaml --model.cell GRU --train.steps 500. For a file of your own: jax-lstm train series.yaml "
        "--data.path flows.csv --data.inputs rain,temp --data.targets flow. Writes config.yaml, run.json, model.json, "
        "metrics.jsonl and checkpoints/ into run_dir; for a file of your own also data.json, which predictions need.",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir from its newest checkpoint")
    experiment, values = parse_experiment(parser, argv)
    try:
        devices = count_devices(experiment.train)
        problem = build_problem(experiment)
        if values.resume:
            check_facts(experiment.build_task(), Path(experiment.run_dir))
        open_run(Path(experiment.run_dir), experiment.as_data(), experiment.train.seeds, devices, values.resume)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    console = Console()
    title = f"{experiment.task.label}, {experiment.model.cell.label}"
    console.print(describe("Training", title, experiment.train), highlight=False, markup=False)
    try:
        run = train(experiment, values.resume, console, problem)
    except NotFiniteError as error:
        print(f"jax-lstm train: {error}", file=sys.stderr)
        return 1
    task = experiment.build_task()
    for line in results(task, run, read_metrics(Path(experiment.run_dir))):
        console.print(line, soft_wrap=True)
    console.print(f"Written to {experiment.run_dir}. Next:", soft_wrap=True)
    console.print(f"  jax-lstm evaluate {experiment.run_dir}  (score on the test split)", soft_wrap=True)
    if hasattr(task, "prepare"):
        console.print(f"  jax-lstm predict {experiment.run_dir} --data.path FILE  (predictions as CSV)", soft_wrap=True)
    if isinstance(task, ReadsTokens):
        console.print(f"  jax-lstm sample {experiment.run_dir}  (generate text)", soft_wrap=True)
    console.print(f"  jax-lstm gradflow {experiment.run_dir}  (measure how far gradients reach)", soft_wrap=True)
    return 0


def results(task: Task, run: Run, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The best validation scores of each seed and the scores of the baselines, one line each."""
    scored = {record["step"]: record for record in records if record["split"] == "validation"}
    for n, (seed, step) in enumerate(zip(run.seeds, run.best.step.tolist(), strict=True)):
        at_best = scored.get(step, {})
        scores = {task.metric: float(run.best.score[n])}
        others = {name: at_best[name][n] for name in names_of(task)[1:] if name in at_best}
        scores |= {name: score for name, score in others.items() if score is not None}  # null: it was not finite
        yield f"seed {seed}: best validation {in_words(scores)} at step {step}"
    for name, scores in baseline_scores(task, "validation").items():
        yield f"baseline, {name}: validation {in_words(scores)}"


def describe(start: str, title: str, loop: TrainConfig) -> str:
    """One line that says what is about to be trained, such as "[1/4] digits, LSTM: 3 seeds, up to 2,000 steps"."""
    seeds = len(loop.seeds)
    most = "" if loop.patience is None and loop.target is None else "up to "
    return f"{start} {title}: {seeds} seed{'s' * (seeds != 1)}, {most}{loop.steps:,} steps"


def train(experiment: Experiment, resume: bool, console: Console, problem: Problem | None = None) -> Run:
    """Train an experiment into its run_dir, which `open_run` has created; None: its problem is built here."""
    opt, loop = experiment.opt, experiment.train
    write_facts(experiment.build_task(), Path(experiment.run_dir))
    return fit(
        problem or build_problem(experiment),
        optimizer(opt, loop.steps),
        run_dir=experiment.run_dir,
        resume=resume,
        console=console,
        schedule=learning_rate(opt, loop.steps),
        config=experiment.as_data(),
        **loop.options,
    )
