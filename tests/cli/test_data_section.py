"""The section `data`: the options of a task that reads the user's files."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from jax_lstm.cli import main
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.tasks import TASKS, Adding

GOOD = ["--model.cell", "LSTM", "--run_dir", "run", "--train.batch_size", "2"]


def rows_class():
    """A class in a function has its registered name in configs, as the classes of the library have."""

    @dataclass(frozen=True)
    class Rows(Adding):
        """Read rows of a file.

        Args:
            path: The file.
            inputs: The columns that are read.
        """

        path: str | None = None
        inputs: str | list[str] | tuple[str, ...] = ""

        section = "data"

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "inputs", tuple(self.inputs))
            if self.path is None:
                raise ValueError("Rows: path must be given")

    return Rows


Rows = rows_class()


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The task `rows`, and an empty working directory."""
    monkeypatch.setitem(TASKS, "rows", Rows)
    monkeypatch.chdir(tmp_path)
    Path("rows.yaml").write_text("task: rows\ndata: {path: a.csv, length: 6}\n", encoding="utf-8")
    Path("more.yaml").write_text("data: {length: 7}\n", encoding="utf-8")
    return tmp_path


def read(*argv):
    return parse_experiment(experiment_parser("train", ""), [*argv, *GOOD])[0]


def options(*argv):
    """The options that these arguments give, apart from those that have their defaults."""
    given = read(*argv).task.options
    default = {"length": 100, "inputs": ""}
    return {name: value for name, value in given.items() if value != default.get(name)}


def said(capsys, *argv):
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as left:
        main(["train", *argv, *GOOD])
    out, err = capsys.readouterr()
    assert (left.value.code, sorted(Path().rglob("*"))) == (2, before)
    assert "Traceback" not in out + err
    return " ".join(err.split("error:")[-1].split())


def test_files_and_flags_give_the_options_and_the_last_counts(rows):
    assert options("rows.yaml") == {"path": "a.csv", "length": 6}
    assert options("rows.yaml", "--data.path", "test.csv") == {"path": "test.csv", "length": 6}
    assert options("rows.yaml", "--config", "more.yaml", "--data.path=b.csv") == {"path": "b.csv", "length": 7}
    assert options("--config", "more.yaml", "--task", "rows", "--data.path", "c") == {"path": "c", "length": 7}


def test_another_task_drops_the_section_of_the_first(rows):
    assert read("rows.yaml", "--task", "adding").as_data()["task"]["class_path"] == "adding"


@pytest.mark.parametrize("form", ["rain,temp", "[rain, temp]"])
def test_columns_are_a_list_or_separated_by_commas(rows, form):
    assert options("rows.yaml", "--data.inputs", form)["inputs"] in ("rain,temp", ["rain", "temp"])


def test_a_saved_config_has_the_section_and_is_read_back(rows):
    experiment = read("rows.yaml", "--data.inputs", "rain,temp")
    data = experiment.as_data()
    assert data["task"] == "rows"
    assert data["data"].items() >= {"path": "a.csv", "length": 6, "inputs": "rain,temp"}.items()
    Path("saved.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert read("saved.yaml") == experiment
    assert read("saved.yaml").build_task() == Rows(path="a.csv", length=6, inputs="rain,temp")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--task", "adding", "--data.path", "a"], "data.path: wanted a task that has this section ("),
        (["--task", "adding", "--data.path=a"], "but the task is adding; give --task "),
        (["--data.path", "a"], "but no task is chosen; give --task "),
        (["--config", "more.yaml"], "data: wanted a task that has this section ("),
        (["--config", "more.yaml", "--task", "adding"], "but the task is adding"),
        (["rows.yaml", "--task.path", "a"], "task.path: wanted --data.path, because the task rows has its options in"),
        (["rows.yaml", "--data.path", "null"], "data: Rows: path must be given"),
        (["rows.yaml", "--data.paths", "a"], "data.paths"),
        (["rows.yaml", "--data.length", "long"], "data.length"),
        (["--task", "{class_path: rows, init_args: {path: a}}"], "in the section data, but got init_args; write task:"),
    ],
    ids=" ".join,
)
def test_options_in_another_place_are_refused_in_one_sentence(rows, capsys, argv, says):
    assert says in said(capsys, *argv)


def test_a_section_without_its_task_in_a_file_is_refused(rows, capsys):
    Path("own.yaml").write_text("task: adding\ndata: {path: a}\n", encoding="utf-8")
    assert "but the task is adding" in said(capsys, "own.yaml")
    Path("own.yaml").write_text("task: rows\ndata: a.csv\n", encoding="utf-8")
    assert "data: wanted the options of this section" in said(capsys, "own.yaml")


@pytest.mark.parametrize("argv", [["--data.help", "rows"], ["--task.help", "rows"], ["rows.yaml", "--data.help"]])
def test_help_lists_the_options_under_the_section(rows, capsys, argv):
    with pytest.raises(SystemExit) as left:
        main(["train", *argv])
    assert left.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--data.path" in out
    assert "The columns that are read" in out
    assert "--task.path" not in out


@pytest.mark.parametrize("argv", [[], ["--task", "adding"]])
def test_help_without_a_task_lists_those_that_have_the_section(rows, capsys, argv):
    with pytest.raises(SystemExit) as left:
        main(["train", *argv, "--data.help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["series", "text", "rows"]
    assert "--data.help NAME" in out
