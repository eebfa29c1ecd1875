"""Load the file of the task `series`: sequences, parts, windows, scaled features and targets."""

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_lstm.data.grouping import Rows, constants, group_rows
from jax_lstm.data.holes import columns_with_holes, fill
from jax_lstm.data.scaling import PRECISE, Scaling, fit_scaling
from jax_lstm.data.tables import Table, read_table
from jax_lstm.tasks.series_facts import Facts
from jax_lstm.tasks.series_parts import split_parts


class OnDevice(NamedTuple):
    """What training batches are cut from: features, targets and weights of all rows; the windows."""

    rows: tuple[Float[Array, "R I"], Float[Array, "R O"] | Int[Array, " R"], Float[Array, " R"]]
    starts: Int[Array, " W"]
    lengths: Int[Array, " W"]


class Loaded:
    """The rows of a file, sequence after sequence, as the task needs them.

    Attributes:
        facts: what another file needs.
        rows: the sequences.
        ys: known targets in original units (R, O), with NaN for holes; or classes (R,), −1 for holes.
        parts: by name: train, validation, test.
        xs: scaled features (R, I), float32, without holes.
        targets: the target of each row, (R, O) scaled or (R,) classes: that of the row itself, or of `ahead` rows
            later.
    """

    def __init__(self, task: Any):
        table = read_table(task.path, task.separator)
        self.rows = rows = group_rows(table, task.sequence, task.time)
        given = task.facts_given
        inputs, static, targets = (table.expand(names) for names in (task.inputs, task.static, task.targets))
        labels: tuple[str, ...] = ()
        if task.classes:
            self.ys, labels = read_classes(
                table, rows, targets, task.every_step, None if given is None else given.labels
            )
        else:
            self.ys = table.numbers(targets)[rows.order]
            _check_steps(table, rows, targets, self.ys)
        shifted = _shifted(self.ys, rows, task.shift)
        known = np.asarray(shifted >= 0 if task.classes else ~np.isnan(shifted).any(axis=1))
        self.parts, fitted = split_parts(task, rows, known)
        self.xs, flagged, moments = _features(task, table, rows, inputs, static, fitted)
        length = max(int(part.windows.lengths.max()) for part in self.parts.values())
        target_moments: tuple[np.ndarray, ...] = ()
        if given is None and task.classes:
            target_moments = np.zeros(1, np.float32), np.ones(1, np.float32)
        elif given is None:
            target_moments = _moments(table, targets, self.ys[fitted])
        self.facts = given or Facts(
            tuple(inputs), tuple(static), tuple(targets), flagged, labels, Scaling(*moments, *target_moments), length
        )
        if task.classes:
            self.targets = shifted
        else:
            self.targets = np.nan_to_num(self.facts.scaling.targets(shifted)).astype(np.float32)

    @cached_property
    def on_device(self) -> OnDevice:
        """The training arrays as JAX arrays, made once, so that every program closes over the same ones."""
        windows, weights = self.parts["train"]
        with jax.ensure_compile_time_eval():
            made = OnDevice(
                (jnp.asarray(self.xs), jnp.asarray(self.targets), jnp.asarray(weights)),
                jnp.asarray(windows.starts, jnp.int32),
                jnp.asarray(windows.lengths, jnp.int32),
            )
        if jax.default_backend() == "cpu":
            self.xs = np.asarray(made.rows[0])  # a view of the same memory, in place of a second copy
        return made


def load(task: Any) -> Loaded:
    """The loaded file; read again only if the options, the file's size or its time of change are new.

    Raises:
        ValueError: the file cannot be read, or does not have what the task needs.
    """
    try:
        found = os.stat(task.path)
        stamp = found.st_mtime_ns, found.st_size
    except OSError:
        stamp = None  # reading it says what is wrong
    return _load(task, stamp)


@lru_cache(maxsize=2)
def _load(task: Any, stamp: Any) -> Loaded:
    return Loaded(task)


def read_inputs(
    table: Table, rows: Rows, inputs: Sequence[str], static: Sequence[str], absent: bool = False
) -> Float[np.ndarray, "R I"]:
    """Input and static columns, with NaN for holes; `absent` allows columns that have nothing but holes."""
    values = table.numbers(inputs, absent)[rows.order]
    return np.concatenate([values, constants(table, rows, static, absent)], axis=1) if static else values


