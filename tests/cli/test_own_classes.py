"""Cells and tasks of a user, by dotted path from a folder outside the package; and what files may import."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import jax_lstm as jl
from jax_lstm.cli import main
from jax_lstm.cli.imports import check_imports, take_imports
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.registry import CELLS
from jax_lstm.tasks import TASKS, register_task

LAB = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jax_lstm as jl
from jax_lstm.tasks import Batch

Path(__file__).with_name("imported").touch()


class Level(NamedTuple):
    """The state; its field is not called h."""

    s: Any


class Leaky:
    """A leaky integrator with no base class.

    Args:
        gain: how fast it follows its input.
    """

    def __init__(self, input_size: int, hidden_size: int, gain: float = 0.5):
        self.input_size, self.hidden_size, self.gain = input_size, hidden_size, gain

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)

    def initial_state(self, params):
        return Level(jnp.zeros(self.hidden_size, params.dtype))

    def step(self, params, state, x):
        s = state.s + self.gain * (jnp.tanh(x @ params) - state.s)
        return Level(s), s


@jl.register_cell
@dataclass(frozen=True)
class SplitLeaky(jl.SplitCell):
    """The same as a SplitCell, registered."""

    input_size: int
    hidden_size: int
    gain: float = 0.5

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)

    def initial_state(self, params):
        return Level(jnp.zeros(self.hidden_size, params.dtype))

    def project(self, params, x):
        return x @ params

    def recur(self, params, state):
        return None

    def update(self, params, state, z):
        return Level(state.s + self.gain * (jnp.tanh(z) - state.s))

    def output(self, state):
        return state.s


class Group:
    @jl.register_cell
    @dataclass(frozen=True)
    class Nested(SplitLeaky):
        """A registered class inside a class."""


class Noise:
    """How strong the noise of Spikes is."""

    def __init__(self, scale: float = 0.1):
        self.scale = scale


@dataclass(frozen=True)
class Spikes:
    """Sum noise around a constant.

    Args:
        width: the number of steps.
        noise: the noise.
    """

    width: int = 3
    noise: Noise | None = None

    input_size = 1
    output_size = 1
    loss = "mse"
    metric = "mse"
    maximize = False

    @property
    def length(self):
        return self.width

    def baselines(self, split):
        return {}

    def train_batch(self, key, step, size):
        scale = 1.0 if self.noise is None else self.noise.scale
        xs = scale * jax.random.normal(jax.random.fold_in(key, step), (size, self.width, 1), jnp.float32)
        return Batch(xs, xs.sum(axis=1), jnp.ones((size, self.width), bool).at[0, -1].set(False))

    def validation(self):
        return self.train_batch(jax.random.key(1), 0, 4)

    def test(self):
        return self.train_batch(jax.random.key(2), 0, 4)
'''
LOOP = ["--train.steps", "1", "--train.batch_size", "2", "--train.devices", "1", "--model.hidden_size", "3"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with the module my_lab, which leaves the file "imported" when it is imported."""
    cells, tasks = dict(CELLS), dict(TASKS)
    (tmp_path / "my_lab.py").write_text(LAB, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_lab", None)
    for registry, before in ((CELLS, cells), (TASKS, tasks)):
        for name in set(registry) - set(before):
            del registry[name]


def read(*argv, packages=()):
    return parse_experiment(experiment_parser("train", ""), argv, packages)[0]


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert "Traceback" not in out + err
    return " ".join(err.split("error:")[-1].split())


@pytest.mark.parametrize("cell", ["my_lab.Leaky", "my_lab.SplitLeaky"])
def test_a_users_cell_and_task_are_trained_and_evaluated(cell, lab, capsys):
    run = ["--model.cell", cell, "--model.cell.gain", "0.25", "--task", "my_lab.Spikes", "--task.width", "4"]
    assert main(["train", *run, *LOOP, "--run_dir", "run"]) == 0
    assert f"Training Spikes, {cell.partition('.')[2]}: 1 seed" in capsys.readouterr().out
    config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["cell"] == {"class_path": cell, "init_args": {"gain": 0.25}}
    assert config["task"] == {"class_path": "my_lab.Spikes", "init_args": {"width": 4, "noise": None}}
    assert main(["evaluate", "run", "--imports", "my_lab"]) == 0
    first, again = read(*run, *LOOP, "--run_dir", "run"), read("run/config.yaml", packages=["my_lab"])
    assert first == again
    assert first.build_task() == again.build_task()


@pytest.mark.parametrize("of", ["cell", "run"])
def test_gradflow_measures_a_users_cell_whose_output_is_known(of, lab, capsys):
    def argv(cell):
        if of == "cell":
            return ["gradflow", "--cell", cell, "--hidden_size", "2", "--steps", "3", "--out", "out"]
        train = ["train", "--model.cell", cell, "--task", "my_lab.Spikes", *LOOP, "--run_dir", cell]
        assert main(train) == 0
        return ["gradflow", cell, "--imports", "my_lab"]

    assert main(argv("my_lab.SplitLeaky")) == 0
    assert "units of s keep" in " ".join(capsys.readouterr().out.split())
    assert "but Leaky has neither; measure one layer, or define output" in refused(capsys, *argv("my_lab.Leaky"))


def test_the_options_of_a_users_class_are_checked_and_in_help(lab, capsys):
    run = ["--model.cell", "my_lab.Leaky", "--task", "my_lab.Spikes", "--run_dir", "run"]
    assert "--model.cell.gains" in refused(capsys, "train", *run, "--model.cell.gains", "1")
    assert "model.cell.gain" in refused(capsys, "train", *run, "--model.cell.gain", "fast")
    assert "model.cell.hidden_size" in refused(capsys, "train", *run, "--model.cell.hidden_size", "3")
    for argv in (["--model.cell.help", "my_lab.Leaky"], [*run, "--help"]):
        with pytest.raises(SystemExit) as left:
            main(["train", *argv])
        assert left.value.code == 0
        assert "how fast it follows its input" in " ".join(capsys.readouterr().out.split())


def test_a_registered_class_is_chosen_by_its_name_in_any_case(lab, monkeypatch):
    import my_lab  # pyrefly: ignore

    register_task("spikes", my_lab.Spikes)
    experiment = read("--model.cell", "splitleaky", "--task", "spikes", *LOOP, "--run_dir", "run")
    assert experiment.model.build(experiment.build_task()) == my_lab.SplitLeaky(1, 3)
    assert jl.from_config({"cell": "SplitLeaky", "input_size": 1, "hidden_size": 3}) == my_lab.SplitLeaky(1, 3)
    # A run is read in a process that has not imported my_lab: its config has the dotted paths.
    assert (experiment.model.cell.name, experiment.task.name) == ("my_lab.SplitLeaky", "my_lab.Spikes")


def test_a_nested_class_is_found_again_by_its_dotted_path(lab):
    import my_lab  # pyrefly: ignore

    experiment = read("--model.cell", "nested", "--task", "adding", *LOOP, "--run_dir", "run")
    assert experiment.model.cell.name == "my_lab.Group.Nested"
    assert isinstance(experiment.model.build(experiment.build_task()), my_lab.Group.Nested)
    for name in ("SplitLeaky", "Nested"):
        del CELLS[name]
    again = read("--model.cell", "my_lab.Group.Nested", "--task", "adding", *LOOP, "--run_dir", "run")
    assert again.model.build(again.build_task()) == my_lab.Group.Nested(2, 3)
    with pytest.raises(SystemExit):
        read("--model.cell", "my_lab.Group.Missing", "--task", "adding", *LOOP, "--run_dir", "run")


@pytest.mark.parametrize(
    ("cell", "task"),
    [("jax_lstm.cells.gru.GRU", "jax_lstm.tasks.adding.Adding"), ("jax_lstm.GRU", "jax_lstm.tasks.Adding")],
)
def test_the_dotted_path_of_a_class_of_ours_becomes_its_name(cell, task, lab):
    experiment = read("--model.cell", cell, "--task", task, "--run_dir", "run")
    assert (experiment.model.cell.name, experiment.task.name) == ("GRU", "adding")


def test_a_directory_may_have_the_name_of_an_option(lab):
    assert read("adding.yaml", "--run_dir", "task").run_dir == "task"


EVIL = {
    "cell": {"model": {"cell": "my_lab.Leaky"}},
    "class_path": {"model": {"cell": {"class_path": "my_lab.Leaky", "init_args": {"gain": 1.0}}}},
    "task": {"task": "my_lab.Spikes"},
    "nested": {"model": {"cell": {"class_path": "LSTM", "init_args": {"without": {"class_path": "my_lab.Noise"}}}}},
    "as a value": {"task": {"class_path": "adding", "init_args": {"length": "my_lab.Noise"}}},
    "yaml in a string": {"task": {"class_path": "adding", "init_args": {"length": '{class_path: "my\\x5flab.Noise"}'}}},
    "data": {"task": "series", "data": {"path": {"class_path": "my_lab.Noise"}}},
    "data as yaml": {"task": "series", "data": {"path": "a.csv", "inputs": '{class_path: "my_lab.Noise"}'}},
    "data of another class": {"task": "my_lab.Spikes", "data": {"noise": {"class_path": "my_lab.Noise"}}},
    "dotted keys": {"model": {"cell": "LSTM", "cell.without": "my_lab.Noise"}},
}


READERS = {
    "evaluate": [],
    "gradflow": [],
    "sample": [],
    "predict": ["--data.path", "a.csv"],
    "export": ["--to", "a.onnx"],
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize(
    "command", ["train", "evaluate", "gradflow", "sample", "predict", "export", "resume", "experiment"]
)
def test_a_file_that_names_a_class_of_others_imports_nothing(command, name, lab, capsys):
    config = {"model": {"cell": "LSTM"}, "task": "reber", "run_dir": "run"} | EVIL[name]
    Path("run").mkdir()
    for path in ("run/config.yaml", "own.yaml"):
        Path(path).write_text(yaml.safe_dump(config), encoding="utf-8")
    argv = [command, "run", *READERS.get(command, [])]
    if command in ("train", "resume"):
        argv = ["train", "run/config.yaml", *(["--resume"] if command == "resume" else [])]
    if command == "experiment":
        Path("experiments").mkdir()
        spec = {"title": "", "runs": {"a": {"config": "own.yaml", "set": {}}}, "solved": None, "marks": []}
        Path("experiments/own.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        argv = ["experiment", "own", "--configs", "."]
    said = refused(capsys, *argv)
    assert "--imports my_lab" in said or name in ("dotted keys", "data", "data as yaml")
    assert not Path("imported").exists()
    assert "my_lab" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.cell": "my_lab.Leaky"}, "--imports my_lab"),
        ({"model.cell": "{class_path: my_lab.Leaky}"}, "--imports my_lab"),
        ({"imports": "my_lab", "model.cell": "my_lab.Leaky"}, "wanted keys of a config in set, but got imports"),
        ({"imports=my_lab": "", "model.cell": "my_lab.Leaky"}, "but got imports=my_lab"),
        ({"config": "evil.yaml"}, "but got config"),
        ({"opt.lr": "--imports=my_lab", "task": "my_lab.Spikes"}, "--imports my_lab"),
    ],
)
def test_an_experiments_changes_are_checked_like_a_file(changes, said, lab, capsys):
    Path("experiments").mkdir()
    runs = {"a": {"config": "own.yaml", "set": changes}}
    Path("experiments/own.yaml").write_text(yaml.safe_dump({"title": "", "runs": runs}), encoding="utf-8")
    config = {"model": {"cell": "LSTM"}, "task": "reber", "run_dir": "run"}
    Path("own.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert said in refused(capsys, "experiment", "own", "--configs", ".")
    assert not Path("imported").exists()


def test_imports_allows_a_package_and_no_other(lab, capsys):
    noise = {"class_path": "my_lab.Noise", "init_args": {"scale": 0.5}}
    task = {"class_path": "my_lab.Spikes", "init_args": {"noise": noise}}
    config = {"model": {"cell": "my_lab.Leaky"}, "task": task, "run_dir": "run"}
    Path("own.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "--imports my_lab" in refused(capsys, "train", "own.yaml", "--imports", "other,my_lab_2")
    assert not Path("imported").exists()
    assert main(["train", "own.yaml", "--imports", "other,my_lab", *LOOP]) == 0
    assert Path("imported").exists()
    again: Any = read("run/config.yaml", "--imports=my_lab").build_task()
    assert (type(again).__name__, again.noise.scale) == ("Spikes", 0.5)


def test_imports_can_be_repeated_and_separated_by_commas():
    argv = ["run", "--imports", "a,b", "--split", "test", "--imports=c"]
    assert take_imports(argv) == (["a", "b", "c"], ["run", "--split", "test"])


def test_plain_values_with_points_are_no_imports():
    check_imports("config", {"file": "runs/data.csv", "number": 1.5, "text": "no_such_package.thing", "on": True}, [])
    check_imports("config", {"class_path": "jax_lstm.cells.gru.GRU"}, [])
    with pytest.raises(ValueError, match=r"names os\.system"):
        check_imports("config", {"file": ["os.system"]}, [])
