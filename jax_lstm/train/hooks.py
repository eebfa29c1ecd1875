"""Hooks: your own code at the events of training, such as writing to a tracker of experiments.

    for each record of training:  hook.on_log(step, values)
    for each validation:          hook.on_eval(step, scores)
    for each checkpoint:          hook.on_save(step, path)

If a hook raises an error, training stops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Hook:
    """The base class of hooks. Every method does nothing; override those that you need.

    Where a value is a list, it has one number per seed, in the order of the seeds.
    """

    def on_start(self, step: int, seeds: Sequence[int]) -> None:
        """Training starts after `step`: 0, or the step of the checkpoint that it resumes from."""

    def on_log(self, step: int, values: Mapping[str, Any]) -> None:
        """Loss, metrics, gradient norm, learning rate and speed since the last call: means over steps."""

    def on_eval(self, step: int, scores: Mapping[str, Any]) -> None:
        """The scores of a validation. "best" is the best value so far of the score that selects the params."""

    def on_save(self, step: int, path: Path) -> None:
        """A checkpoint was written into the directory `path`."""

    def on_end(self) -> None:
        """Training ended, or an error stopped it."""


class TensorBoard(Hook):
    """Write TensorBoard event files, with a curve per value and seed, such as train/loss/seed_0.

    Args:
        directory: where the event files are written.
    """

    def __init__(self, directory: str | Path):
        self._directory = directory
        self._seeds: tuple[int, ...] = ()
        self._events: Any = None

    def on_start(self, step: int, seeds: Sequence[int]) -> None:
        """Open the file. TensorBoard hides points of an earlier run after `step`."""
        from tensorboardX import SummaryWriter  # slow to import

        self._seeds = tuple(seeds)
        self._events = SummaryWriter(str(self._directory), purge_step=step + 1)

    def on_log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a point to the curves of training."""
        self._write("train", step, values)

    def on_eval(self, step: int, scores: Mapping[str, Any]) -> None:
        """Add a point to the curves of validation."""
        self._write("validation", step, scores)

    def on_end(self) -> None:
        """Close the file."""
        if self._events is not None:
            self._events.close()

    def _write(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, list):
                for seed, x in zip(self._seeds, value, strict=True):
                    self._events.add_scalar(f"{split}/{name}/seed_{seed}", x, step)
            else:
                self._events.add_scalar(f"{split}/{name}", value, step)
