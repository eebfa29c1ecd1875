"""Timed spikes (Gers & Schmidhuber 2000; Gers, Schraudolph & Schmidhuber 2002): measure a delay and repeat it.

    x_t = 1 at t = s and at t = s + D, else 0      s ~ U{0..29}    D ~ U{30..60}    150 steps
    y_t = 1 at t = s + 2 D, else 0                 the target at every step from s + D on

The network has to measure the delay D between two spikes, and to output a third spike D steps after the second. In the
papers, a network either measures a delay or outputs spikes at one fixed delay. This task combines both in one sequence.

A sequence is correct if the output is above 1/2 at the step of the third spike, and below 1/2 at all other steps from
s + D on. In the loss, the third spike has the weight of 10 other steps; otherwise an output of 0 everywhere is hard to
improve on.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

STARTS = 30
LEAST, MOST = 30, 60
WEIGHT = 10.0  # the weight of the third spike's step


@dataclass(frozen=True)
class Timing(GeneratedTask):
    """Repeat the delay between two spikes: 150 steps, 1 feature, 1 output."""

    length = 150
    input_size = 1
    output_size = 1
    loss = "mse"
    metric = "exact"
    maximize = True

    def baselines(self, split: Split) -> dict[str, float]:
        """The score of a spike at the fixed step 90: it is right for the 15 even s, each with 1 of 31 delays D."""
        return {"always step 90": 15 / (STARTS * (MOST - LEAST + 1))}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs and targets (size, 150, 1), weights (size, 150)."""
        key_s, key_D = jax.random.split(key)
        s = jax.random.randint(key_s, (size, 1), 0, STARTS)
        D = jax.random.randint(key_D, (size, 1), LEAST, MOST + 1)
        t = jnp.arange(self.length)[None]
        told, wanted = (t == s) | (t == s + D), t == s + 2 * D
        weights = jnp.where(wanted, WEIGHT, jnp.where(t >= s + D, 1.0, 0.0)).astype(jnp.float32)
        return Batch(_spikes(told), _spikes(wanted), weights=weights)


def _spikes(at: Bool[Array, "B T"]) -> Float[Array, "B T 1"]:
    return at[..., None].astype(jnp.float32)


register_task("timing", Timing)
