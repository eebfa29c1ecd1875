"""Add or multiply two marked numbers (Hochreiter & Schmidhuber 1997, experiments 4 and 5).

    x_t = (v_t, m_t)     m_t = 1 at two steps, −1 at the first step and the last, else 0
    sum      v_t ~ U[−1, 1]    y = 1/2 + (X_1 + X_2)/4
    product  v_t ~ U[0, 1]     y = X_1 X_2

X_1 and X_2 are the numbers v_t of the two steps marked with m_t = 1. A sequence has T to 1.1 T steps. X_1 is among the
first 10 steps, X_2 among the first T/2 − 1. If X_1 falls on the first step, the mark stays −1 and X_1 is 0 (1 for the
product). The paper does not state whether X_2 can be the first step; here it cannot.

The best constant prediction has the squared error Var(y): about 1/24 for the sum, and 0.0577 for the product. The 7/144
(0.0486) of the paper leaves out the 1 of 10 sequences in which X_1 is 1.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jax_lstm.checks import shown
from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

EARLY = 10  # X_1 is among the first EARLY steps


@dataclass(frozen=True)
class MarkedNumbers(GeneratedTask):
    """The original adding problem, or multiplication, of two marked numbers (see the module for the equations).

    Args:
        operation: "sum" (the adding problem) or "product" (multiplication).
        shortest: T, the length of the shortest sequence, at least 24; the longest has 1.1 T steps.

    Raises:
        ValueError: operation is neither, or shortest is less than 24.
    """

    operation: Literal["sum", "product"]
    shortest: int = 100

    input_size = 2
    output_size = 1
    loss = "mse"

    def __post_init__(self):
        if self.operation not in ("sum", "product"):
            raise ValueError(f"MarkedNumbers: operation must be sum or product, but is {shown(self.operation)}")
        if self.shortest < 2 * (EARLY + 2):
            raise ValueError(f"MarkedNumbers: shortest must be at least {2 * (EARLY + 2)}, but is {self.shortest}")

    @property
    def metric(self) -> Literal["within_0.04", "mse"]:
        """For the sum, the share of sequences with an error below 0.04, as in the paper; for the product, the mse."""
        return "within_0.04" if self.operation == "sum" else "mse"

    @property
    def maximize(self) -> bool:
        """True if a larger score is better."""
        return self.operation == "sum"

    def baselines(self, split: Split) -> dict[str, float]:
        """The score of the best constant: P(|X_1 + X_2| < 0.16), or Var(X_1 X_2). X_1 is fixed in 1 of 10 sequences."""
        if self.operation == "sum":
            return {"always the mean": 0.9 * (0.16 - 0.16**2 / 4) + 0.1 * 0.16}
        mean, mean_square = 0.9 / 4 + 0.1 / 2, 0.9 / 9 + 0.1 / 3
        return {"always the mean": mean_square - mean**2}

    @property
    def length(self) -> int:
        """1.1 T, the steps of the longest sequence."""
        return self.shortest * 11 // 10

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs (size, 1.1 T, 2), targets (size, 1), mask (size, 1.1 T)."""
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


def adding_1997(shortest: int = 100) -> MarkedNumbers:
    """The original adding problem.

    Args:
        shortest: T, the length of the shortest sequence, at least 24; the longest has 1.1 T steps.
    """
    return MarkedNumbers("sum", shortest)


def multiplication(shortest: int = 100) -> MarkedNumbers:
    """Multiplication of two marked numbers.

    Args:
        shortest: T, the length of the shortest sequence, at least 24; the longest has 1.1 T steps.
    """
    return MarkedNumbers("product", shortest)


register_task("adding_1997", adding_1997)
register_task("multiplication", multiplication)
