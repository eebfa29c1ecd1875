"""The demo, small: what it writes, and that it replaces only its own."""

import json
from pathlib import Path

import numpy as np
import pytest

from jax_lstm.cli import main
from jax_lstm.cli.demo import FILES, NOTES

pytestmark = pytest.mark.slow  # make test-all runs it

CONFIGS = str(Path(__file__).parents[2] / "configs")
SMALL = [
    *("--configs", CONFIGS, "--train.steps", "2", "--opt.warmup_steps", "1", "--train.batch_size", "4"),
    *("--train.seeds", "[0, 1]", "--model.hidden_size", "3"),
]


def test_the_demo_trains_two_cells_on_two_tasks_and_writes_files(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", *SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith(("Training", "[", "  step"))]
    runs = ["digits, LSTM", "digits, RNN", "adding, LSTM", "adding, RNN"]
    assert lines[0].startswith("Training an LSTM and a tanh RNN on digits and adding: 4 runs")
    assert lines[1::2] == [f"[{n}/4] {run}: 2 seeds, 2 steps" for n, run in enumerate(runs, 1)]
    assert [line.split("  ")[1] for line in lines[2::2]] == ["step 2 of 2"] * 4
    assert all(line in printed for line in NOTES)
    assert all((out / name).is_file() for name in FILES if "/" not in name)
    rows = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert [(r["task"], r["cell"]) for r in rows] == [
        ("digits", "LSTM"),
        ("digits", "RNN"),
        ("adding", "LSTM"),
        ("adding", "RNN"),
    ]
    for row in rows:
        run_dir = out / f"{row['task']}-{row['cell']}"
        assert (run_dir / "config.yaml").is_file()
        assert (run_dir / "metrics.jsonl").is_file()
        assert (run_dir / "checkpoints" / "2").is_dir()
        assert json.loads((run_dir / "test.json").read_text(encoding="utf-8"))["scores"] == row["scores"]
        assert row["mean"] == pytest.approx(np.mean(row["scores"]))
        assert len(row["gradient_flow"]) == 2
    for figure in ("learning_curves.png", "gradient_flow.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")

    (out / "stale.txt").write_text("of the demo before", encoding="utf-8")
    (out / "demo.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["demo", *SMALL, "--out", str(out), "--opt.lr", "-1"])
    with pytest.raises(SystemExit) as left:
        main(["demo", *SMALL, "--out", str(out), "--train.devices", "16", "--train.batch_size", "16"])
    assert left.value.code == 2
    assert "train.devices: wanted auto, or at most 8 (the local devices)" in capsys.readouterr().err
    assert (out / "stale.txt").is_file()  # a refusal deletes nothing


def test_a_demo_replaces_the_one_before_it(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "demo.json").write_text("[]", encoding="utf-8")
    (out / "stale.txt").write_text("of the demo before", encoding="utf-8")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("jax_lstm.cli.demo._run", stop)
    assert main(["demo", *SMALL, "--out", str(out)]) == 130
    assert not (out / "stale.txt").exists()
    assert (out / "demo.json").is_file()  # an interrupted demo can be replaced too


def test_a_directory_that_is_not_the_demos_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["demo", *SMALL, "--out", str(tmp_path)])
    assert left.value.code == 2
    assert "was not written by the demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text(encoding="utf-8") == "mine"


def test_a_missing_config_folder_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["demo", "--configs", str(tmp_path)])
    assert left.value.code == 2
    assert "has no digits.yaml" in capsys.readouterr().err
