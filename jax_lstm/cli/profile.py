"""How far gradients reach in a network: the numbers behind the tables and figures.

profile_k = mean over sequences of ln ‖∂s_T/∂s_k‖₂      k = 0..T; the last is 0
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jax_lstm as jl
from jax_lstm import gradflow


class Profile(NamedTuple):
    """The gradient norms of one seed.

    Args:
        log_norms: (T + 1,) natural logs of ‖∂s_T/∂s_k‖₂, averaged over sequences.
        horizon: the memory horizon at rest, in steps: where the state and the input are 0.
    """

    log_norms: Float[np.ndarray, " T+1"]
    horizon: float

    @property
    def data_horizon(self) -> float:
        """The memory horizon on data: the steps over which the gradient norm falls by a factor of e; inf: it does not.

        It is 1 / the slope of the mean profile. It is not computed by `gradflow.data_horizon`, which would measure
        every sequence a second time.
        """
        k = np.flatnonzero(np.isfinite(self.log_norms))
        slope = np.polyfit(k, self.log_norms[k], 1)[0] if len(k) > 1 else math.inf
        return 1 / slope if slope > 0 else math.inf

    def log10_norm(self, k: int) -> float:
        """log10 ‖∂s_T/∂s_{T−k}‖."""
        return float(self.log_norms[len(self.log_norms) - 1 - k]) / math.log(10)

    def as_data(self) -> dict[str, Any]:
        """For JSON; None replaces inf, which JSON does not have."""
        return json_ready(
            {
                "data_horizon": self.data_horizon,
                "horizon": self.horizon,
                "ln_norm_ds_T_ds_k": self.log_norms,
            }
        )


def json_ready(value: Any) -> Any:
    """Prepare nested data for JSON: arrays become lists, and numbers that are not finite become None."""
    if isinstance(value, dict):
        return {name: json_ready(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if hasattr(value, "tolist"):
        return json_ready(np.asarray(value).tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean_log_norms(cell: jl.Cell, params: Any, xs: Float[Array, "N T I"]) -> Float[Array, " T+1"]:
    """The mean of `gradflow.sensitivity` over N sequences: (T + 1,) natural logs."""
    return jnp.mean(jax.vmap(gradflow.sensitivity, in_axes=(None, None, 0))(cell, params, xs), axis=0)


def profiles(cell: jl.Cell, params: Any, xs: Float[Array, "S N T I"]) -> list[Profile]:
    """Measure every seed.

    Args:
        cell: the cell.
        params: its params; every leaf has a leading axis over S seeds.
        xs: inputs (S, N, T, I): N sequences per seed.

    Returns:
        One Profile per seed.
    """

    @jax.jit
    @jax.vmap
    def measure(p, xs):
        return mean_log_norms(cell, p, xs), gradflow.horizon(cell, p)

    return [
        Profile(np.asarray(log_norms, np.float64), float(steps))
        for log_norms, steps in zip(*jax.device_get(measure(params, xs)), strict=True)
    ]
