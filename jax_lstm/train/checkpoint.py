"""Checkpoints on disk. Every call of Orbax is here."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from jax_lstm.train.step import TrainState


class Checkpoints:
    """The newest states of a run, under `directory`; a context manager.

    Writing is synchronous: the loop donates the state's buffers to its next step, and a state is small.
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
        """Write `state` as that of `step`."""
        self._manager.save(step, args=ocp.args.StandardSave(_written(state)))

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, in the structure, shapes and dtypes of `like` (arrays, or jax.ShapeDtypeStruct).

        It comes onto the devices of `like`, or the first one where `like` names none: never onto those it was saved
        from, which may not be there.

        Raises:
            FileNotFoundError: there is none.
        """
        step = self._manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"{self._manager.directory} holds no checkpoint; train without --resume first")
        first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding or first), like)
        return like._replace(**self._manager.restore(step, args=ocp.args.StandardRestore(_written(like))))


def _written(state: TrainState) -> dict[str, Any]:
    """The fields of a state, but for a carry that is None: checkpoints from before there was one have no such field."""
    return {name: value for name, value in state._asdict().items() if value is not None}


def newest_step(directory: Path) -> int | None:
    """The newest step under `directory`, or None; it creates nothing."""
    return max(ocp.utils.checkpoint_steps(directory), default=None) if directory.is_dir() else None
