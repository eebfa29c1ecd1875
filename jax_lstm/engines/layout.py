"""The layout of a run, chosen by shape and device. It affects speed and memory only, not the results.

    inline       zx_t = project(params, x_t) in the loop, next to the product with the state; otherwise zx_1..T in one
                 matrix product before the loop

On a CPU a run is inline: one product over all steps would write T × B × 4H floats (for an LSTM) and read them back,
which takes longer than it saves, and keeps them in memory. On an accelerator, one large product is faster. The weight
gradients are computed outside the loop in both cases.

    transposed   the backward loop reads the recurrent weights from a transposed copy, along rows: faster for a matrix
                 product on a CPU. For fewer than `MIN_ROWS` sequences on a CPU the copy costs more than it saves

    unroll       how many steps of a loop are one piece of the compiled program. On a GPU the kernels of several steps
                 are started together; on a CPU it gains nothing

Measurements are in benchmarks/README.md.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jax_lstm.checks import is_at_least
from jax_lstm.engines.engine import Given

MIN_ROWS = 4  # below this many sequences, a matrix product per step is inefficient
MAX_STACKED = 5 * 2**18  # bytes of weights that stay in the cache of a core


class Layout(NamedTuple):
    """The layout of one run; the fields are explained in the docstring of this module."""

    inline: bool
    transposed: bool
    unroll: int = 1


def choose_layout(batch: tuple[Any, ...], members: Any = 1) -> Layout:
    """The layout for runs of this many sets of params at once (`members`), each over sequences with these batch axes.

    A size that is symbolic, under `jax.export`, counts as large.
    """
    backend, num_sequences = jax.default_backend(), members * math.prod(batch)
    few = isinstance(num_sequences, int) and num_sequences < MIN_ROWS
    return Layout(
        inline=backend == "cpu", transposed=not (few and backend == "cpu"), unroll=4 if backend == "gpu" else 1
    )


def joins_products(T: Any, batch: tuple[Any, ...], weights: Any, z: Any) -> bool:
    """Whether to compute z_t, a tree of shapes, by one product in place of two, which takes a copy of the weights.

    On one CPU device, for two sequences or more, and if the copy stays in the cache and is not larger than what the
    products read: as many vectors as it has columns. For one sequence two products take less time.
    """
    num_sequences, columns = math.prod(batch), sum(math.prod(a.shape) for a in jax.tree.leaves(z))
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(weights))
    is_small = is_at_least(MAX_STACKED, size) and is_at_least(T * num_sequences, columns)
    return can_merge_axes() and is_at_least(num_sequences, 2) and is_small


def small_weights(params: Any, numbers_of_steps: Any, T: Any) -> bool:
    """Whether the gradients of the weights of many members are added up in the loop, step by step, on a CPU.

    One product after the loop would first copy all streams, with the axis of the members in front. That costs more than
    adding to gradients which are not much larger than what a step reads. Devices that may share a batch would have to
    exchange them at every step.
    """
    sizes = [sum(math.prod(a.shape) for a in jax.tree.leaves(tree)) for tree in (params, numbers_of_steps)]
    one_device = jax.device_count() == 1 and not jax.sharding.get_abstract_mesh().axis_names
    return jax.default_backend() == "cpu" and one_device and is_at_least(2 * sizes[1] - T * sizes[0], 0)


def explain_layout() -> str:
    """Describe the layout that `choose_layout` returns, as part of a sentence."""
    return f"inputs projected {'in' if choose_layout(()).inline else 'before'} the loop ({jax.default_backend()})"


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
