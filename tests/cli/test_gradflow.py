"""The gradflow command: the numbers are those of jax_lstm.gradflow."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.cli import main
from jax_lstm.cli.gradflow import counted
from jax_lstm.cli.profile import Profile, profiles
from jax_lstm.gradflow import data_horizon, horizon, sensitivity

pytestmark = pytest.mark.slow  # make test-all runs it

CELL = jl.LSTM(2, 3)
XS = np.random.default_rng(1).normal(size=(4, 12, 2)).astype(np.float32)


def test_a_profile_is_each_seeds_mean_sensitivity_over_sequences():
    params = [CELL.init(jax.random.key(s)) for s in (0, 1)]
    measured = profiles(CELL, jax.tree.map(lambda *p: jnp.stack(p), *params), jnp.stack([XS, XS]))
    for p, profile in zip(params, measured, strict=True):
        np.testing.assert_allclose(
            profile.log_norms, np.mean([sensitivity(CELL, p, x) for x in XS], axis=0), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(profile.horizon, horizon(CELL, p), rtol=1e-4)
        steps = np.array([data_horizon(CELL, p, x) for x in XS])
        np.testing.assert_allclose(profile.data_horizon, 1 / np.mean(1 / steps), rtol=1e-3)


def test_log10_norms_are_counted_back_from_the_last_state():
    profile = Profile(np.array([-3.0, -2.0, -1.0, 0.0]) * math.log(10), 1.0)
    assert [profile.log10_norm(k) for k in range(4)] == pytest.approx([0, -1, -2, -3])


def test_a_flat_norm_gives_an_infinite_horizon_and_null_in_json():
    flat = Profile(np.zeros(5), math.inf)
    assert flat.data_horizon == math.inf
    assert flat.as_data() == {"data_horizon": None, "horizon": None, "ln_norm_ds_T_ds_k": [0.0] * 5}


def test_a_drawn_cell_gives_a_table_a_figure_and_its_numbers(tmp_path, capsys):
    flags = ["--cell", "RNN", "--hidden_size", "3", "--input_size", "2", "--steps", "12", "--seeds", "[0, 4]"]
    assert main(["gradflow", *flags, "--sequences", "2", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "RNN at initialization, T = 12" in out
    report = json.loads((tmp_path / "out" / "gradflow.json").read_text(encoding="utf-8"))
    assert set(report["seeds"]) == {"0", "4"}
    cell = jl.RNN(2, 3)
    xs = jax.random.normal(jax.random.key(0), (2, 12, 2), jnp.float32)
    for seed, profile in report["seeds"].items():
        params = cell.init(jax.random.key(int(seed)))
        expected = np.mean([sensitivity(cell, params, x) for x in xs], axis=0)
        np.testing.assert_allclose(profile["ln_norm_ds_T_ds_k"], expected, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "out" / "gradflow.png").stat().st_size > 1000


def test_gradflow_measures_a_trained_run_and_writes_a_figure(tmp_path, capsys):
    run = ["--model.cell", "gru", "--model.hidden_size", "3", "--task", "adding", "--task.length", "6"]
    loop = ["--train.steps", "2", "--train.batch_size", "2", "--run_dir", str(tmp_path / "run")]
    assert main(["train", *run, *loop]) == 0
    assert main(["gradflow", str(tmp_path / "run"), "--sequences", "2"]) == 0
    assert "GRU on adding, T = 6" in capsys.readouterr().out
    assert (tmp_path / "run" / "gradflow.png").is_file()


@pytest.mark.parametrize("cell", slow_except(["lstm"], ["lstm", "gru"]))
def test_the_smallest_cell_over_one_step_is_drawn(cell, tmp_path):
    flags = ["--cell", cell, "--hidden_size", "1", "--input_size", "1", "--steps", "1", "--out", str(tmp_path)]
    assert main(["gradflow", *flags]) == 0
    assert (tmp_path / "gradflow.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], ["run_dir", "--cell"]),
        (["--cell", "lstm", "--steps", "0"], ["--steps", "1 or more"]),
        (["--cell", "lstm", "--seeds", "[]"], ["--seeds"]),
        (["--cell", "lstm", "--seeds", "[-1]"], ["--seeds", "from 0"]),
        (["--cell", "cnn"], ["cell", "LSTM"]),
        (["--cell", "rnn", "--cell.forget_bias", "1"], ["cell.forget_bias"]),
        (["--cell", "lstm", "--cell.forget_bias", "1", "--cell.chrono", "9"], ["cell", "forget_bias", "chrono"]),
        (["somewhere", "--cell", "rnn"], ["run_dir", "--cell"]),
    ],
    ids=lambda value: "",
)
def test_a_bad_choice_is_refused_by_name_and_nothing_is_written(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["gradflow", *flags])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert all(word in err for word in said)
    assert list(tmp_path.iterdir()) == []


def test_where_no_target_counts_all_known_ones_do():
    targets, some = jnp.float32([[[1], [jnp.nan], [2]]]), jnp.float32([[0, 0, 1]])
    assert counted(targets, some) is some
    assert counted(targets, 0 * some).tolist() == [[1, 0, 1]]
    assert counted(jnp.array([[1, -1, 0]]), 0 * some).tolist() == [[1, 0, 1]]
