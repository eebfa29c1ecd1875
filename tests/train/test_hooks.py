"""Hooks: when they are called and with what, and the events that TensorBoard reads."""

import struct
from dataclasses import replace

import numpy as np
import optax
import pytest

from jax_lstm import train
from jax_lstm.train import Hook, TensorBoard, read_metrics
from tests.train.toy import PROBLEM

SEEDS = (4, 9)
OPTIONS = {"seeds": SEEDS, "log_every": 2, "eval_every": 4, "progress": False}


class Written(Hook):
    """Keep every call."""

    def __init__(self):
        self.calls = []

    def on_start(self, step, seeds):
        self.calls.append(("start", step, seeds))

    def on_log(self, step, values):
        self.calls.append(("train", step, values))

    def on_eval(self, step, scores):
        self.calls.append(("validation", step, scores))

    def on_save(self, step, path):
        assert path.is_dir()
        self.calls.append(("save", step, path.name))

    def on_end(self):
        self.calls.append(("end",))


def fit(run_dir, steps, problem=PROBLEM, **given):
    return train.fit(problem, optax.adam(0.1), steps, run_dir=run_dir, **OPTIONS | given)


def test_hooks_get_what_is_written_in_its_order(tmp_path):
    hook = Written()
    fit(tmp_path, 8, hooks=[hook, Hook()])
    of_metrics = [(split, step, values) for split, step, values in hook.calls[1:-1] if split != "save"]
    records = [{"step": step, "split": split, **values} for split, step, values in of_metrics]
    assert records == read_metrics(tmp_path)
    order = ["start", "train", "train", "validation", "save", "train", "train", "validation", "save", "end"]
    assert [call[0] for call in hook.calls] == order
    assert hook.calls[0] == ("start", 0, SEEDS)
    assert [call[1:] for call in hook.calls if call[0] == "save"] == [(4, "4"), (8, "8")]
    again = Written()
    fit(tmp_path, 12, hooks=(again,), resume=True)
    assert again.calls[0] == ("start", 8, SEEDS)


def test_an_error_of_a_hook_stops_training_and_ends_hooks(tmp_path):
    class Full(Hook):
        def on_eval(self, step, scores):
            raise OSError("no space left")

    hook = Written()
    with pytest.raises(OSError, match="no space left"):
        fit(tmp_path, 8, hooks=[hook, Full()])
    assert hook.calls[-1] == ("end",)
    assert [call[:2] for call in hook.calls if call[0] == "validation"] == [("validation", 4)]


def events(folder):
    """Every number in the event files: {(tag, step): value}; a record is a length, a checksum, the event, another."""
    from tensorboardX.proto.event_pb2 import Event  # pyrefly: ignore

    found = {}
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def expected(run_dir):
    """The numbers of metrics.jsonl in the form of `events`."""
    found = {}
    for record in read_metrics(run_dir):
        step, split = record.pop("step"), record.pop("split")
        for name, value in record.items():
            each = zip(SEEDS, value, strict=True) if isinstance(value, list) else [(None, value)]
            found |= {(f"{split}/{name}" + ("" if s is None else f"/seed_{s}"), step): x for s, x in each}
    return found


def test_tensorboard_has_every_number_of_a_run(tmp_path):
    fit(tmp_path / "run", 8, tensorboard=True, schedule=lambda step: 0.1)
    got, want = events(tmp_path / "run" / "tensorboard"), expected(tmp_path / "run")
    assert got.keys() == want.keys()
    assert {"train/loss/seed_4", "train/lr", "validation/mse/seed_9"} <= {tag for tag, _ in got}
    np.testing.assert_allclose([got[key] for key in want], list(want.values()), rtol=1e-6)


def test_tensorboard_is_a_hook_with_a_directory_of_its_own(tmp_path):
    problem = replace(PROBLEM, maximize=True)
    fit(None, 4, problem, hooks=[TensorBoard(str(tmp_path / "events"))])
    assert ("validation/best/seed_9", 4) in events(tmp_path / "events")
    assert [path.name for path in tmp_path.iterdir()] == ["events"]
