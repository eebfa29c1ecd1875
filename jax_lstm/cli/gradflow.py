"""`jax-lstm gradflow`: measure how gradients flow through a trained network or a newly initialized cell."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

import jax_lstm as jl
from jax_lstm.abilities import output
from jax_lstm.cli.build import build_model, restore, steps_of_all
from jax_lstm.cli.choice import CELL, Choice, options_of
from jax_lstm.cli.choose import choose
from jax_lstm.cli.parser import add_imports, experiment_of_run, parse, take_imports
from jax_lstm.cli.profile import Profile, json_ready, profiles
from jax_lstm.cli.report import details, page, words
from jax_lstm.train.losses import BY_NAME
from jax_lstm.train.metrics import read_metrics


def main(argv: Sequence[str]) -> int:
    """Measure, print a table and its meaning, and write gradflow.json and gradflow.png."""
    parser = ArgumentParser(
        prog="jax-lstm gradflow",
        description="Measure how far gradients reach back in time. Give the directory of a run to measure its best "
        "checkpoint on validation sequences (at most 600 steps if the task has targets at every step), or --cell to "
        "measure a newly initialized cell on standard normal input. Prints gradient norms and memory horizons of "
        "every seed, and sentences that say what they mean. Writes gradflow.json and gradflow.png, which also show "
        "singular values, eigenvalues, and the gradients of single units and of the loss, for the first seed and one "
        "sequence.",
    )
    parser.add_argument(
        "run_dir", type=str, nargs="?", help="directory of a run, made by jax-lstm train; or give --cell"
    )
    parser.add_argument("--hidden_size", type=int, default=64, help="H, hidden units, with --cell")
    parser.add_argument("--input_size", type=int, default=8, help="I, input features, with --cell")
    parser.add_argument("--steps", type=int, default=100, help="T, time steps of the input, with --cell")
    parser.add_argument("--seeds", type=tuple[int, ...], default=(0,), help="random seeds of the params, with --cell")
    parser.add_argument("--sequences", type=int, default=4, help="number of sequences to average over")
    parser.add_argument(
        "--out", type=str | None, default=None, help="output directory; null: run_dir, or runs/gradflow with --cell"
    )
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    try:
        names, argv = choose(parser, argv, {"cell": CELL})
    except ValueError as error:
        parser.error(str(error))
    values = parse(parser, argv)
    name = names["cell"]
    if (values.run_dir is None) == (name is None):
        parser.error("run_dir, --cell: wanted exactly one of them, but got both or neither; give a run or a cell")
    for option in ("steps", "sequences", "hidden_size", "input_size"):
        if values[option] < 1:
            parser.error(f"--{option}: wanted 1 or more, but got {values[option]}")
    if not values.seeds or not all(0 <= seed < 2**32 for seed in values.seeds):
        parser.error(f"--seeds: wanted at least one seed, each from 0 to 2³² − 1, but got {list(values.seeds)}")
    if name is None:
        subject = _of_run(parser, values, packages)
    else:
        subject = _of_cell(parser, values, Choice(name, options_of(parser, values, "cell")))
    if reason := _unmeasurable(subject.cell):
        parser.error(reason)
    out = Path(values.out or values.run_dir or "runs/gradflow")
    out.mkdir(parents=True, exist_ok=True)
    seeds = dict(zip(subject.seeds, profiles(subject.cell, subject.params, subject.xs), strict=True))
    seed = subject.seeds[0]
    one = details(subject.cell, jax.tree.map(lambda p: p[0], subject.params), subject.xs[0, 0], subject.loss)
    report: dict[str, Any] = {
        "title": subject.title,
        "words": words(seeds[seed], one),
        "seeds": {str(s): p.as_data() for s, p in seeds.items()},
        "details": {"seed": seed} | one.as_data(),
        "probed": None
        if subject.probed is None
        else {"step": subject.probed[0], "ln_norms": subject.probed[1].tolist()},
    }
    (out / "gradflow.json").write_text(json.dumps(json_ready(report), indent=1) + "\n", encoding="utf-8")
    page(subject.title, seeds, seed, one, subject.probed, out / "gradflow.png")
    console = Console()
    console.print(_table(subject.title, subject.seeds, list(seeds.values())))
    console.print("horizon: time steps over which the gradient norm falls by a factor of e; inf: it does not fall.")
    console.print("at rest: state and input are 0; on data: along the measured sequences.")
    console.print(f"Seed {seed}:")
    for sentence in words(seeds[seed], one):
        console.print(f"  {sentence}")
    console.print(f"Figures: {out / 'gradflow.png'}  Numbers: {out / 'gradflow.json'}")
    return 0


class Subject(NamedTuple):
    """The network to measure, and the inputs."""

    title: str
    seeds: tuple[int, ...]
    cell: jl.Cell
    params: Any  # a leading axis over seeds
    xs: Float[Array, "S N T I"]
    loss: Callable  # stacked states of the first seed on the first sequence -> a scalar
    probed: tuple[list[int], Float[np.ndarray, "P T+1"]] | None  # the profiles of the first seed during training


def _unmeasurable(cell: jl.Cell) -> str | None:
    """Why a cell cannot be measured, in the words of the error; None: it can."""
    state = jax.eval_shape(lambda: cell.initial_state(cell.init(jax.random.key(0))))
    if hasattr(state, "_fields") and (hasattr(cell, "output") or hasattr(state, "h")):
        return None
    return (
        "gradflow: wanted a cell whose state is a NamedTuple with the output as its field h, or with a method "
        f"output(state), but {type(cell).__name__} has neither; measure one layer, or define output"
    )


def _of_run(parser: ArgumentParser, values: Namespace, packages: Sequence[str]) -> Subject:
    run_dir = Path(values.run_dir)
    experiment = experiment_of_run(parser, run_dir, packages)
    try:
        state = restore(experiment, run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    task = experiment.build_task()
    data, model, params = task.validation(), build_model(experiment, task), state.best.params
    readout = jax.tree.map(lambda p: p[0], params.readout)
    steps = steps_of_all(data, values.sequences)

    T, targets = steps.shape[1], data.targets[:1]
    # Outside the loss, which is traced.
    weights = None if data.weights is None else counted(targets[:, :T], data.weights[:1, :T])

    def loss(states: Any) -> Array:
        ys = model.readout.apply(readout, output(model.cell, states))
        if weights is None:
            return BY_NAME[task.loss](ys[-1:], targets)
        return BY_NAME[task.loss](ys[None], targets[:, :T], weights)

    title = f"{experiment.model.cell.label} on {experiment.task.label}"
    xs = model.features(params, steps)
    return Subject(title, experiment.train.seeds, model.cell, params.cell, xs, loss, _probed(run_dir))


def counted(targets: Array, weights: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """The weights of the first steps; if none counts there, as where a series is split by time, 1 for known targets."""
    if bool((weights > 0).any()):
        return weights
    numbers = jnp.issubdtype(targets.dtype, jnp.floating)
    return (jnp.isfinite(targets).all(axis=-1) if numbers else targets >= 0).astype(weights.dtype)


def _probed(run_dir: Path) -> tuple[list[int], Float[np.ndarray, "P T+1"]] | None:
    """The training steps and profiles of the first seed that train.probe recorded; None for less than two of them."""
    records = [r for r in read_metrics(run_dir) if r["split"] == "probe"]
    if len(records) < 2:
        return None
    log_norms = np.array([r["log_norms"][0] for r in records], np.float64)  # None, a norm of zero, becomes NaN
    return [r["step"] for r in records], log_norms


def _of_cell(parser: ArgumentParser, values: Namespace, choice: Choice) -> Subject:
    try:
        cell = choice.make(CELL, "cell", input_size=values.input_size, hidden_size=values.hidden_size)
    except ValueError as error:
        parser.error(str(error))
    # The same input for every seed, so that only the params differ.
    shape = (values.sequences, values.steps, values.input_size)
    xs = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    xs = jnp.broadcast_to(xs, (len(values.seeds), *shape))
    params = jax.vmap(lambda seed: cell.init(jax.random.key(seed)))(jnp.asarray(values.seeds, jnp.uint32))
    title = f"{choice.label} at initialization"
    return Subject(title, values.seeds, cell, params, xs, lambda states: output(cell, states)[-1].sum(), None)


def _table(title: str, seeds: Sequence[int], measured: Sequence[Profile]) -> Table:
    T = len(measured[0].log_norms) - 1
    distances = [k for k in (10, 50) if k < T] + [T]
    table = Table(title=f"{title}, T = {T}")
    table.add_column("seed")
    for name in ("horizon at rest, steps", "horizon on data, steps", *(f"log10 ‖∂s_T/∂s_T−{k}‖" for k in distances)):
        table.add_column(name, justify="right")
    for seed, p in zip(seeds, measured, strict=True):
        norms = [f"{p.log10_norm(k):.2f}" for k in distances]
        table.add_row(str(seed), f"{p.horizon:.1f}", f"{p.data_horizon:.1f}", *norms)
    return table
