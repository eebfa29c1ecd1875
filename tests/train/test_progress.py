"""What training prints: a bar in a terminal, lines elsewhere, nothing if asked."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from jax_lstm.train import OptConfig, TrainConfig, progress
from jax_lstm.train.progress import Progress
from tests.train.toy import PROBLEM, fit

OPT = OptConfig(lr=0.1, schedule="warmup_cosine", warmup_steps=5)
TRAIN = TrainConfig(steps=40, seeds=(0, 1), log_every=5, eval_every=10)


def test_without_progress_nothing_is_printed(tmp_path, capsys):
    fit(PROBLEM, OPT, replace(TRAIN, steps=10), tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def lines(run_dir, train, **given):
    """What training prints on a console that is not a terminal."""
    run_dir.mkdir(exist_ok=True)
    printed = io.StringIO()
    fit(PROBLEM, OPT, train, run_dir, console=Console(file=printed, width=40), **given)
    return printed.getvalue().splitlines()


def test_without_a_terminal_each_interval_prints_one_line(tmp_path, monkeypatch):
    train = replace(TRAIN, steps=20)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", float("inf"))
    few = lines(tmp_path / "few", train)
    assert [line.split("  ")[1] for line in few] == ["step 20 of 20"], "the last step always has a line"
    assert all(word in few[0] for word in ("loss", "mse", "best validation", "sequences/s"))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    many = lines(tmp_path / "many", train)
    assert [line.split("  ")[1] for line in many] == [f"step {n} of 20" for n in (5, 10, 15, 20)]
    assert [" s left" in line for line in many] == [False, False, True, False]
    assert ["best validation" in line for line in many] == [False, True, True, True]
    resumed = lines(tmp_path / "many", replace(train, steps=30), resume=True)
    assert [line.split("  ")[1] for line in resumed] == ["step 25 of 30", "step 30 of 30"]


def test_a_run_that_stops_early_says_why(tmp_path):
    *_, step, reason = lines(tmp_path / "target", replace(TRAIN, steps=400, target=0.05))
    n = step.split()[1]
    assert reason == (
        f"  stopped early at step {n} of 400: the best validation mse of every seed reached train.target (0.05)"
    )
    again = lines(tmp_path / "target", replace(TRAIN, steps=400, target=0.05), resume=True)
    assert again == [reason]
    *_, patience = lines(tmp_path / "patience", replace(TRAIN, steps=4000, patience=1, eval_every=5))
    assert patience.endswith("the mean validation mse has not improved in 1 validations (train.patience)")


def test_a_terminal_shows_a_progress_bar_with_loss_and_speed(tmp_path):
    console = Console(force_terminal=True, force_interactive=True, width=120)
    with console.capture() as captured:
        fit(PROBLEM, OPT, replace(TRAIN, steps=10), tmp_path, console=console)
    shown = captured.get()
    assert "step 10 of 10" not in shown, "the bar is enough"
    assert all(word in shown for word in ("loss", "mse", "sequences/s", "10/10"))


def test_a_resumed_run_at_its_last_step_says_so(tmp_path):
    train = replace(TRAIN, steps=10)
    fit(PROBLEM, OPT, train, tmp_path)
    assert lines(tmp_path, train, resume=True) == ["  already finished: step 10 of 10; give more steps to train on"]


def test_lines_go_to_standard_output_by_default(tmp_path, capsys):
    fit(PROBLEM, OPT, replace(TRAIN, steps=10), tmp_path, progress=True)
    assert "step 10 of 10  loss" in capsys.readouterr().out


@pytest.mark.parametrize("has_widgets", [False, True])
def test_a_notebook_gets_a_bar_if_it_can_show_one(monkeypatch, has_widgets):
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: has_widgets or None)
    notebook = Console(force_jupyter=True)
    assert not notebook.is_interactive
    assert (Progress(notebook, 0, 10)._bar is not None) == has_widgets


def test_time_left_counts_from_the_first_validation(monkeypatch):
    now, printed = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with Progress(Console(file=printed), 0, 100) as shown:
        for step, seconds, best in ((10, 60, np.inf), (20, 61, 0.5), (40, 71, 0.25), (100, 101, 0.25)):
            now[0] = seconds
            shown.update(step, "text", np.array([best]), last=step == 100)
    assert printed.getvalue().splitlines() == [
        "  step 10 of 100  text  60 s",
        "  step 40 of 100  text  best validation 0.2500  71 s, about 30 s left",
        "  step 100 of 100  text  best validation 0.2500  101 s",
    ]
