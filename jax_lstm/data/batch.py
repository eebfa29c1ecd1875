"""A batch of sequences: inputs, targets, and which of them count."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Batch(NamedTuple):
    """B sequences of at most T steps, with targets after the last step of each, or at every step."""

    xs: Float[Array, "B T I"] | Int[Array, "B T"]
    """The features at every step; or the token at every step, an int from 0 to vocabulary − 1."""
    targets: Int[Array, "B *T"] | Float[Array, "B *T O"]
    """A class (int), or O numbers: one target per sequence, or one per step."""
    mask: Bool[Array, "B T"] | None = None
    """True at the steps of a sequence, False at padding; None: every sequence has T steps."""
    weights: Float[Array, "B *T"] | None = None
    """(B, T): the weight of each step in loss and score. None: one target per sequence, for the last output; (B,): the
    weights of such targets."""
