"""`jax-lstm experiment NAME`: reproduce a published experiment with several seeds.

configs/experiments/NAME.yaml lists the runs of the experiment, each a config with changes, and the criteria that the
results have to meet. Every run is scored on the test split, the training sequences until it is solved are counted, and
its gradient norms are measured after training. With train.probe, they are also measured at the start, when the score
leaves the baseline, and at the end. The command writes

    NAME.json    the runs, and the results of every seed
    NAME.png     learning curves, and gradient norms after training
    README.md    with --table: one table of all results in the folder; a shorter table is printed
"""

import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from jax_lstm.cli.build import Experiment, build_model, steps_of_all
from jax_lstm.cli.configs import configs_dir
from jax_lstm.cli.cores import make_cores_devices
from jax_lstm.cli.evaluate import evaluate
from jax_lstm.cli.flossing import Flossing, read_flossing
from jax_lstm.cli.flossing import run as run_flossing
from jax_lstm.cli.imports import check_imports
from jax_lstm.cli.measures import measure
from jax_lstm.cli.outcome import Outcome
from jax_lstm.cli.parser import add_imports, experiment_parser, parse, parse_experiment, take_imports
from jax_lstm.cli.profile import json_ready, profiles
from jax_lstm.cli.results import joined, page, plot_experiment, read_results, read_spec, say, summary
from jax_lstm.cli.train import describe, train
from jax_lstm.train import count_devices, open_run, read_metrics

RESULTS, TRIALS = "notebooks/results", "runs/trials"
SEQUENCES = 4  # validation sequences that gradient norms are averaged over


