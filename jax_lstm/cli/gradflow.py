"""`jax-lstm gradflow`: how far gradients reach in a trained run, or in a freshly drawn cell."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

import jax_lstm as jl
from jax_lstm.cli.experiment import ModelConfig, build_model, restore
from jax_lstm.cli.parser import experiment_of_run, parse
from jax_lstm.cli.profile import Profile, profiles
from jax_lstm.gradflow.plots import plot_profile


def main(argv: Sequence[str]) -> int:
    """Measure; print a table; write gradflow.json and gradflow.png."""
    parser = ArgumentParser(
        prog="jax-lstm gradflow",
        description="Measure ‖∂s_T/∂s_k‖ and memory horizons: of each seed's best params in a run, on its validation "
        "sequences, or of a cell at its initialisation, on standard normal input.",
    )
    parser.add_argument("run_dir", type=str, nargs="?", help="a run's directory; without it, give --cell")
    parser.add_argument("--cell", type=Literal["lstm", "rnn", "gru"] | None, default=None, help="a cell to draw")
    parser.add_argument("--hidden_size", type=int, default=64, help="H of the drawn cell")
    parser.add_argument("--input_size", type=int, default=8, help="I of the drawn cell")
    parser.add_argument("--forget_bias", type=float | None, default=None, help="of the drawn lstm")
    parser.add_argument("--chrono", type=float | None, default=None, help="chrono initialisation of the drawn lstm")
    parser.add_argument("--steps", type=int, default=100, help="T of the drawn cell's input")
    parser.add_argument("--seeds", type=tuple[int, ...], default=(0,), help="seeds of the drawn cell")
    parser.add_argument("--sequences", type=int, default=4, help="how many sequences to average over")
    parser.add_argument("--out", type=str | None, default=None, help="where to write; the run, or runs/gradflow")
    values = parse(parser, argv)
    if (values.run_dir is None) == (values.cell is None):
        parser.error("run_dir, --cell: wanted one of the two, a run's directory or a cell to draw")
    for name in ("steps", "sequences", "hidden_size", "input_size"):
        if values[name] < 1:
            parser.error(f"--{name}: wanted 1 or more, but got {values[name]}")
    if not values.seeds:
        parser.error("--seeds: wanted at least one seed")
    if values.run_dir is not None:
        title, seeds, measured = _of_run(parser, values)
    else:
        title, seeds, measured = _of_cell(parser, values)
    out = Path(values.out or values.run_dir or "runs/gradflow")
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "title": title,
        "seeds": {str(s): p.as_data() for s, p in zip(seeds, measured, strict=True)},
    }
    (out / "gradflow.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plot_profile(
        {f"seed {s}": p.log_norms for s, p in zip(seeds, measured, strict=True)}, path=out / "gradflow.png", title=title
    )
    console = Console()
    console.print(_table(title, seeds, measured))
    console.print(f"{out / 'gradflow.png'}  {out / 'gradflow.json'}")
    return 0


def _of_run(parser: ArgumentParser, values: Namespace) -> tuple[str, tuple[int, ...], list[Profile]]:
    run_dir = Path(values.run_dir)
    experiment = experiment_of_run(parser, run_dir)
    try:
        state = restore(experiment, run_dir)
    except FileNotFoundError as error:
        parser.error(f"run_dir: {error}")
    task = experiment.task.build()
    xs = task.validation().xs[: values.sequences]
    measured = profiles(build_model(experiment, task).cell, state.best.params.cell, xs)
    return f"{experiment.model.cell} on {experiment.task.name}", experiment.train.seeds, measured


def _of_cell(parser: ArgumentParser, values: Namespace) -> tuple[str, tuple[int, ...], list[Profile]]:
    model = ModelConfig(values.cell, values.hidden_size, values.forget_bias, values.chrono)
    try:
        cell: jl.Cell = model.build(values.input_size)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    # The same input for every seed: it is the weights that differ.
    shape = (values.sequences, values.steps, values.input_size)
    xs = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    params = jax.vmap(lambda seed: cell.init(jax.random.key(seed)))(jnp.asarray(values.seeds, jnp.uint32))
    return f"{values.cell} at its initialisation", values.seeds, profiles(cell, params, xs)


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
