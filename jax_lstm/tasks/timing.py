"""Timed spikes (Gers & Schmidhuber 2000; Gers, Schraudolph & Schmidhuber 2002): a delay is shown, to be repeated.

    x_t = 1 at t = s and at t = s + D, else 0      s ~ U{0..29}    D ~ U{30..60}    150 steps
    y_t = 1 at t = s + 2 D, else 0                 wanted at every step from s + D on

The network has to measure the delay D between two spikes and to give the third as long after the second. The papers
have a network measure a delay, or give spikes at one delay that it was trained for; this is both, in one sequence.

A sequence counts as right if y_t is above 1/2 at the step of the third spike, and below it at all others from s + D on.
In the loss the third spike weighs as much as ten silent steps, or the least error for long is to stay silent.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh

STARTS = 30
LEAST, MOST = 30, 60
WEIGHT = 10.0  # of the third spike's step


@dataclass(frozen=True)
class Timing(Fresh):
    """Two spikes, and a third to be given in time."""

    length = 150
    input_size = 1
    output_size = 1
    loss = "mse"
    metric = "exact"
    maximise = True

    @property
    def baseline(self) -> float:
        """Of one spike at a fixed step: t = 90 is that of s + 2 D for the fifteen even s, each with one D of 31."""
        return 15 / (STARTS * (MOST - LEAST + 1))

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` fresh sequences: xs and targets (size, 150, 1), weights (size, 150)."""
        key_s, key_D = jax.random.split(key)
        s = jax.random.randint(key_s, (size, 1), 0, STARTS)
        D = jax.random.randint(key_D, (size, 1), LEAST, MOST + 1)
        t = jnp.arange(self.length)[None]
        told, wanted = (t == s) | (t == s + D), t == s + 2 * D
        weights = jnp.where(wanted, WEIGHT, jnp.where(t >= s + D, 1.0, 0.0)).astype(jnp.float32)
        return Batch(_spikes(told), _spikes(wanted), weights=weights)


def _spikes(at: Bool[Array, "B T"]) -> Float[Array, "B T 1"]:
    return at[..., None].astype(jnp.float32)
