"""The headline table against figures computed apart from this library, one sequence a row: log₁₀ norms."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.gradflow import headline

REFERENCE = {
    "sigmoid RNN, orthogonal": (3e-07, 2e-34, 1e-67),
    "tanh RNN, U(±1/√H)": (6e-04, 1e-19, 8e-40),
    "tanh RNN, orthogonal": (4e-02, 1e-09, 5e-19),
    "tanh RNN, Gaussian g=3": (1e02, 1e06, 8e10),
    "LSTM, U(±1/√H), b_f=0": (1e-02, 3e-11, 4e-22),
    "LSTM, per-gate orthogonal, b_f=0": (3e-02, 3e-08, 7e-16),
    "LSTM, per-gate orthogonal, b_f=1": (0.48, 2e-02, 2e-04),
    "LSTM, per-gate orthogonal, b_f=3": (1.9, 5.1, 94),
    "LSTM, per-gate orthogonal, chrono(100)": (1.1, 0.79, 0.52),
}


@pytest.fixture(scope="module")
def columns():
    """log₁₀ of the norms, (seeds, columns) a row."""
    return {row.name: np.asarray(headline.decades(headline.profiles(row))) for row in headline.ROWS}


def out_of_order(means):
    """The pairs of rows that stand the other way round than in the reference; near ties there do not count."""
    return [
        (a, b, column)
        for a, b in itertools.combinations(REFERENCE, 2)
        for column in range(3)
        if abs(gap := np.log10(REFERENCE[a][column] / REFERENCE[b][column])) > 0.2
        and gap * (means[a][column] - means[b][column]) <= 0
    ]


def test_the_order_of_every_column_holds(columns):
    means = {name: decades.mean(0) for name, decades in columns.items()}
    assert out_of_order(means) == []
    swapped = means | {"tanh RNN, orthogonal": means["LSTM, per-gate orthogonal, b_f=1"] + 0.1}
    assert out_of_order(swapped) != []


@pytest.mark.parametrize("name", [name for name in REFERENCE if name.startswith("LSTM")])
def test_an_lstms_row_is_within_a_decade_of_the_reference(columns, name):
    np.testing.assert_allclose(columns[name].mean(0), np.log10(REFERENCE[name]), rtol=0, atol=1)


def test_the_default_lstm_vanishes_too(columns):
    """More slowly than with a forget bias of 0, but by seven decades in a hundred steps."""
    ours = columns["LSTM, as jl.LSTM(8, 64) starts"][:, -1]
    assert (ours < -6).all()
    assert (ours > columns["LSTM, per-gate orthogonal, b_f=0"][:, -1]).all()


def test_the_table_shows_the_mean_and_the_spread_of_the_seeds():
    decades = jnp.array([[-1.0, 0.5, 2.0], [-3.0, 0.5, 2.3]])
    lines = headline.table({"a cell": decades}).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 5
    assert lines[2] == "| a cell | 1e-02 (2.0) | 3.2 (0.0) | 1e+02 (0.3) |"


def test_the_command_prints_the_table_and_draws_the_figure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(headline, "ROWS", headline.ROWS[:1])
    assert headline.main(["--plot", str(tmp_path / "figure.png")]) == 0
    assert "| sigmoid RNN, orthogonal | 3e-07 (" in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 10_000
