"""The loop: the one place with a clock, a terminal and a disk."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_lstm.train.checkpoint import Checkpoints
from jax_lstm.train.config import OptConfig, TrainConfig, learning_rate, optimiser
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


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a score was NaN or infinite. The newest checkpoint is from before it."""


def fit(
    problem: Problem,
    opt: OptConfig,
    train: TrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> TrainState:
    """Train every seed, and give back the last state, on one device; `state.best.params` are the ones to use.

    As if by::

        state = the newest checkpoint if resume else init_state(problem, optimiser, seeds)
        while step < steps and not (`target` is reached, or the mean score was no better for `patience` validations):
            state = train_step(state)
            every log_every steps:  write loss, score, gradient norm, learning rate, steps per second
            every eval_every steps: validate, keep each seed's best params, write a checkpoint
            before the first step and every probe steps: write what problem.probe measures of the params

    Args:
        problem: what to train.
        opt: the optimiser.
        train: the loop's choices.
        run_dir: an existing directory; metrics.jsonl and checkpoints/ are written into it.
        resume: go on from its newest checkpoint; on as many devices the result is bit for bit that of a run never
            interrupted, on another number of them it is so to rounding.
        console: where the progress bar goes; it stays quiet when that is not a terminal.

    Raises:
        NotFiniteError: names the step, the seed, the loss and the first leaf of the gradient that is not finite.
        FileNotFoundError: `resume`, and there is no checkpoint.
        ValueError: train.devices is more than there are, or they cannot share a batch of `problem`, or its carry.
    """
    mesh = data_mesh(count_devices(train))
    tx = optimiser(opt, train.steps)
    state = place(init_state(problem, tx, train.seeds), mesh)
    with Checkpoints(run_dir / CHECKPOINTS) as checkpoints:
        if resume:
            state = checkpoints.restore(state)
        step = saved = int(state.step)
        best, stale = jax.device_get((state.best.score, state.best.stale))
        window, since = [], time.perf_counter()
        # The checkpointed step is in the gcd because train.steps may have been another one then.
        chunk = math.gcd(train.chunk, step)
        run_steps = compile_steps(problem, tx, chunk, train.vmap_seeds, mesh)
        validate = compile_validation(problem, train.vmap_seeds)
        probe = None if train.probe is None else compile_probe(problem, train.vmap_seeds)
        with (
            MetricsWriter(run_dir, train.seeds, train.tensorboard, after=step) as metrics,
            _progress(console) as progress,
        ):
            bar = progress.add_task("", total=train.steps, completed=step, text="compiling")
            if probe is not None and step == 0:
                metrics.write(step, "probe", _probed(probe, state.params, mesh))
            while step < train.steps and not _done(problem, train, best, stale):
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
                    progress.update(bar, text=_text(values, problem.metric))
                    window, since = [], now
                if probe is not None and train.probe is not None and step % train.probe == 0:
                    metrics.write(step, "probe", _probed(probe, state.params, mesh))
                if step % train.eval_every == 0 or step == train.steps:
                    state, score = validate(state)
                    score, best, stale = jax.device_get((score, state.best.score, state.best.stale))
                    if not np.isfinite(score).all():
                        raise NotFiniteError(
                            f"step {step}: the validation {problem.metric} of seeds {list(train.seeds)} is "
                            f"{score.tolist()}; {_kept(saved)}"
                        )
                    metrics.write(step, "validation", {problem.metric: score.tolist(), "best": best.tolist()})
                    checkpoints.save(step, state)
                    saved = step
                progress.update(bar, completed=step)
    return jax.device_put(state, mesh.devices[0])


def _done(problem: Problem, train: TrainConfig, best: Any, stale: Any) -> bool:
    """Whether the run may end before its last step."""
    reached = train.target is not None and (best >= train.target if problem.maximise else best <= train.target).all()
    return bool(reached) or (train.patience is not None and int(stale) >= train.patience)


def _means(window: list[Report], metric: str) -> dict[str, Any]:
    """The mean over the window's steps of what was reported: a number a seed."""
    names = {"loss": "loss", metric: "score", "grad_norm": "grad_norm"}
    return {
        name: np.concatenate([getattr(report, field) for report in window]).mean(axis=0, dtype=np.float64).tolist()
        for name, field in names.items()
    }


def _probed(probe: Callable, params: Any, mesh: Mesh) -> dict[str, Any]:
    """The log-norms that a probe measured, for JSON: a list a seed, None for a norm of zero."""
    log_norms = np.asarray(probe(jax.device_put(params, mesh.devices[0])), np.float64)
    return {"log_norms": [[x if math.isfinite(x) else None for x in seed] for seed in log_norms.tolist()]}


def _text(values: dict[str, Any], metric: str) -> str:
    """What stands before the progress bar: means over seeds."""
    loss, score = np.mean(values["loss"]), np.mean(values[metric])
    return f"loss {loss:.4f}  {metric} {score:.4f}  {values['steps_per_second']:.0f} steps/s"


def _check_finite(report: Report, params: Any, step: int, saved: int, seeds: tuple[int, ...]) -> None:
    """Refuse a loss or a gradient that is not finite in the steps after `step`; params name the leaves."""
    # The norm of finite numbers can overflow too.
    bad = ~(np.isfinite(report.loss) & np.isfinite(report.grad_norm) & report.finite.all(axis=-1))  # (n, S)
    if not bad.any():
        return
    t, s = map(int, np.argwhere(bad)[0])
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    named = [path for path, finite in zip(paths, report.finite[t, s], strict=True) if not finite]
    leaf = jax.tree_util.keystr(named[0], simple=True, separator=".") if named else None
    where = f"the gradient's first leaf that is not is {leaf}" if leaf else "every leaf of the gradient is"
    raise NotFiniteError(
        f"step {step + t + 1}, seed {seeds[s]}: loss {report.loss[t, s]} and gradient norm "
        f"{report.grad_norm[t, s]} are not both finite; {where}; a lower opt.lr or opt.clip may help; {_kept(saved)}"
    )


def _kept(saved: int) -> str:
    return f"the newest checkpoint is of step {saved}" if saved else "no checkpoint was written"


def _progress(console: Console | None) -> Progress:
    console = console or Console()
    return Progress(
        TextColumn("{task.fields[text]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
