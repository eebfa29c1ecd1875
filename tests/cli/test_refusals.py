"""What the command line refuses: exit 2, the key named, nothing written, nothing executed, no traceback."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jax_lstm.cli import main

GOOD = {
    "model": {"cell": "LSTM", "hidden_size": 4},
    "task": {"class_path": "adding", "init_args": {"length": 6}},
    "opt": {"lr": 0.01},
    "train": {"steps": 2, "batch_size": 2, "log_every": 1, "eval_every": 1},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *argv):
    """What a refusal says; it exits with 2 and leaves no run."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert "Traceback" not in out + err
    assert sorted(Path().rglob("*")) == before
    return err.split("error:")[-1]


def config(**changes):
    """A config file with some keys, "section.key" written as section__key, changed."""
    data: dict[str, Any] = {section: dict(keys) for section, keys in GOOD.items()} | {"run_dir": "run"}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            data[section][name] = value
        else:
            data[section] = value
    Path("config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return "config.yaml"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--opt.rate", "1"], ["opt.rate"]),
        (["--opt.lr", "fast"], ["opt.lr", "float"]),
        (["--opt.lr", "-1"], ["opt.lr", "above 0"]),
        (["--opt.schedule", "linear"], ["opt.schedule", "warmup_cosine"]),
        (["--model.cell", "transformer"], ["model.cell", "LSTM", "RNN", "GRU"]),
        (["--model.cell", "Stack"], ["model.cell", "input_size and hidden_size", "LSTM"]),
        (["--model.cell"], ["model.cell", "a value after --model.cell"]),
        (["--model.cell", "no_lab.cells.Leaky"], ["model.cell", "no_lab", "PYTHONPATH"]),
        (["--model.cell", "json.dumps"], ["model.cell", "wanted a class"]),
        (["--model.cell", "pathlib.Path"], ["model.cell", "parameter input_size"]),
        (["--model.cell.peepholes", "true"], ["model.cell.peepholes"]),
        (["--model.cell.peephole", "deep"], ["model.cell.peephole", "bool"]),
        (["--model.cell.without", "gates"], ["model.cell", "without"]),
        (["--model.hidden_size", "0"], ["model", "hidden_size", "at least 1"]),
        (["--model.window", "0"], ["model.window", "1 or more"]),
        (["--model.hidden_size", "2.5"], ["model.hidden_size", "int"]),
        (["--model.cell", "rnn", "--model.cell.forget_bias", "1"], ["model.cell.forget_bias"]),
        (["--model.cell.forget_bias", "1", "--model.cell.chrono", "9"], ["model.cell", "forget_bias", "chrono"]),
        (["--task", "mnist"], ["task", "digits", "adding"]),
        (["--task", "pathlib.Path"], ["task", "Path has no"]),
        (["--task", "digits", "--task.length", "6"], ["task.length"]),
        (["--data.path", "flows.csv"], ["data.path", "series or text", "but the task is adding"]),
        (["--task", "series"], ["data", "path", "--data.path FILE"]),
        (["--task", "series", "--task.path", "flows.csv"], ["task.path", "wanted --data.path"]),
        (["--task", "text", "--data.inputs", "rain"], ["data.inputs"]),
        (["--task.length", "1"], ["task", "length", "at least 2"]),
        (["--task.length", "long"], ["task.length", "int"]),
        (["--task", "digits", "--train.batch_size", "2000"], ["train.batch_size", "1297"]),
        (["--imports"], ["--imports", "the name of a package"]),
        (["--train.steps", "0"], ["train.steps", "1 or more"]),
        (["--train.devices", "0"], ["train.devices", "auto, or 1 or more"]),
        (["--train.devices", "-1"], ["train.devices", "auto, or 1 or more"]),
        (["--train.devices", "all"], ["train.devices", "auto"]),
        (["--train.devices", "1.5"], ["train.devices", "int", "auto"]),
        (["--train.devices", "null"], ["train.devices", "int", "auto"]),
        (["--train.devices", "4"], ["train.devices", "a divisor of train.batch_size (2)", "4"]),
        (
            ["--train.devices", "16", "--train.batch_size", "16"],
            ["train.devices", "at most 8 (the local devices)", "16"],
        ),
        (["--train.seeds", "[1, one]"], ["train.seeds", "int"]),
        (["--train.seeds", "[1, 1]"], ["train.seeds", "each seed once"]),
        (["--opt.schedule", "warmup", "--opt.warmup_steps", "2"], ["opt.warmup_steps", "fewer than train.steps"]),
        (["--no_such_flag"], ["no_such_flag"]),
        (["--resume"], ["--resume", "no checkpoint"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_bad_flag_is_refused_by_name(here, capsys, flags, said):
    err = refused(capsys, "train", config(), *flags)
    assert all(word in err for word in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"opt__rate": 1}, ["opt", "rate"]),
        ({"optimizer": {"lr": 1}}, ["optimizer"]),
        ({"opt__lr": "fast"}, ["opt.lr", "float"]),
        ({"opt__lr": [1]}, ["opt.lr", "float"]),
        ({"model__cell": "transformer"}, ["model.cell", "LSTM"]),
        ({"model__cell": {"peephole": True}}, ["model.cell", "class_path"]),
        ({"model__cell": {"class_path": "LSTM", "init_args": {"peepholes": 1}}}, ["model.cell.peepholes"]),
        ({"model__cell": {"class_path": "LSTM", "init_args": {"peephole": 3}}}, ["model.cell.peephole", "bool"]),
        ({"model__chrono": 9}, ["model.chrono"]),
        ({"task": {"name": "adding"}}, ["task", "class_path"]),
        ({"task": None}, ["task", "wanted a name"]),
        ({"opt": "other.yaml"}, ["opt", "the options of this section"]),
        ({"data": {"path": "flows.csv"}}, ["data", "series or text", "but the task is adding"]),
        ({"task": {"class_path": "series", "init_args": {"path": "a"}}}, ["task: series and data: {OPTION: VALUE}"]),
        ({"train__seeds": 3}, ["train.seeds", "tuple"]),
        ({"train__devices": True}, ["train.devices", "int", "auto"]),
        ({"train__devices": [1, 2]}, ["train.devices", "int", "auto"]),
        ({"train__steps": True}, ["train.steps", "int"]),
        ({"model": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "pwned"]}}}, ["model.init_args"]),
    ],
    ids=lambda value: "",
)
def test_a_bad_key_in_a_file_is_refused_by_name(here, capsys, changes, said):
    err = refused(capsys, "train", config(**changes))
    assert all(word in err for word in said)


