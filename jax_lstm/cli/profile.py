"""How far gradients reach, for a model that was trained or just drawn.

    profile_k = mean over sequences of ln ‖∂s_T/∂s_k‖₂      k = 0..T; the last is 0

These are the numbers behind the tables and the figures.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jax_lstm as jl
from jax_lstm import gradflow


class Profile(NamedTuple):
    """One seed's gradient flow: natural logs, and steps."""

    log_norms: Float[np.ndarray, " T+1"]  # the mean over sequences
    horizon: float  # at rest

    @property
    def data_horizon(self) -> float:
        """Steps for the norm to fall by e: one over the mean slope over sequences, which is the slope of the mean.

        Read off the profile, because `gradflow.data_horizon` would measure every sequence a second time.
        """
        k = np.flatnonzero(np.isfinite(self.log_norms))
        slope = np.polyfit(k, self.log_norms[k], 1)[0] if len(k) > 1 else math.inf
        return 1 / slope if slope > 0 else math.inf

    def log10_norm(self, k: int) -> float:
        """log10 ‖∂s_T/∂s_{T−k}‖."""
        return float(self.log_norms[len(self.log_norms) - 1 - k]) / math.log(10)

    def as_data(self) -> dict[str, Any]:
        """For JSON, which has no infinity: None there."""
        return {
            "data_horizon": _json(self.data_horizon),
            "horizon": _json(self.horizon),
            "ln_norm_ds_T_ds_k": [_json(x) for x in self.log_norms.tolist()],
        }


def _json(x: float) -> float | None:
    return x if math.isfinite(x) else None


def profiles(cell: jl.Cell, params: Any, xs: Float[Array, "N T I"]) -> list[Profile]:
    """One profile a seed; every leaf of params has a leading axis of seeds, and all see the same sequences."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def measure(p, xs):
        log_norms = jax.vmap(gradflow.sensitivity, in_axes=(None, None, 0))(cell, p, xs)
        return jnp.mean(log_norms, axis=0), gradflow.horizon(cell, p)

    return [
        Profile(np.asarray(log_norms, np.float64), float(steps))
        for log_norms, steps in zip(*jax.device_get(measure(params, xs)), strict=True)
    ]
