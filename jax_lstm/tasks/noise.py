"""Nothing to predict: noise that drives a cell, while its exponents are trained (gradient flossing, Engelken 2023).

    x_t ~ N(0, 0.1²), eight features

What is wanted is that the cell's ten largest Lyapunov exponents along x_1..x_T are 0, so that no direction of the
gradient shrinks or grows. The loss is the mean of their squares, the score the largest of their absolute values.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh

AMPLITUDE = 0.1


@dataclass(frozen=True)
class Noise(Fresh):
    """Sequences of noise.

    Args:
        length: T, at least 2.

    Raises:
        ValueError: length is less than 2.
    """

    length: int = 100

    input_size = 8
    output_size = 10
    loss = "mse"
    metric = "largest_error"
    maximise = False
    baseline = math.nan
    validation_size, test_size = 4, 8

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"Noise: length must be at least 2, but is {self.length}")

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` fresh sequences: xs (size, T, 8); targets (size, 10) are zeros."""
        xs = AMPLITUDE * jax.random.normal(key, (size, self.length, self.input_size), jnp.float32)
        return Batch(xs, jnp.zeros((size, self.output_size), jnp.float32))
