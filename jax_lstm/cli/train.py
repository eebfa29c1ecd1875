"""`jax-lstm train`: one experiment, all its seeds."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.cli.wiring import Experiment, build_problem
from jax_lstm.tasks import rivals
from jax_lstm.train import NotFiniteError, TrainState, count_devices, fit, open_run


def main(argv: Sequence[str]) -> int:
    """Parse, refuse or train."""
    make_cores_devices()
    parser = experiment_parser("train", "Train one experiment: jax-lstm train digits.yaml --model.cell gru")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in run_dir")
    experiment, values = parse_experiment(parser, argv)
    try:
        devices = count_devices(experiment.train)
        open_run(Path(experiment.run_dir), experiment.as_data(), experiment.train.seeds, devices, values.resume)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    console = Console()
    try:
        state = train(experiment, values.resume, console)
    except NotFiniteError as error:
        print(f"jax-lstm train: {error}", file=sys.stderr)
        return 1
    task = experiment.task.build()
    for seed, score, step in zip(experiment.train.seeds, state.best.score, state.best.step, strict=True):
        console.print(f"seed {seed}: best validation {task.metric} {float(score):.4f} at step {int(step)}")
    for name, score in rivals(task, "validation").items():
        console.print(f"{name}: validation {task.metric} {score:.4f}")
    console.print(f"{experiment.run_dir}: jax-lstm evaluate {experiment.run_dir} reads the test split")
    return 0


def train(experiment: Experiment, resume: bool, console: Console) -> TrainState:
    """Train into a run's directory that `open_run` has made."""
    return fit(
        build_problem(experiment),
        experiment.opt,
        experiment.train,
        Path(experiment.run_dir),
        resume=resume,
        console=console,
    )
