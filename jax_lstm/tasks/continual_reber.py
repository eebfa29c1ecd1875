"""The continual embedded Reber grammar (Gers, Schmidhuber & Cummins 2000): an endless stream of strings.

    B T [a Reber string] T E B P [a Reber string] P E B …        one-hot, as in reber.py

Nothing marks where a string begins, so the network has to learn when to forget. The target that counts is the symbol
before each outer E, after the inner string; all other steps have weight 0. Inner strings can have any length.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import TEST_SEED, VALIDATION_SEED, GeneratedTask
from jax_lstm.tasks.reber import END, LEADS_TO, SYMBOLS, B, E, P, T
from jax_lstm.tasks.registry import register_task

BEGIN, OUTER, AGAIN, LAST = END, END + 1, END + 2, END + 3  # outside the inner string's states 0..6


@dataclass(frozen=True)
class ContinualReber(GeneratedTask):
    """Streams of embedded Reber strings, from a state of zero.

    Validation streams have 2,000 symbols, test streams 10,000.

    Args:
        trained: T, the symbols of a training stream; at least 100.

    Raises:
        ValueError: trained is less than 100.
    """

    trained: int = 500

    input_size = 7
    output_size = 7
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True
    validation_size, test_size = 16, 16

    def __post_init__(self):
        if self.trained < 100:
            raise ValueError(f"ContinualReber: trained must be at least 100, but is {self.trained}")

    @property
    def length(self) -> int:
        """10,000, the symbols of a test stream."""
        return 10_000

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting T; T and P are equally likely."""
        return {"chance": 0.5}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` training streams: xs (size, T, 7), targets and weights (size, T)."""
        return _streams(key, size, self.trained)

    def validation(self) -> Batch:
        """16 fixed streams of 2,000 symbols."""
        return _streams(jax.random.key(VALIDATION_SEED), self.validation_size, 2_000)

    def test(self) -> Batch:
        """16 fixed streams of 10,000 symbols."""
        return _streams(jax.random.key(TEST_SEED), self.test_size, self.length)


@partial(jax.jit, static_argnums=(1, 2))
def _streams(key: Key[Array, ""], size: int, steps: int) -> Batch:
    symbols, asked = jax.vmap(lambda k: _stream(k, steps + 1))(jax.random.split(key, size))
    xs = jax.nn.one_hot(symbols[:, :-1], 7, dtype=jnp.float32)
    return Batch(xs, symbols[:, 1:].astype(jnp.int32), weights=asked[:, 1:])


def _stream(key: Key[Array, ""], steps: int) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Symbols, and weights: 1 at the symbols that the outer symbol at the start of their string decides."""
    symbols, leads_to = jnp.asarray(SYMBOLS), jnp.asarray(LEADS_TO)

    def body(at: tuple, coin: Int[Array, ""]) -> tuple[tuple, tuple]:
        state, outer = at
        outer = jnp.where(state == OUTER, jnp.where(coin, T, P), outer)
        inner = jnp.minimum(state, END - 1)
        symbol = jnp.select(
            [state == BEGIN, (state == OUTER) | (state == AGAIN), state == LAST], [B, outer, E], symbols[inner, coin]
        )
        ended = leads_to[inner, coin] == END
        after = jnp.select(
            [state == BEGIN, state == OUTER, state == AGAIN, state == LAST],
            [OUTER, 0, LAST, BEGIN],
            jnp.where(ended, AGAIN, leads_to[inner, coin]),
        )
        return (after, outer), (symbol, (state == AGAIN).astype(jnp.float32))

    coins = jax.random.randint(key, (steps,), 0, 2)
    return jax.lax.scan(body, (jnp.asarray(BEGIN), jnp.asarray(T)), coins)[1]


register_task("continual_reber", ContinualReber)
