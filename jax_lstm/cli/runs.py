"""`jax-lstm runs`: list and compare the runs below a folder."""

import json
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from jax_lstm.train.metrics import FILE as METRICS
from jax_lstm.train.metrics import read_metrics
from jax_lstm.train.run_dir import CONFIG, INFO, flat

MODEL = "model.json"
HEAD = ("run", "task", "cell", "seeds", "step", "best validation", "test", "state", "differs in")
NOT_COMPARED = ("run_dir", "train.devices", "train.tensorboard", "train.vmap_seeds")


class Row(NamedTuple):
    """What is known of one run; a run that cannot be read has only a path and a state."""

    path: str
    state: str
    task: str = ""
    cell: str = ""
    seeds: int = 0
    step: int = 0
    steps: int | None = None
    metric: str = ""
    maximize: bool = False
    best: float = np.nan
    test: float | None = None
    options: dict[str, Any] | None = None


def main(argv: Sequence[str]) -> int:
    """Print one line per run, the best first within each task."""
    parser = ArgumentParser(
        prog="jax-lstm runs",
        description="List the runs below a folder, grouped by task, the best first. Scores are means over seeds. The "
        "last column shows the options that differ between the runs of a task.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="folder to search; default: runs")
    folder = parser.parse_args(argv).folder
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        parser.error(f"folder: wanted a folder with runs in it, but {folder} {came}; name another")
    rows = [read(path) for path in find(folder)]
    if not rows:
        print(f"No runs below {folder}; jax-lstm train makes one.")
        return 0
    for line in table([HEAD, *lines(rows)]):
        print(line)
    return 0


def find(folder: Path) -> Iterator[Path]:
    """The directories of runs below a folder, in the order of their paths; or the folder itself."""
    for path, folders, files in os.walk(folder):
        folders.sort()
        if {CONFIG, INFO, MODEL} & set(files):
            folders.clear()  # a run has no runs inside
            yield Path(path)


def read(path: Path) -> Row:
    """Read one run; what is wrong with its files becomes its state."""
    try:
        return _read(path)
    except (OSError, ValueError, KeyError) as error:
        return Row(str(path), f"cannot be read: {' '.join(str(error).split())}")


def _read(path: Path) -> Row:
    config, model = _mapping(path / CONFIG, yaml.safe_load), _mapping(path / MODEL, json.loads)
    task = "flossing" if "flossing" in config else _name(config.get("task"))
    cell = _name(_section(config, "model").get("cell") or model.get("model"))
    records = _records(path)
    if not records:
        imported = "metric" in model and model["metric"] is None
        return Row(str(path), "imported" if imported else "no validation yet", task, cell)
    last, train = records[-1], _section(config, "train")
    steps = train.get("steps")
    metric = model.get("metric") or next(name for name in last if name not in ("step", "split", "best"))
    maximize = bool(model.get("maximize"))
    test = _mapping(path / "test.json", json.loads).get("mean")
    return Row(
        str(path),
        "finished" if steps is None or last["step"] >= steps else _stopped(train, records, metric, maximize),
        task,
        cell,
        seeds=len(last["best"]),
        step=last["step"],
        steps=steps,
        metric=metric,
        maximize=maximize,
        best=float(np.mean(last["best"])),
        test=test,
        options={key: value for key, value in flat(config).items() if key not in NOT_COMPARED},
    )


def _stopped(train: dict[str, Any], records: list[dict[str, Any]], metric: str, maximize: bool) -> str:
    """Whether a run ended before its last step by train.target or train.patience, or for another reason."""
    sign, target, patience = 1 if maximize else -1, train.get("target"), train.get("patience")
    best = sign * np.asarray(records[-1]["best"], np.float64)
    if target is not None and (best >= sign * target).all():
        return "target reached"
    means = [sign * np.mean(record[metric]) for record in records]
    if patience is not None and len(means) - 1 - int(np.argmax(means)) >= patience:
        return "stopped early"
    return "stopped"


def _mapping(path: Path, load: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping in a file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        data = load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} has no keys")
    return data


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _records(path: Path) -> list[dict[str, Any]]:
    """The validations in metrics.jsonl."""
    if not (path / METRICS).is_file():
        return []
    try:
        return [record for record in read_metrics(path) if record["split"] == "validation"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{METRICS} is damaged ({error})") from error


def _name(choice: Any) -> str:
    """The name of a class in a config: without its path, and that of the cell in a model."""
    while isinstance(choice, dict):
        choice = choice.get("class_path") or choice.get("cell")
    return str(choice or "").rpartition(".")[2]


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of the table: by task, the best first; runs that cannot be read come last."""

    def rank(row: Row) -> tuple[bool, str, str, float, str]:
        return not row.metric, row.task, row.metric, -row.best if row.maximize else row.best, row.path

    for _, group in groupby(sorted(rows, key=rank), lambda row: (row.task, row.metric)):
        same = list(group)
        for row in same:
            yield _cells(row, _differs(row, same))


def _cells(row: Row, differs: str) -> tuple[str, ...]:
    if not row.metric:
        return (row.path, row.task, row.cell, "", "", "", "", row.state, "")
    step = f"{row.step}" if row.steps is None else f"{row.step}/{row.steps}"
    test = "" if row.test is None else f"{row.test:.4f}"
    best = f"{row.metric} {row.best:.4f}"
    return (row.path, row.task, row.cell, str(row.seeds), step, best, test, row.state, differs)


def _differs(row: Row, others: Sequence[Row]) -> str:
    """The options of a run that are not the same in all runs of its task."""
    own = row.options or {}
    keys = [key for key, value in own.items() if any((other.options or {}).get(key) != value for other in others)]
    return " ".join(f"{key}={own[key]}" for key in keys)


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows as plain text, with columns of one width; columns without a value are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
