"""Batches that a host iterator makes: a list, a generator, a torch DataLoader, a grain dataset.

A batch is (inputs, targets), (inputs, targets, lengths or mask), or a dict with the names of arguments.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from jax_lstm.data import Batch
from jax_lstm.data.arrays import Wanted, sequences_of
from jax_lstm.data.sequences import Sequences, joined

NAMES = ("inputs", "targets", "lengths", "mask", "weights")
MOST = 100_000  # batches of a validation iterable
STATEFUL = ("get_state", "set_state", "state_dict", "load_state_dict")


def arguments_of(want: Wanted, batch: Any) -> dict[str, Any]:
    """The arguments of a batch by name.

    Raises:
        TypeError: the batch has another form.
    """
    if isinstance(batch, dict):
        named = dict(batch)
    elif hasattr(batch, "_asdict"):
        named = {{"xs": "inputs"}.get(k, k): value for k, value in batch._asdict().items() if value is not None}
    elif isinstance(batch, list | tuple) and len(batch) in (2, 3):
        named = dict(zip(("inputs", "targets"), batch, strict=False))
        if len(batch) == 3:
            third = np.asarray(batch[2])
            named["mask" if third.ndim == 2 else "lengths"] = third
    else:
        came = f"{len(batch)} entries" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
        raise TypeError(
            want.error(
                "batch", f"must be (inputs, targets), (inputs, targets, lengths or mask), or a dict, but is {came}"
            )
        )
    wrong = [str(k) for k in named if k not in NAMES] or [k for k in ("inputs", "targets") if k not in named]
    if wrong:
        raise TypeError(
            want.error("batch", f"must have inputs and targets, and may have lengths, mask and weights, but has "
                       f"{', '.join(map(str, named)) or 'nothing'}")
        )  # fmt: skip
    return named


def host_batch(want: Wanted, batch: Any) -> tuple[Batch, Sequences]:
    """Check a batch. It has a mask if it was given lengths or a mask, so that all batches have the same leaves."""
    named = arguments_of(want, batch)
    data = sequences_of(want, **named)
    if not isinstance(named["inputs"], list | tuple):
        data = replace(data, length=np.shape(named["inputs"])[1])
    made = data.take(np.arange(len(data)))
    if "lengths" not in named and "mask" not in named and data.even:
        return made, data
    mask = np.ones(made.xs.shape[:2], bool) if made.mask is None else made.mask
    return made._replace(mask=mask), data  # pyrefly: ignore[bad-argument-type]


class Batches:
    """An iterable whose batches are checked and made `Batch`es. An iterator stays one, with its own state."""

    def __init__(self, source: Any, want: Wanted):
        self.source, self.want = source, want

    def __iter__(self) -> Iterator[Batch]:
        return _BatchIterator(iter(self.source), self.want)

    def __getattr__(self, name: str) -> Any:
        if name in (*STATEFUL, "__len__"):
            return getattr(self.source, name)
        raise AttributeError(name)


class _BatchIterator(Batches):
    """The iterator of `Batches`; `first` was read before it began."""

    def __init__(self, source: Any, want: Wanted, first: Any = None):
        super().__init__(source, want)
        self.first = first

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch, self.first = self.first, None
        return host_batch(self.want, next(self.source) if batch is None else batch)[0]


def peeked(source: Any, want: Wanted) -> tuple[Any, Any]:
    """The first batch as it is, and a source that still begins with it.

    Raises:
        TypeError: the source is not iterable.
        ValueError: it has no batch.
    """
    if not hasattr(source, "__iter__"):
        raise TypeError(
            want.error("inputs", f"must be arrays with targets, or an iterable of batches, but are a "
                       f"{type(source).__name__}")
        )  # fmt: skip
    iterator: Any = iter(source)
    before = iterator.get_state() if iterator is source and hasattr(iterator, "get_state") else None
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError(
            want.error("inputs", "must give at least one batch, but are empty; a generator can be read only once")
        ) from None
    if iterator is not source:
        return first, Batches(source, want)
    if before is not None:
        iterator.set_state(before)
        return first, _BatchIterator(iterator, want)
    return first, _BatchIterator(iterator, want, first)


def collected(source: Any, want: Wanted) -> Sequences:
    """All sequences of a finite iterable of batches.

    Raises:
        ValueError: it has no batch, or too many.
        TypeError: it is not iterable.
    """
    if not isinstance(source, Iterable):
        raise TypeError(
            want.error("", f"must be (inputs, targets), a dict, or a finite iterable of batches, but is a "
                       f"{type(source).__name__}")
        )  # fmt: skip
    parts = []
    for batch in source:
        if len(parts) == MOST:
            raise ValueError(
                want.error("", f"must have at most {MOST:,} batches, but has more; give a finite iterable")
            )
        parts.append(sequences_of(want, **arguments_of(want, batch)))
    if not parts:
        raise ValueError(
            want.error("", "must have at least one batch, but has none; a generator can be read only once: pass a list")
        )
    if len({part.every_step for part in parts}) > 1:
        raise ValueError(want.error("targets", "must be at every step in all batches, or after the last step in all"))
    return joined(parts)
