"""Cores as devices: how many a command finds, in processes of their own; and what the configs' programs communicate."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import HLO
from tiers import slow_except

from jax_lstm.cli import main
from jax_lstm.cli.build import build_problem
from jax_lstm.cli.cores import count_cores
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.train import init_state, optimizer, read_metrics
from jax_lstm.train.devices import data_mesh
from jax_lstm.train.state import place
from jax_lstm.train.step import compile_steps

pytestmark = pytest.mark.slow  # make test-all runs it

ROOT = Path(__file__).parents[2]
TINY = [
    *("--model.cell", "LSTM", "--model.hidden_size", "3", "--task", "adding", "--task.length", "4"),
    *("--train.steps", "2", "--train.log_every", "1"),
]


def python(code, **variables):
    """What a fresh interpreter on a CPU prints last, with nothing chosen but `variables`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n")[-2]


def devices_after(code, **variables):
    """How many devices there are after `code` and what a command does first."""
    lines = ("import jax, os", code, "from jax_lstm.cli.cores import make_cores_devices", "make_cores_devices()")
    return int(python("\n".join((*lines, "print(jax.local_device_count())")), **variables))


def test_each_core_is_a_device():
    assert devices_after("") == count_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_only_cores_the_process_may_use_are_devices():
    assert devices_after("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})") == 1


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("", {"JAX_NUM_CPU_DEVICES": "5"}),
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}),
        ("jax.config.update('jax_num_cpu_devices', 5)", {}),
        ("jax.config.update('jax_num_cpu_devices', 5); jax.devices()", {}),
    ],
    ids=["JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "jax.config", "in use"],
)
def test_a_number_of_devices_that_was_chosen_is_kept(code, variables):
    assert devices_after(code, **variables) == 5


def test_a_backend_in_use_is_left_as_it_is():
    assert devices_after("jax.devices()") == 1


def test_importing_the_library_makes_no_devices():
    code = "import jax, jax_lstm, jax_lstm.train, jax_lstm.cli.train; print(jax.local_device_count())"
    assert int(python(code)) == 1


def test_training_on_a_cpu_uses_every_core(tmp_path):
    run_dir = tmp_path / "run"
    argv = ["train", *TINY, "--train.batch_size", str(2 * count_cores()), "--run_dir", str(run_dir)]
    assert python(f"from jax_lstm.cli import main; print(main({argv!r}))") == "0"
    device = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["device"]
    assert device["count"] == device["used"] == count_cores()


@pytest.mark.slow
def test_a_run_on_many_devices_resumes_and_evaluates_on_one(tmp_path):
    run_dir = str(tmp_path / "run")
    argv = ["train", *TINY, "--train.batch_size", "8", "--run_dir", run_dir]
    assert main(argv) == 0
    commands = [[*argv, "--resume", "--train.steps", "4"], ["evaluate", run_dir], ["gradflow", run_dir]]
    code = f"from jax_lstm.cli import main; print([main(argv) for argv in {commands!r}])"
    assert python(code, JAX_NUM_CPU_DEVICES="1") == "[0, 0, 0]"
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["device"]["used"] == 1
    assert [r["step"] for r in read_metrics(tmp_path / "run") if r["split"] == "train"] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "test.json").is_file()


# One of each way to be scored and to run: a loss of sequences, of numbers, of some steps, of all (with a carried state
# and two layers), weighed, over truncated windows, of many seeds one after another and at once. Flossing is left out:
# it trains exponents, not through the engine but through their own loop, which sums weight gradients as it goes.
@pytest.mark.parametrize(
    "name",
    slow_except(["digits", "bytes"], ["digits", "adding", "copy", "bytes", "timing", "continual_reber", "a5"]),
)
def test_all_reduce_is_the_only_collective_and_in_no_inner_loop(name):
    path = ROOT / "configs" / f"{name}.yaml"
    experiment, _ = parse_experiment(experiment_parser("train", ""), [str(path), "--model.hidden_size", "5"])
    devices = max(n for n in (2, 4) if experiment.train.batch_size % n == 0)
    problem, tx, mesh = build_problem(experiment), optimizer(experiment.opt, experiment.train.steps), data_mesh(devices)
    state = place(init_state(problem, tx, experiment.train.seeds), mesh)
    steps: Any = compile_steps(problem, tx, 2, mesh=mesh)
    hlo = HLO(steps.lower(state).compile().as_text() or "")
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
    cut = experiment.model.window is not None  # truncated gradients: a loop more, which runs each window again
    assert [hlo.count(next(reversed(hlo.computations)), kind) for kind in kinds] == [1 + cut, 0, 0, 0, 0]
    inner = [body for body in hlo.loop_bodies() if hlo.count(body, "dot") and not hlo.count(body, "while")]
    assert [hlo.count(body, kind) for body in inner for kind in kinds] == [0] * 5 * (2 * experiment.model.layers + cut)
