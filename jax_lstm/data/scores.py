"""Scores over a whole split: sums of some rows at a time, and the score from all sums.

For outputs y and targets k or t that count with weight w. A mean over nothing but what counts:

    accuracy      = Σ w [argmax y = k] / Σ w
    cross_entropy = Σ w (−log softmax(y)[k]) / Σ w           bits = cross_entropy / ln 2
    f1            = mean over classes of 2 tp / (2 tp + fp + fn)       a class that never occurs is left out
    mse           = Σ w (y − t)² / Σ w        rmse = √mse
    mae           = Σ w |y − t| / Σ w

and for each output, then averaged over outputs:

    nse = 1 − Σ w (y − t)² / Σ w (t − t̄)²                              Nash & Sutcliffe (1970)
    kge = 1 − √((r − 1)² + (σ_y / σ_t − 1)² + (ȳ / t̄ − 1)²)            Gupta, Kling, Yilmaz & Martinez (2009)

r is the correlation of y and t. It counts as 0 where y is constant. nse is 0 for the mean of the targets and 1 for
exact outputs; it is not finite where the targets are constant, and kge is not finite where their mean is 0.

Means and squares about the mean are merged as by Chan, Golub & LeVeque (1979): no squares of large numbers are
subtracted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

Kind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class Score:
    """A score: call it on all outputs at once, or merge the sums of some rows at a time.

    score(ys, targets, weights) = value(stack of sums(ys[rows], targets[rows], weights[rows]) over all parts)

    Args:
        kind: what the targets are: classes, or numbers like the outputs.
        maximize: True if a larger score is better.
        sums: (ys, targets, weights) -> a pytree of sums over these rows.
        value: the stacked sums of all parts, with a leading axis -> the score.
        of_batches: False if the score of a few sequences says little, because it divides by the spread of the targets.
    """

    kind: Kind
    maximize: bool
    sums: Callable[[Array, Array, Array | None], PyTree[Array]]
    value: Callable[[Any], Float[Array, ""]]
    of_batches: bool = True

    def __call__(
        self,
        ys: Float[Array, "B *T O"],
        targets: Int[Array, "B *T"] | Float[Array, "B *T O"],
        weights: Float[Array, "B *T"] | None = None,
    ) -> Float[Array, ""]:
        """The score of all outputs.

        Args:
            ys: outputs after the last step or at every step; logits for classes.
            targets: classes, or numbers like ys. A target that is NaN has weight 0.
            weights: of the shape of classes, or of ys with or without the last axis; None: all count equally.
        """
        return self.value(jax.tree.map(lambda a: a[None], self.sums(ys, targets, weights)))


def counted(targets: Array, weights: Array | None, dtype: DTypeLike) -> tuple[Array, Float[Array, "..."]]:
    """The targets with 0 where they do not count, and the weight of each, of the same shape and this dtype.

    What does not count is NaN or has weight 0. It is replaced before it is used, so that no NaN and no class that is no
    class reaches a sum or a gradient.
    """
    w = jnp.ones(targets.shape, dtype) if weights is None else jnp.asarray(weights).astype(dtype)
    if w.ndim < targets.ndim:
        w = jnp.broadcast_to(w[..., None], targets.shape)
    if jnp.issubdtype(targets.dtype, jnp.floating):
        w = jnp.where(jnp.isnan(targets), 0, w)
    return jnp.where(w > 0, targets, 0), w


def ratio(total: Array, weight: Array) -> Array:
    """total / weight, and 0 where the weight is 0."""
    # Behind a barrier, or XLA multiplies by the inverse of a constant, and a mean of ones is not 1.
    weight = jax.lax.optimization_barrier(weight)
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)


def mean_of(
    values: Callable[[Array, Array], Array],
    kind: Kind,
    maximize: bool = False,
    after: Callable[[Array], Array] = lambda mean: mean,
) -> Score:
    """The weighted mean of a value per output, as a score; `after` is applied to the mean."""

    def sums(ys, targets, weights):
        targets, w = counted(targets, weights, ys.dtype)
        return {"value": jnp.sum(jnp.where(w > 0, w * values(ys, targets), 0)), "weight": jnp.sum(w)}

    def value(parts):
        return after(ratio(jnp.sum(parts["value"]), jnp.sum(parts["weight"])))

    return Score(kind, maximize, sums, value)


def hits(ys: Float[Array, "*B O"], classes: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """1 where the largest logit is that of the class, else 0."""
    return (_guess(ys, classes) == classes).astype(ys.dtype)


def _guess(ys: Float[Array, "*B O"], classes: Int[Array, "*B"]) -> Int[Array, "*B"]:
    """The class with the largest logit."""
    return jnp.argmax(ys, axis=-1).astype(classes.dtype)


def _confusions(ys: Array, classes: Array, weights: Array | None) -> dict[str, Float[Array, " O"]]:
    classes, w = counted(classes, weights, ys.dtype)
    O, k, guess, w = ys.shape[-1], classes.ravel(), _guess(ys, classes).ravel(), w.ravel()
    none = jnp.zeros(O, ys.dtype)
    right = jnp.where(guess == k, w, 0)
    return {"right": none.at[k].add(right), "targets": none.at[k].add(w), "guesses": none.at[guess].add(w)}


def _f1(parts: dict[str, Float[Array, "C O"]]) -> Float[Array, ""]:
    right, targets, guesses = (jnp.sum(parts[name], axis=0) for name in ("right", "targets", "guesses"))
    occurs = targets + guesses > 0  # targets + guesses = 2 tp + fp + fn
    return ratio(jnp.sum(ratio(2 * right, targets + guesses)), jnp.sum(occurs).astype(right.dtype))


def _moments(ys: Array, targets: Array, weights: Array | None) -> dict[str, Float[Array, " O"]]:
    """Weight, means, and weighted squares and products about the means, for each output."""
    targets, w = counted(targets, weights, ys.dtype)
    O = ys.shape[-1]
    y, t, w = ys.reshape(-1, O), targets.reshape(-1, O), w.reshape(-1, O)
    y = jnp.where(w > 0, y, 0)
    weight = jnp.sum(w, axis=0)
    mean_y, mean_t = (ratio(jnp.sum(w * a, axis=0), weight) for a in (y, t))
    dy, dt = y - mean_y[None], t - mean_t[None]
    products = {"yy": dy * dy, "tt": dt * dt, "yt": dy * dt, "errors": jnp.square(y - t)}
    sums = {name: jnp.sum(w * p, axis=0) for name, p in products.items()}
    return {"weight": weight, "mean_y": mean_y, "mean_t": mean_t, **sums}


def _merged(parts: dict[str, Float[Array, "C O"]]) -> dict[str, Float[Array, " O"]]:
    """The moments of all parts together."""
    n = parts["weight"]
    weight = jnp.sum(n, axis=0)
    mean = {a: ratio(jnp.sum(n * parts[f"mean_{a}"], axis=0), weight) for a in "yt"}
    d = {a: parts[f"mean_{a}"] - mean[a][None] for a in "yt"}
    about = {ab: jnp.sum(parts[ab] + n * d[ab[0]] * d[ab[1]], axis=0) for ab in ("yy", "tt", "yt")}
    return {"weight": weight, "errors": jnp.sum(parts["errors"], axis=0), "y": mean["y"], "t": mean["t"], **about}


def _nse(parts: Any) -> Float[Array, ""]:
    m = _merged(parts)
    return jnp.mean(1 - m["errors"] / m["tt"])


def _kge(parts: Any) -> Float[Array, ""]:
    m = _merged(parts)
    spread = jnp.sqrt(m["yy"] * m["tt"])
    r = jnp.where(spread > 0, m["yt"] / jnp.where(spread > 0, spread, 1), 0)
    alpha, beta = jnp.sqrt(m["yy"] / m["tt"]), m["y"] / m["t"]
    return jnp.mean(1 - jnp.sqrt(jnp.square(r - 1) + jnp.square(alpha - 1) + jnp.square(beta - 1)))


def cross_entropy(ys: Float[Array, "*B O"], classes: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Negative log-likelihood in nats.

    Args:
        ys: logits (*B, O).
        classes: target classes (*B), from 0 to O − 1.

    Returns:
        One value per output, (*B).
    """
    return -jnp.take_along_axis(jax.nn.log_softmax(ys), classes[..., None], axis=-1)[..., 0]


SCORES: dict[str, Score] = {
    "accuracy": mean_of(hits, "classes", maximize=True),
    "f1": Score("classes", True, _confusions, _f1),
    "cross_entropy": mean_of(cross_entropy, "classes"),
    "bits": mean_of(cross_entropy, "classes", after=lambda nats: nats / math.log(2)),
    "mse": mean_of(lambda ys, targets: jnp.square(ys - targets), "numbers"),
    "rmse": mean_of(lambda ys, targets: jnp.square(ys - targets), "numbers", after=jnp.sqrt),
    "mae": mean_of(lambda ys, targets: jnp.abs(ys - targets), "numbers"),
    "nse": Score("numbers", True, _moments, _nse, of_batches=False),
    "kge": Score("numbers", True, _moments, _kge, of_batches=False),
}
