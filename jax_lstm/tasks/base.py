"""What a task is.

    batch = task.train_batch(key, step, size)   a pure function: the same key and step give the same batch
    batch = task.validation()                   fixed: chooses the checkpoint and stops early
    batch = task.test()                         fixed: read once, at the end

Because a batch is a function of (key, step), a run's position in its data is its step: there is no iterator to save.
"""

from typing import NamedTuple, Protocol

from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key


class Batch(NamedTuple):
    """B sequences of T steps or fewer, and what is wanted of them: after the last step of each, or at every step."""

    xs: Float[Array, "B T I"]
    targets: Int[Array, "B *T"] | Float[Array, "B *T O"]
    mask: Bool[Array, "B T"] | None = None
    """True at a sequence's own steps, where sequences have lengths of their own; the rest is padding."""
    weights: Float[Array, "B T"] | None = None
    """How much each step's output counts, where targets are given for every step; None: the last one's only."""


class Task(Protocol):
    """A task: sizes, how it is scored, and its data. A frozen dataclass: its choices are Python values."""

    @property
    def input_size(self) -> int:
        """I, the features of one step."""
        ...

    @property
    def output_size(self) -> int:
        """O, the outputs of a step: classes, or numbers."""
        ...

    @property
    def loss(self) -> str:
        """The name of the loss (train/losses.py): cross_entropy takes a class, mse takes O numbers."""
        ...

    @property
    def metric(self) -> str:
        """The name of the score."""
        ...

    @property
    def maximise(self) -> bool:
        """Whether a larger score is better."""
        ...

    @property
    def baseline(self) -> float:
        """The score of the best predictor that does not look at xs; NaN where nothing is predicted."""
        ...

    @property
    def length(self) -> int:
        """T, the steps of the longest sequence."""
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
