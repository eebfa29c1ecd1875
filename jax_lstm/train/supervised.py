"""Train a model on inputs and targets of your own: arrays, lists of arrays of any lengths, or batches.

    ŷ = model(scaled inputs)        loss = Σ w ℓ(ŷ, scaled target) / Σ w

w is the weight of a target: 0 at padding and where the target is NaN.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.data import Batch, Scaling, few_lengths, rows_of_step
from jax_lstm.data.arrays import sequences_of
from jax_lstm.data.sequences import Sequences
from jax_lstm.data.values import Wanted
from jax_lstm.layers.model import Model
from jax_lstm.train.criterion import Criterion, criterion_of
from jax_lstm.train.host_batches import arguments_of, collected, host_batch, peeked
from jax_lstm.train.objective import Checked, Objective
from jax_lstm.train.predictor import Predictor, wanted
from jax_lstm.train.prepare import (
    check_scores,
    like,
    partial_and_missing,
    rows_with_targets,
    scaling_of,
    score_names,
    split_of,
    with_readout,
)
from jax_lstm.train.problem import Problem

CALLER = "supervised"


def supervised(
    model: Any,
    inputs: Any,
    targets: Any = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    weights: Any = None,
    loss: str | Callable[..., Any] = "mse",
    scores: str | Sequence[str] = (),
    split: Any = (0.8, 0.2),
    validation: Any = None,
    batch_size: int = 32,
    scale: bool | Scaling = False,
    window: int | None = None,
) -> Problem:
    """Make a `Problem` for `fit` from data of your own.

    A row is one sequence. Arrays are copied to the device once. To spend little time on padding, a training batch has
    rows of similar length, and is padded to the shortest of at most four lengths that fits.

    Args:
        model: a cell, which gets a linear readout, or a `jl.Model`. A Model with a vocabulary reads tokens.
        inputs: (N, T, I) numbers, or (N, T) tokens; or a list of N arrays (T, I) or (T,), of any lengths. Or an
            iterable of batches, without `targets`: a list, a generator, a torch DataLoader, a grain dataset. A batch is
            (inputs, targets), (inputs, targets, lengths or mask), or a dict with the names of these arguments. All
            batches have the same shapes.
        targets: for numbers (N, O) after the last step, or (N, T, O) at every step; for classes, integers (N,) or
            (N, T). If inputs are a list, targets at every step are a list of (T, O) or (T,). NaN: a missing number.
        lengths: (N,) the number of steps of each row of an array; the other steps are padding.
        mask: (N, T) bools, instead of lengths: False at padding, and at any other step to skip. A target after the
            last step belongs to the last step that is True.
        weights: how much each target counts, 0 or more: (N,), or (N, T) for targets at every step. If these targets
            are a list, weights are a list of (T,).
        loss: a name, or a function (outputs, targets) of the batch, or (outputs, targets, weights). For numbers: mse,
            mae, huber, log_cosh; bce for targets from 0 to 1, where outputs are logits. For classes: cross_entropy. A
            function returns one value per target or per number, and `fit` minimizes their weighted mean. Or it returns
            a scalar. Or it returns a tuple of one of these and a dict of metrics. Its targets are scaled, and 0 where
            they are missing.
        scores: names of scores on the validation data, in original units: mse, rmse, mae, nse, kge for numbers;
            accuracy, f1, cross_entropy, bits for classes. The first selects the best params; without scores, the
            validation loss does.
        split: the fractions of training and validation rows, after a fixed shuffle; or two arrays of row numbers.
        validation: data to validate on, instead of `split`: (inputs, targets), (inputs, targets, lengths or mask), a
            dict with the names of arguments, or a finite iterable of batches. Required if inputs are an iterable.
        batch_size: rows per batch; all training rows if there are fewer. Ignored for an iterable.
        scale: True: scale each column of the inputs, and of targets that are numbers, by its mean and standard
            deviation over the training rows. Predictions and scores are in original units. Or a `Scaling`. For an
            iterable, True is an error.
        window: truncate gradients after this many steps (`jl.tbptt`); None: never.

    Returns:
        The problem, for `fit`. Its `predictor` has model and scaling.

    Raises:
        ValueError: a shape or a value is wrong; the message names the argument, and the row and step of a wrong value.
        TypeError: an argument has a wrong type.
    """
    criterion, names = criterion_of(CALLER, loss), score_names(CALLER, scores)
    batch_size = checks.positive_int(CALLER, "batch_size", batch_size)
    window = None if window is None else checks.positive_int(CALLER, "window", window)
    net = model if isinstance(model, Model) else checks.check_cell(CALLER, model)
    outputs = net.output_size if isinstance(net, Model) else None
    want = wanted(CALLER, net, kind=criterion.kind, outputs=outputs)
    if targets is None:
        for name, value in (("lengths", lengths), ("mask", mask), ("weights", weights)):
            if value is not None and not hasattr(inputs, "__array__"):
                raise ValueError(f"{CALLER}: {name} must be in each batch of an iterable, but was given once; move it")
        return _of_iterable(net, inputs, want, criterion, names, validation, scale, window)
    data = sequences_of(want, inputs, targets, lengths=lengths, mask=mask, weights=weights)
    criterion.check(data)
    net = with_readout(CALLER, net, data, classes=criterion.kind == "classes")
    if validation is None:
        checked = data
        train_rows, checked_rows = split_of(CALLER, len(data), split)
    else:
        checked = _validation(validation, replace(want, outputs=net.output_size), inputs, data)
        train_rows, checked_rows = np.arange(len(data)), np.arange(len(checked))
    train_rows = rows_with_targets(CALLER, data, train_rows, "training")
    checked_rows = rows_with_targets(CALLER, checked, checked_rows, "validation")
    check_scores(CALLER, names, checked, checked_rows)
    scaling = scaling_of(CALLER, scale, data, train_rows, criterion.scales_targets)
    predictor = Predictor(net, scaling, data.every_step, window)
    here = data.on_device()
    there = here if checked is data else checked.on_device()
    batch_size = min(batch_size, len(train_rows))
    few = few_lengths(data.lengths[train_rows])
    rows, lengths_of_rows = jnp.asarray(train_rows, jnp.int32), jnp.asarray(data.lengths[train_rows])

    def batch(key: Any, step: Any) -> Batch:
        return here.take(rows[rows_of_step(key, step, batch_size, lengths_of_rows)], few[-1])

    sample = jax.eval_shape(lambda: batch(jax.random.key(0), 0))
    objective = Objective(predictor, criterion, names, *_missing(data, checked))
    return objective.problem(sample, Checked(there, checked_rows, checked.lengths[checked_rows]), few, batch=batch)


def _of_iterable(
    net: Any, source: Any, want: Wanted, criterion: Criterion, names: tuple[str, ...], validation: Any, scale: Any,
    window: int | None,
) -> Problem:  # fmt: skip
    """The problem of an iterable of batches. The shapes are those of the first batch."""
    if hasattr(source, "__array__") or (
        isinstance(source, list | tuple) and hasattr(next(iter(source), 0), "__array__")
    ):
        raise TypeError(f"{CALLER}: targets are missing; pass them after inputs, or an iterable of (inputs, targets)")
    if validation is None or validation is source:
        raise ValueError(
            f"{CALLER}: validation must be (inputs, targets) or a finite iterable of batches, because the batches of "
            f"an iterable cannot be split, but is {'None' if validation is None else 'the training iterable'}"
        )
    if scale is True:
        raise ValueError(
            f"{CALLER}: scale must be False or a Scaling for an iterable of batches, but is True; fit one on arrays "
            "with jax_lstm.data.fit_scaling"
        )
    if not isinstance(net, Model) and criterion.kind == "classes":
        raise ValueError(
            f"{CALLER}: model must be a jl.Model for an iterable of batches with classes, because not all labels are "
            "known; pass jl.Model(cell, classes)"
        )
    first, batches = peeked(source, want)
    sample, data = host_batch(want, first)
    criterion.check(data)
    net = with_readout(CALLER, net, data, classes=False)
    batches.want = want = replace(want, outputs=net.output_size)
    checked = _validation(validation, want, source, data)
    rows = rows_with_targets(CALLER, checked, np.arange(len(checked)), "validation")
    check_scores(CALLER, names, checked, rows)
    predictor = Predictor(net, scaling_of(CALLER, scale, data, rows, criterion.scales_targets), data.every_step, window)
    uneven, partial = _missing(data, checked)
    uneven = uneven or (data.every_step and sample.mask is not None)
    objective = Objective(predictor, criterion, names, uneven, partial)
    return objective.problem(
        sample, Checked(checked.on_device(), rows, checked.lengths[rows]), (sample.xs.shape[1],), source=batches
    )


def _validation(validation: Any, want: Wanted, inputs: Any, data: Sequences) -> Sequences:
    """The validation data, checked like the training data."""
    if validation is inputs:
        raise ValueError(f"{CALLER}: validation must be other data than the training inputs, but is the same object")
    want = replace(want, prefix="validation ")
    if isinstance(validation, dict) or (isinstance(validation, tuple) and len(validation) in (2, 3)):
        checked = sequences_of(want, **arguments_of(want, validation))
    else:
        checked = collected(validation, want)
    like(data, checked, CALLER)
    return checked


def _missing(*parts: Sequences) -> tuple[bool, bool]:
    """Whether any target does not count, and whether a target misses some of its numbers, but not all."""
    partial, some = zip(*(partial_and_missing(part) for part in parts), strict=True)
    return any(some), any(partial)
