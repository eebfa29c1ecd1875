"""Train on a file of your own: a table of time series in CSV, Parquet or NumPy's .npz.

    x_t = the input columns at step t, the static columns of the sequence, and flags of holes; scaled

    kind             target
    regression       y_t = the target columns at step t; scaled
    forecasting      y_t = the target columns at step t + ahead; scaled
    labeling         y_t = the label of step t
    classification   y = the label of the sequence, after its last step

A step is a row of the file; missing times are not filled in. Mean and scale are those of the training part. A hole in
an input is filled and flagged (data/holes.py). If one target of a step is a hole, the step has weight 0.
series_parts.py splits the rows.

Batches are scaled. Scores are in original units and over the whole split (data/scores.py): they compare
`scaling.unscaled(outputs)` with `scaling.unscaled(targets)`. So do the baselines.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jax_lstm.data.batches import few_lengths, rows_of_step
from jax_lstm.data.grouping import group_rows
from jax_lstm.data.holes import fill
from jax_lstm.data.scaling import Scaling
from jax_lstm.data.scores import SCORES
from jax_lstm.data.tables import read_table
from jax_lstm.data.windows import Windows
from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.registry import register_task
from jax_lstm.tasks.series_baselines import baseline_scores
from jax_lstm.tasks.series_data import load, read_inputs
from jax_lstm.tasks.series_facts import Facts
from jax_lstm.tasks.series_options import CLASSES, NUMBERS, Columns, checked_options


class Keys(NamedTuple):
    """Which row of a file each prediction is for."""

    sequences: list[str]
    """The name of each of N sequences; empty if the file has no sequence column."""
    times: list[np.ndarray] | None
    """The time of every row as text, one array per sequence; None without a time column."""
    records: list[np.ndarray]
    """The number of every row in the file, from 0, one array per sequence."""


@dataclass(frozen=True)
class Series:
    """Regression, forecasting, classification or labeling of time series from your own file.

    Columns are given as "rain,temp" or as a list.

    Args:
        path: The file: .csv, .parquet or .npz.
        inputs: Input columns; they hold numbers. null, only for forecasting: the targets.
        targets: Target columns: numbers, or one column of labels.
        sequence: The column that names the sequence of each row. null: the file is one sequence.
        time: The column that orders the rows of a sequence: numbers or ISO dates. null: the order in the file.
        static: Columns with one number per sequence. Each is an input at every step.
        kind: regression: predict the targets of the same step. forecasting: the targets `ahead` steps later.
            classification: one label per sequence. labeling: a label at every step.
        ahead: Steps from the last known row to the forecast. Only for forecasting.
        window: Steps of a training window. null: whole sequences.
        stride: Steps from one training window to the next. null: windows do not overlap.
        warmup: Number of first steps of a window, or of a whole sequence, that are run but not scored.
        split_by: time: the last steps of the sequences are validation and test. sequence: some whole sequences are.
            auto: sequence for classification, else time.
        fractions: Shares of the training, validation and test part; their sum is 1.
        holes: mean: fill a hole with the mean of the training part. last: with the last value before it.
        metric: The score that selects the best params. auto: mse for numbers, accuracy for labels.
        season: Steps of a season, for the seasonal naive baseline. null: no such baseline.
        separator: The separator of a CSV file: comma, semicolon, tab or bar. null: the one that its header contains.

    Raises:
        ValueError: an option is wrong, or two contradict each other. The file is read later, by the first batch.
    """

    path: str | None = None
    inputs: Columns = None
    targets: Columns = None
    sequence: str | None = None
    time: str | None = None
    static: Columns = None
    kind: Literal["regression", "forecasting", "classification", "labeling"] = "regression"
    ahead: int = 1
    window: int | None = None
    stride: int | None = None
    warmup: int = 0
    split_by: Literal["auto", "time", "sequence"] = "auto"
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    holes: Literal["mean", "last"] = "mean"
    metric: str = "auto"
    season: int | None = None
    separator: str | None = None
    _facts: str | None = field(default=None, init=False, repr=False)

    section = "data"

    def __post_init__(self):
        for name, value in checked_options(self).items():
            object.__setattr__(self, name, value)

    @property
    def classes(self) -> bool:
        """True if the targets are labels."""
        return self.kind in ("classification", "labeling")

    @property
    def every_step(self) -> bool:
        """True if there is a target at every step, False if there is one per sequence."""
        return self.kind != "classification"

    @property
    def shift(self) -> int:
        """The steps from a row to the step that it predicts."""
        return self.ahead if self.kind == "forecasting" else 0

    @property
    def facts_given(self) -> Facts | None:
        """The facts that `with_facts` set; None: those of the file itself."""
        return None if self._facts is None else Facts.from_dict(json.loads(self._facts))

    @property
    def _known(self) -> Facts:
        return self.facts_given or load(self).facts

    @property
    def input_size(self) -> int:
        """I: input columns, static columns and flags of holes."""
        return self._known.input_size

    @property
    def output_size(self) -> int:
        """O: the number of target columns, or of labels."""
        return self._known.output_size

    @property
    def length(self) -> int:
        """T, the steps of the longest sequence in a batch of training, validation or test."""
        return self._known.length

    @property
    def loss(self) -> str:
        """cross_entropy for labels, else mse, of scaled targets."""
        return "cross_entropy" if self.classes else "mse"

    @property
    def maximize(self) -> bool:
        """True if a larger score is better."""
        return SCORES[self.metric].maximize

    @property
    def scores(self) -> tuple[str, ...]:
        """The other scores."""
        return tuple(name for name in (CLASSES if self.classes else NUMBERS) if name != self.metric)

    @property
    def scaling(self) -> Scaling:
        """The scaling of features and targets, from the training part. Classes are not scaled."""
        return self._known.scaling

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each class; empty for numbers."""
        return self._known.labels

    @property
    def names(self) -> tuple[str, ...]:
        """The target columns."""
        return self._known.targets

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each input feature."""
        return self._known.features

    @property
    def cut_lengths(self) -> tuple[int, ...]:
        """The few lengths to which training batches can be cut (`data.batches.shortest`)."""
        return few_lengths(load(self).parts["train"].windows.lengths)

    def facts(self) -> dict[str, Any]:
        """What was found in the training file: columns, flags, labels and scaling, as plain lists for JSON."""
        return self._known.to_dict()

    def with_facts(self, facts: dict[str, Any]) -> Self:
        """The same task with given `facts()`. To predict, it then does not need the training file.

        Raises:
            ValueError: a fact is missing, or there is one of another name.
        """
        same = replace(self)
        object.__setattr__(same, "_facts", json.dumps(Facts.from_dict(facts).to_dict()))
        return same

    def prepare(self, path: str | Path) -> tuple[list[Float[np.ndarray, "T I"]], Keys]:
        """Read the inputs of a file, with the columns, means and flags of the training file. It needs no targets.

        Args:
            path: the file. It is read with the options of the task, except `path`.

        Returns:
            The features of each sequence for `Predictor.predict`, in original units and without holes; and the row of
            the file that each step comes from.

        Raises:
            ValueError: the file cannot be read.
        """
        facts = self._known
        table = read_table(path, self.separator, least=1)
        rows = group_rows(table, self.sequence, self.time)
        xs = read_inputs(table, rows, facts.inputs, facts.static, absent=True)
        filled = fill(xs, rows.starts, facts.mean, facts.flagged, self.holes)
        times = None if self.time is None else rows.split(table.text(self.time)[rows.order])
        return rows.split(filled), Keys(rows.names, times, rows.split(rows.order))

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Batch number `step` of an endless sequence of epochs; windows of similar length share a batch.

        If there are fewer windows than `size`, a batch has all of them.

        Returns:
            xs (size, T, I); targets (size, T, O), (size, T), or (size,) for classification; a mask if the windows have
            different lengths; weights (size, T), except for classification.
        """
        data = load(self)
        arrays, starts, lengths = data.on_device
        chosen = rows_of_step(key, step, min(size, len(lengths)), lengths)
        windows = data.parts["train"].windows
        return self._batch(jnp, arrays, starts[chosen], lengths[chosen], windows, self.warmup)

    def validation(self) -> Batch:
        """The validation part, as one batch. Split by time, sequences run from their first step, to warm up."""
        return self._part("validation")

    def test(self) -> Batch:
        """The test part, as one batch; as for validation."""
        return self._part("test")

    def _part(self, name: str) -> Batch:
        data = load(self)
        windows, weights = data.parts[name]
        arrays = data.xs, data.targets, weights
        return jax.tree.map(jnp.asarray, self._batch(np, arrays, *windows, windows, 0))

    def _batch(self, xp: Any, arrays: tuple, starts: Any, lengths: Any, windows: Windows, warmup: int) -> Batch:
        """The rows of these windows, padded with 0 to the longest of all windows; in NumPy or JAX."""
        flat_xs, flat_targets, flat_weights = arrays
        L = int(windows.lengths.max())
        steps = xp.arange(L, dtype=np.int32)[None]
        rows = starts[:, None] + xp.minimum(steps, lengths[:, None] - 1)
        mask = None if (windows.lengths == L).all() else steps < lengths[:, None]
        xs = flat_xs[rows] if mask is None else xp.where(mask[..., None], flat_xs[rows], 0)
        if not self.every_step:
            return Batch(xs, flat_targets[starts], mask)
        counts = steps >= warmup if mask is None else (steps >= warmup) & mask
        weights = xp.where(counts, flat_weights[rows], 0)
        return Batch(xs, flat_targets[rows], mask, weights)

    def baselines(self, split: Split) -> dict[str, float]:
        """The main score of each baseline, in original units; `baseline_scores` has all scores."""
        return {name: values[self.metric] for name, values in self.baseline_scores(split).items()}

    def baseline_scores(self, split: Split) -> dict[str, dict[str, float]]:
        """Every score of each baseline, in original units.

        Numbers: mean, persistence and, with `season`, seasonal naive (data/baselines.py). Labels: most frequent, the
        label that is most frequent in the training part.

        Args:
            split: the split that is scored.
        """
        return baseline_scores(self, load(self), split)


register_task("series", Series)
