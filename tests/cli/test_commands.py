"""The commands from end to end, small."""

import json
import re
from pathlib import Path

import chex
import numpy as np
import pytest

from jax_lstm.cli import COMMANDS, main
from jax_lstm.cli.build import restore
from jax_lstm.cli.evaluate import evaluate
from jax_lstm.cli.parser import experiment_parser, parse_experiment
from jax_lstm.train import read_config, read_metrics

TINY = [
    *("--model.cell", "LSTM", "--model.hidden_size", "6", "--task", "adding", "--task.length", "8"),
    *("--opt.lr", "0.02", "--train.steps", "20", "--train.batch_size", "8", "--train.seeds", "[0, 5]"),
    *("--train.log_every", "5", "--train.eval_every", "10"),
]


def train(run_dir, *flags):
    return main(["train", *TINY, "--run_dir", str(run_dir), *flags])


def state_of(run_dir):
    experiment, _ = parse_experiment(experiment_parser("train", ""), [str(run_dir / "config.yaml")])
    return experiment, restore(experiment, run_dir)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert train(run_dir) == 0
    return run_dir


def test_a_run_writes_config_versions_metrics_and_checkpoints(run_dir):
    assert read_config(run_dir)["train"]["seeds"] == [0, 5]
    info = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    assert info["seeds"] == [0, 5]
    assert {"python", "jax", "jaxlib", "optax"} <= set(info["versions"])
    assert info["device"]["kind"]
    assert info["device"]["count"] == info["device"]["used"] == 8
    assert [r["step"] for r in read_metrics(run_dir)] == [5, 10, 10, 15, 20, 20]
    assert (run_dir / "checkpoints" / "20").is_dir()


def test_train_prints_the_task_progress_seeds_and_next_command(tmp_path, capsys):
    assert train(tmp_path / "run", "--train.patience", "9") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Training adding, LSTM: 2 seeds, up to 20 steps"
    assert [line.split("  ")[1] for line in lines if line.startswith("  step")][-1] == "step 20 of 20"
    assert sum(line.startswith("seed ") for line in lines) == 2
    assert "jax-lstm evaluate" in " ".join(lines[4:])


def test_the_same_config_twice_gives_the_same_bits(run_dir, tmp_path):
    assert main(["train", str(run_dir / "config.yaml"), "--run_dir", str(tmp_path / "again")]) == 0
    chex.assert_trees_all_equal(state_of(tmp_path / "again")[1], state_of(run_dir)[1])


def test_the_average_of_params_is_what_other_commands_score(tmp_path):
    run_dir = tmp_path / "averaged"
    assert train(run_dir, "--train.ema", "0.9", "--opt.accumulate", "2") == 0
    best = [r for r in read_metrics(run_dir) if r["split"] == "validation"][-1]["best"]
    assert main(["evaluate", str(run_dir), "--split", "validation"]) == 0
    scores = json.loads((run_dir / "validation.json").read_text(encoding="utf-8"))["scores"]
    np.testing.assert_allclose(scores, best, rtol=1e-5)
    _, state = state_of(run_dir)
    assert not np.allclose(state.params.readout.w, state.best.params.readout.w)


def test_training_refuses_a_used_directory_and_changes_nothing(run_dir, capsys):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as left:
        train(run_dir)
    assert left.value.code == 2
    assert "already has a checkpoint of step 20; continue it with --resume" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_resuming_with_another_config_is_refused_by_its_keys(run_dir, capsys):
    with pytest.raises(SystemExit) as left:
        train(run_dir, "--resume", "--opt.lr", "0.5", "--train.seeds", "[0]")
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert "opt.lr=0.02 (now 0.5)" in err
    assert "train.seeds=[0, 5] (now [0])" in err


def test_a_shorter_run_resumed_equals_the_whole_run(run_dir, tmp_path):
    assert train(tmp_path / "two", "--train.steps", "10") == 0
    assert train(tmp_path / "two", "--resume") == 0
    chex.assert_trees_all_equal(state_of(tmp_path / "two")[1], state_of(run_dir)[1])


def test_resuming_with_another_device_count_keeps_the_losses(run_dir, tmp_path):
    assert train(tmp_path / "two", "--train.steps", "10", "--train.devices", "2") == 0
    assert train(tmp_path / "two", "--resume", "--train.devices", "1") == 0
    assert json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))["device"]["used"] == 1
    assert read_config(tmp_path / "two")["train"]["devices"] == 1
    ours, theirs = ([r["loss"] for r in read_metrics(path) if "loss" in r] for path in (tmp_path / "two", run_dir))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.max(theirs))


def test_evaluation_scores_the_best_params_of_each_seed(run_dir, capsys):
    assert main(["evaluate", str(run_dir), "--split", "validation"]) == 0
    assert "validation mse" in capsys.readouterr().out
    report = json.loads((run_dir / "validation.json").read_text(encoding="utf-8"))
    _, state = state_of(run_dir)
    assert report["scores"] == pytest.approx(state.best.score.tolist(), rel=1e-5)
    assert report["best_step"] == state.best.step.tolist()


def test_train_and_evaluate_report_every_baseline(run_dir, tmp_path, monkeypatch, capsys):
    from jax_lstm.tasks import Adding

    scores = {"validation": 0.25, "test": 0.5}
    monkeypatch.setattr(Adding, "baselines", lambda self, split: {"a guess": scores[split]})
    assert train(tmp_path / "run") == 0
    assert "baseline, a guess: validation mse 0.2500" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "0.5000" in re.findall(r"baseline: a guess.*", capsys.readouterr().out)[0]
    report = json.loads((tmp_path / "run" / "test.json").read_text(encoding="utf-8"))
    assert report["baselines"] == {"a guess": 0.5}
    monkeypatch.undo()
    assert main(["evaluate", str(run_dir)]) == 0
    report = json.loads((run_dir / "test.json").read_text(encoding="utf-8"))
    assert report["baselines"] == {"always the mean": 1 / 6}


def test_the_test_split_is_read_by_evaluate_only(run_dir, monkeypatch, tmp_path):
    from jax_lstm.tasks import Adding

    reads = []
    read = Adding.test
    monkeypatch.setattr(Adding, "test", lambda self: reads.append(1) or read(self))
    assert train(tmp_path / "run") == 0
    assert reads == []
    experiment, state = state_of(tmp_path / "run")
    evaluate(experiment, state.best, "test", tmp_path / "run")
    assert reads == [1]


def test_a_diverging_run_exits_with_1_and_says_where(tmp_path, capsys):
    flags = ["--opt.lr", "1e38", "--opt.clip", "null", "--model.cell", "RNN"]
    assert train(tmp_path / "run", *flags) == 1
    err = capsys.readouterr().err
    assert "seed" in err
    assert "opt.lr" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    assert "usage: jax-lstm" in capsys.readouterr().out


def test_the_help_of_train_lists_every_key_with_its_meaning(capsys):
    with pytest.raises(SystemExit):
        main(["train", "adding.yaml", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    keys = ("model.cell", "model.cell.peephole", "opt.lr", "train.seeds", "task", "task.length", "run_dir", "imports")
    assert all(f"--{key} " in out for key in keys)
    assert "Peak learning rate" in out
    assert "whether the gates also read c" in out


def test_an_interrupted_command_exits_with_130(monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("jax_lstm.cli.train.fit", interrupt)
    assert train(Path(tmp_path / "run")) == 130
