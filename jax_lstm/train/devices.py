"""Which devices train, and what each of them holds.

    the batch, and what is carried from step to step    split: each of N devices has batch_size / N of its sequences
    everything else                                     whole, and the same on every device

The mesh has one axis, `data`, of type Auto: XLA derives the rest from these two, for any number of any devices. The
loss and its gradient are those of the whole batch, whatever the parts: XLA adds up what is partial, in one all-reduce a
step, and two numbers of devices differ by rounding only.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_lstm.train.config import TrainConfig

AXIS = "data"


def count_devices(train: TrainConfig) -> int:
    """How many of this process's devices train; for auto the most that can share a batch equally.

    Raises:
        ValueError: train.devices is more than there are.
    """
    there = jax.local_device_count()
    if train.devices == "auto":
        return max(n for n in range(1, there + 1) if train.batch_size % n == 0)
    if train.devices > there:
        hint = f"; JAX_NUM_CPU_DEVICES={train.devices} makes more" if jax.default_backend() == "cpu" else ""
        raise ValueError(f"train.devices: wanted auto, or at most the {there} there are, but got {train.devices}{hint}")
    return train.devices


def data_mesh(count: int) -> Mesh:
    """The first `count` of this process's devices."""
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:count])


def whole(mesh: Mesh | None) -> NamedSharding | None:
    """How what every device holds whole is laid out; None: as it comes."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def split_after_seeds(mesh: Mesh) -> NamedSharding:
    """How what is split is laid out, where an axis over seeds comes before that over sequences."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS))


def split(of_sequences: Any, mesh: Mesh | None, name: str = "Problem.batch") -> Any:
    """The same, each leaf split along its first axis; under jit. `name` is what a refusal calls it.

    Raises:
        ValueError: a leaf has no first axis that the devices can share equally.
    """
    if mesh is None or mesh.size == 1:
        return of_sequences
    must_be_shared(of_sequences, mesh.size, name)
    return jax.lax.with_sharding_constraint(of_sequences, NamedSharding(mesh, PartitionSpec(AXIS)))


def must_be_shared(of_sequences: Any, count: int, name: str, seeds: int = 0) -> None:
    """Refuse what `count` devices cannot share; before the axis over sequences there are `seeds` others, none or one.

    Raises:
        ValueError: a leaf has no axis over sequences that the devices can share equally.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_sequences):
        shape = leaf.shape[seeds:]
        if not shape or shape[0] % count:
            leaf_name = jax.tree_util.keystr(path, simple=True, separator=".") or "it"
            raise ValueError(
                f"{name}: wanted a first axis over sequences that {count} devices can share equally, but "
                f"{leaf_name} has shape {shape}; give it one, or set train.devices to 1"
            )