def read_classes(
    table: Table, rows: Rows, targets: list[str], every_step: bool, labels: tuple[str, ...] | None
) -> tuple[Int[np.ndarray, " R"], tuple[str, ...]]:
    """The class of every row, −1 for holes, and the labels; in sorted order, if they are not given."""
    name = targets[0]
    if len(targets) > 1:
        raise table.places.bad(f"wanted one column of labels, but {', '.join(targets)} are selected; name one of them")
    names, codes = table.labels(name)
    labels = _sorted_labels(table, name, names) if labels is None else labels
    numbers = {label: k for k, label in enumerate(labels)}
    if len(unknown := [code for code, label in enumerate(names) if label not in numbers]):
        record = int(np.flatnonzero(codes == unknown[0])[0])
        wanted = ", ".join(labels)
        raise table.places.bad(f"wanted one of the labels {wanted}, but got {names[unknown[0]]!r}", name, record)
    classes = np.array([numbers[label] for label in names] + [-1], np.int32)[codes][rows.order]
    if not every_step:
        for n, part in enumerate(rows.split(classes)):
            found = part[part >= 0]
            if len(found) and len(wrong := np.flatnonzero((part >= 0) & (part != found[0]))):
                raise table.places.bad(
                    f"wanted one label per sequence, but {rows.name(n)} has {labels[found[0]]!r} and "
                    f"{labels[part[wrong[0]]]!r}; set kind to labeling for a label at every step",
                    name,
                    int(rows.order[rows.starts[n] + wrong[0]]),
                )
            part[:] = found[0] if len(found) else -1  # a view of `classes`
    return classes, labels


def _sorted_labels(table: Table, name: str, labels: list[str]) -> tuple[str, ...]:
    if len(labels) < 2:
        raise table.places.bad(f"wanted two labels or more, but got only {labels[0]!r}", name)
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(sorted(labels))


def _check_steps(table: Table, rows: Rows, targets: list[str], ys: Float[np.ndarray, "R O"]) -> None:
    """Refuse targets (N,) beside inputs (N, T): mostly they are one series (T, K), which was read as T sequences."""
    inner = np.ones(len(ys), bool)
    inner[rows.starts[:-1]] = False
    if table.sequence is None or len(rows.lengths) == 1 or not inner.any():
        return
    before = np.concatenate([ys[:1], ys[:-1]])
    for k, name in enumerate(targets):
        if (ys[inner, k] == before[inner, k]).all() and len(np.unique(ys[:, k])) > 1:
            raise table.places.bad(
                "wanted a target at every step, but each sequence has one value; give an array (N, T), or (1, T, K) "
                "for one series of K columns",
                name,
            )


def _shifted(ys: np.ndarray, rows: Rows, shift: int) -> np.ndarray:
    """The target of `shift` rows later in the same sequence, per row; absent at the end of a sequence."""
    if shift == 0:
        return ys
    later = np.full_like(ys, np.nan)
    later[:-shift] = ys[shift:]
    left = np.repeat(rows.starts[1:], rows.lengths) - np.arange(len(ys))  # rows to the end of the sequence
    later[left <= shift] = np.nan
    return later


def _moments(table: Table, names: list[str], values: Float[np.ndarray, "R C"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of some columns in the training part.

    Raises:
        ValueError: float32 cannot hold them, or a value minus the mean; the message names the column.
    """
    found = []
    for k, name in enumerate(names):
        try:
            mean, scale = fit_scaling(values[:, k : k + 1])[:2]
        except ValueError:
            most = f"{np.nanmax(np.abs(values[:, k])):g}"
            raise table.places.bad(
                f"wanted numbers with a mean and a deviation in the range of float32, but got numbers up to {most}; "
                "change the unit",
                name,
            ) from None
        if abs(mean[0]) > PRECISE * scale[0] and scale[0] != 1:
            raise table.places.bad(
                f"wanted numbers that vary by more than 1/{PRECISE:g} of their mean, because float32 holds no more, "
                f"but the mean is {mean[0]:g} and the deviation {scale[0]:g}; subtract a constant",
                name,
            )
        found.append((mean[0], scale[0]))
    mean, scale = np.array(found, np.float32).T
    return mean, scale


def _features(
    task: Any, table: Table, rows: Rows, inputs: list[str], static: list[str], fitted: Bool[np.ndarray, " R"]
) -> tuple[Float32[np.ndarray, "R I"], tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
    """Scaled features without holes: of the input and static columns, then the flags.

    The columns are read one after another: all of them in float64 would need several times the memory of the result.

    Returns:
        The features, the numbers of the flagged columns, and mean and scale of the features.
    """
    given, names = task.facts_given, [*inputs, *static]
    xs, flags, flagged, moments = np.empty((len(rows.order), len(names)), np.float32), [], [], []
    for k, name in enumerate(names):
        one = ([name], []) if k < len(inputs) else ([], [name])
        column = read_inputs(table, rows, *one, absent=given is not None)
        training = column[fitted]
        if given is not None:
            mean, scale = (a[k : k + 1] for a in given.scaling[:2])
            flag = k in given.flagged
        elif np.isnan(training).all():
            raise table.places.bad(
                "wanted values in the training part, but all are absent; leave this column out", name
            )
        else:
            mean, scale = _moments(table, [name], training)
            flag = bool(columns_with_holes(training))
        filled = fill(column, rows.starts, mean.astype(np.float64), (0,) if flag else (), task.holes)
        xs[:, k] = (filled[:, 0] - mean) / scale
        moments.append((mean[0], scale[0]))
        if flag:
            flagged.append(k)
            flags.append(filled[:, 1:].astype(np.float32))
    moments += [(0, 1)] * len(flags)  # flags stay 0 and 1
    mean, scale = np.array(moments, np.float32).T
    return np.concatenate([xs, *flags], axis=1) if flags else xs, tuple(flagged), (mean, scale)
