"""What a task learns from its training file, and needs to read another file in the same way."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from jax_lstm.data.scaling import Scaling


@dataclass(frozen=True, eq=False)
class Facts:
    """The columns, flags, labels and scaling that were found in the training file.

    Args:
        inputs: the input columns.
        static: the static columns, which follow the inputs as features.
        targets: the target columns.
        flagged: the numbers of the columns (inputs, then static) that have a flag. The flags are the last features.
        labels: the label of each class in the order of the classes; empty for numbers.
        scaling: the scaling of the features (flags have mean 0 and scale 1) and targets, from the training part.
        length: the steps of the longest sequence of a batch.
    """

    inputs: tuple[str, ...]
    static: tuple[str, ...]
    targets: tuple[str, ...]
    flagged: tuple[int, ...]
    labels: tuple[str, ...]
    scaling: Scaling
    length: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: inputs, then static ones."""
        return self.inputs + self.static

    @property
    def input_size(self) -> int:
        """The number of features: input columns, static columns and flags."""
        return len(self.columns) + len(self.flagged)

    @property
    def output_size(self) -> int:
        """The number of classes, or of target columns."""
        return len(self.labels) or len(self.targets)

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each feature."""
        return self.columns + tuple(f"{self.columns[k]} is absent" for k in self.flagged)

    @property
    def mean(self) -> np.ndarray:
        """The mean of each input column in the training part, which fills holes."""
        return self.scaling.input_mean[: len(self.columns)].astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain lists, for JSON."""
        return {
            "inputs": list(self.inputs),
            "static": list(self.static),
            "targets": list(self.targets),
            "flagged": list(self.flagged),
            "labels": list(self.labels),
            "scaling": self.scaling.to_dict(),
            "length": self.length,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The facts that `to_dict` wrote.

        Raises:
            ValueError: a fact is missing, or there is one of another name.
        """
        wanted = set(cls.__dataclass_fields__)
        if set(values) != wanted:
            raise ValueError(
                f"Series.with_facts: wanted {', '.join(sorted(wanted))}, but got {', '.join(sorted(values)) or 'none'}"
            )
        lists = {name: tuple(values[name]) for name in ("inputs", "static", "targets", "flagged", "labels")}
        return cls(**lists, scaling=Scaling.from_dict(values["scaling"]), length=int(values["length"]))
