"""Gradient flossing (Engelken 2023): noise drives a cell, and its Lyapunov exponents are trained to 0.

    x_t ~ N(0, 0.1²), 8 features

The targets are 0 for the 10 largest Lyapunov exponents of the cell along x_1..x_T, so that gradients neither shrink nor
grow in these directions. The loss is the mean of their squares, the score the largest of their absolute values, in nats
per step. Nothing is predicted.
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
    """Sequences of noise, to train the Lyapunov exponents of a cell.

    Args:
        length: T, the steps of a sequence; at least 2.

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
        """Draw `size` sequences: xs (size, T, 8); the targets (size, 10) are zeros."""
        xs = AMPLITUDE * jax.random.normal(key, (size, self.length, self.input_size), jnp.float32)
        return Batch(xs, jnp.zeros((size, self.output_size), jnp.float32))
