"""The layout of a run, chosen by shape and device. It affects speed only, not the results.

    hoisted   zx_1..T = project(params, x_1..T) in one matrix product before the loop
    inline    zx_t = project(params, x_t) in the loop, next to the product with the state

The weight gradients are computed outside the loop in both cases. One large product is faster on accelerators, for small
problems, and for a single sequence, where a matrix-vector product per step is limited by reading the weights. But it
writes T × B × 4H floats and reads them back. On a CPU that takes longer than the product itself once they do not fit
in the caches.

    transposed   the backward loop reads the recurrent weights from a transposed copy, along rows: faster for a matrix
                 product on a CPU; for a single sequence not worth the copy

    packed       the residuals that the forward loop saves at each step are one vector: on a GPU every array that a
                 loop writes is one more kernel launch; on a CPU and a TPU packing is a copy

Measurements are in benchmarks/README.md.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_lstm.cells.base import is_linearised
from jax_lstm.cells.shapes import params_shapes

CACHE = 2**17  # how many projected input features the caches of a CPU core hold
FEW = 4  # below this many sequences, a matrix product per step is inefficient


class Plan(NamedTuple):
    """The layout of one run; the fields are explained in the docstring of this module."""

    inline: bool = False
    transposed: bool = True
    packed: bool = False


def plan(cell: Any, xs: jax.Array, rows: int | None) -> Plan:
    """The layout for a run of `cell`, which splits its step, over xs (T, *B, I) with `rows` sequences in all."""
    if jax.default_backend() != "cpu" or rows is None or not is_linearised(cell):
        return Plan(packed=jax.default_backend() == "gpu")
    return Plan(
        inline=rows >= FEW and rows * xs.shape[0] * _projected_size(cell) > CACHE,
        transposed=rows >= FEW,
    )


def sequences(xs: jax.Array) -> int | None:
    """The number of sequences in a run over xs (T, *B, I), including vmaps around it; None if it is symbolic.

    Sizes are symbolic under `jax.export`; None then selects the layout that works for any size. A vmap outside an
    enclosing jit is not visible in this trace and is not counted.
    """
    if not all(isinstance(n, int) for n in xs.shape):
        return None
    rows = math.prod(xs.shape[1:-1]) * batch_size(xs)
    return rows if isinstance(rows, int) else None


@lru_cache(maxsize=256)
def _projected_size(cell: Any) -> int:
    """The number of features in the projection of one input."""
    x = jax.ShapeDtypeStruct((cell.input_size,), jnp.float32)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.project, params_shapes(cell), x)))


def batch_size(xs: jax.Array) -> int:
    """The product of the sizes of all vmaps around this call."""
    if not isinstance(xs, jax.core.Tracer):
        return 1
    sizes = [1]

    @jax.custom_batching.custom_vmap
    def probe(x: jax.Array) -> jax.Array:
        return x

    @probe.def_vmap
    def _(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
        sizes.append(axis_size)
        return probe(x), in_batched[0]

    probe(jax.lax.stop_gradient(xs))
    return math.prod(sizes)


def merges() -> bool:
    """Whether to merge the time and batch axes: on a CPU, if the batch cannot be sharded over devices.

    That is the case with one device and no mesh, and inside a shard_map over all axes of its mesh. Otherwise the merged
    axis would have to be gathered first. Accelerators read operands in any order and gain nothing.
    """
    if jax.default_backend() != "cpu":
        return False
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names:
        return set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() == 1


def segment_length(steps: int) -> int:
    """About √T; if possible a divisor of T between √T/2 and 2√T, since a shorter last segment needs a copy."""
    root = max(1, math.isqrt(steps))
    divisors = [n for n in range((root + 1) // 2, 2 * root + 1) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)
