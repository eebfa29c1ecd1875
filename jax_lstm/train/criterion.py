"""A loss by name, or a function of outputs and targets, as a weighted mean over all outputs that count.

loss = Σ w v / Σ w        v: the value of each output; w: its weight, 0 at padding and where a target is missing
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jax_lstm.data.scores import Kind, Score, counted, ratio
from jax_lstm.data.sequences import Sequences
from jax_lstm.data.targets import counts
from jax_lstm.train.losses import LOSSES


@dataclass(frozen=True)
class Criterion:
    """A loss.

    Args:
        name: its name, for error messages.
        kind: what its targets are; None: either.
        score: the loss as a score, for a loss by name.
        fn: the function, for a loss that the caller wrote.
        takes_weights: whether the function has a parameter `weights`.
    """

    name: str
    kind: Kind | None
    score: Score | None = None
    fn: Callable[..., Any] | None = None
    takes_weights: bool = False

    @property
    def scales_targets(self) -> bool:
        """Whether targets that are numbers may be scaled: not if they are probabilities."""
        return self.score is not LOSSES["bce"]

    def check(self, data: Sequences) -> None:
        """Check what only this loss needs: targets of bce are from 0 to 1."""
        if self.score is LOSSES["bce"]:
            t = data.targets[counts(data)]
            if (bad := (t < 0) | (t > 1)).any():
                raise ValueError(
                    f"{self.name}: wanted targets from 0 to 1, but got {t[bad][0]}; use 0 and 1 for two classes"
                )

    def parts(
        self, ys: Array, targets: Array, weights: Array | None, uneven: bool, partial: bool
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The sums Σ w v and Σ w of a batch, and metrics; for a function that returns a scalar, that and 1.

        Args:
            ys: outputs (B, *T, O).
            targets: of the batch; NaN where one is missing.
            weights: (B, *T), or None.
            uneven: whether some outputs may not count.
            partial: whether some, but not all, outputs of a target may be missing.

        Raises:
            ValueError: the function returned a wrong shape, or a mean that cannot know what counts.
            TypeError: the function did not return an array, or its metrics are not a dict.
        """
        if self.fn is None:
            assert self.score is not None
            return self.score.sums(ys, targets, weights), {}
        value, metrics, each = self._called(ys, targets, weights, uneven, partial)
        if value.ndim == 0:
            if uneven and not self.takes_weights:
                raise ValueError(
                    f"{self.name}: wanted a value per target, because some targets do not count (padding, weights or "
                    "missing targets), but got a scalar; return the values before the mean, or take a third parameter "
                    "`weights`"
                )
            return {"value": value, "weight": jnp.ones((), value.dtype)}, metrics
        if self.takes_weights:
            raise ValueError(
                f"{self.name}: wanted a scalar from a function that takes weights, but got the shape {value.shape}; "
                "average the values, or leave out the parameter `weights`"
            )
        for w in each:
            if value.shape == w.shape:
                return {"value": jnp.sum(jnp.where(w > 0, w * value, 0)), "weight": jnp.sum(w)}, metrics
        wanted = " or ".join(dict.fromkeys(str(w.shape) for w in each))
        raise ValueError(
            f"{self.name}: wanted a scalar, or values of the shape {wanted}, but got {value.shape}; return one value "
            "per target"
        )

    def is_scalar(self, *arguments: Any) -> bool:
        """Whether the loss is a function that returns a scalar; arguments as for `parts`."""
        return self.fn is not None and self._called(*arguments)[0].ndim == 0

    def _called(
        self, ys: Array, targets: Array, weights: Array | None, uneven: bool, partial: bool
    ) -> tuple[Array, dict[str, Array], tuple[Array, Array]]:
        """What the function returns, and the weights of targets and of all their numbers."""
        assert self.fn is not None
        read, w = counted(targets, weights, ys.dtype)
        per_target = w if partial or w.ndim < ys.ndim else w[..., 0]
        given = (ys, read if uneven else targets)
        value, metrics = self._result(self.fn(*given, weights=per_target) if self.takes_weights else self.fn(*given))
        return value, metrics, (per_target, w)

    def _result(self, result: Any) -> tuple[Array, dict[str, Array]]:
        value, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not isinstance(metrics, dict):
            raise TypeError(f"{self.name}: wanted (loss, dict of metrics), but got {type(metrics).__name__} as metrics")
        is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
        if not is_array or not jnp.issubdtype(value.dtype, jnp.floating):
            came = f"{value.dtype} numbers" if is_array else type(value).__name__
            raise TypeError(
                f"{self.name}: wanted a float, an array of floats, or (loss, metrics) from the loss, but got {came}"
            )
        return jnp.asarray(value), metrics

    def value(self, parts: dict[str, Array]) -> Array:
        """The loss, from stacked sums with a leading axis."""
        if self.score is not None:
            return self.score.value(parts)
        return ratio(jnp.sum(parts["value"]), jnp.sum(parts["weight"]))


def criterion_of(caller: str, loss: Any) -> Criterion:
    """The criterion of a name of `LOSSES`, or of a function (outputs, targets) or (outputs, targets, weights).

    Raises:
        ValueError: the name is unknown.
        TypeError: loss is neither a name nor a function of two or three arguments.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(
                f"{caller}: loss must be one of {', '.join(LOSSES)}, or a function (outputs, targets), but is {loss!r}"
            )
        return Criterion(f"{caller}: loss {loss!r}", LOSSES[loss].kind, LOSSES[loss])
    if not callable(loss):
        raise TypeError(
            f"{caller}: loss must be one of {', '.join(LOSSES)}, or a function (outputs, targets), but is "
            f"{type(loss).__name__}"
        )
    name = f"{caller}: loss {getattr(loss, '__name__', type(loss).__name__)}"
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a function without a signature, such as one written in C
        parameters = {}
    return Criterion(name, None, fn=loss, takes_weights="weights" in parameters)
