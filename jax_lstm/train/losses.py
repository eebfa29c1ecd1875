"""Losses and scores of a batch, by name.

These are means over the sequences of a batch:

    cross_entropy = mean_b −log softmax(y_b)[k_b]     k_b: the target class
    bits_per_byte = cross_entropy / ln 2              the classes are bytes
    accuracy      = mean_b [argmax y_b = k_b]
    mse           = mean_b mean_o (y_bo − target_bo)²
    within_0.04   = mean_b [|y_bo − target_bo| < 0.04 for every o]; within_0.1 has 0.1
    exact         = mean_b [|y_bto − target_bto| < 1/2 for every o, and every t with w_bt > 0]

    largest_error = max_b max_o |y_bo − target_bo|

With weights w (B, T), outputs and targets are given at every step, and a sequence's value is Σ_t w_t v_t / Σ_t w_t.
The value of a sequence without any weight is 0. A target with weight 0 is not read: it may be padding, such as the
class −1. Each task names one of these functions as its loss and one as its score.

`BY_NAME` also has the scores of scores.py whose names are not above, such as mae, rmse, nse, kge and f1, and these
losses, for each number:

    huber    = e² / 2 where |e| ≤ 1, else |e| − 1/2       e = y − target
    log_cosh = log cosh e
    bce      = −target log σ(y) − (1 − target) log σ(−y)  targets are 0 or 1, or probabilities

They are means over all outputs that count: every step has the same weight, whatever sequence it is in. So are all
losses of `LOSSES`, which `supervised` takes.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jax_lstm.data.scores import SCORES, Score, cross_entropy, hits, mean_of


def bits(ys: Float[Array, "*B O"], classes: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Negative log-likelihood in bits; arguments as in `cross_entropy`."""
    return cross_entropy(ys, classes) / math.log(2)


def mse(ys: Float[Array, "*B O"], targets: Float[Array, "*B O"]) -> Float[Array, "*B"]:
    """Squared error, averaged over the O outputs: ys and targets (*B, O) -> (*B)."""
    return jnp.mean(optax.losses.squared_error(ys, targets), axis=-1)


def within(limit: float, ys: Float[Array, "*B O"], targets: Float[Array, "*B O"]) -> Float[Array, "*B"]:
    """1 where all O outputs differ from their targets by less than `limit`, else 0: (*B, O) -> (*B).

    Hochreiter & Schmidhuber (1997) count such a sequence as processed correctly.
    """
    return (jnp.abs(ys - targets) < limit).all(axis=-1).astype(ys.dtype)


def _zero_unweighted(targets: Array, weights: Float[Array, "B T"] | None) -> Array:
    """The targets, with 0 where the weight is 0, so that a class that is no class is not looked up there."""
    if weights is None:
        return targets
    read = (weights > 0).reshape(weights.shape + (1,) * (targets.ndim - weights.ndim))
    return jnp.where(read, targets, jnp.zeros_like(targets))


def _mean_of(each: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def mean(ys: Array, targets: Array, weights: Float[Array, "B T"] | None = None) -> Float[Array, ""]:
        values = each(ys, _zero_unweighted(targets, weights))
        if weights is None:
            return jnp.mean(values)
        # A mean of each sequence's own, so that a gradient waits for no sum over devices. Behind a barrier, or XLA
        # multiplies by the inverse of a constant sum, and a mean of ones is not 1.
        totals = jax.lax.optimization_barrier(jnp.sum(weights, axis=1))
        totals = jnp.where(totals > 0, totals, 1)
        return jnp.mean(jnp.sum(jnp.where(weights > 0, weights * values, 0), axis=1) / totals)

    return mean


def largest_error(ys: Float[Array, "*B O"], targets: Float[Array, "*B O"], weights: None = None) -> Float[Array, ""]:
    """The largest absolute error over all sequences and outputs; for outputs after the last step, without weights."""
    return jnp.max(jnp.abs(ys - targets))


def exact(
    ys: Float[Array, "B *T O"], targets: Float[Array, "B *T O"], weights: Float[Array, "B T"] | None = None
) -> Float[Array, ""]:
    """The share of sequences whose error is below 1/2 at every step with a weight above 0.

    With targets 0 and 1, these are the sequences in which every output is nearer to its target than to the other value.

    Args:
        ys: outputs (B, T, O), or (B, O) without weights.
        targets: of the same shape.
        weights: (B, T), or None.
    """
    right = within(0.5, ys, _zero_unweighted(targets, weights))
    return jnp.mean(right if weights is None else ((right > 0) | (weights == 0)).all(axis=1).astype(ys.dtype))


LOSSES: dict[str, Score] = {
    "mse": SCORES["mse"],
    "mae": SCORES["mae"],
    "huber": mean_of(optax.losses.huber_loss, "numbers"),
    "log_cosh": mean_of(optax.losses.log_cosh, "numbers"),
    "bce": mean_of(optax.losses.sigmoid_binary_cross_entropy, "numbers"),
    "cross_entropy": SCORES["cross_entropy"],
}

BY_NAME: dict[str, Callable[..., Array]] = {
    **LOSSES,
    **SCORES,
    "cross_entropy": _mean_of(cross_entropy),
    "bits_per_byte": _mean_of(bits),
    "accuracy": _mean_of(hits),
    "mse": _mean_of(mse),
    "largest_error": largest_error,
    "exact": exact,
    "within_0.04": _mean_of(partial(within, 0.04)),
    "within_0.1": _mean_of(partial(within, 0.1)),
}
