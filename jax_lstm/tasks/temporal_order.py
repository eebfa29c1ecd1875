"""Temporal order (Hochreiter & Schmidhuber 1997, experiments 6a and 6b): classify the order of rare symbols.

    B . . . X . . . Y . . . E      each dot is one of a, b, c, d; each of 2 or 3 rare symbols is X or Y
    class = the order of the rare symbols, for two XX, XY, YX or YY, for three one of 8; the target after E

A sequence has 100 to 110 symbols, one-hot in the order B, E, a, b, c, d, X, Y. The positions of the rare symbols, with
B at 0, are drawn from:

    two     10..20, 50..60
    three   10..20, 33..43, 66..76
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}
SHORTEST, LONGEST = 100, 110
B, E, A, X = 0, 1, 2, 6  # the one-hot codes of B and E, and the first codes of a..d and of X, Y


@dataclass(frozen=True)
class TemporalOrder(GeneratedTask):
    """Classify the order of two rare symbols (6a) or three (6b).

    Args:
        marks: the number of rare symbols, 2 or 3.

    Raises:
        ValueError: marks is not 2 or 3.
    """

    marks: int = 2

    input_size = 8
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True

    def __post_init__(self):
        if self.marks not in PLACES:
            raise ValueError(f"TemporalOrder: marks must be 2 or 3, but is {self.marks}")

    @property
    def output_size(self) -> int:
        """4 or 8: one class per order."""
        return 2**self.marks

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting the same order; all orders are equally likely."""
        return {"chance": 1 / self.output_size}

    @property
    def length(self) -> int:
        """110, the symbols of the longest sequence."""
        return LONGEST

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs (size, 110, 8), targets (size,), mask (size, 110)."""
        return Batch(*jax.vmap(self._one)(jax.random.split(key, size)))

    def _one(self, key: Key[Array, ""]) -> tuple[Float[Array, "T 8"], Int[Array, ""], Bool[Array, " T"]]:
        key_n, key_noise, key_places, key_marks = jax.random.split(key, 4)
        n = jax.random.randint(key_n, (), SHORTEST, LONGEST + 1)
        t = jnp.arange(LONGEST)
        symbols = A + jax.random.randint(key_noise, (LONGEST,), 0, 4)
        bounds = jnp.asarray(PLACES[self.marks])
        places = jax.random.randint(key_places, (self.marks,), bounds[:, 0], bounds[:, 1] + 1)
        ys = jax.random.randint(key_marks, (self.marks,), 0, 2)  # X is 0, Y is 1
        symbols = symbols.at[places].set(X + ys).at[0].set(B)
        symbols = jnp.where(t == n - 1, E, symbols)
        live = t < n
        xs = jnp.where(live[:, None], jax.nn.one_hot(symbols, 8, dtype=jnp.float32), 0)
        order = (ys * 2 ** jnp.arange(self.marks)[::-1]).sum()
        return xs, order.astype(jnp.int32), live


register_task("temporal_order", TemporalOrder)
