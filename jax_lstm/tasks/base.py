"""The protocol of a task: its training, validation and test batches, sizes, loss and score.

    batch = task.train_batch(key, step, size)   a pure function: the same key and step give the same batch
    batch = task.validation()                   fixed; used to select checkpoints and to stop early
    batch = task.test()                         fixed; used once, at the end

A training batch is a function of (key, step), so a run can resume from its step alone, without a saved iterator.
"""

from typing import Literal, Protocol, runtime_checkable

from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.data.batch import Batch

Split = Literal["test", "validation"]


@runtime_checkable
class Task(Protocol):
    """A task: its sizes, its score and its data. Implement it as a frozen dataclass; its options are Python values."""

    @property
    def input_size(self) -> int:
        """I, the features per step; for tokens, the features of their one-hot codes."""
        ...

    @property
    def output_size(self) -> int:
        """O, the outputs per step: classes, or numbers."""
        ...

    @property
    def loss(self) -> str:
        """The name of the loss (train/losses.py). The targets of cross_entropy are classes, those of mse O numbers."""
        ...

    @property
    def metric(self) -> str:
        """The name of the score (train/losses.py)."""
        ...

    @property
    def maximize(self) -> bool:
        """True if a larger score is better."""
        ...

    @property
    def length(self) -> int:
        """T, the steps of the longest sequence in a batch."""
        ...

    def baselines(self, split: Split) -> dict[str, float]:
        """Scores to compare with, in the unit of `metric`, by the name of the baseline model.

        The first is that of the best prediction that ignores xs. Others, such as an n-gram model, follow.

        Args:
            split: the split that the models are scored on.
        """
        ...

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """The batch that a step trains on; pure and traceable.

        Args:
            key: the data key of the run, the same at every step.
            step: the optimizer step, from 0.
            size: the number of sequences.
        """
        ...

    def validation(self) -> Batch:
        """The validation split, as one batch."""
        ...

    def test(self) -> Batch:
        """The test split, as one batch."""
        ...


@runtime_checkable
class ReadsTokens(Protocol):
    """The protocol of a task whose xs are tokens; in addition to `Task`."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens: they are the ints from 0 to vocabulary − 1."""
        ...


@runtime_checkable
class Continues(Protocol):
    """The protocol of a task whose batches continue the sequences, and so the states, of the batch before."""

    @property
    def continues(self) -> bool:
        """Always True."""
        ...
