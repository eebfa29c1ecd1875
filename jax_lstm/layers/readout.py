"""A linear readout of a cell's outputs.

y = h w + b
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.cell import StaticPytree
from jax_lstm.cells.initializers import draw_per_gate, lecun_normal


class ReadoutParams(NamedTuple):
    """Weights of a `Readout`.

    w: (H, O), multiplies the features h.
    b: (O,), added.
    """

    w: Float[Array, "H O"]
    b: Float[Array, " O"]


@dataclass(frozen=True)
class Readout(StaticPytree):
    """Linear readout layer: y = h w + b.

    The layer holds options only. Its weights are a `ReadoutParams`.

    Args:
        input_size: H, the number of features of h.
        output_size: O, the number of outputs.

    Raises:
        ValueError: a field is out of range; the message names it.
        TypeError: a field has a wrong type; the message names it.
    """

    input_size: int
    output_size: int

    def __post_init__(self):
        for name in ("input_size", "output_size"):
            object.__setattr__(self, name, checks.positive_int("Readout", name, getattr(self, name)))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ReadoutParams:
        """Draw w LeCun normal; b is zero.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default.

        Returns:
            ReadoutParams(w (H, O), b (O,)).

        Raises:
            TypeError: key is not a random key, or dtype is not floating.
        """
        key, dtype = checks.check_key("Readout.init", key), checks.float_dtype("Readout.init", "dtype", dtype)
        return ReadoutParams(
            w=draw_per_gate(lecun_normal, key, 1, (self.input_size, self.output_size), dtype),
            b=jnp.zeros(self.output_size, dtype),
        )

    def apply(self, params: ReadoutParams, h: Float[Array, "*steps H"]) -> Float[Array, "*steps O"]:
        """Compute y = h w + b for one output h of a cell, or for the outputs of every step.

        Args:
            params: what `init` returns.
            h: (*steps, H), in the params' dtype.

        Returns:
            y, (*steps, O).

        Raises:
            ValueError: h has a wrong number of features, or params have wrong shapes.
            TypeError: h is not an array, or params are not float arrays of one dtype.
        """
        params, _ = checks.check_params("Readout.apply", self, params)
        h = checks.as_array("Readout.apply", "h", h)
        if h.ndim == 0 or h.shape[-1] != self.input_size:
            raise ValueError(
                f"Readout.apply: h must have {self.input_size} features on its last axis, but has shape {h.shape}"
            )
        y = h @ params.w
        return y + jnp.broadcast_to(params.b, y.shape)
