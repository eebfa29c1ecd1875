"""Stop at the first loss or gradient that is not finite, and say what is wrong: the data, or the learning rate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm.train.forms import name_of
from jax_lstm.train.step import Report


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a score was NaN or infinite. The newest checkpoint is older than that step."""


def check_finite(
    report: Report, params: Any, step: int, saved: int, seeds: tuple[int, ...], batch_of: Callable[[int, int], Any]
) -> None:
    """Check that losses and gradients are finite.

    Args:
        report: the report of the steps after `step`.
        params: the params; they name the leaves.
        step: the step before those of the report.
        saved: the step of the newest checkpoint; 0: there is none.
        seeds: the seeds.
        batch_of: (step from 0, number of the seed) -> the batch of that step.

    Raises:
        NotFiniteError: one is not finite; the message names the step and the seed, and the data or the leaf.
    """
    # The norm of finite numbers can overflow too.
    bad = ~(np.isfinite(report.loss) & np.isfinite(report.grad_norm) & report.finite.all(axis=-1))  # (n, S)
    if not bad.any():
        return
    t, s = map(int, np.argwhere(bad)[0])
    if where := in_data(batch_of(step + t, s)):
        raise NotFiniteError(
            f"step {step + t + 1}, seed {seeds[s]}: wanted finite data, but the batch has {where}; fill or mask these "
            f"values; {kept(saved)}"
        )
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    named = [path for path, finite in zip(paths, report.finite[t, s], strict=True) if not finite]
    leaf = jax.tree_util.keystr(named[0], simple=True, separator=".") if named else None
    where = f"the first leaf that is not finite is {leaf}" if leaf else "every leaf of the gradient is finite"
    raise NotFiniteError(
        f"step {step + t + 1}, seed {seeds[s]}: wanted a finite loss and gradient, but got loss {report.loss[t, s]} "
        f"and gradient norm {report.grad_norm[t, s]} ({where}); try a lower opt.lr or opt.clip; {kept(saved)}"
    )


def kept(saved: int) -> str:
    """Say which checkpoint there is."""
    return f"the newest checkpoint is of step {saved}" if saved else "no checkpoint was written"


def in_data(batch: Any) -> str | None:
    """The first NaN or infinity in a batch, such as "nan in xs at (3, 17, 0)"; None if there is none.

    A batch with the fields mask and weights, such as `jax_lstm.data.Batch`, may have NaN where mask is False in xs, and
    where weights are 0 in targets.
    """
    fields = getattr(batch, "_fields", ())
    reads = {"xs": getattr(batch, "mask", None), "targets": getattr(batch, "weights", None)} if fields else {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        values = np.asarray(leaf)
        bad = ~np.isfinite(values)
        used = reads.get(name_of(path))
        if used is not None and values.ndim >= np.ndim(used):
            bad &= (np.asarray(used) > 0).reshape(np.shape(used) + (1,) * (values.ndim - np.ndim(used)))
        if bad.any():
            index = tuple(map(int, np.argwhere(bad)[0]))
            return f"{values[index]} in {name_of(path)} at {index}"
    return None
