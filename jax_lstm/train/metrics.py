"""The metrics of a run: one JSON object per line in metrics.jsonl.

    {"step": 50, "split": "train", "loss": [0.61, 0.58], ...}

A list has one number per seed, in the order of train.seeds. A record with split "probe" has the key log_norms: for each
seed a list over k = 0..T of the natural logs of the gradient norms ‖∂s_T/∂s_k‖. null is a number that is not finite,
such as the log of a norm of 0.
"""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "metrics.jsonl"


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a run: a list of records, oldest first."""
    with open(run_dir / FILE, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class MetricsWriter:
    """Append records to a run's metrics.jsonl; a context manager.

    Args:
        run_dir: the run's directory.
        after: keep existing records up to this step and drop later ones; a resumed run writes those again.
    """

    def __init__(self, run_dir: Path, after: int):
        path = run_dir / FILE
        kept = [r for r in read_metrics(run_dir) if r["step"] <= after] if after and path.exists() else []
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (__exit__ closes it)
        for record in kept:
            self._line(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Write one record and flush it to disk.

        Args:
            step: the optimizer step.
            split: "train", "validation" or "probe".
            values: numbers, or lists with one number per seed, by name.
        """
        self._line({"step": step, "split": split, **values})

    def _line(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps({name: _as_json(value) for name, value in record.items()}, allow_nan=False) + "\n")
        self._file.flush()


def _as_json(value: Any) -> Any:
    """The value with None in place of numbers that are not finite."""
    if isinstance(value, list):
        return [_as_json(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
