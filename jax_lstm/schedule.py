"""How a run is laid out: the choices that are made by shape and device, and change no number.

    hoisted   zx_1..T = project(params, x_1..T) in one product before the loop
    inline    zx_t = project(params, x_t) in the loop, beside the product with the state

The weight gradients stay outside the loop either way. One large product is the better one on accelerators, for a
single sequence (a matrix-vector product a step is bound by reading the weights), and for small problems. But it writes
T × B × 4H numbers and reads them back: on a CPU that costs more than the product, as soon as they leave its caches.

    transposed   the backward loop reads the recurrent weights from a transposed copy, by rows: faster for a matrix
                 product on a CPU; for a single sequence not worth the copy

    packed       what the forward loop keeps of a step for the backward one is one vector: on a GPU each stream that a
                 loop writes is one more kernel to launch; on a CPU and a TPU packing is a copy

benchmarks/README.md has the figures.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_lstm.cells.base import is_linearised
from jax_lstm.cells.shapes import params_shapes

CACHE = 2**17  # numbers of projected inputs that a CPU core's caches hold
FEW = 4  # sequences at once, below which a product a step is a waste


class Plan(NamedTuple):
    """The choices for one run."""

    inline: bool = False
    transposed: bool = True
    packed: bool = False


def plan(cell: Any, xs: jax.Array, rows: int | None) -> Plan:
    """The choices for a run of `cell`, which splits its step, over xs (T, *B, I), that is over this many sequences."""
    if jax.default_backend() != "cpu" or rows is None or not is_linearised(cell):
        return Plan(packed=jax.default_backend() == "gpu")
    return Plan(
        inline=rows >= FEW and rows * xs.shape[0] * _projected_size(cell) > CACHE,
        transposed=rows >= FEW,
    )


def sequences(xs: jax.Array) -> int | None:
    """How many sequences a run over xs (T, *B, I) has, vmaps around it included; None where that is a symbol.

    A symbolic size is an export's: None takes what is right for any. A batch that this trace does not show, because a
    jit stands between it and the vmap, counts as one sequence.
    """
    if not all(isinstance(n, int) for n in xs.shape):
        return None
    rows = math.prod(xs.shape[1:-1]) * batch_size(xs)
    return rows if isinstance(rows, int) else None


@lru_cache(maxsize=256)
def _projected_size(cell: Any) -> int:
    """How many numbers the projection of one input has."""
    x = jax.ShapeDtypeStruct((cell.input_size,), jnp.float32)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.project, params_shapes(cell), x)))


def batch_size(xs: jax.Array) -> int:
    """How many sequences the vmaps around this call run at once."""
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
    """Whether time and batch may become one axis: on a CPU, where no device boundary can run through the batch.

    That is with one device and no mesh, and inside a shard_map over every axis of its mesh. Elsewhere the merged axis
    would have to be gathered first. Accelerators read operands in any order, and have nothing to gain.
    """
    if jax.default_backend() != "cpu":
        return False
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names:
        return set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() == 1


def segment_length(steps: int) -> int:
    """About √T: a divisor of T between half and twice that if there is one, since a shorter last segment is copied."""
    root = max(1, math.isqrt(steps))
    divisors = [n for n in range((root + 1) // 2, 2 * root + 1) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)
