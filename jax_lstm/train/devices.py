"""Which devices train, and what each of them holds.

    the batch         split: each of N devices has batch_size / N of its sequences
    everything else   whole, and the same on every device

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


def split(batch: Any, mesh: Mesh | None) -> Any:
    """The same batch, each leaf split along its first axis; under jit.

    Raises:
        ValueError: a leaf has no first axis that the devices can share equally.
    """
    if mesh is None or mesh.size == 1:
        return batch
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if not leaf.shape or leaf.shape[0] % mesh.size:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "it"
            raise ValueError(
                f"Problem.batch: wanted a first axis over sequences that {mesh.size} devices can share equally, but "
                f"{name} has shape {leaf.shape}; give it one, or set train.devices to 1"
            )
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))
