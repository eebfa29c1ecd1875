"""Checkpoints on disk. Only this module calls Orbax."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from jax_lstm.train.step import TrainState


class Checkpoints:
    """The newest checkpoints of a run; a context manager.

    Saving is synchronous: the loop donates the state's buffers to its next step, and a state is small.

    Args:
        directory: the directory of the checkpoints; created if it does not exist.
        keep: the number of checkpoints to keep; older ones are deleted.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def save(self, step: int, state: TrainState) -> None:
        """Write `state` as the checkpoint of `step`."""
        self._manager.save(step, args=ocp.args.StandardSave(_written(state)))

    def restore(self, like: TrainState) -> TrainState:
        """Read the newest checkpoint.

        Args:
            like: a state with the structure, shapes and dtypes to read: arrays, or jax.ShapeDtypeStruct.

        Returns:
            The state, on the devices of `like`, or on the first local device where `like` names none. The devices it
            was saved from are ignored, because they may not exist here.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        step = self._manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"{self._manager.directory} has no checkpoint; train without --resume first")
        first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding or first), like)
        return like._replace(**self._manager.restore(step, args=ocp.args.StandardRestore(_written(like))))


def _written(state: TrainState) -> dict[str, Any]:
    """The fields of a state without those that are None: older checkpoints have no field `carry`."""
    return {name: value for name, value in state._asdict().items() if value is not None}


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint in `directory`; None if there is none. Creates nothing on disk."""
    return max(ocp.utils.checkpoint_steps(directory), default=None) if directory.is_dir() else None
