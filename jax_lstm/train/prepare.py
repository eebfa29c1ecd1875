"""What `supervised` decides from the data: outputs of the model, split, scaling, and which rows count."""

from typing import Any

import numpy as np
from jaxtyping import Int

from jax_lstm.data import Scaling, fit_scaling, split_rows
from jax_lstm.data.scaling import PRECISE
from jax_lstm.data.scores import SCORES
from jax_lstm.data.sequences import Sequences
from jax_lstm.data.targets import counts, has_partial_rows, rows_that_count
from jax_lstm.data.values import holds_floats, valid_places
from jax_lstm.layers.model import Model


def with_readout(caller: str, net: Any, data: Sequences, classes: bool) -> Model:
    """The model; a cell gets a readout with as many outputs as targets have numbers, or as there are classes."""
    if isinstance(net, Model):
        return net
    if holds_floats(data.targets):
        return Model(net, data.targets.shape[-1])
    if not classes:
        raise ValueError(
            f"{caller}: model must be a jl.Model for integer targets and a loss of your own, because the number of "
            "outputs is not known; pass jl.Model(cell, outputs)"
        )
    count = int(data.targets[counts(data)].max(initial=0)) + 1
    if count < 2:
        raise ValueError(f"{caller}: targets must have at least 2 classes, but all are 0; check the labels")
    return Model(net, count)


