"""What a task is.

    batch = task.train_batch(key, step, size)   a pure function: the same key and step give the same batch
    batch = task.validation()                   fixed: chooses the checkpoint and stops early
    batch = task.test()                         fixed: read once, at the end

Because a batch is a function of (key, step), a run's position in its data is its step: there is no iterator to save.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

Split = Literal["test", "validation"]


class Batch(NamedTuple):
    """B sequences of T steps or fewer, and what is wanted of them: after the last step of each, or at every step."""

    xs: Float[Array, "B T I"] | Int[Array, "B T"]
    """The features of every step, or, of a task that reads tokens, its token: a number below the vocabulary."""
    targets: Int[Array, "B *T"] | Float[Array, "B *T O"]
    mask: Bool[Array, "B T"] | None = None
    """True at a sequence's own steps, where sequences have lengths of their own; the rest is padding."""
    weights: Float[Array, "B T"] | None = None
    """How much each step's output counts, where targets are given for every step; None: the last one's only."""


class Task(Protocol):
    """A task: sizes, how it is scored, and its data. A frozen dataclass: its choices are Python values."""

    @property
    def input_size(self) -> int:
        """I, the features of one step; of tokens, as if each were one-hot."""
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


@runtime_checkable
class ReadsTokens(Protocol):
    """What a task also has whose xs are tokens."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: 0 to this less 1."""
        ...


@runtime_checkable
class Continues(Protocol):
    """What a task also says whose training sequences go on from step to step: the state after one begins the next."""

    @property
    def continues(self) -> bool:
        """True."""
        ...


@runtime_checkable
class HasRivals(Protocol):
    """What a task also has that is not learned by networks only."""

    def rivals(self, split: Split) -> dict[str, float]:
        """By their names, the scores of other models that do look at xs."""
        ...


def rivals(task: Task, split: Split) -> dict[str, float]:
    """The scores of other models on a split; empty for a task that knows of none."""
    return task.rivals(split) if isinstance(task, HasRivals) else {}
