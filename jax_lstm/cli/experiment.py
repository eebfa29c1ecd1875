"""`jax-lstm experiment NAME`: a published experiment, done again with several seeds, beside what was published.

configs/experiments/NAME.yaml says which runs it has, each a config and what is changed in it, and what has to come out.
Every run is scored, the sequences it took are counted, and its gradient flow is measured; of a run with train.probe
also that at its start, where it leaves the score of the best constant, and at its end. Written are

    NAME.json    what was run, and every seed's figures
    NAME.png     learning curves, and the gradient's profile after training
    README.md    with --table: one table of all results in the folder; it prints a shorter one
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from jax_lstm.cli.configs import configs_dir
from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.evaluate import evaluate
from jax_lstm.cli.measures import measure
from jax_lstm.cli.parser import experiment_parser, parse, parse_experiment
from jax_lstm.cli.profile import Profile, json_ready, profiles
from jax_lstm.cli.results import joined, page, plot_experiment, read_results, read_spec, say, summary
from jax_lstm.cli.train import train
from jax_lstm.cli.wiring import Experiment, build_model, steps_of_all
from jax_lstm.train import count_devices, open_run, read_metrics

RESULTS, TRIALS = "notebooks/results", "runs/trials"
SEQUENCES = 4  # validation sequences that the gradient flow is the mean of


def main(argv: Sequence[str]) -> int:
    """List, run one, or write the table."""
    make_cores_devices()
    parser = ArgumentParser(prog="jax-lstm experiment", description="Do a published experiment again.")
    parser.add_argument("name", type=str, nargs="?", help="a file of configs/experiments, without .yaml")
    parser.add_argument("--list", action="store_true", help="the experiments, and minutes on two cores")
    parser.add_argument("--table", action="store_true", help="write README.md, the table of the results in --out")
    parser.add_argument("--configs", type=str | None, default=None, help="the folder of the configs; null: packaged")
    parser.add_argument("--out", type=str | None, default=None, help=f"where to write; {RESULTS}, trials {TRIALS}")
    parser.add_argument(
        "--quick", type=int | None, default=None, help="only so many training steps: a trial, no result"
    )
    values = parse(parser, argv)
    configs, console = Path(values.configs or configs_dir()), Console()
    specs = configs / "experiments"
    out = Path(values.out or (RESULTS if values.quick is None else TRIALS))
    names = sorted(path.stem for path in specs.glob("*.yaml"))
    if values.list:
        table = Table("experiment", "part", "minutes", "what")
        for name in names:
            spec = read_spec(specs / f"{name}.yaml")
            minutes = f"{spec['minutes']:g}" + (" (overnight)" if spec.get("overnight") else "")
            table.add_row(name, spec["part"], minutes, spec["title"])
        console.print(table)
        return 0
    if values.table:
        if not any(out.glob("*.json")):
            parser.error(f"--table: {out} holds no results; jax-lstm experiment NAME makes some")
        results = read_results(out, specs)
        text, short = page(results), summary(results)
        (out / "README.md").write_text(text, encoding="utf-8")
        print(short)
        console.print(str(out / "README.md"))
        return 0
    if values.name not in names:
        parser.error(f"name: wanted one of {', '.join(names) or 'none, there are no configs'}, but got {values.name}")
    spec = read_spec(specs / f"{values.name}.yaml")
    try:
        runs = {
            name: read_run(configs / run["config"], run["set"], values.name, name, values.quick)
            for name, run in spec["runs"].items()
        }
        for experiment in runs.values():
            count_devices(experiment.train)
    except ValueError as error:
        parser.error(str(error))
    result = {"name": values.name, "quick": values.quick, "runs": spec["runs"], "solved": spec["solved"], "results": {}}
    for name, experiment in runs.items():
        console.print(f"{values.name}: {name}")
        result["results"][name] = _run(experiment, spec, console)
    result = json_ready(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{values.name}.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    result = joined(result, spec)
    plot_experiment(result, out / f"{values.name}.png")
    for mark in result["marks"]:
        console.print(say(mark))
    console.print(f"{out / values.name}.json  {out / values.name}.png")
    return 0


def read_run(config: Path, changes: dict[str, Any], name: str, run: str, quick: int | None) -> Experiment:
    """One run of an experiment: a config with changes; a quick one is cut to so many steps."""
    runs = f"runs/{name}" if quick is None else f"{TRIALS}/{name}"
    argv = [str(config), "--run_dir", f"{runs}/{run.replace(' ', '_')}"]
    if quick is not None:
        changes = changes | {
            "train.steps": quick,
            "train.eval_every": quick,
            "opt.schedule": "constant",
            "opt.warmup_steps": 0,
        }
    for key, value in changes.items():
        argv += [f"--{key}", json.dumps(value) if not isinstance(value, str) else value]
    return parse_experiment(experiment_parser("experiment", ""), argv)[0]


def _run(experiment: Experiment, spec: dict[str, Any], console: Console) -> dict[str, Any]:
    """Train every seed, score each one's best params on the test split, and measure them; an earlier run is lost."""
    run_dir, task = Path(experiment.run_dir), experiment.task.build()
    shutil.rmtree(run_dir, ignore_errors=True)
    open_run(run_dir, experiment.as_data(), experiment.train.seeds, count_devices(experiment.train), resume=False)
    start = time.perf_counter()
    state = train(experiment, resume=False, console=console)
    model, params = build_model(experiment, task), state.best.params
    xs = model.features(params, steps_of_all(task.validation(), SEQUENCES))
    found: list[Profile] = profiles(model.cell, params.cell, xs)
    records = read_metrics(run_dir)
    curve = [r for r in records if r["split"] == "validation"]
    run = {
        "cell": experiment.model.cell,
        "metric": task.metric,
        "maximise": task.maximise,
        "blind": task.baseline,
        "seeds": list(experiment.train.seeds),
        "score": evaluate(experiment, state, "test", run_dir),
        "sequences": first_solved(curve, task.metric, task.maximise, spec["solved"], experiment.train.batch_size),
        "curve": {
            "sequences": [r["step"] * experiment.train.batch_size for r in curve],
            "validation": [r[task.metric] for r in curve],
        },
        "data_horizon": [p.data_horizon for p in found],
        "ln_norm_ds_T_ds_k": np.mean([p.log_norms for p in found], axis=0).tolist(),
        "while_training": turning_points(records, task.metric, task.maximise, task.baseline),
        "measured": measure(spec.get("measure", []), model, params, task.test()),
    }
    return run | {"seconds": round(time.perf_counter() - start, 1)}


