"""The training loop: with progress.py the only module of `train` that reads a clock or prints."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console

from jax_lstm.train.arguments import as_config, as_optimizer, check_arguments
from jax_lstm.train.checkpoint import newest_step
from jax_lstm.train.config import TrainConfig
from jax_lstm.train.devices import common_size, count_devices, data_mesh, share
from jax_lstm.train.finite import NotFiniteError, check_finite, kept
from jax_lstm.train.forms import trace_batch
from jax_lstm.train.hooks import Hook, TensorBoard
from jax_lstm.train.problem import Problem
from jax_lstm.train.progress import Progress
from jax_lstm.train.run import Run, check_scaling, write_model
from jax_lstm.train.run_dir import CHECKPOINTS, write_config
from jax_lstm.train.source import Feed, SourceError
from jax_lstm.train.state import TrainState, init_state, place
from jax_lstm.train.step import Report, compile_probe, compile_steps, compile_validation, of_one_seed
from jax_lstm.train.traced import Placed
from jax_lstm.train.writer import Writer


def fit(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    steps: int | None = None,
    *,
    run_dir: str | Path | None = None,
    params: Any = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    console: Console | None = None,
    progress: bool = True,
    schedule: Callable[[int], Any] | None = None,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Train one network per seed.

    As if by::

        state = the newest checkpoint if resume else init_state(problem, optimizer, seeds)
        while step < steps and not (`target` is reached, or the mean score has not improved in `patience` validations):
            state = train_step(state)
            every log_every steps:  write loss, metrics, gradient norm, learning rate, steps per second
            every eval_every steps: validate, keep each seed's best params, write a checkpoint
            before the first step and every probe steps: write problem.probe(params)

    Args:
        problem: what to train.
        optimizer: any Optax optimizer, such as optax.adam(1e-3), or an optax.MultiSteps.
        steps: optimizer steps per seed; None: 1,000.
        run_dir: the directory for metrics.jsonl, model.json and checkpoints/; created if it does not exist. None:
            write nothing.
        params: the params that every seed starts from, without an axis over seeds: those of the model; or those of its
            cell alone, such as loaded ones, and each seed draws the rest. None: each seed draws all.
        resume: continue from the newest checkpoint in run_dir. With the same number of devices, the result is bit for
            bit that of an uninterrupted run; with another number it differs by rounding only.
        hooks: instances of `Hook`, called at each record, validation and checkpoint.
        console: where to print progress; None: standard output.
        progress: True: show a live bar in a terminal or a notebook, elsewhere a plain line every few seconds. False:
            print nothing.
        schedule: step (from 0) -> learning rate. It is only logged, as `lr`; the optimizer has its own. None: log none.
        config: a dict of plain values, written to config.yaml and kept as `Run.config`. None: write none.
        options: the other fields of `TrainConfig`, such as seeds, log_every, eval_every, patience, target and ema.

    Returns:
        The run: the best and the last params of each seed, and the last state, on one device.

    Raises:
        NotFiniteError: a loss, gradient or validation score is not finite; the message names step, seed and leaf.
        SourceError: the source of batches ended or failed.
        FileExistsError: run_dir has checkpoints and `resume` is False.
        FileNotFoundError: `resume` is True and there is no checkpoint.
        TypeError: an option is unknown, or an argument has another type.
        ValueError: train.devices exceeds the local devices, or a batch or carry cannot be split equally over them; a
            function of the problem returns something other than `Problem` describes; params do not fit the model.
    """
    tx, train = as_optimizer(optimizer), as_config(steps, options)
    directory = None if run_dir is None else Path(run_dir)
    check_arguments(directory, train, params, resume, hooks)
    if resume and directory is not None:
        check_scaling(directory, problem.predictor)
    if train.tensorboard and directory is not None:
        hooks = (*hooks, TensorBoard(directory / "tensorboard"))
    feed = None if problem.source is None else Feed(problem.source, train.steps)
    if feed is not None and resume and directory is not None:
        feed.load(directory, newest_step(directory / CHECKPOINTS) or 0)
    state = init_state(problem, tx, train.seeds, params, train.ema)
    # One trace gives the shapes of a batch; the compiled steps use it again.
    draw = None if problem.batch is None else trace_batch(problem.batch, of_one_seed(state.data_key), state.step)
    batch = draw.out if draw is not None else feed.peek(1) if feed is not None else None
    if train.devices == "auto":
        train = replace(train, batch_size=common_size((batch, of_one_seed(state.carry))))
    mesh = data_mesh(count_devices(train))
    state, placed = place(state, mesh), Placed(mesh)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        write_config(directory, config)
        write_model(directory, problem.predictor, problem.metric, problem.maximize, train.seeds)
    with Writer(directory, hooks, train.seeds) as writer:
        state = writer.restore(state) if resume else state
        step = int(state.step)
        # The checkpointed step is in the gcd because train.steps may have been another one then.
        chunk = 1 if draw is None else math.gcd(train.chunk, step)
        loop = _Loop(
            problem,
            train,
            schedule,
            mesh,
            feed,
            writer,
            chunk=chunk,
            sequences=len(train.seeds) * _sequences(batch),
            run_steps=compile_steps(problem, tx, chunk, train.vmap_seeds, mesh, train.ema, placed, draw),
            validate=compile_validation(problem, train.vmap_seeds, train.ema, placed),
            probe=None if train.probe is None else compile_probe(problem, train.vmap_seeds),
            state=state,
            step=step,
            best=jax.device_get(state.best.score),
            stale=int(state.best.stale),
        )
        writer.start(step)
        with Progress((Console() if console is None else console) if progress else None, step, train.steps) as shown:
            loop.run(shown)
    state = jax.device_put(loop.state, mesh.devices[0])
    return Run(
        predictor=problem.predictor,
        config=config or {},
        seeds=train.seeds,
        metric=problem.metric,
        maximize=problem.maximize,
        best=state.best,
        last=state.params,
        step=loop.step,
        state=state,
    )


