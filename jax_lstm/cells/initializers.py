"""Initial weights, one block per gate.

LeCun normal (LeCun et al. 1998): variance 1 / fan-in. Orthogonal (Saxe et al. 2014): QᵀQ = I for each gate's block of
the recurrent weights, so that multiplying by the block keeps the norm of h.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks
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


def forget_choice(
    caller: str, size: int, given: tuple[Any, Any], fields: tuple[float | None, float | None]
) -> tuple[Any, Any]:
    """(forget_bias, chrono) of one draw: those given to `init`, else the fields of the cell. One of the two is None."""
    forget_bias, chrono = given
    if forget_bias is not None and chrono is not None:
        raise ValueError(f"{caller}: chrono and forget_bias both set the forget bias, but both were given; give one")
    if chrono is not None:
        return None, checks.number_or_array(caller, "chrono", chrono, (size,), lambda T: T > 2, "above 2")
    return (
        fields if forget_bias is None else (checks.number_or_array(caller, "forget_bias", forget_bias, (size,)), None)
    )


def full(caller: str, name: str, value: Any, size: int, dtype: DTypeLike) -> Float[Array, " size"]:
    """A number or an array () or (size,), as an array (size,) of this dtype, in which a number must be finite."""
    if isinstance(value, float) and abs(value) > float(jnp.finfo(dtype).max):
        raise ValueError(f"{caller}: {name} must be finite in {jnp.dtype(dtype)}, but is {value}; give a smaller one")
    return jnp.broadcast_to(jnp.asarray(value, dtype), (size,))


def forget_biases(key: Array, size: int, dtype: DTypeLike, forget_bias: Any, chrono: Any) -> Float[Array, " size"]:
    """b_f: log U(1, `chrono` − 1) if `chrono` is given (Tallec & Ollivier 2018), else `forget_bias`.

    Each is a number, an array () or (size,), or None.
    """
    if chrono is None:
        return full("init", "forget_bias", 0.0 if forget_bias is None else forget_bias, size, dtype)
    wide = at_least_float32(dtype)
    longest = chrono - 1.0 if isinstance(chrono, float) else chrono.astype(wide) - 1
    longest = full("init", "chrono", longest, size, wide)
    return jnp.log(jax.random.uniform(key, (size,), wide, 1.0, longest)).astype(dtype)