def first_solved(
    curve: Sequence[dict[str, Any]], metric: str, maximise: bool, solved: float | None, batch_size: int
) -> list[int | None]:
    """For each seed the sequences it had seen when its validation score first was as good as `solved`; None: never."""
    scores = np.array([r[metric] for r in curve])
    if solved is None:
        return [None] * scores.shape[1]
    there = scores >= solved if maximise else scores <= solved
    return [int(curve[int(s.argmax())]["step"]) * batch_size if s.any() else None for s in there.T]


def turning_points(
    records: Sequence[dict[str, Any]], metric: str, maximise: bool, blind: float
) -> list[dict[str, Any]]:
    """What train.probe measured at the start, where the mean score first is a tenth better than blind, and at the end.

    The mean over seeds; nothing where there was no probe.
    """
    probes = [r for r in records if r["split"] == "probe"]
    if not probes:
        return []
    leaves = [
        r["step"]
        for r in records
        if r["split"] == "validation"
        and (np.mean(r[metric]) > 1.1 * blind if maximise else np.mean(r[metric]) < 0.9 * blind)
    ]  # fmt: skip
    chosen = [("start", 0)] + [("leaves the plateau", _nearest(probes, step)) for step in leaves[:1]]
    chosen += [("end", len(probes) - 1)]
    return [
        {
            "when": when,
            "step": probes[n]["step"],
            "ln_norm": np.mean(np.array(probes[n]["log_norms"], float), 0).tolist(),
        }
        for when, n in chosen
    ]


def _nearest(probes: Sequence[dict[str, Any]], step: int) -> int:
    return int(np.argmin([abs(r["step"] - step) for r in probes]))
