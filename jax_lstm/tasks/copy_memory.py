"""The copy memory task (Hochreiter & Schmidhuber 1997; in this form Arjovsky, Shah & Bengio 2016).

    input     s_1 … s_10    T − 1 blanks    the marker    10 blanks        T + 20 steps, one-hot
    target    T + 10 blanks                               s_1 … s_10       at every step

The 10 symbols are drawn from 8. Codes: 0 is the blank, 1 to 8 are the symbols, 9 is the marker. The loss is the mean
over all T + 20 steps. The baseline knows when to answer and guesses the symbols: 10 ln 8 / (T + 20) nats.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

SYMBOLS, COPIED = 8, 10
BLANK, MARKER = 0, 9


@dataclass(frozen=True)
class CopyMemory(GeneratedTask):
    """Remember 10 symbols.

    Args:
        lag: T, at least 1; there are T − 1 blanks between the last symbol and the marker.

    Raises:
        ValueError: lag is less than 1.
    """

    lag: int = 100

    input_size = MARKER + 1
    output_size = SYMBOLS + 1
    loss = "cross_entropy"
    metric = "cross_entropy"
    maximize = False
    test_size = 1_024

    def __post_init__(self):
        if self.lag < 1:
            raise ValueError(f"CopyMemory: lag must be at least 1, but is {self.lag}")

    def baselines(self, split: Split) -> dict[str, float]:
        """The cross entropy, in nats, if blanks are certain and each of the 10 symbols is a guess among 8."""
        return {"chance": COPIED * math.log(SYMBOLS) / self.length}

    @property
    def length(self) -> int:
        """T + 20, the steps of a sequence."""
        return self.lag + 2 * COPIED

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs (size, T + 20, 10), targets and weights (size, T + 20)."""
        s = jax.random.randint(key, (size, COPIED), 1, SYMBOLS + 1)
        blank = jnp.full((size, self.length), BLANK)
        read = blank.at[:, :COPIED].set(s).at[:, COPIED + self.lag - 1].set(MARKER)
        wanted = blank.at[:, -COPIED:].set(s)
        return Batch(
            jax.nn.one_hot(read, self.input_size, dtype=jnp.float32),
            wanted.astype(jnp.int32),
            weights=jnp.ones((size, self.length), jnp.float32),
        )


register_task("copy", CopyMemory)
