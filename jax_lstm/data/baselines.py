"""Predictions of simple models, to compare a network with.

    mean             the mean of the target over the training part, at every step
    persistence      the last known target before the predicted step; the mean if there is none
    seasonal naive   the target some seasons before the predicted step; persistence if it is absent

A forecast for `ahead` steps later knows the targets up to the step at which it is made. A regression (ahead = 0) does
not know the target of its own step.
"""

import numpy as np
from jaxtyping import Float, Int

Targets = Float[np.ndarray, "R O"]
Starts = Int[np.ndarray, " N+1"]


def persistence(ys: Targets, starts: Starts, ahead: int, mean: Float[np.ndarray, " O"]) -> Targets:
    """The last known target, per row; a row's own step is known if ahead is 1 or more.

    Args:
        ys: the target of every row, with NaN where it is absent.
        starts: the first row of each of N sequences, and R at the end.
        ahead: the steps between a row and the step that it predicts.
        mean: the prediction without any known target.
    """
    row = np.arange(len(ys))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(ys), -1, row), axis=0)
    if ahead == 0:
        last = np.concatenate([np.full_like(last[:1], -1), last[:-1]])
    first = np.repeat(starts[:-1], np.diff(starts))[:, None]
    return np.where(last >= first, np.take_along_axis(ys, np.maximum(last, 0), axis=0), mean)


def seasonal_naive(ys: Targets, starts: Starts, ahead: int, season: int, mean: Float[np.ndarray, " O"]) -> Targets:
    """The target of the newest season that is known, per row; arguments as in `persistence`.

    Args:
        season: the steps of a season.
    """
    back = season * max(1, -(-ahead // season)) - ahead  # from the row; 0 if its own step is a season before
    row = np.arange(len(ys)) - back
    known = row >= np.repeat(starts[:-1], np.diff(starts))
    before = np.where(known[:, None], ys[np.maximum(row, 0)], np.nan)
    return np.where(np.isnan(before), persistence(ys, starts, ahead, mean), before)