def split_of(caller: str, count: int, split: Any) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Training and validation rows, from two fractions or two arrays of row numbers."""
    wanted = f"{caller}: split must be two fractions with the sum 1, or two arrays of row numbers"
    if not isinstance(split, list | tuple) or len(split) != 2:
        came = f"{len(split)} entries" if isinstance(split, list | tuple) else type(split).__name__
        raise ValueError(f"{wanted}, for training and validation, but has {came}")
    if all(isinstance(part, int | float) for part in split):
        try:
            train, validation = split_rows(count, split)
        except ValueError as error:
            raise ValueError(f"{caller}: split: {error}") from None
        return train, validation
    parts = []
    for name, part in zip(("training", "validation"), split, strict=True):
        rows = np.asarray(part)
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ and rows.shape == (count,) else rows
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"{wanted}, but the {name} part has the shape {rows.shape} and holds {rows.dtype}")
        if not len(rows):
            raise ValueError(f"{wanted}, but the {name} part is empty")
        if rows.min() < 0 or rows.max() >= count:
            raise ValueError(f"{wanted} from 0 to {count - 1}, but the {name} part has {rows.min()} to {rows.max()}")
        parts.append(rows.astype(np.int32))
    if len(both := np.intersect1d(parts[0], parts[1])):
        raise ValueError(f"{wanted}, but row {both[0]} is in both parts; validate on rows that are not trained on")
    return parts[0], parts[1]


def rows_with_targets(caller: str, data: Sequences, rows: Int[np.ndarray, " n"], name: str) -> Int[np.ndarray, " m"]:
    """The rows that have a target that counts."""
    rows = rows[rows_that_count(data)[rows]]
    if not len(rows):
        raise ValueError(
            f"{caller}: the {name} rows must have at least one target that counts, but all are missing, padding or of "
            "weight 0; check targets and weights, or give another split"
        )
    return rows


def scaling_of(
    caller: str, scale: Any, data: Sequences, rows: Int[np.ndarray, " n"], scales_targets: bool
) -> Scaling | None:
    """The scaling, fitted on the training rows where `scale` is True."""
    tokens, numbers = data.xs.ndim == 1, holds_floats(data.targets) and scales_targets
    if isinstance(scale, Scaling):
        I, O = len(scale.input_mean), len(scale.target_mean)
        outputs = data.targets.shape[-1] if holds_floats(data.targets) else 1
        if (not tokens and data.xs.shape[-1] != I) or O not in (1, outputs):
            raise ValueError(
                f"{caller}: scale must have as many columns as the data, but has {I} for inputs and {O} for targets of "
                f"the shapes {data.xs.shape} and {data.targets.shape}"
            )
        return scale
    if not isinstance(scale, bool):
        raise TypeError(f"{caller}: scale must be True, False or a Scaling, but is {type(scale).__name__}")
    if not scale:
        return None
    identity = np.zeros(1, np.float32), np.ones(1, np.float32)
    chosen = np.zeros(len(data), bool)
    chosen[rows] = True
    sizes = np.diff([*data.starts.tolist(), len(data.xs)])
    places = valid_places(data) & np.repeat(chosen, sizes)
    of_inputs = identity if tokens else fit_scaling(data.xs, mask=places)[:2]
    of_targets = identity
    if numbers:
        weights = counts(data) & (places if data.every_step else chosen)
        of_targets = fit_scaling(data.targets, mask=weights)[:2]
    scaling = Scaling(*of_inputs, *of_targets)
    for name, mean, deviation in (("inputs", *of_inputs), ("targets", *of_targets)):
        lost = (np.abs(mean) > PRECISE * deviation) & (deviation != 1)
        if lost.any():
            k = int(lost.argmax())
            raise ValueError(
                f"{caller}: column {k} of {name} must vary by more than 1/{PRECISE:g} of its mean, because float32 "
                f"holds no more, but its mean is {mean[k]:g} and its deviation {deviation[k]:g}; subtract a constant"
            )
    return scaling


def score_names(caller: str, scores: Any) -> tuple[str, ...]:
    """The names of scores."""
    names = (scores,) if isinstance(scores, str) else tuple(scores)
    for name in names:
        if name not in SCORES:
            raise ValueError(f"{caller}: scores must be some of {', '.join(SCORES)}, but has {name!r}")
    return names


def check_scores(caller: str, names: tuple[str, ...], data: Sequences, rows: Int[np.ndarray, " n"]) -> None:
    """Check that the scores are for targets like these, and are defined on the validation rows."""
    kind = "numbers" if holds_floats(data.targets) else "classes"
    for name in names:
        if SCORES[name].kind != kind:
            fit = ", ".join(n for n, score in SCORES.items() if score.kind == kind)
            raise ValueError(f"{caller}: scores must be some of {fit} for targets that are {kind}, but has {name!r}")
        if name in ("nse", "kge"):
            t, yes = data.targets, counts(data)
            if data.every_step:
                chosen = np.zeros(len(data), bool)
                chosen[rows] = True
                yes = yes & np.repeat(chosen, np.diff([*data.starts.tolist(), len(data.xs)]))
            else:
                t, yes = t[rows], yes[rows]
            t = t[yes]
            least, most = np.fmin.reduce(t, initial=np.inf), np.fmax.reduce(t, initial=-np.inf)
            if (least >= most).any():
                k = int((least >= most).argmax())
                what = f"always {least[k]:g}" if np.isfinite(least[k]) else "always missing"
                raise ValueError(
                    f"{caller}: {name} needs validation targets that vary, but output {k} is {what} there; use another "
                    "score or another split"
                )


def partial_and_missing(data: Sequences) -> tuple[bool, bool]:
    """Whether some numbers of a target are missing but not all; and whether any target does not count."""
    partial = has_partial_rows(data)
    some = data.weights is not None or partial or not counts(data).all()
    return partial, some


def like(data: Sequences, other: Sequences, caller: str) -> None:
    """Check that validation data have the form of the training data."""
    for what, a, b in (
        (
            "targets at every step" if data.every_step else "targets after the last step",
            data.every_step,
            other.every_step,
        ),
        (f"{data.targets.dtype} targets", holds_floats(data.targets), holds_floats(other.targets)),
        (f"inputs of {data.xs.shape[1:] or 'token'} features", data.xs.shape[1:], other.xs.shape[1:]),
    ):
        if a != b:
            raise ValueError(f"{caller}: validation must have {what}, as the training data have, but has others")
