"""Checkpoints on disk. Only this module calls Orbax."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jax_lstm.train.state import TrainState


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

    def path(self, step: int) -> Path:
        """The directory of the checkpoint of `step`."""
        return Path(self._manager.directory) / str(step)

    def restore(self, like: TrainState) -> TrainState:
        """Read the newest checkpoint.

        Args:
            like: a state with the structure, shapes and dtypes to read: arrays, or jax.ShapeDtypeStruct.

        Returns:
            The state, on the devices of `like`, or on the first local device where `like` names none. The devices it
            was saved from are ignored, because they may not exist here.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: the checkpoint has another structure, or other shapes.
        """
        step = self._manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"{self._manager.directory} has no checkpoint; train without --resume first")
        first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding or first), like)
        if said := _difference(_stored(Path(self._manager.directory), step), _written(like)):
            raise ValueError(
                f"resume: wanted the state of this problem and optimizer, but the checkpoint of step {step} in "
                f"{self._manager.directory} differs: {said}; give the same model, optimizer and options"
            )
        return like._replace(**self._manager.restore(step, args=ocp.args.StandardRestore(_written(like))))


def read_results(directory: Path) -> dict[str, Any]:
    """Read the params and the best results of the newest checkpoint, without the state of the optimizer.

    Args:
        directory: the directory of the checkpoints.

    Returns:
        The fields "step", "params" and "best" of the state, as NumPy arrays in nested dicts and lists.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    step = newest_step(directory)
    if step is None:
        raise FileNotFoundError(f"{directory} has no checkpoint; train the run first, or name another directory")
    stored = _stored(directory, step)
    with ocp.CheckpointManager(directory.absolute(), item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
        want = {name: stored[name] for name in ("step", "params", "best")}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), want)
        return manager.restore(
            step, args=ocp.args.PyTreeRestore(item=want, restore_args=as_numpy, partial_restore=True)
        )


def _stored(directory: Path, step: int) -> Any:
    """The tree of a checkpoint; its leaves have a shape."""
    with ocp.CheckpointManager(directory.absolute(), item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
        metadata: Any = manager.item_metadata(step)
        return metadata.tree


def _difference(stored: Any, want: Any) -> str | None:
    """How the leaves differ in name or shape; None if they do not. A random key is stored in another shape."""

    def shapes(tree: Any) -> dict[str, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        return {name: tuple(leaf.shape) for name, leaf in named.items() if not name.startswith("data_key")}

    before, now = shapes(stored), shapes(want)
    if missing := [name for name in now if name not in before]:
        return f"{missing[0]} is missing"
    if more := [name for name in before if name not in now]:
        return f"{more[0]} is too much"
    changed = [name for name in now if before[name] != now[name]]
    return f"{changed[0]} has shape {before[changed[0]]}, not {now[changed[0]]}" if changed else None


def _written(state: TrainState) -> dict[str, Any]:
    """The fields of a state without those that are None: older checkpoints have no field `carry`."""
    return {name: value for name, value in state._asdict().items() if value is not None}


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint in `directory`; None if there is none. Creates nothing on disk."""
    return max(ocp.utils.checkpoint_steps(directory), default=None) if directory.is_dir() else None
