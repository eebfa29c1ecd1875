"""`jax-lstm runs`: one line per run, the best first; a broken run is a line too."""

import json
from pathlib import Path

import pytest
import yaml

from jax_lstm.cli import main


def write(path, best, steps=20, maximize=True, test=None, **model):
    """The files of a run whose last validation is that of step 20."""
    path = Path(path)
    path.mkdir(parents=True)
    config = {"model": {"cell": "LSTM", **model}, "task": {"class_path": "my_lab.Rows", "init_args": {"length": 3}}}
    config |= {"train": {"steps": steps, "devices": len(path.name)}, "run_dir": str(path)}
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    records = [{"step": 20, "split": "train", "loss": [9.0]}]
    records += [{"step": step, "split": "validation", "accuracy": [0.0, 0.0], "best": best} for step in (10, 20)]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    data = {"metric": "accuracy", "maximize": maximize, "model": None}
    (path / "model.json").write_text(json.dumps(data), encoding="utf-8")
    if test is not None:
        (path / "test.json").write_text(json.dumps({"mean": test}), encoding="utf-8")


def listed(capsys, *argv):
    """The lines of the table, each split at two or more spaces."""
    assert main(["runs", *argv]) == 0
    return [[cell for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("maximize", [True, False])
def test_runs_are_compared_with_the_best_first(here, capsys, maximize):
    write("runs/a", [0.5, 0.75], maximize=maximize, hidden_size=4)
    write("runs/deep/b", [0.25, 0.25], steps=30, maximize=maximize, hidden_size=8, test=0.125)
    head, *rows = [[cell.strip() for cell in line] for line in listed(capsys)]
    assert head == ["run", "task", "cell", "seeds", "step", "best validation", "test", "state", "differs in"]
    a = ["runs/a", "Rows", "LSTM", "2", "20/20", "accuracy 0.6250", "finished", "model.hidden_size=4 train.steps=20"]
    b = ["runs/deep/b", "Rows", "LSTM", "2", "20/30", "accuracy 0.2500", "0.1250", "stopped"]
    b += ["model.hidden_size=8 train.steps=30"]
    assert rows == ([a, b] if maximize else [b, a])


@pytest.mark.parametrize(
    ("train", "state"),
    [
        ({"target": 0.5}, "target reached"),
        ({"target": 0.6}, "stopped"),
        ({"patience": 1}, "stopped early"),
        ({"patience": 2}, "stopped"),
        ({}, "stopped"),
    ],
)
def test_a_run_that_ended_early_says_why(here, capsys, train, state):
    write("run", [0.5, 0.75], steps=30)
    path = Path("run/config.yaml")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["train"] |= train
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert listed(capsys, ".")[1][-1].strip() == state


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.yaml", "opt: {lr: 1", "config.yaml is damaged"),
        ("config.yaml", "- 1", "config.yaml has no keys"),
        ("model.json", "{", "model.json is damaged"),
        ("metrics.jsonl", '{"step": 1, "spl', "metrics.jsonl is damaged"),
        ("metrics.jsonl", '"step"\n', "metrics.jsonl is damaged"),
        ("metrics.jsonl", "", "no validation yet"),
        ("test.json", "[]", "test.json has no keys"),
    ],
)
def test_a_broken_run_is_a_line_with_the_reason(here, capsys, file, content, says):
    write("broken", [0.5])
    write("good", [0.5])
    Path("broken", file).write_text(content, encoding="utf-8")
    _, good, broken = listed(capsys, ".")
    assert good[0].strip() == "good"
    assert broken[0].strip() == "broken"
    assert any(says in cell for cell in broken)


def test_a_folder_without_runs_and_no_folder(here, capsys):
    Path("empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert "No runs below empty" in capsys.readouterr().out
    for name, says in (("missing", "does not exist"), ("file", "is a file")):
        Path("file").touch()
        with pytest.raises(SystemExit) as left:
            main(["runs", name])
        assert left.value.code == 2
        assert says in capsys.readouterr().err
