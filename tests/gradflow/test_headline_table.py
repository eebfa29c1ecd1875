"""The headline table against figures computed apart from this library, one sequence a row: log₁₀ norms."""

import contextlib
import io
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from jax_lstm.gradflow import headline_table

ROOT = Path(__file__).parents[2]
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


class Command(NamedTuple):
    """What the command measured, printed and plotted."""

    columns: dict[str, np.ndarray]  # log₁₀ of the norms, (seeds, columns) a row
    table: str
    figure: Path


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """One run of the command, with what it measured on the way."""
    figure, measure, columns = tmp_path_factory.mktemp("headline") / "figure.png", headline_table.profiles, {}

    def profiles(row):
        log_norms = measure(row)
        columns[row.name] = np.asarray(headline_table.decades(log_norms))
        return log_norms

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(headline_table, "profiles", profiles)
        assert headline_table.main(["--plot", str(figure)]) == 0
    return Command(columns, printed.getvalue().strip(), figure)


def out_of_order(means):
    """The pairs of rows that stand the other way round than in the reference; near ties there do not count."""
    return [
        (a, b, column)
        for a, b in itertools.combinations(REFERENCE, 2)
        for column in range(3)
        if abs(gap := np.log10(REFERENCE[a][column] / REFERENCE[b][column])) > 0.2
        and gap * (means[a][column] - means[b][column]) <= 0
    ]


@pytest.mark.slow
def test_the_order_of_every_column_holds(command):
    means = {name: decades.mean(0) for name, decades in command.columns.items()}
    assert out_of_order(means) == []
    swapped = means | {"tanh RNN, orthogonal": means["LSTM, per-gate orthogonal, b_f=1"] + 0.1}
    assert out_of_order(swapped) != []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REFERENCE if name.startswith("LSTM")])
def test_an_lstms_row_is_within_a_decade_of_the_reference(command, name):
    np.testing.assert_allclose(command.columns[name].mean(0), np.log10(REFERENCE[name]), rtol=0, atol=1)


@pytest.mark.slow
def test_the_default_lstm_vanishes_too(command):
    """More slowly than with a forget bias of 0, but by seven decades in a hundred steps."""
    ours = command.columns["LSTM, as jl.LSTM(8, 64) starts"][:, -1]
    assert (ours < -6).all()
    assert (ours > command.columns["LSTM, per-gate orthogonal, b_f=0"][:, -1]).all()


@pytest.mark.slow
def test_the_docs_show_the_table_and_figure_of_the_command(command):
    shown = ROOT / "notebooks" / "results" / "gradient_flow.png"
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/experiments.md"))
    assert f"({shown.relative_to(ROOT).as_posix()})" in readme
    assert f"(../{shown.relative_to(ROOT).as_posix()})" in page
    tables = re.findall(r"<!-- headline -->\n(.*?)<!-- /headline -->", page, re.DOTALL)
    assert [table.strip() for table in tables] == [command.table]
    # The two figures in the README's caption.
    last = {line.split(" | ")[0]: line.split(" | ")[-1].split(" (")[0] for line in command.table.splitlines()}
    sigmoid, chrono = last["| sigmoid RNN, orthogonal"], last["| LSTM, per-gate orthogonal, chrono(100)"]
    caption = " ".join(readme.split())
    assert f"After 99 steps the norm is {sigmoid} in a sigmoid RNN and {chrono} in an LSTM with chrono" in caption
    with Image.open(shown) as figure:
        figure.load()  # text may come after the pixels
        assert figure.info["Description"] == command.table
    # The same lines, whatever the fonts of another matplotlib.
    assert np.abs(imread(command.figure) - imread(shown)).mean() < 0.02


def test_the_table_shows_the_mean_and_the_spread_of_the_seeds():
    decades = jnp.array([[-1.0, 0.5, 2.0], [-3.0, 0.5, 2.3]])
    lines = headline_table.table({"a cell": decades}).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 5
    assert lines[2] == "| a cell | 1e-02 (2.0) | 3.2 (0.0) | 1e+02 (0.3) |"


def test_the_command_prints_the_table_and_draws_the_figure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(headline_table, "ROWS", headline_table.ROWS[:1])
    assert headline_table.main(["--plot", str(tmp_path / "figure.png")]) == 0
    assert "| sigmoid RNN, orthogonal | 3e-07 (" in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 10_000
