"""Weight initialization, per gate, and matrix products with an optional compute dtype.

LeCun normal (LeCun et al. 1998): variance 1 / fan-in. Orthogonal (Saxe et al. 2014): QᵀQ = I for each gate's block of
the recurrent weights, so that multiplying by the block keeps the norm of h.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

lecun_normal = jax.nn.initializers.lecun_normal()


def orthogonal(key: Array, shape: tuple[int, int], dtype: DTypeLike) -> Float[Array, "m n"]:
    """An orthogonal block; under vmap one after another.

    Several batched QR decompositions in one program can wait for each other for ever on a machine with few cores
    (jaxlib 0.10.2: four of three 64 × 64 matrices each stopped two cores within a few thousand calls; one at a time
    never did).
    """
    return jax.custom_batching.sequential_vmap(lambda key: jax.nn.initializers.orthogonal()(key, shape, dtype))(key)


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The dtype to draw in: at least float32, so that a narrower dtype rounds only the final values."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def draw_per_gate(
    draw: Callable[..., Array], key: Array, gates: int, shape: tuple[int, int], dtype: DTypeLike
) -> Float[Array, "fan_in width"]:
    """One block of `shape` per gate, each from its own key, side by side."""
    wide = at_least_float32(dtype)
    blocks = [draw(k, shape, wide) for k in jax.random.split(key, gates)]
    return jnp.concatenate(blocks, axis=1).astype(dtype)


def forget_biases(
    key: Array, size: int, dtype: DTypeLike, forget_bias: float | int | None, chrono: float | int | None
) -> Float[Array, " size"]:
    """b_f: `forget_bias` in every unit, or log U(1, `chrono` − 1) if that is given (Tallec & Ollivier 2018)."""
    if chrono is None:
        return jnp.full(size, forget_bias or 0.0, dtype)
    return jnp.log(jax.random.uniform(key, (size,), at_least_float32(dtype), 1.0, chrono - 1.0)).astype(dtype)


def product(x: Float[Array, " n"], w: Float[Array, "n m"], compute_dtype: str | None = None) -> Float[Array, " m"]:
    """x @ w in w's dtype; with a compute dtype the operands are rounded to it, the sums are not."""
    if compute_dtype is None:
        return x @ w
    return jnp.matmul(x.astype(compute_dtype), w.astype(compute_dtype), preferred_element_type=w.dtype)


def product_by_transpose(
    x: Float[Array, " n"], w_t: Float[Array, "m n"], compute_dtype: str | None = None
) -> Float[Array, " m"]:
    """`product(x, w_t.T)` for a w that is stored transposed, as w_t.

    A backward loop runs the transpose of this product, ȳ w_t, which reads w_t along rows: up to twice as fast as ȳ wᵀ.
    """
    if compute_dtype is not None:
        x, w = x.astype(compute_dtype), w_t.astype(compute_dtype)
    else:
        w = w_t
    return jax.lax.dot_general(x, w, (((0,), (1,)), ((), ())), preferred_element_type=w_t.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def bounded(x: Float[Array, " n"], dtype: DTypeLike) -> Float[Array, " n"]:
    """x in `dtype` with finite entries clipped to ±max^¾, so that no x @ w is ∞ − ∞. NaN and ±∞ are kept.

    In float32 the limit is 6e28: far above where any gate saturates, far below where a product overflows.
    float16 is not clipped: its products are summed in a wider dtype, and max^¾ there is a value that data can have.
    The derivative is 1 everywhere: beyond the limit the gates are saturated, so no gradient passes anyway.
    """
    x = x.astype(dtype)
    if dtype == jnp.float16:
        return x
    limit = jnp.asarray(float(jnp.finfo(dtype).max) ** 0.75, dtype)
    return jnp.where(jnp.isinf(x), x, jnp.clip(x, -limit, limit))


@bounded.defjvp
def _bounded_jvp(dtype: DTypeLike, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return bounded(*primals, dtype), tangents[0].astype(dtype)
