"""What to train: pure functions of the params of one seed, and where the batches come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Problem:
    """What to train: pure functions of the params of one seed.

    The functions may close over arrays of any size; do not change these arrays while it trains. Give `batch` or
    `source`, not both.

    Args:
        init: key -> params.
        loss: (params, batch, carry, key) -> loss, or (loss, metrics), or (loss, metrics, next carry). The loss is a
            scalar, which is minimized. metrics is a dict of scalars by name, which are logged. The next carry is
            returned if and only if there is a `carry`. Each step gets its own key, for example for dropout.
        score: params -> validation score, a scalar; or a dict of scores by name, one of which is `metric`.
        maximize: True if a larger score is better.
        metric: the name of the score that selects the best params and stops training.
        batch: (key, step) -> batch; pure, because it is compiled. The first axis of every leaf is over sequences.
        source: an iterable of batches made by Python: a list, a PyTorch DataLoader, a grain dataset, a generator. All
            batches have the same structure, shapes and dtypes. All seeds get the same batches. An iterable that starts
            over, such as a list, is read again when it ends.
        carry: params -> the carry before the first step; the first axis of every leaf is over the sequences of a
            batch. None: no carry; `loss` gets None.
        probe: params -> (K,) natural logs of norms, which the loop records every `train.probe` steps. None: nothing to
            record.
        predictor: what predicts with the trained params; `Run.predict` uses it. None: `Run` does not predict.
    """

    init: Callable[[Any], Any]
    loss: Callable[[Any, Any, Any, Any], Any]
    score: Callable[[Any], Any]
    maximize: bool
    metric: str
    batch: Any = None
    source: Iterable[Any] | None = None
    carry: Callable[[Any], Any] | None = None
    probe: Callable[[Any], Any] | None = None
    predictor: Any = None

    def __post_init__(self):
        if (self.batch is None) == (self.source is None):
            raise ValueError(
                "Problem: wanted one of batch (a pure function of key and step) and source (an iterable of batches), "
                f"but got {'neither' if self.batch is None else 'both'}; give one of them"
            )
