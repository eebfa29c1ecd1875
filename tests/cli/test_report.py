"""The report: its numbers are those of jax_lstm.gradflow, and its words follow from them."""

import json
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.cli import main
from jax_lstm.cli.profile import Profile
from jax_lstm.cli.report import Details, details, words

CELL = jl.LSTM(2, 3)
XS = np.random.default_rng(1).normal(size=(12, 2)).astype(np.float32)


@cache
def cell_params():
    return CELL.init(jax.random.key(0))


def last(states):
    return states.h[-1].sum()


def test_details_are_what_the_measurements_return():
    one = details(CELL, cell_params(), XS, last)
    assert one.leaf == "c"
    np.testing.assert_allclose(one.retention, gradflow.retention(CELL, cell_params(), XS).c)
    np.testing.assert_allclose(one.spectrum, gradflow.singular_values(CELL, cell_params(), XS))
    np.testing.assert_allclose(one.exponents, gradflow.lyapunov_spectrum(CELL, cell_params(), XS))
    np.testing.assert_allclose(one.adjoints["c"], gradflow.adjoint_norms(last, CELL, cell_params(), XS).c)
    np.testing.assert_allclose(
        one.ways["cell"],
        [np.linalg.norm(A) for A in gradflow.paths(CELL, cell_params(), XS, through="cell")],
        rtol=1e-5,
    )
    at_rest = jl.LSTMState(jnp.zeros((1, 3), jnp.float32), jnp.zeros((1, 3), jnp.float32))
    rest = gradflow.fixed_points(CELL, cell_params(), jnp.zeros(2, jnp.float32), at_rest)
    np.testing.assert_allclose(
        np.sort(np.abs(one.eigenvalues["at rest"])), np.sort(np.abs(rest.eigenvalues[0])), rtol=1e-3
    )


def test_a_cell_without_c_is_measured_in_h():
    cell = jl.GRU(2, 3)
    one = details(cell, cell.init(jax.random.key(0)), XS, last)
    assert one.leaf == "h"
    assert one.ways == {}
    assert "from c to c" not in " ".join(words(Profile(np.zeros(13), math.inf), one))


def made_up(exponent=0.0):
    """Two units, one of which keeps half of itself over the last two of four steps."""
    retention = np.log(np.array([[1e-3, 1e-3], [1e-3, 1e-3], [0.5, 1e-3], [1, 1], [1, 1]]))
    ways = {"cell": np.array([0, 0, 1.0, 1, 1]), "hidden": np.array([0, 0, 3.0, 1, 0])}
    return Details("c", retention, np.zeros((5, 2)), {}, {}, ways, np.array([exponent]))


@pytest.mark.parametrize(
    ("decades", "said"),
    [(-4.0, "Vanishing: over 4 steps the gradient norm falls to 10^-4.0"), (4.0, "Exploding"), (-1.0, "Preserved")],
)
def test_the_first_sentence_states_how_the_gradient_changes(decades, said):
    profile = Profile(np.linspace(decades * math.log(10), 0, 5), 7.0)
    assert words(profile, made_up())[0].startswith(said)


def test_the_report_states_horizon_units_paths_and_chaos():
    profile = Profile(np.linspace(-2, 0, 5), 7.0)
    _, horizon, units, ways, chaos = words(profile, made_up(0.3))
    assert horizon == (
        "On data, the gradient norm falls by a factor of e every 2.0 steps; at rest (state and input 0), every 7.0."
    )
    assert units == "1 of 2 units of c keep more than 10 % of their own gradient over 2 steps."
    assert "25 % of the gradient from c to c (by norm) takes the direct path along c" in ways
    assert "+0.300 nats per step: nearby states move apart (chaos)" in chaos
    assert "the horizon is infinite" in words(Profile(np.zeros(5), math.inf), made_up())[1]
    assert "keep their distance" in words(profile, made_up(0.0))[-1]
    assert "nearby states converge" in words(profile, made_up(-0.3))[-1]


def test_a_probed_run_shows_its_training_too(tmp_path, capsys):
    run = ["--model.cell", "LSTM", "--model.hidden_size", "3", "--task", "adding", "--task.length", "6"]
    loop = ["--train.steps", "4", "--train.batch_size", "2", "--train.probe", "2", "--run_dir", str(tmp_path / "run")]
    assert main(["train", *run, *loop]) == 0
    assert main(["gradflow", str(tmp_path / "run"), "--sequences", "2"]) == 0
    report = json.loads((tmp_path / "run" / "gradflow.json").read_text(encoding="utf-8"))
    assert report["probed"]["step"] == [0, 2, 4]
    assert np.shape(report["probed"]["ln_norms"]) == (3, 7)
    assert np.shape(report["details"]["ln_singular_values"]) == (7, 6)
    assert report["words"][0] in " ".join(capsys.readouterr().out.split())
    assert imread(tmp_path / "run" / "gradflow.png").shape[1] > 1000