def main(argv: Sequence[str]) -> int:
    """List the experiments, run one, or write the table of results."""
    make_cores_devices()
    parser = ArgumentParser(
        prog="jax-lstm experiment",
        description="Reproduce a published experiment with several seeds. Writes "
        "NAME.json (results) and NAME.png (learning curves and gradient norms); an earlier result is replaced.",
    )
    parser.add_argument("name", type=str, nargs="?", help="name of the experiment; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the experiments and their minutes on two CPU cores")
    parser.add_argument("--table", action="store_true", help="write README.md, a table of all results in --out")
    parser.add_argument("--configs", type=str | None, default=None, help="folder of the configs; null: packaged")
    parser.add_argument(
        "--out", type=str | None, default=None, help=f"output directory; null: {RESULTS}, or {TRIALS} with --quick"
    )
    parser.add_argument(
        "--quick", type=int | None, default=None, help="train for this many steps only, to try the command out"
    )
    add_imports(parser)
    packages, argv = take_imports(parser, argv)
    values = parse(parser, argv)
    configs, console = Path(values.configs or configs_dir()), Console()
    specs = configs / "experiments"
    out = Path(values.out or (RESULTS if values.quick is None else TRIALS))
    names = sorted(path.stem for path in specs.glob("*.yaml"))
    if values.list:
        table = Table("experiment", "part", "minutes on\ntwo cores", "title")
        for name in names:
            spec = read_spec(specs / f"{name}.yaml")
            minutes = f"{spec['minutes']:g}" + (" (overnight)" if spec.get("overnight") else "")
            table.add_row(name, spec["part"], minutes, spec["title"])
        console.print(table)
        return 0
    if values.table:
        if not any(out.glob("*.json")):
            parser.error(f"--table: {out} has no results; run jax-lstm experiment NAME first")
        results = read_results(out, specs)
        text, short = page(results), summary(results)
        (out / "README.md").write_text(text, encoding="utf-8")
        print(short)
        console.print(f"Full table: {out / 'README.md'}")
        return 0
    if values.name not in names:
        parser.error(
            f"name: wanted one of {', '.join(names) or 'none, there are no configs'}, but got {values.name}; "
            "--list describes them"
        )
    spec = read_spec(specs / f"{values.name}.yaml")
    try:
        runs = {
            name: read_run(configs, run, values.name, name, values.quick, packages)
            for name, run in spec["runs"].items()
        }
        for experiment in runs.values():
            count_devices(experiment.train)
    except ValueError as error:
        parser.error(str(error))
    result = {"name": values.name, "quick": values.quick, "runs": spec["runs"], "solved": spec["solved"], "results": {}}
    for name, experiment in runs.items():
        number = f"[{len(result['results']) + 1}/{len(runs)}]"
        console.print(describe(number, f"{values.name}, {name}", experiment.train), highlight=False, markup=False)
        result["results"][name] = _run(experiment, spec, console)
    result = json_ready(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{values.name}.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    result = joined(result, spec)
    plot_experiment(result, out / f"{values.name}.png")
    for mark in result["marks"]:
        console.print(say(mark))
    console.print(f"Results: {out / values.name}.json  Figure: {out / values.name}.png")
    return 0


def read_run(
    configs: Path, spec: dict[str, Any], name: str, run: str, quick: int | None, packages: Sequence[str] = ()
) -> Experiment | Flossing:
    """Read one run of an experiment.

    Args:
        configs: the folder of the configs.
        spec: the run: {config: FILE, set: {KEY: VALUE}}, keys of the config with new values; or {problem: flossing,
            set: ...}.
        name: the name of the experiment.
        run: the name of the run.
        quick: None, or the number of training steps of a trial.
        packages: the packages that the config and the run may import classes from.

    Raises:
        ValueError: the run would import another package, or set has another key.
    """
    runs = f"runs/{name}" if quick is None else f"{TRIALS}/{name}"
    argv, changes = ["--run_dir", f"{runs}/{run.replace(' ', '_')}"], spec["set"]
    for key, value in changes.items():
        if key in ("config", "imports") or not re.fullmatch(r"[\w.]+", key):  # --imports is the user's, not the file's
            raise ValueError(f"{name}.yaml: wanted keys of a config in set, but got {key}")
        check_imports(f"{name}.yaml, {key}:", value, packages)
    if quick is not None:
        changes = changes | {
            "train.steps": quick,
            "train.eval_every": quick,
            "opt.schedule": "constant",
            "opt.warmup_steps": 0,
        }
    for key, value in changes.items():
        argv.append(
            f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        )  # one argument: no value is a flag
    if "problem" in spec:
        if spec["problem"] != "flossing":
            raise ValueError(f"{name}.yaml: wanted flossing as problem, but got {spec['problem']}")
        return read_flossing(argv)
    return parse_experiment(experiment_parser("experiment", ""), [str(configs / spec["config"]), *argv], packages)[0]


def _run(experiment: Experiment | Flossing, spec: dict[str, Any], console: Console) -> dict[str, Any]:
    """Train every seed, score its best params on the test split, and measure them; an earlier run is deleted."""
    run_dir = Path(experiment.run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)
    open_run(run_dir, experiment.as_data(), experiment.train.seeds, count_devices(experiment.train), resume=False)
    start = time.perf_counter()
    if isinstance(experiment, Flossing):
        found = run_flossing(experiment, SEQUENCES, console)
    else:
        found = _run_task(experiment, spec.get("measure", []), console)
    records = read_metrics(run_dir)
    curve = [r for r in records if r["split"] == "validation"]
    run = {
        "cell": found.cell,
        "metric": found.metric,
        "maximize": found.maximize,
        "baseline": found.baseline,
        "seeds": list(experiment.train.seeds),
        "score": found.scores,
        "sequences": first_solved(curve, found.metric, found.maximize, spec["solved"], experiment.train.batch_size),
        "curve": {
            "sequences": [r["step"] * experiment.train.batch_size for r in curve],
            "validation": [r[found.metric] for r in curve],
        },
        "data_horizon": [p.data_horizon for p in found.profiles],
        "ln_norm_ds_T_ds_k": np.mean([p.log_norms for p in found.profiles], axis=0).tolist(),
        "while_training": turning_points(records, found.metric, found.maximize, found.baseline),
        "measured": found.measured,
    }
    return run | {"seconds": round(time.perf_counter() - start, 1)}


def _run_task(experiment: Experiment, measures: list[str], console: Console) -> Outcome:
    """The same for a run of a task; `measures` are names from measures.py."""
    task = experiment.build_task()
    state = train(experiment, resume=False, console=console)
    model, params = build_model(experiment, task), state.best.params
    xs = model.features(params, steps_of_all(task.validation(), SEQUENCES))
    found = profiles(model.cell, params.cell, xs)
    return Outcome(
        cell=experiment.model.cell.label,
        metric=task.metric,
        maximize=task.maximize,
        baseline=next(iter(task.baselines("test").values()), None),
        scores=evaluate(experiment, state.best, "test", Path(experiment.run_dir))["scores"],
        profiles=found,
        measured=measure(measures, model, params, task.test()),
    )


def first_solved(
    curve: Sequence[dict[str, Any]], metric: str, maximize: bool, solved: float | None, batch_size: int
) -> list[int | None]:
    """Training sequences until a validation score first is at least as good as `solved`, per seed; None: never.

    Args:
        curve: the validation records of a run.
        metric: the name of the score.
        maximize: True if a larger score is better.
        solved: the score to reach; None: no such score.
        batch_size: sequences per step.
    """
    scores = np.array([r[metric] for r in curve])
    if solved is None:
        return [None] * scores.shape[1]
    there = scores >= solved if maximize else scores <= solved
    return [int(curve[int(s.argmax())]["step"]) * batch_size if s.any() else None for s in there.T]


def turning_points(
    records: Sequence[dict[str, Any]], metric: str, maximize: bool, baseline: float | None
) -> list[dict[str, Any]]:
    """What train.probe measured at three points of training, as means over seeds.

    The points are the start, the probe nearest to the first validation whose mean score is 10 % better than the
    baseline, and the end. Without probes the list is empty.

    Args:
        records: all records of a run.
        metric: the name of the score.
        maximize: True if a larger score is better.
        baseline: the score of the baseline; None: there is none.

    Returns:
        One dict per point: "when", "step", and "ln_norm", the T + 1 natural logs of ‖∂s_T/∂s_k‖.
    """
    probes = [r for r in records if r["split"] == "probe"]
    if not probes:
        return []
    leaves = [
        r["step"]
        for r in records
        if r["split"] == "validation"
        and baseline is not None
        and (np.mean(r[metric]) > 1.1 * baseline if maximize else np.mean(r[metric]) < 0.9 * baseline)
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
