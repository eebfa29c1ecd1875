"""Show how far training is: a live bar in a terminal, and a plain line every few seconds elsewhere."""

import importlib.util
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 5.0  # at least, between two lines where there is no bar


class Progress:
    """A live bar if the console can show one, else a plain line every few seconds; a context manager.

    Jupyter shows a bar if ipywidgets is installed.

    Args:
        console: where to print; None: nowhere.
        step: the step that training starts after.
        steps: the last step.
    """

    def __init__(self, console: Console | None, step: int, steps: int):
        self._console = console
        self._bar = _bar(console) if console is not None and _shows_bars(console) else None
        self._task = (
            None if self._bar is None else self._bar.add_task("", total=steps, completed=step, text="compiling")
        )
        self._steps = steps
        self._start = self._printed = time.perf_counter()
        self._compiled: tuple[int, float] | None = None  # step and time after the first validation: all is compiled

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, text: str, best: Any, last: bool) -> None:
        """Show that `step` is done, a text, and the mean of the best validation scores; the last step has a line."""
        now = time.perf_counter()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif self._console is not None and (last or now - self._printed >= SECONDS_BETWEEN_LINES):
            score = f"best validation {np.mean(best):.4f}" if np.isfinite(best).all() else ""
            shown = (f"step {step:,} of {self._steps:,}", text, score, f"{now - self._start:.0f} s")
            line = "  ".join(part for part in shown if part)
            if not last and self._compiled is not None and step > self._compiled[0]:
                done, since = self._compiled
                line += f", about {(now - since) / (step - done) * (self._steps - step):.0f} s left"
            self.say(line)
            self._printed = now
        if self._compiled is None and np.isfinite(best).all():
            self._compiled = step, now

    def say(self, text: str) -> None:
        """Print a line."""
        if self._console is not None:
            self._console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def _shows_bars(console: Console) -> bool:
    return console.is_interactive or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def _bar(console: Console) -> Bar:
    return Bar(
        TextColumn("{task.fields[text]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
