"""Batches that Python makes: one batch per step from an iterable, checked, and its position saved with checkpoints.

The position is saved if the iterator has `get_state` and `set_state` (as those of grain have), or if the iterable or
its iterator has `state_dict` and `load_state_dict` (as `torchdata.stateful_dataloader.StatefulDataLoader` has), and if
the state is plain data: numbers, strings, bytes, lists and dicts.
"""

import base64
import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_lstm.train.forms import difference, name_of

FOLDER = "source"  # in a run's directory: one file for each checkpoint


class SourceError(RuntimeError):
    """A source of batches ended or failed before the last step."""


class Feed:
    """Draw one batch per step from an iterable.

    Args:
        source: the iterable. One that starts over, such as a list, is read again when it ends.
        steps: the number of steps of the run, for error messages.
    """

    def __init__(self, source: Iterable[Any], steps: int):
        if not isinstance(source, Iterable):
            raise TypeError(
                f"Problem.source: wanted an iterable of batches, but got a {type(source).__name__}; give a list, a "
                "DataLoader, a dataset or a generator"
            )
        self._source, self._steps = source, steps
        self._iterator: Iterator[Any] | None = None
        self._first: Any = None  # the shapes and dtypes of the first batch
        self._next: Any = None  # a batch that was drawn, but not yet trained on
        self._error: Exception | None = None  # of the batch that was drawn ahead

    def prefetch(self, step: int) -> None:
        """Draw the batch of `step` ahead; `take(step)` raises its error."""
        try:
            self.peek(step)
        except Exception as error:
            self._error = error

    def peek(self, step: int) -> Any:
        """The batch that `take(step)` returns next."""
        if self._error is not None:
            raise self._error
        if self._next is None:
            self._next = self._draw(step)
        return self._next

    def take(self, step: int) -> Any:
        """The batch of a step, which counts from 1: NumPy arrays.

        Raises:
            SourceError: the iterable ended, or raised an error.
            ValueError: the batch differs from the first one in structure, shapes or dtypes.
        """
        batch, self._next = self.peek(step), None
        return batch

    def _draw(self, step: int) -> Any:
        try:
            batch = self._following(step)
        except (SourceError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(_raised(error, step)) from error
        except Exception as error:
            raise SourceError(_raised(error, step)) from error
        batch = jax.tree_util.tree_map_with_path(lambda path, leaf: _as_numpy(path, leaf, step), batch)
        if self._first is None:
            self._first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)
        elif said := difference(self._first, batch):
            raise ValueError(
                f"Problem.source, step {step}: wanted a batch with the shapes and dtypes of the first one, but {said}; "
                "pad the sequences to one length, and drop a smaller last batch (drop_last=True)"
            )
        return batch

    def _following(self, step: int) -> Any:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self._source)
            try:
                return next(self._iterator)
            except StopIteration:
                if self._iterator is self._source:
                    raise SourceError(
                        f"Problem.source: wanted a batch for step {step} of {self._steps}, but the iterator ended "
                        f"after {step - 1}; give an iterable that starts over, such as a list or a DataLoader, or "
                        f"train for {step - 1} steps"
                    ) from None
                self._iterator = None
        raise SourceError(f"Problem.source: wanted a batch for step {step}, but the source is empty; give it data")

    def state(self) -> Any:
        """The position in the source, as plain data; None if it has none. No batch may have been drawn ahead."""
        if self._iterator is None:
            self._iterator = iter(self._source)
        for holder, get, _ in self._holders():
            return getattr(holder, get)()
        return None

    def restore(self, state: Any) -> None:
        """Go to a position that `state` returned; None: stay at the beginning, with a warning."""
        if state is None:
            warnings.warn(
                "Problem.source: its position was not saved, so training resumes from its beginning; a source with "
                "get_state and set_state, or state_dict and load_state_dict, goes on where it was",
                stacklevel=3,
            )
            return
        if not hasattr(self._source, "load_state_dict"):
            self._iterator = iter(self._source)
        for holder, _, put in self._holders():
            getattr(holder, put)(state)
            return

    def _holders(self) -> Iterator[tuple[Any, str, str]]:
        for holder, get, put in (
            (self._iterator, "get_state", "set_state"),
            (self._source, "state_dict", "load_state_dict"),
            (self._iterator, "state_dict", "load_state_dict"),
        ):
            if hasattr(holder, get) and hasattr(holder, put):
                yield holder, get, put

    def save(self, run_dir: Path, step: int) -> None:
        """Write the position to a file of this step; null if there is none, or if it is not plain data."""
        try:
            text = json.dumps(self.state(), default=_plain)
        except TypeError:
            text = "null"
        (run_dir / FOLDER).mkdir(exist_ok=True)
        (run_dir / FOLDER / f"{step}.json").write_text(text + "\n", encoding="utf-8")

    def load(self, run_dir: Path, step: int) -> None:
        """Go to the position that `save` wrote for this step."""
        path = run_dir / FOLDER / f"{step}.json"
        self.restore(json.loads(path.read_text(encoding="utf-8"), object_hook=_from_plain) if path.exists() else None)


def _raised(error: Exception, step: int) -> str:
    return (
        f"Problem.source: wanted a batch for step {step}, but the iterator raised {type(error).__name__}: {error}; see "
        "the error above"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _from_plain(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


def _as_numpy(path: Any, leaf: Any, step: int) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "biufcV":  # V: such as bfloat16
        raise TypeError(
            f"Problem.source, step {step}: wanted arrays of numbers, but {name_of(path)} is a {type(leaf).__name__} of "
            f"dtype {array.dtype}; convert it"
        )
    return array
