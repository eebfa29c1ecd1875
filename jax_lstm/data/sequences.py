"""Sequences of different lengths, stored one after another without padding; a batch is gathered from them.

xs[start_n + t]        step t of sequence n, for t < length_n
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jax_lstm.data.batch import Batch

ALIGNMENT = 64  # bytes


@dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences in P places, with their targets. All arrays are NumPy arrays, or all are JAX arrays.

    Arrays (N, T, ...) have P = N T places, also for padding; lists of sequences are stored without padding.
    """

    xs: Any
    """(P, I) features, or (P,) tokens."""
    starts: Any
    """(N,) integers: the place of step 0 of each sequence."""
    lengths: Any
    """(N,) integers: the number of steps of each sequence."""
    length: int
    """T, the steps of the longest sequence."""
    even: bool
    """True if every sequence has T steps, and no step is masked."""
    every_step: bool = False
    """True if there is a target at every step, False if there is one for each sequence, or none."""
    mask: Any = None
    """(P,) bools: False at steps that are skipped; None: there are none within the lengths."""
    targets: Any = None
    """Classes or numbers; (P, ...) with every_step, else (N, ...)."""
    weights: Any = None
    """(P,) or (N,) floats: the weight of each target; None: 1."""
    shared: frozenset[str] = frozenset()
    """The names of the NumPy arrays above that share memory with arrays of the caller."""

    def __len__(self) -> int:
        return len(self.starts)

    def on_device(self) -> Self:
        """The same with JAX arrays. On a CPU they share memory with these, but never with those of the caller."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {}
        for name, a in arrays.items():
            if isinstance(a, np.ndarray):
                moved[name] = jax.device_put(aligned_copy(a) if name in self.shared else a)
        return replace(self, **moved, shared=frozenset())

    def valid(self, row: int, length: int) -> Bool[np.ndarray, " T"]:
        """Which of the first `length` steps of one sequence are neither padding nor skipped."""
        return np.asarray(self._valid(np.array([row]), np.arange(length)))[0]

    def take(self, rows: Any, length: int | None = None, present: Any = None) -> Batch:
        """The batch of some sequences.

        Args:
            rows: (B,) row numbers; with JAX arrays they may be traced.
            length: the number of steps; None: T.
            present: (B,) bools; the targets of a row where it is False have weight 0. None: all count.

        Returns:
            xs (B, length, I), or tokens (B, length); targets and weights of every step or of each sequence. The mask is
            None if all sequences are even. Padding has the values of other steps.
        """
        xp = jnp if isinstance(self.xs, jax.Array) else np
        steps = xp.arange(self.length if length is None else length, dtype=np.int32)
        places = self._places(rows, steps)
        mask = None if self.even else self._valid(rows, steps)
        if not self.every_step:
            weights = None if self.weights is None else self.weights[rows]
            if present is not None:
                weights = present.astype(np.float32) if weights is None else xp.where(present, weights, 0)
            targets = None if self.targets is None else self.targets[rows]
            return Batch(self.xs[places], targets, mask, weights)  # pyrefly: ignore[bad-argument-type]
        weights = xp.ones(places.shape, np.float32) if self.weights is None else self.weights[places]
        for counts in (mask, None if present is None else present[:, None]):
            weights = weights if counts is None else xp.where(counts, weights, 0)
        targets = None if self.targets is None else self.targets[places]
        return Batch(self.xs[places], targets, mask, weights)  # pyrefly: ignore[bad-argument-type]

    def _places(self, rows: Any, steps: Any) -> Any:
        xp = jnp if isinstance(self.xs, jax.Array) else np
        return xp.minimum(self.starts[rows][:, None] + steps[None], len(self.xs) - 1)

    def _valid(self, rows: Any, steps: Any) -> Any:
        valid = steps[None] < self.lengths[rows][:, None]
        return valid if self.mask is None else valid & self.mask[self._places(rows, steps)]


def joined(parts: Sequence[Sequences]) -> Sequences:
    """The sequences of several parts, one after another; all are NumPy arrays, with targets of the same kind."""
    sizes = np.cumsum([0, *(len(part.xs) for part in parts)])
    masks = [np.ones(len(part.xs), bool) if part.mask is None else part.mask for part in parts]
    weights = [np.ones(len(part.targets), np.float32) if part.weights is None else part.weights for part in parts]
    return Sequences(
        xs=np.concatenate([part.xs for part in parts]),
        starts=np.concatenate([part.starts + first for part, first in zip(parts, sizes, strict=False)]).astype(
            np.int32
        ),
        lengths=np.concatenate([part.lengths for part in parts]),
        length=max(part.length for part in parts),
        even=all(part.even and part.length == parts[0].length for part in parts),
        every_step=parts[0].every_step,
        mask=None if all(part.mask is None for part in parts) else np.concatenate(masks),
        targets=np.concatenate([part.targets for part in parts]),
        weights=None if all(part.weights is None for part in parts) else np.concatenate(weights),
    )


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array, aligned as JAX aligns its arrays, so that `jax.device_put` need not copy it on a CPU."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def aligned_copy(a: np.ndarray) -> np.ndarray:
    """A copy that is aligned."""
    made = aligned(a.shape, a.dtype)
    made[...] = a
    return made