@pytest.mark.parametrize("missing", ["model.cell", "task", "run_dir"])
def test_a_key_without_a_default_must_be_given(here, capsys, missing):
    section, _, name = missing.partition(".")
    data: dict[str, Any] = {s: dict(keys) for s, keys in GOOD.items()} | {"run_dir": "run"}
    del (data[section] if name else data)[name or section]
    Path("config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert missing in refused(capsys, "train", "config.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"opt: {lr: !!python/object/apply:os.system ['touch pwned']}", "python/object/apply:os.system"),
        (b"opt: !!python/name:os.system", "python/name:os.system"),
        (b"\x00\xff\xfe\x81" * 50, "config"),
        (b"", "config"),
        (b"- 1\n- 2\n", "config"),
        (b"just words", "config"),
        (b"opt: {lr: 1\n", "config"),
    ],
    ids=["python object", "python name", "binary", "empty", "a list", "a string", "cut short"],
)
def test_unsafe_or_malformed_configs_are_refused_and_run_no_code(here, capsys, content, said):
    Path("config.yaml").write_bytes(content)
    assert said in refused(capsys, "train", "config.yaml")
    assert not Path("pwned").exists()


def test_a_missing_file_and_a_directory_are_refused(here, capsys):
    assert "does not exist" in refused(capsys, "train", "missing.yaml")
    Path("folder").mkdir()
    assert "not a file" in refused(capsys, "train", "folder")


def test_an_unknown_command_is_refused_with_the_known_ones(here, capsys):
    err = refused(capsys, "fly")
    assert all(word in err for word in ("fly", "train", "evaluate", "gradflow", "demo"))


@pytest.mark.parametrize("command", ["evaluate", "gradflow"])  # for the others see the tests of each
def test_a_directory_that_is_no_run_is_refused(here, capsys, command):
    Path("folder").mkdir()
    assert "folder is not the directory of a run" in refused(capsys, command, "folder")


def test_a_run_directory_that_is_a_file_is_refused(here, capsys):
    Path("run").write_text("mine", encoding="utf-8")
    assert "run is a file" in refused(capsys, "train", config())
    assert Path("run").read_text(encoding="utf-8") == "mine"
