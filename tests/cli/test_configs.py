"""Every file in configs/: complete, data only, and alive."""

from pathlib import Path

import pytest
import yaml
from tiers import slow_except

from jax_lstm.cli import main
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.train import read_config, read_metrics
from jax_lstm.train.run_dir import flat

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NEEDED = ["--data.inputs", "rain", "--data.targets", "flow"]  # what series.yaml leaves to the user, besides the path


def read(path, *more):
    return parse_experiment(experiment_parser("train", ""), [str(path), *more])[0]


@pytest.fixture
def needed(tmp_path):
    """The arguments that a config needs, by its name: series.yaml has no file."""

    def arguments(name):
        if name != "series":
            return []
        rows = [f"{t % 3},{t % 5}" for t in range(12)]
        (tmp_path / "flows.csv").write_text("\n".join(["rain,flow", *rows]), encoding="utf-8")
        return ["--data.path", str(tmp_path / "flows.csv"), *NEEDED]

    return arguments


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"digits.yaml", "adding.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_gives_every_key_and_is_read_back_the_same(path, tmp_path, needed):
    """Every key but the options of the cell and of most tasks, which may have their defaults."""
    more = needed(path.stem)
    experiment = read(path, *more)
    given, data = yaml.safe_load(path.read_text(encoding="utf-8")), experiment.as_data()
    for parts in ((given["model"].pop("cell"), data["model"].pop("cell")), (given.pop("task"), data.pop("task"))):
        names = [part if isinstance(part, str) else part["class_path"] for part in parts]
        options = [{} if isinstance(part, str) else part["init_args"] for part in parts]
        assert names[0] == names[1]
        assert options[0].items() <= options[1].items()
    wanted = flat(data)
    wanted |= {flag.removeprefix("--"): None for flag in more[::2]}  # the file has null for these
    assert flat(given) == wanted
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(experiment.as_data()), encoding="utf-8")
    assert read(again) == experiment


def test_series_yaml_asks_for_a_file(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", str(ROOT / "configs" / "series.yaml")])
    assert left.value.code == 2
    assert "data: Series: path must be a file, but is None; give yours with --data.path FILE" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("name", slow_except(["digits", "series"], [path.stem for path in CONFIGS]))
def test_a_config_trains_two_steps(name, tmp_path, needed):
    path, run_dir = ROOT / "configs" / f"{name}.yaml", tmp_path / "run"
    small = ["--train.steps", "2", "--opt.schedule", "warmup", "--opt.warmup_steps", "1", "--model.hidden_size", "10"]
    small += ["--train.batch_size", "4", "--train.seeds", "[3]", "--train.devices", "1", *needed(name)]
    assert main(["train", str(path), "--run_dir", str(run_dir), *small]) == 0
    assert [r["step"] for r in read_metrics(run_dir)] == [2, 2]
    assert flat(read_config(run_dir))["train.steps"] == 2
    assert read(run_dir / "config.yaml").run_dir == str(run_dir)
