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


def read(path):
    return parse_experiment(experiment_parser("train", ""), [str(path)])[0]


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"digits.yaml", "adding.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_gives_every_key_and_is_read_back_the_same(path, tmp_path):
    """Every key but the options of the cell and the task, which may have their defaults."""
    experiment = read(path)
    given, data = yaml.safe_load(path.read_text(encoding="utf-8")), experiment.as_data()
    for parts in ((given["model"].pop("cell"), data["model"].pop("cell")), (given.pop("task"), data.pop("task"))):
        names = [part if isinstance(part, str) else part["class_path"] for part in parts]
        options = [{} if isinstance(part, str) else part["init_args"] for part in parts]
        assert names[0] == names[1]
        assert options[0].items() <= options[1].items()
    assert flat(given) == flat(data)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(experiment.as_data()), encoding="utf-8")
    assert read(again) == experiment


@pytest.mark.parametrize("name", slow_except(["digits", "adding", "bytes"], [path.stem for path in CONFIGS]))
def test_a_config_trains_two_steps(name, tmp_path):
    path, run_dir = ROOT / "configs" / f"{name}.yaml", tmp_path / "run"
    small = ["--train.steps", "2", "--opt.schedule", "warmup", "--opt.warmup_steps", "1", "--model.hidden_size", "10"]
    small += ["--train.batch_size", "4", "--train.seeds", "[3]", "--train.devices", "1"]
    assert main(["train", str(path), "--run_dir", str(run_dir), *small]) == 0
    assert [r["step"] for r in read_metrics(run_dir)] == [2, 2]
    assert flat(read_config(run_dir))["train.steps"] == 2
    assert read(run_dir / "config.yaml").run_dir == str(run_dir)
