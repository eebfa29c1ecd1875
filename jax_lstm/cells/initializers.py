"""Initial weights, one block per gate.

LeCun normal (LeCun et al. 1998): variance 1 / fan-in. Orthogonal (Saxe et al. 2014): QᵀQ = I for each gate's block of
the recurrent weights, so that multiplying by the block keeps the norm of h.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.gates import at_least_float32

lecun_normal = jax.nn.initializers.lecun_normal()


def orthogonal(key: Array, shape: tuple[int, int], dtype: DTypeLike) -> Float[Array, "m n"]:
    """Draw an orthogonal block (m, n). Under vmap the blocks are drawn one after another.

    Otherwise several batched QR decompositions in one program can deadlock on a machine with few cores. With jaxlib
    0.10.2 on two cores, four decompositions of three 64 × 64 matrices each deadlocked within a few thousand calls; one
    matrix at a time never did.
    """
    return jax.custom_batching.sequential_vmap(lambda key: jax.nn.initializers.orthogonal()(key, shape, dtype))(key)


def draw_per_gate(
    draw: Callable[..., Array], key: Array, gates: int, shape: tuple[int, int], dtype: DTypeLike
) -> Float[Array, "fan_in width"]:
    """Concatenate one block draw(key, shape, dtype) per gate, each from its own key, drawn in float32 or wider."""
    wide = at_least_float32(dtype)
    blocks = [draw(k, shape, wide) for k in jax.random.split(key, gates)]
    return jnp.concatenate(blocks, axis=1).astype(dtype)


def forget_biases(
    key: Array, size: int, dtype: DTypeLike, forget_bias: float | int | None, chrono: float | int | None
) -> Float[Array, " size"]:
    """b_f: log U(1, `chrono` − 1) if `chrono` is given (Tallec & Ollivier 2018), else `forget_bias` in every unit."""
    if chrono is None:
        return jnp.full(size, forget_bias or 0.0, dtype)
    return jnp.log(jax.random.uniform(key, (size,), at_least_float32(dtype), 1.0, chrono - 1.0)).astype(dtype)
