"""benchmarks/gpu.py runs on a CPU with tiny shapes, refuses to measure there, and its results become a table."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import tables  # noqa: E402

KERNELS = {"a_step": 6.04, "events": 773, "names": {"gemm": 256}}
NOT_COUNTED = {"a_step": None, "reason": "no profiler"}


def run(*options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def numbers(tree):
    """Every number in nested dicts and lists."""
    if isinstance(tree, dict | list):
        return [n for part in (tree.values() if isinstance(tree, dict) else tree) for n in numbers(part)]
    return [tree] if isinstance(tree, int | float) else []


@pytest.mark.slow
def test_a_dry_run_fills_every_row(tmp_path, monkeypatch):
    done = run("--dry-run", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert rows["errors"] == {}
    assert rows["skipped"] == []
    assert all(math.isfinite(n) for n in numbers(rows))
    assert len(rows["correctness"]) == 3 * 3
    assert all(row["ok"] for row in rows["correctness"])
    assert len(rows["times"]) == 5
    assert len(rows["extras"]) == 2
    assert len(rows["flags"]) == 6
    for row in (*rows["times"], *rows["extras"]):
        assert len(row["figures"]) >= 3  # PyTorch and Equinox need not be installed
        for figure in row["figures"].values():
            assert figure["forward"]["ms"] > 0
            assert figure["train"]["ms"] > 0
    assert all(
        figure[kind]["a_step"] for name, figure in rows["kernels"].items() for kind in figure if name != "PyTorch"
    )

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.gpu().count("| float32 |") == 3


@pytest.mark.slow
def test_rows_after_the_time_limit_are_listed(tmp_path):
    done = run("--dry-run", "--seconds", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert len(rows["skipped"]) == len(rows["seconds"])
    assert rows["times"] == rows["correctness"] == []


def test_without_a_gpu_one_sentence_says_so():
    done = run()
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("benchmarks/gpu.py needs an NVIDIA GPU")


def test_the_gpu_table_shows_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.gpu() == "Not run yet."
    times = {"forward": {"ms": 1.234}, "train": {"ms": 5.678}}
    rows = {
        "gpu": {"kind": "a GPU"},
        "times": [{"shape": [32, 128, 128, 256], "dtype": "float32", "figures": {"jax_lstm": times, "PyTorch": {}}}],
        "kernels": {"jax_lstm": {"forward": KERNELS, "train": NOT_COUNTED}},
        "correctness": [{"cell": c, "precision": "highest", "largest": e} for c, e in (("LSTM", 3e-7), ("GRU", 1e-7))],
        "skipped": ["the last row"],
        "errors": {},
    }
    machine = {"python": "3.12", "versions": {"jax": "0.11", "keras": "absent"}}
    (tmp_path / "gpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    text = tables.gpu()
    assert "| 32, 128, 128, 256 | float32 | 1.23 / 5.68 |  |  |  |  |" in text
    assert "jax_lstm 6.0 / not counted." in text
    assert "(LSTM, GRU): highest 3.0e-07." in text
    assert "GPU: a GPU. Python 3.12, jax 0.11." in text
    assert text.endswith("Not measured: the last row.")
