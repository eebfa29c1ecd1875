"""Two marked numbers, added or multiplied (Hochreiter & Schmidhuber 1997, experiments 4 and 5).

    x_t = (v_t, m_t)     m_t = 1 at two steps, −1 at the first step and the last, else 0
    sum      v_t ~ U[−1, 1]    y = 1/2 + (X_1 + X_2)/4
    product  v_t ~ U[0, 1]     y = X_1 X_2

A sequence has between T and 1.1 T steps. X_1 is among the first ten, X_2 among the first T/2 − 1. Where the very first
step would be X_1, it keeps its −1 and X_1 is 0 (1 in the product). The paper does not say whether the first step may be
X_2; here it is not.

The best constant has a squared error of Var(y): about 1/24 for the sum. For the product that is 0.0577, because X_1 is
1 in one sequence of ten; the paper's 7/144 is without those.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh

EARLY = 10  # X_1 is among so many first steps


@dataclass(frozen=True)
class Marked(Fresh):
    """The original adding problem, or multiplication.

    Args:
        operation: sum or product.
        shortest: T, the least length, at least 24; the longest is 1.1 T.

    Raises:
        ValueError: another operation, or a T too short for the marks.
    """

    operation: Literal["sum", "product"]
    shortest: int = 100

    input_size = 2
    output_size = 1
    loss = "mse"

    def __post_init__(self):
        if self.operation not in ("sum", "product"):
            raise ValueError(f"Marked: operation must be sum or product, but is {self.operation!r}")
        if self.shortest < 2 * (EARLY + 2):
            raise ValueError(f"Marked: length must be at least {2 * (EARLY + 2)}, but is {self.shortest}")

    @property
    def metric(self) -> Literal["within_0.04", "mse"]:
        """The paper's: the share of sequences that are less than 0.04 off, or for the product the squared error."""
        return "within_0.04" if self.operation == "sum" else "mse"

    @property
    def maximise(self) -> bool:
        """Whether a larger score is better."""
        return self.operation == "sum"

    @property
    def baseline(self) -> float:
        """Of the best constant: P(|X_1 + X_2| < 0.16), or Var(X_1 X_2); one X_1 in ten is fixed."""
        if self.operation == "sum":
            return 0.9 * (0.16 - 0.16**2 / 4) + 0.1 * 0.16
        mean, mean_square = 0.9 / 4 + 0.1 / 2, 0.9 / 9 + 0.1 / 3
        return mean_square - mean**2

    @property
    def length(self) -> int:
        """1.1 T, the longest."""
        return self.shortest * 11 // 10

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` fresh sequences: xs (size, 1.1 T, 2), targets (size, 1), and the mask of their lengths."""
        return Batch(*jax.vmap(self._one)(jax.random.split(key, size)))

    def _one(self, key: Key[Array, ""]) -> tuple[Float[Array, "T 2"], Float[Array, " 1"], Bool[Array, " T"]]:
        key_v, key_n, key_1, key_2 = jax.random.split(key, 4)
        added = self.operation == "sum"
        v = jax.random.uniform(key_v, (self.length,), jnp.float32, -1.0 if added else 0.0, 1.0)
        n = jax.random.randint(key_n, (), self.shortest, self.length + 1)
        first = jax.random.randint(key_1, (), 0, EARLY)
        second = jax.random.randint(key_2, (), 1, self.shortest // 2 - 2)
        second = jnp.where(second >= jnp.maximum(first, 1), second + (first > 0).astype(second.dtype), second)
        t = jnp.arange(self.length)
        m = jnp.where((t == 0) | (t == n - 1), -1.0, jnp.where((t == first) | (t == second), 1.0, 0.0))
        X_1, X_2 = jnp.where(first == 0, 0.0 if added else 1.0, v[first]), v[second]
        y = 0.5 + (X_1 + X_2) / 4 if added else X_1 * X_2
        live = t < n
        xs = jnp.where(live[:, None], jnp.stack([v, m.astype(jnp.float32)], axis=1), 0)
        return xs, y[None].astype(jnp.float32), live
