"""Gradient flossing: its noise, its loss, and what the other commands say of its run."""

from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.cli import main
from jax_lstm.cli.flossing import build_problem, noise, read_flossing

SMALL = ["--cell", "RNN", "--hidden_size", "10", "--length", "5", "--train.steps", "2", "--train.batch_size", "2"]


def test_noise_has_its_amplitude_and_changes_with_the_step():
    xs = np.asarray(noise(jax.random.key(0), 100, 50))
    assert xs.shape == (100, 50, 8)
    np.testing.assert_allclose((xs.mean(), xs.std()), (0, 0.1), atol=0.002)
    problem = build_problem(read_flossing([*SMALL, "--run_dir", "nowhere"]))
    assert problem.batch is not None
    assert not np.array_equal(*(problem.batch(jax.random.key(0), t) for t in (0, 1)))


def test_the_loss_is_the_mean_square_lyapunov_exponent():
    problem = build_problem(read_flossing([*SMALL, "--run_dir", "nowhere"]))
    assert problem.batch is not None
    params, batch = problem.init(jax.random.key(0)), problem.batch(jax.random.key(1), 0)
    exponents = np.stack([gradflow.lyapunov_spectrum(jl.RNN(8, 10), params, xs, k=10) for xs in batch])
    loss, scores = problem.loss(params, batch, None, jax.random.key(2))
    np.testing.assert_allclose(loss, (exponents**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(scores[problem.metric], np.abs(exponents).max(), rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--hidden_size", "9"], "hidden_size: wanted a state of at least 10 numbers"),
        (["--length", "1"], "length: wanted 2 or more, but got 1"),
        (["--cell", "cnn"], "cell: wanted one of LSTM, RNN"),
        (["--cell.leaks", "1"], "cell.leaks"),
    ],
)
def test_a_bad_option_of_flossing_is_refused_by_name(flags, said, capsys):
    with pytest.raises(SystemExit) as left:
        read_flossing([*SMALL, *flags, "--run_dir", "nowhere"])
    assert left.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["evaluate", "gradflow", "sample"])
def test_other_commands_refuse_a_run_of_flossing(command, tmp_path, capsys):
    data = read_flossing([*SMALL, "--run_dir", "nowhere"]).as_data()
    Path(tmp_path / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main([command, str(tmp_path)])
    assert left.value.code == 2
    assert "is a run of gradient flossing" in " ".join(capsys.readouterr().err.split())
