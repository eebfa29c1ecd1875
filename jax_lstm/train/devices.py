"""Data-parallel training: which devices train, and what each device holds.

    the batch, and the carry between steps    split: each of N devices holds batch_size / N sequences
    everything else                           replicated on every device

The mesh has one axis, `data`, of type Auto. XLA derives all other shardings from these two. The loss and its gradient
are those of the whole batch: XLA sums the partial gradients in one all-reduce per step. So results for different
numbers of devices differ by rounding only.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_lstm.train.config import TrainConfig

AXIS = "data"


def count_devices(train: TrainConfig) -> int:
    """The number of local devices that train.

    Args:
        train: the loop's options. For devices "auto", the result is the largest number of local devices that divides
            train.batch_size.

    Raises:
        ValueError: train.devices is larger than the number of local devices.
    """
    there = jax.local_device_count()
    if train.devices == "auto":
        return max(n for n in range(1, there + 1) if train.batch_size % n == 0)
    if train.devices > there:
        hint = f", or set JAX_NUM_CPU_DEVICES={train.devices}" if jax.default_backend() == "cpu" else ""
        raise ValueError(
            f"train.devices: wanted auto, or at most {there} (the local devices), but got {train.devices}; "
            f"use fewer{hint}"
        )
    return train.devices


def common_size(of_sequences: Any) -> int:
    """The largest number of devices that can split a batch: it divides the first axis of every leaf.

    Args:
        of_sequences: a pytree of arrays or their shapes; the first axis of every leaf is over sequences.
    """
    return math.gcd(*(leaf.shape[0] if leaf.shape else 1 for leaf in jax.tree.leaves(of_sequences))) or 1


def data_mesh(count: int) -> Mesh:
    """A mesh of the first `count` local devices, with one axis, `data`."""
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:count])


def whole(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of a replicated array; None if there is no mesh."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def split_after_seeds(mesh: Mesh) -> NamedSharding:
    """The sharding of an array (seeds, sequences, ...) that is split over its sequences."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS))


def split(of_sequences: Any, mesh: Mesh | None, name: str = "Problem.batch") -> Any:
    """Split each leaf along its first axis; call it under jit.

    Args:
        of_sequences: a pytree; the first axis of every leaf is over sequences.
        mesh: the devices; None: return the tree unchanged.
        name: what error messages call the tree.

    Raises:
        ValueError: the first axis of a leaf cannot be split equally, or a leaf has no axis.
    """
    if mesh is None or mesh.size == 1:
        return of_sequences
    must_be_shared(of_sequences, mesh.size, name)
    return jax.lax.with_sharding_constraint(of_sequences, NamedSharding(mesh, PartitionSpec(AXIS)))


def share(of_sequences: Any, mesh: Mesh, name: str = "Problem.source") -> Any:
    """Put a batch of NumPy arrays on the devices, split along its first axis; the arguments are those of `split`."""
    if mesh.size > 1:
        must_be_shared(of_sequences, mesh.size, name)
    return jax.device_put(of_sequences, NamedSharding(mesh, PartitionSpec(AXIS)) if mesh.size > 1 else whole(mesh))


def must_be_shared(of_sequences: Any, count: int, name: str, seeds: int = 0) -> None:
    """Check that every leaf can be split over `count` devices.

    Args:
        of_sequences: a pytree of arrays.
        count: the number of devices.
        name: what the error message calls the tree.
        seeds: the number of axes before the axis over sequences: 1 if there is an axis over seeds, else 0.

    Raises:
        ValueError: the axis over sequences of a leaf cannot be split equally, or does not exist.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_sequences):
        shape = leaf.shape[seeds:]
        if not shape or shape[0] % count:
            leaf_name = jax.tree_util.keystr(path, simple=True, separator=".") or "it"
            raise ValueError(
                f"{name}: wanted a first axis (over sequences) that is a multiple of the {count} devices, but "
                f"{leaf_name} has shape {shape}; change its size, or set train.devices to 1"
            )
