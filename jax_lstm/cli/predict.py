"""`jax-lstm predict`: write the predictions of a trained network for a file of your own."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console

from jax_lstm.cli.parser import add_imports, parse, take_imports
from jax_lstm.cli.trained import read_trained, seed_of
from jax_lstm.train import Run


def main(argv: Sequence[str]) -> int:
    """Read the inputs of a file, run the network, and write a CSV file."""
    parser = ArgumentParser(
        prog="jax-lstm predict",
        description="Write the predictions of a trained network for a file of your own as CSV. The file needs the "
        "input columns of the training file, but no targets; the training file is not read. The CSV has a line for "
        "each row of the file: the sequence, the time (or the step, from 0), and the prediction of each target in "
        "original units. flow+3 is the forecast of flow 3 steps later. For labels, a line has the most likely label "
        "and its probability; for classification there is one line per sequence.",
    )
    parser.add_argument("run_dir", type=str, help="directory of a run of task series")
    parser.add_argument("--data.path", type=str, required=True, help="file with the inputs: .csv, .parquet or .npz")
    parser.add_argument("--out", type=str | None, default=None, help="file to write; null: RUN_DIR/predictions.csv")
    parser.add_argument(
        "--seed",
        type=int | Literal["mean"] | None,
        default=None,
        help="seed whose network predicts; mean: average over all seeds (for labels, the probabilities); null: the "
        "seed with the best validation score",
    )
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    run_dir = Path(values.run_dir)
    run, task = read_trained(parser, run_dir, packages)
    if not hasattr(task, "prepare"):
        parser.error(
            f"run_dir: wanted a run of task series, but {run_dir} is another; in Python, run it with "
            "train.load(RUN).predict(inputs)"
        )
    seeds = run.seeds if values.seed == "mean" else (seed_of(parser, run, values.seed, ", or mean"),)
    out = Path(values.out or run_dir / "predictions.csv")
    try:
        inputs, keys = task.prepare(values.data.path)
        ys = predictions(run, inputs, seeds, bool(task.labels))
        head, lines = table(task, keys, ys)
    except (OSError, ValueError, TypeError) as error:
        parser.error(str(error))
    try:
        with open(out, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *lines])
    except OSError as error:
        parser.error(f"--out: wanted a file that can be written, but got {out} ({error.strerror}); name another")
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"the mean of {len(seeds)} seeds"
    console = Console()
    console.print(f"Written to {out}: {len(lines):,} predictions of {which}.", highlight=False, soft_wrap=True)
    return 0


def predictions(run: Run, inputs: list[np.ndarray], seeds: Sequence[int], classes: bool) -> list[np.ndarray]:
    """The mean of the outputs of some seeds, one array per sequence; for classes, of their probabilities."""
    found = [run.predict(inputs, params=run.of_seed(seed)) for seed in seeds]
    if classes:
        found = [[_probabilities(y) for y in ys] for ys in found]
    return [np.mean(np.stack(ys), axis=0) for ys in zip(*found, strict=True)]


def _probabilities(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def table(task: Any, keys: Any, ys: list[np.ndarray]) -> tuple[list[str], list[list[Any]]]:
    """The head and the lines of the CSV file, in the order of the rows of the file that was read.

    Args:
        task: the task `series`.
        keys: the row of the file that each prediction is for; see `Series.prepare`.
        ys: the outputs of each sequence, (T, O); or (O,) for one label per sequence.
    """
    head = [task.sequence or "sequence"] * bool(keys.sequences)
    if task.every_step:
        head += [task.time] if keys.times is not None else ["step"]
    ahead = f"+{task.shift}" if task.shift else ""
    head += [*task.names, "probability"] if task.labels else [f"{name}{ahead}" for name in task.names]
    if not task.every_step:
        return head, [[*keys.sequences[n : n + 1], *_values(task, y)] for n, y in enumerate(ys)]
    found = sorted(_lines(task, keys, ys), key=lambda line: line[0])
    return head, [line for _, line in found]


def _lines(task: Any, keys: Any, ys: list[np.ndarray]) -> Iterator[tuple[int, list[Any]]]:
    """The record in the file of each prediction, and its line."""
    for n, outputs in enumerate(ys):
        for t, y in enumerate(outputs):
            record = int(keys.records[n][t])
            when = t if keys.times is None else keys.times[n][t]
            yield record, [*keys.sequences[n : n + 1], when, *_values(task, y)]


def _values(task: Any, y: np.ndarray) -> list[Any]:
    """The cells of one prediction: numbers with as many digits as float32 has; or the label and its probability."""
    if task.labels:
        return [task.labels[int(y.argmax())], np.float32(y.max())]
    return [np.float32(number) for number in y]
