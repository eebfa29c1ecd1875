"""Noise-free sequences with a long lag (Hochreiter & Schmidhuber 1997, experiment 2a).

    x a_1 a_2 … a_{p−1} x        y a_1 a_2 … a_{p−1} y        one-hot, p + 1 symbols in the order a_1 .. a_{p−1}, x, y

There are only these two sequences. The target, after a_{p−1}, is the last symbol, which is the same as the first, p
steps earlier. The symbols in between are the same in both sequences.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.registry import register_task


@dataclass(frozen=True)
class LongLag:
    """Recall the first symbol of one of two sequences.

    Args:
        lag: p, the steps between the first symbol and the target; at least 2.

    Raises:
        ValueError: lag is less than 2.
    """

    lag: int = 100

    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True

    def __post_init__(self):
        if self.lag < 2:
            raise ValueError(f"LongLag: lag must be at least 2, but is {self.lag}")

    @property
    def input_size(self) -> int:
        """p + 1, the symbols."""
        return self.lag + 1

    @property
    def output_size(self) -> int:
        """p + 1, all symbols; the network also has to learn that the target is x or y."""
        return self.lag + 1

    @property
    def length(self) -> int:
        """p, the steps before the target."""
        return self.lag

    def _both(self) -> Batch:
        p = self.lag
        first = jnp.array([p - 1, p])
        rest = jnp.broadcast_to(jnp.arange(p - 1), (2, p - 1))
        symbols = jnp.concatenate([first[:, None], rest], axis=1)
        return Batch(jax.nn.one_hot(symbols, p + 1, dtype=jnp.float32), first.astype(jnp.int32))

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting x."""
        return {"chance": 0.5}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """`size` random choices of the two sequences: xs (size, p, p + 1), targets (size,)."""
        which = jax.random.randint(jax.random.fold_in(key, step), (size,), 0, 2)
        return jax.tree.map(lambda a: a[which], self._both())

    def validation(self) -> Batch:
        """Both sequences."""
        return self._both()

    def test(self) -> Batch:
        """Both sequences again; there are no others."""
        return self._both()


register_task("long_lag", LongLag)
