"""What a run leaves: its files, and the calls of hooks."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jax_lstm.train.checkpoint import Checkpoints
from jax_lstm.train.hooks import Hook
from jax_lstm.train.metrics import MetricsWriter
from jax_lstm.train.run_dir import CHECKPOINTS
from jax_lstm.train.source import Feed
from jax_lstm.train.state import TrainState


class Writer:
    """Write metrics.jsonl and checkpoints, and call the hooks; a context manager.

    Args:
        directory: the run's directory; None: nothing is written, and only the hooks are called.
        hooks: the hooks.
        seeds: the seeds.
    """

    def __init__(self, directory: Path | None, hooks: Sequence[Hook], seeds: Sequence[int]):
        self._directory, self._hooks, self._seeds = directory, hooks, seeds
        self._stack = ExitStack()
        self._checkpoints: Checkpoints | None = None
        self._metrics: MetricsWriter | None = None
        self.saved = 0
        """The step of the newest checkpoint; 0: there is none."""

    def __enter__(self) -> Self:
        if self._directory is not None:
            self._checkpoints = self._stack.enter_context(Checkpoints(self._directory / CHECKPOINTS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def restore(self, like: TrainState) -> TrainState:
        """The newest checkpoint; `like` without a directory."""
        return like if self._checkpoints is None else self._checkpoints.restore(like)

    def start(self, step: int) -> None:
        """Open the records after `step`, and tell the hooks."""
        self.saved = step
        if self._directory is not None:
            self._metrics = self._stack.enter_context(MetricsWriter(self._directory, after=step))
        for hook in self._hooks:
            self._stack.callback(hook.on_end)
            hook.on_start(step, self._seeds)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """A record of training."""
        self._write(step, "train", values)
        for hook in self._hooks:
            hook.on_log(step, values)

    def score(self, step: int, scores: dict[str, Any]) -> None:
        """The scores of a validation."""
        self._write(step, "validation", scores)
        for hook in self._hooks:
            hook.on_eval(step, scores)

    def probe(self, step: int, values: dict[str, Any]) -> None:
        """The norms of a probe."""
        self._write(step, "probe", values)

    def save(self, step: int, state: TrainState, feed: Feed | None) -> None:
        """A checkpoint, and before it the position in the source."""
        if self._checkpoints is None or self._directory is None or step == self.saved:
            return
        if feed is not None:
            feed.save(self._directory, step)
        self._checkpoints.save(step, state)
        self.saved = step
        for hook in self._hooks:
            hook.on_save(step, self._checkpoints.path(step))

    def _write(self, step: int, split: str, values: dict[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.write(step, split, values)
