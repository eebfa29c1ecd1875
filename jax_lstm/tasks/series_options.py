"""Check the options of the task `series`."""

import math
from typing import Any

from jax_lstm.checks import one_of, positive_int, shown

Columns = str | list[str] | tuple[str, ...] | None
KINDS = ("regression", "forecasting", "classification", "labeling")
NUMBERS, CLASSES = ("mse", "mae", "rmse", "nse", "kge"), ("accuracy", "f1")


def checked_options(task: Any) -> dict[str, Any]:
    """The options of the task `series` that are written in several ways, in one form; all others are checked.

    Raises:
        ValueError: an option is wrong, or two contradict each other.
        TypeError: an option has the wrong type.
    """
    one_of("Series", "kind", task.kind, KINDS)
    classes = task.kind in ("classification", "labeling")
    columns = {name: names_of("Series", name, getattr(task, name)) for name in ("inputs", "static", "targets")}
    if task.kind == "forecasting":
        columns["inputs"] = columns["inputs"] or columns["targets"]
    if task.path is None:
        raise ValueError("Series: path must be a file, but is None; give yours with --data.path FILE")
    for name in ("targets", "inputs"):
        if not columns[name]:
            raise ValueError(f"Series: {name} must name columns, but is None; give them with --data.{name} NAME,NAME")
    _check_columns(task, columns, classes)
    _check_windows(task)
    one_of("Series", "split_by", task.split_by, ("auto", "time", "sequence"))
    if task.kind == "classification" and task.split_by == "time":
        raise ValueError("Series: split_by must be sequence for classification, one label per sequence, but is time")
    one_of("Series", "holes", task.holes, ("mean", "last"))
    metrics = CLASSES if classes else NUMBERS
    one_of("Series", "metric", task.metric, ("auto", *metrics))
    given = task.fractions if isinstance(task.fractions, list | tuple) else ()
    fractions = tuple(float(part) for part in given if isinstance(part, int | float))
    if (
        len(fractions) != 3
        or len(given) != 3
        or min(fractions) <= 0
        or not math.isclose(sum(fractions), 1, abs_tol=1e-6)
    ):
        raise ValueError(
            "Series: fractions must be three numbers above 0 with the sum 1, for training, validation and test, but "
            f"are {shown(task.fractions)}"
        )
    split_by = "sequence" if task.kind == "classification" else "time"
    return columns | {
        "path": str(task.path),
        "fractions": fractions,
        "split_by": split_by if task.split_by == "auto" else task.split_by,
        "metric": metrics[0] if task.metric == "auto" else task.metric,
    }


def names_of(caller: str, option: str, value: Any) -> tuple[str, ...]:
    """Names, given as "rain,temp" or as a list."""
    found = value.split(",") if isinstance(value, str) else value or ()
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise TypeError(
            f"{caller}: {option} must be names such as rain,temp, or a list of names, but is {shown(value)}"
        )
    found = tuple(name.strip() for name in found)
    if "" in found:
        raise ValueError(f"{caller}: {option} must be names such as rain,temp, but a name in {shown(value)} is empty")
    return found


def _check_columns(task: Any, columns: dict[str, tuple[str, ...]], classes: bool) -> None:
    inputs, targets = columns["inputs"], columns["targets"]
    if classes and len(targets) != 1:
        raise ValueError(f"Series: targets must be one column of labels for {task.kind}, but are {', '.join(targets)}")
    both = set(targets) & set(inputs + columns["static"])
    if both and task.kind != "forecasting":
        raise ValueError(
            f"Series: inputs must not have a target for {task.kind}, but both have {min(both)!r}; leave it out, or set "
            "kind to forecasting"
        )
    if task.sequence is not None and task.sequence == task.time:
        raise ValueError(f"Series: sequence and time must be two columns, but both are {task.time!r}")


def _check_windows(task: Any) -> None:
    for name in ("ahead", "window", "stride", "season"):
        value = getattr(task, name)
        if value is not None:
            positive_int("Series", name, value)
    positive_int("Series", "warmup", task.warmup, 0)
    if task.ahead != 1 and task.kind != "forecasting":
        raise ValueError(f"Series: ahead must be 1 for {task.kind}, which does not use it, but is {task.ahead}")
    if task.stride is not None and task.window is None:
        raise ValueError(f"Series: stride must be None without a window, but is {task.stride}; give window too")
    if task.window is not None and task.warmup >= task.window:
        raise ValueError(f"Series: warmup must be below window = {task.window}, but is {task.warmup}")
    if task.kind == "classification" and (task.window is not None or task.warmup):
        raise ValueError(
            "Series: window and warmup must be None and 0 for classification, one label per sequence, but are "
            f"{task.window} and {task.warmup}"
        )