@dataclass
class _Loop:
    """Steps, records, validations and checkpoints, until the last step or a reason to stop."""

    problem: Problem
    train: TrainConfig
    schedule: Callable[[int], Any] | None
    mesh: Mesh
    feed: Feed | None
    writer: Writer
    chunk: int
    sequences: int  # in a step, of all seeds
    run_steps: Any
    validate: Any
    probe: Any
    state: TrainState
    step: int
    best: Any
    stale: int
    window: list[Report] = field(default_factory=list)  # since the last record
    since: float = field(default_factory=time.perf_counter)
    text: str = ""

    def run(self, shown: Progress) -> None:
        steps = self.train.steps
        if self.step >= steps:
            shown.say(f"already finished: step {self.step:,} of {steps:,}; give more steps to train on")
        if self.step == 0:
            self.measure()
        while self.step < steps and self.why_stop() is None:
            self.advance()
            if self.is_at(self.train.log_every):
                self.log()
            if self.train.probe is not None and self.step % self.train.probe == 0:
                self.measure()
            if self.is_at(self.train.eval_every):
                self.evaluate()
            shown.update(self.step, self.text, self.best, last=self.step == steps or self.why_stop() is not None)
        if self.step < steps:
            shown.say(f"stopped early at step {self.step:,} of {steps:,}: {self.why_stop()}")

    def is_at(self, every: int, step: int | None = None) -> bool:
        step = self.step if step is None else step
        return step % every == 0 or step == self.train.steps

    def advance(self) -> None:
        """Run the steps of one chunk."""
        given: tuple[Any, ...] = ()
        if self.feed is not None:
            try:
                given = (self.feed.take(self.step + 1),)
            except (SourceError, ValueError, TypeError):
                self.writer.save(self.step, self.state, self.feed)
                raise
        self.state, report = self.run_steps(self.state, *(share(batch, self.mesh) for batch in given))
        if self.feed is not None and not self.is_at(self.train.eval_every, self.step + 1):
            self.feed.prefetch(self.step + 2)  # meanwhile; but a checkpoint has the position
        report = jax.device_get(report)

        def batch_of(step: int, seed: int) -> Any:
            if self.problem.batch is None:
                return given[0]
            key = jax.device_put(self.state.data_key, self.mesh.devices[0])[seed]
            return self.problem.batch(key, np.int32(step))

        check_finite(report, self.state.params, self.step, self.writer.saved, self.train.seeds, batch_of)
        self.window.append(report)
        self.step += self.chunk

    def log(self) -> None:
        """Write means since the last record."""
        now = time.perf_counter()
        values = _means(self.window)
        if self.schedule is not None:
            values["lr"] = float(self.schedule(self.step - 1))
        rate = len(self.window) * self.chunk / (now - self.since)
        self.writer.log(self.step, values | {"steps_per_second": rate})
        self.text = _text(values, rate * self.sequences)
        self.window, self.since = [], now

    def measure(self) -> None:
        """Write the log-norms of the probe: one list per seed."""
        if self.probe is not None:
            log_norms = np.asarray(self.probe(jax.device_put(self.state.params, self.mesh.devices[0])), np.float64)
            self.writer.probe(self.step, {"log_norms": log_norms.tolist()})

    def evaluate(self) -> None:
        """Validate, keep the best params, and write a checkpoint."""
        self.state, scores = self.validate(self.state)
        scores, self.best, stale = jax.device_get((scores, self.state.best.score, self.state.best.stale))
        name, score = self.problem.metric, scores[self.problem.metric]
        if not np.isfinite(score).all():
            raise NotFiniteError(
                f"step {self.step}: wanted a finite validation {name}, but got {score.tolist()} for seeds "
                f"{list(self.train.seeds)}; try a lower opt.lr; {kept(self.writer.saved)}"
            )
        found = {name: score.tolist() for name, score in scores.items()}
        self.writer.score(self.step, found | {"best": self.best.tolist()})
        self.writer.save(self.step, self.state, self.feed)
        self.stale = int(stale)

    def why_stop(self) -> str | None:
        """The reason to stop before the last step, or None."""
        train, metric, best = self.train, self.problem.metric, self.best
        if train.target is not None and (best >= train.target if self.problem.maximize else best <= train.target).all():
            return f"the best validation {metric} of every seed reached train.target ({train.target:g})"
        if train.patience is not None and self.stale >= train.patience:
            return f"the mean validation {metric} has not improved in {self.stale} validations (train.patience)"
        return None


def _sequences(batch: Any) -> int:
    """The number of sequences in a batch: the first axis of its first leaf."""
    first = next(iter(jax.tree.leaves(batch)), None)
    return first.shape[0] if first is not None and first.shape else 1


def _means(window: list[Report]) -> dict[str, Any]:
    """The mean of each reported value over the window's steps: one number per seed."""
    reported = [{"loss": r.loss, **r.metrics, "grad_norm": r.grad_norm} for r in window]
    return {
        name: np.concatenate([values[name] for values in reported]).mean(axis=0, dtype=np.float64).tolist()
        for name in reported[0]
    }


def _text(values: dict[str, Any], sequences: float) -> str:
    """Loss, metrics and speed, for a progress line: means over seeds."""
    shown = [f"{name} {np.mean(value):.4f}" for name, value in values.items() if name not in ("grad_norm", "lr")]
    return "  ".join([*shown, f"{sequences:,.0f} sequences/s"])
