"""The training loop: the only module of `train` that reads a clock and prints."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_lstm.train.checkpoint import Checkpoints
from jax_lstm.train.config import OptConfig, TrainConfig, learning_rate, optimizer
from jax_lstm.train.devices import count_devices, data_mesh
from jax_lstm.train.metrics import MetricsWriter
from jax_lstm.train.run_dir import CHECKPOINTS
from jax_lstm.train.step import (
    Problem,
    Report,
    TrainState,
    compile_probe,
    compile_steps,
    compile_validation,
    init_state,
    place,
)

SECONDS_BETWEEN_LINES = 5.0  # at least, between two progress lines where the output is not a terminal


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a score was NaN or infinite. The newest checkpoint is older than that step."""


def fit(
    problem: Problem,
    opt: OptConfig,
    train: TrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> TrainState:
    """Train every seed; use `state.best.params` of the returned state.

    As if by::

        state = the newest checkpoint if resume else init_state(problem, optimizer, seeds)
        while step < steps and not (`target` is reached, or the mean score has not improved in `patience` validations):
            state = train_step(state)
            every log_every steps:  write loss, score, gradient norm, learning rate, steps per second
            every eval_every steps: validate, keep each seed's best params, write a checkpoint
            before the first step and every probe steps: write problem.probe(params)

    Args:
        problem: what to train.
        opt: the optimizer's options.
        train: the loop's options.
        run_dir: an existing directory; metrics.jsonl and checkpoints/ are written into it.
        resume: continue from the newest checkpoint in run_dir. With the same number of devices, the result is bit for
            bit that of an uninterrupted run; with another number it differs by rounding only.
        console: where to print progress: a live bar in a terminal, elsewhere a plain line every few seconds. None: a
            live bar if standard output is a terminal, else nothing.

    Returns:
        The last state, on one device.

    Raises:
        NotFiniteError: a loss, gradient or validation score is not finite; the message names step, seed and leaf.
        FileNotFoundError: `resume` is True and there is no checkpoint.
        ValueError: train.devices exceeds the local devices, or a batch or carry cannot be split equally over them.
    """
    mesh = data_mesh(count_devices(train))
    tx = optimizer(opt, train.steps)
    state = place(init_state(problem, tx, train.seeds), mesh)
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        if resume:
            state = checkpoints.restore(state)
        step = saved = int(state.step)
        best, stale = jax.device_get((state.best.score, state.best.stale))
        reason = _why_stop(problem, train, best, stale)
        window, since = [], time.perf_counter()
        # The checkpointed step is in the gcd because train.steps may have been another one then.
        chunk = math.gcd(train.chunk, step)
        run_steps = compile_steps(problem, tx, chunk, train.vmap_seeds, mesh)
        validate = compile_validation(problem, train.vmap_seeds)
        probe = None if train.probe is None else compile_probe(problem, train.vmap_seeds)
        with (
            MetricsWriter(run_dir, train.seeds, train.tensorboard, after=step) as metrics,
            _Progress(console, step, train.steps) as progress,
        ):
            text = ""
            if probe is not None and step == 0:
                metrics.write(step, "probe", _probed(probe, state.params, mesh))
            while step < train.steps and reason is None:
                state, report = run_steps(state)
                report = jax.device_get(report)
                _check_finite(report, state.params, step, saved, train.seeds)
                window.append(report)
                step += chunk
                if step % train.log_every == 0 or step == train.steps:
                    now = time.perf_counter()
                    values = _means(window, problem.metric)
                    values["lr"] = float(learning_rate(opt, train.steps)(step - 1))
                    values["steps_per_second"] = len(window) * chunk / (now - since)
                    metrics.write(step, "train", values)
                    text = _text(values, problem.metric)
                    window, since = [], now
                if probe is not None and train.probe is not None and step % train.probe == 0:
                    metrics.write(step, "probe", _probed(probe, state.params, mesh))
                if step % train.eval_every == 0 or step == train.steps:
                    state, score = validate(state)
                    score, best, stale = jax.device_get((score, state.best.score, state.best.stale))
                    if not np.isfinite(score).all():
                        raise NotFiniteError(
                            f"step {step}: wanted a finite validation {problem.metric}, but got {score.tolist()} for "
                            f"seeds {list(train.seeds)}; try a lower opt.lr; {_kept(saved)}"
                        )
                    metrics.write(step, "validation", {problem.metric: score.tolist(), "best": best.tolist()})
                    checkpoints.save(step, state)
                    saved = step
                    reason = _why_stop(problem, train, best, stale)
                progress.update(step, text, best, last=step == train.steps or reason is not None)
    if console is not None and reason is not None and step < train.steps:
        console.print(f"  stopped at step {step:,} of {train.steps:,}: {reason}", highlight=False, soft_wrap=True)
    return jax.device_put(state, mesh.devices[0])


def _why_stop(problem: Problem, train: TrainConfig, best: Any, stale: Any) -> str | None:
    """The reason to stop before the last step, or None."""
    if train.target is not None and (best >= train.target if problem.maximize else best <= train.target).all():
        return f"the best validation {problem.metric} of every seed reached train.target ({train.target:g})"
    if train.patience is not None and int(stale) >= train.patience:
        return f"the mean validation {problem.metric} has not improved in {int(stale)} validations (train.patience)"
    return None


def _means(window: list[Report], metric: str) -> dict[str, Any]:
    """The mean of each reported value over the window's steps: one number per seed."""
    names = {"loss": "loss", metric: "score", "grad_norm": "grad_norm"}
    return {
        name: np.concatenate([getattr(report, field) for report in window]).mean(axis=0, dtype=np.float64).tolist()
        for name, field in names.items()
    }


def _probed(probe: Callable, params: Any, mesh: Mesh) -> dict[str, Any]:
    """The log-norms of a probe, for JSON: one list per seed, None for a norm of zero."""
    log_norms = np.asarray(probe(jax.device_put(params, mesh.devices[0])), np.float64)
    return {"log_norms": [[x if math.isfinite(x) else None for x in seed] for seed in log_norms.tolist()]}


def _text(values: dict[str, Any], metric: str) -> str:
    """Loss, score and speed, for a progress line: means over seeds."""
    loss, score = np.mean(values["loss"]), np.mean(values[metric])
    return f"loss {loss:.4f}  {metric} {score:.4f}  {values['steps_per_second']:.0f} steps/s"


def _check_finite(report: Report, params: Any, step: int, saved: int, seeds: tuple[int, ...]) -> None:
    """Check that losses and gradients are finite in the steps after `step`; params name the leaves."""
    # The norm of finite numbers can overflow too.
    bad = ~(np.isfinite(report.loss) & np.isfinite(report.grad_norm) & report.finite.all(axis=-1))  # (n, S)
    if not bad.any():
        return
    t, s = map(int, np.argwhere(bad)[0])
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    named = [path for path, finite in zip(paths, report.finite[t, s], strict=True) if not finite]
    leaf = jax.tree_util.keystr(named[0], simple=True, separator=".") if named else None
    where = f"the first leaf that is not finite is {leaf}" if leaf else "every leaf of the gradient is finite"
    raise NotFiniteError(
        f"step {step + t + 1}, seed {seeds[s]}: wanted a finite loss and gradient, but got loss {report.loss[t, s]} "
        f"and gradient norm {report.grad_norm[t, s]} ({where}); try a lower opt.lr or opt.clip; {_kept(saved)}"
    )


def _kept(saved: int) -> str:
    return f"the newest checkpoint is of step {saved}" if saved else "no checkpoint was written"


class _Progress:
    """Print how far training is: a live bar in a terminal; else, on a given console, a plain line every few seconds."""

    def __init__(self, console: Console | None, step: int, steps: int):
        screen = Console() if console is None else console
        self._lines = None if screen.is_interactive else console
        self._bar = _bar(screen) if screen.is_interactive else None
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
        elif self._lines is not None and (last or now - self._printed >= SECONDS_BETWEEN_LINES):
            score = f"best validation {np.mean(best):.4f}" if np.isfinite(best).all() else ""
            shown = (f"  step {step:,} of {self._steps:,}", text, score, f"{now - self._start:.0f} s")
            line = "  ".join(part for part in shown if part)
            if not last and self._compiled is not None:
                done, since = self._compiled
                line += f", about {(now - since) / (step - done) * (self._steps - step):.0f} s left"
            self._lines.print(line, highlight=False, markup=False, soft_wrap=True)
            self._printed = now
        if self._compiled is None and np.isfinite(best).all():
            self._compiled = step, now


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[text]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
