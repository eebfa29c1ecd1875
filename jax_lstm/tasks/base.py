"""What a task is.

    batch = task.train_batch(key, step, size)   a pure function: the same key and step give the same batch
    batch = task.validation()                   fixed: chooses the checkpoint and stops early
    batch = task.test()                         fixed: read once, at the end

Because a batch is a function of (key, step), a run's position in its data is its step: there is no iterator to save.
"""

from typing import ClassVar, Literal, NamedTuple, Protocol

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key


class Batch(NamedTuple):
    """B sequences of T steps, and what is wanted after the last step of each."""

    xs: Float[Array, "B T I"]
    targets: Int[Array, " B"] | Float[Array, "B O"]


class Task(Protocol):
    """A task: sizes, how it is scored, and its data. A frozen dataclass: its choices are Python values."""

    input_size: ClassVar[int]
    """I, the features of one step."""
    output_size: ClassVar[int]
    """O, the outputs after the last step: classes, or numbers."""
    loss: ClassVar[Literal["cross_entropy", "mse"]]
    """The name of the loss: cross_entropy takes a class a sequence, mse takes O numbers."""
    metric: ClassVar[Literal["accuracy", "mse"]]
    """The name of the score."""
    maximise: ClassVar[bool]
    """Whether a larger score is better."""
    baseline: ClassVar[float]
    """The score of the best predictor that does not look at xs."""

    @property
    def length(self) -> int:
        """T, the steps of one sequence."""
        ...

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """The batch of `size` sequences that `step` trains on. Pure and traceable; `key` is the run's data key."""
        ...

    def validation(self) -> Batch:
        """The validation split."""
        ...

    def test(self) -> Batch:
        """The test split."""
        ...
