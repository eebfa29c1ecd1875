"""The adding problem (Hochreiter & Schmidhuber 1997), in the form of Arjovsky, Shah & Bengio 2016.

    x_t = (v_t, m_t)     v_t ~ U[0, 1];   m_t = 1 at one step of each half, else 0
    y   = Σ_t m_t v_t    the target after the last step

The baseline is the best constant prediction, 1, the mean of y. Its squared error is the variance of a sum of two
uniforms, 1/12 + 1/12 = 1/6. To beat it, a network has to remember the first marked value for about T/2 steps.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task


@dataclass(frozen=True)
class Adding(GeneratedTask):
    """The adding problem over sequences of one length.

    Args:
        length: T, the steps of a sequence, at least 2. Each half has one mark; for an odd T, the first half is shorter.

    Raises:
        ValueError: length is less than 2.
    """

    length: int = 100

    input_size = 2
    output_size = 1
    loss = "mse"
    metric = "mse"
    maximize = False
    validation_size, test_size = 500, 2_000

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"Adding: length must be at least 2, one step per mark, but is {self.length}")

    def baselines(self, split: Split) -> dict[str, float]:
        """The mean squared error of always predicting 1, the mean of y."""
        return {"always the mean": 1 / 6}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs (size, T, 2) and targets (size, 1)."""
        xs, ys = jax.vmap(lambda k: _one(k, self.length))(jax.random.split(key, size))
        return Batch(xs, ys)


def _one(key: Key[Array, ""], T: int) -> tuple[Float[Array, "T 2"], Float[Array, " 1"]]:
    """One sequence and its sum."""
    key_v, key_1, key_2 = jax.random.split(key, 3)
    v = jax.random.uniform(key_v, (T,), jnp.float32)
    t = jnp.arange(T)
    first = jax.random.randint(key_1, (), 0, T // 2)
    second = jax.random.randint(key_2, (), T // 2, T)
    m = ((t == first) | (t == second)).astype(jnp.float32)
    return jnp.stack([v, m], axis=1), jnp.sum(v * m)[None]


register_task("adding", Adding)
