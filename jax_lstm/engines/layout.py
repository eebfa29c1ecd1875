"""The layout of a run, chosen by shape and device. It affects speed only, not the results.

    inline       zx_t = project(params, x_t) in the loop, next to the product with the state; otherwise zx_1..T in one
                 matrix product before the loop

The weight gradients are computed outside the loop in both cases. One large product is faster on accelerators, for small
problems, and for few sequences, where a product per step is limited by reading the weights. But it writes T × B × 4H
floats (for an LSTM) and reads them back. On a CPU that takes longer than the product itself if they do not fit in the
caches. So a run is inline only on a CPU, for a cell with its own derivative.

    transposed   the backward loop reads the recurrent weights from a transposed copy, along rows: faster for a matrix
                 product on a CPU. For fewer than `MIN_ROWS` sequences on a CPU the copy costs more than it saves

    packed       the residuals that the forward loop saves at each step are one vector. On a GPU every array that a
                 loop writes costs one more kernel launch; on a CPU and a TPU packing would only add a copy

Measurements are in benchmarks/README.md.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_lstm.abilities import has_own_derivative
from jax_lstm.checks import is_at_least, params_shapes
from jax_lstm.engines.engine import Given

CPU_CACHE_FLOATS = 2**17  # how many projected input features the caches of a CPU core hold
MIN_ROWS = 4  # below this many sequences, a matrix product per step is inefficient


class Layout(NamedTuple):
    """The layout of one run; the fields are explained in the docstring of this module."""

    inline: bool = False
    transposed: bool = True
    packed: bool = False


def choose_layout(cell: Any, xs: jax.Array, num_sequences: int | None) -> Layout:
    """The layout for a run of a split cell over xs (T, *B, I); `num_sequences` is that of `Options`."""
    if jax.default_backend() != "cpu" or num_sequences is None or not has_own_derivative(cell):
        return Layout(packed=jax.default_backend() == "gpu")
    return Layout(
        inline=num_sequences >= MIN_ROWS and num_sequences * xs.shape[0] * _projected_size(cell) > CPU_CACHE_FLOATS,
        transposed=num_sequences >= MIN_ROWS,
    )


def explain_layout(cell: Any, xs: jax.Array, num_sequences: int | None) -> str:
    """Describe the layout that `choose_layout` returns, and why, as part of a sentence."""
    layout = choose_layout(cell, xs, num_sequences)
    if layout.inline:
        return "inputs projected in the loop (all projected inputs at once would not fit a CPU core's caches)"
    if not has_own_derivative(cell):
        return "inputs projected before the loop (the cell has no derivative of its own)"
    if jax.default_backend() != "cpu":
        return f"inputs projected before the loop ({jax.default_backend()})"
    few = num_sequences is None or num_sequences < MIN_ROWS
    return f"inputs projected before the loop ({'few sequences' if few else 'small problem'})"


def count_sequences(xs: jax.Array, batch_axis: int | None = None) -> int | None:
    """The number of sequences in a run over xs, including vmaps around it; None if it is symbolic.

    Sizes are symbolic under `jax.export`; None then selects the layout that works for any size. A vmap outside an
    enclosing jit is not visible in this trace and is not counted.
    """
    if not all(isinstance(n, int) for n in xs.shape):
        return None
    count = (1 if batch_axis is None else math.prod(xs.shape[batch_axis:][:1])) * vmapped_size(xs)
    return count if isinstance(count, int) else None


@lru_cache(maxsize=256)
def _projected_size(cell: Any) -> int:
    """The number of features in the projection of one input."""
    x = jax.ShapeDtypeStruct((cell.input_size,), jnp.float32)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.project, params_shapes(cell), x)))


def vmapped_size(xs: jax.Array) -> int:
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


def can_merge_axes() -> bool:
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


def vmap_n(f: Callable, axes: int) -> Callable:
    """`f`, a function of one example, mapped by `jax.vmap` over this many leading batch axes."""
    for _ in range(axes):
        f = jax.vmap(f)
    return f


def vmap_time_and_batch(f: Callable, axes: int) -> Callable:
    """`f`, a function of one step of one example, mapped over the `axes` leading axes of arrays (T, *B, ...).

    An argument that is a `Given` has a time axis in `steps` only.

    Time and batch are merged into one axis first if the batch is not sharded over devices. A matrix product that sums
    over one axis reads its operands in place; for one that sums over two, XLA copies the larger operand on a CPU. With
    constants they are not merged, because constants may be large and would be copied over time.
    """

    def apart(*args: Any) -> Any:
        time_axes = tuple(Given(0, None, None) if isinstance(a, Given) else 0 for a in args)
        return jax.vmap(vmap_n(f, axes - 1), time_axes)(*args)

    def merged(*args: Any) -> Any:
        lead = jax.tree.leaves(args)[0].shape[:axes]
        if not is_at_least(math.prod(lead), 0):  # a symbolic size such as b (t − 1), which JAX cannot reshape to
            return apart(*args)
        args = tuple(a.at_every_step(lead[0]) if isinstance(a, Given) else a for a in args)
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[axes:]), args)
        return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), jax.vmap(f)(*flat))

    def mapped(*args: Any) -> Any:
        has_constants = any(isinstance(a, Given) and jax.tree.leaves(a.constants) for a in args)
        return (merged if axes > 1 and can_merge_axes() and not has_constants else apart)(*args)

    return mapped
