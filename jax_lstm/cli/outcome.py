"""What a run of an experiment gives, whatever was trained."""

from typing import NamedTuple

from jax_lstm.cli.profile import Profile


class Outcome(NamedTuple):
    """The results of one run, with one number per seed.

    Args:
        cell: the name of the cell.
        metric: the name of the score.
        maximize: True if a larger score is better.
        baseline: the score of the best prediction that ignores the input; None if nothing is predicted.
        scores: the test scores.
        profiles: the gradient norms after training.
        measured: further measurements, by their names.
    """

    cell: str
    metric: str
    maximize: bool
    baseline: float | None
    scores: list[float]
    profiles: list[Profile]
    measured: dict[str, list[float]]
