"""`jax-lstm train`: train one network per seed."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jax_lstm.cli.build import Experiment, build_problem
from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.train import NotFiniteError, TrainConfig, TrainState, count_devices, fit, open_run


def main(argv: Sequence[str]) -> int:
    """Train an experiment, and print the best validation score of each seed."""
    make_cores_devices()
    parser = experiment_parser(
        "train",
        "Train a network on a task, once per seed. Start from a config file and override any key: jax-lstm train "
        "digits.yaml --model.cell GRU --train.steps 500. Writes config.yaml, run.json, metrics.jsonl and "
        "checkpoints/ into run_dir.",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir from its newest checkpoint")
    experiment, values = parse_experiment(parser, argv)
    try:
        devices = count_devices(experiment.train)
        open_run(Path(experiment.run_dir), experiment.as_data(), experiment.train.seeds, devices, values.resume)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    console = Console()
    title = f"{experiment.task.label}, {experiment.model.cell.label}"
    console.print(describe("Training", title, experiment.train), highlight=False, markup=False)
    try:
        state = train(experiment, values.resume, console)
    except NotFiniteError as error:
        print(f"jax-lstm train: {error}", file=sys.stderr)
        return 1
    task = experiment.build_task()
    for seed, score, step in zip(experiment.train.seeds, state.best.score, state.best.step, strict=True):
        console.print(f"seed {seed}: best validation {task.metric} {float(score):.4f} at step {int(step)}")
    for name, score in task.baselines("validation").items():
        console.print(f"baseline, {name}: validation {task.metric} {score:.4f}")
    console.print(f"Written to {experiment.run_dir}. Next:", soft_wrap=True)
    console.print(f"  jax-lstm evaluate {experiment.run_dir}  (score on the test split)", soft_wrap=True)
    console.print(f"  jax-lstm gradflow {experiment.run_dir}  (measure how far gradients reach)", soft_wrap=True)
    return 0


def describe(start: str, title: str, loop: TrainConfig) -> str:
    """One line that says what is about to be trained, such as "[1/4] digits, LSTM: 3 seeds, up to 2,000 steps"."""
    seeds = len(loop.seeds)
    most = "" if loop.patience is None and loop.target is None else "up to "
    return f"{start} {title}: {seeds} seed{'s' * (seeds != 1)}, {most}{loop.steps:,} steps"


def train(experiment: Experiment, resume: bool, console: Console) -> TrainState:
    """Train an experiment into its run_dir, which `open_run` has created; returns the last state."""
    return fit(
        build_problem(experiment),
        experiment.opt,
        experiment.train,
        Path(experiment.run_dir),
        resume=resume,
        console=console,
    )
