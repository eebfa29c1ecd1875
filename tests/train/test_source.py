"""Batches that Python makes: drawn one by one, checked, and continued after an interruption."""

import json
import warnings
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_lstm import train
from jax_lstm.train import SourceError, read_metrics
from jax_lstm.train.checkpoint import newest_step
from jax_lstm.train.source import Feed
from tests.train.toy import PROBLEM, batch


def points(count):
    """`count` batches of the toy problem."""
    with jax.numpy_dtype_promotion("standard"):
        return [jax.device_get(batch(jax.random.key(7), t)) for t in range(count)]


class Counting:
    """An iterator with a position, as grain's have: `get_state` gives bytes or a dict."""

    def __init__(self, batches, as_bytes=False):
        self.batches, self.as_bytes, self.n = batches, as_bytes, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        return self.batches[self.n - 1]

    def get_state(self) -> Any:
        return json.dumps({"n": self.n}).encode() if self.as_bytes else {"n": np.int64(self.n), "inner": [1, "a"]}

    def set_state(self, state):
        self.n = (json.loads(state) if self.as_bytes else state)["n"]


class Loader:
    """A loader with a position, as torchdata's has."""

    def __init__(self, batches):
        self.batches, self.n, self.start = batches, 0, 0

    def __iter__(self):
        for n in range(self.start, len(self.batches)):
            self.n = n
            yield self.batches[n]
        self.start = 0

    def state_dict(self):
        return {"next": self.n + 1}

    def load_state_dict(self, state):
        self.start = state["next"]


def taken(feed, steps):
    return [feed.take(step) for step in steps]


def test_a_list_starts_over_and_an_iterator_does_not():
    numbers = [np.float32(n) for n in range(3)]
    assert taken(Feed(numbers, 7), range(1, 8)) == [0, 1, 2, 0, 1, 2, 0]
    feed = Feed(iter(numbers), 7)
    assert taken(feed, (1, 2, 3)) == [0, 1, 2]
    said = r"^Problem.source: wanted a batch for step 4 of 7, but the iterator ended after 3; give an iterable"
    with pytest.raises(SourceError, match=said):
        feed.take(4)


def test_a_batch_that_was_looked_at_is_not_lost():
    feed = Feed(iter([np.float32(1), np.float32(2)]), 2)
    assert feed.peek(1) == feed.peek(1) == 1
    assert taken(feed, (1, 2)) == [1, 2]


def failing():
    yield np.ones(3)
    raise OSError("disk on fire")


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ([], SourceError, "Problem.source: wanted a batch for step 1, but the source is empty; give it data"),
        (3, TypeError, "Problem.source: wanted an iterable of batches, but got a int; give a list"),
        (failing(), SourceError, "step 2, but the iterator raised OSError: disk on fire"),
        ([{"x": np.ones((8, 3))}, {"x": np.ones((7, 3))}], ValueError, r"step 2: .*, but x has shape \(7, 3\).* not"),
        (
            [{"x": np.ones(3)}, {"x": np.ones(3, np.float32)}],
            ValueError,
            r"step 2: .*dtype float32, not",
        ),
        ([{"x": np.ones(3)}, {"y": np.ones(3)}], ValueError, "step 2: .*, but x is missing; pad the sequences"),
        ([(np.ones(3), "cat")], TypeError, "step 1: wanted arrays of numbers, but 1 is a str of dtype <U3; convert it"),
        ([np.array([None])], TypeError, "step 1: wanted arrays of numbers, but it is a ndarray of dtype object"),
    ],
)
def test_a_source_that_is_wrong_is_refused_by_step_and_leaf(source, error, said):
    with pytest.raises(error, match=said) as raised:
        taken(Feed(source, 3), (1, 2))
    assert "\n" not in str(raised.value)
    assert (raised.value.__cause__ is None) == (error is not SourceError or "empty" in said)


@pytest.mark.parametrize("make", [Counting, lambda b: Counting(b, as_bytes=True), Loader])
def test_a_position_is_saved_and_restored(make, tmp_path):
    numbers = [np.float32(n) for n in range(10)]
    feed = Feed(make(numbers), 10)
    taken(feed, (1, 2, 3))
    feed.save(tmp_path, 3)
    again = Feed(make(numbers), 10)
    again.load(tmp_path, 3)
    assert taken(again, (4, 5)) == taken(feed, (4, 5)) == [3, 4]


@pytest.mark.parametrize("state", ["none", "object"])
def test_without_a_position_a_source_starts_over_with_a_warning(state, tmp_path):
    class Odd(Counting):
        def get_state(self) -> Any:
            return object()

    numbers = [np.float32(n) for n in range(10)]
    make = Odd if state == "object" else list
    feed = Feed(make(numbers), 10)
    feed.take(1)
    feed.save(tmp_path, 1)
    again = Feed(make(numbers), 10)
    with pytest.warns(UserWarning, match=r"^Problem.source: its position was not saved, so training"):
        again.load(tmp_path, 1)
    assert taken(again, (2,)) == [0]


SGD = optax.sgd(0.05)
OPTIONS = {"log_every": 2, "eval_every": 4, "progress": False}


def problem(source):
    return replace(PROBLEM, batch=None, source=source)


def test_a_source_trains_as_the_same_batches_of_a_function(tmp_path):
    batches = points(8)
    xs, ys = (jnp.stack(leaves) for leaves in zip(*batches, strict=True))
    by_function = replace(PROBLEM, batch=lambda key, step: (xs[step], ys[step]))
    want = train.fit(by_function, SGD, 8, seeds=(0, 1), **OPTIONS)
    got = train.fit(problem(iter(batches)), SGD, 8, seeds=(0, 1), run_dir=tmp_path, **OPTIONS)
    chex.assert_trees_all_close(got.last, want.last, rtol=1e-6)
    np.testing.assert_allclose(got.best.score, want.best.score, rtol=1e-5)
    assert [r["step"] for r in read_metrics(tmp_path) if r["split"] == "train"] == [2, 4, 6, 8]


def test_a_resumed_source_continues_bit_for_bit(tmp_path):
    batches = points(8)
    whole = train.fit(problem(Counting(batches)), SGD, 8, run_dir=tmp_path / "whole", **OPTIONS)
    ends = problem(iter(batches[:6]))
    with pytest.raises(SourceError, match=r"step 7 of 8, but the iterator ended after 6"):
        train.fit(ends, SGD, 8, run_dir=tmp_path / "ended", **OPTIONS)
    assert newest_step(tmp_path / "ended" / "checkpoints") == 6, "the last good state"
    train.fit(problem(Counting(batches)), SGD, 4, run_dir=tmp_path / "parts", **OPTIONS)
    with warnings.catch_warnings(action="error"):
        parts = train.fit(problem(Counting(batches)), SGD, 8, run_dir=tmp_path / "parts", resume=True, **OPTIONS)
    chex.assert_trees_all_equal(parts.state, whole.state)


def test_a_batch_is_drawn_ahead_except_before_a_checkpoint(tmp_path):
    source, drawn = Counting(points(8)), {}

    class Watch(train.Hook):
        def on_log(self, step, values):
            drawn["log", step] = source.n

        def on_save(self, step, path):
            drawn["save", step] = source.n

    train.fit(problem(source), SGD, 8, run_dir=tmp_path, hooks=[Watch()], **OPTIONS)
    want = {("log", 2): 3, ("log", 4): 4, ("save", 4): 4, ("log", 6): 7, ("log", 8): 8, ("save", 8): 8}
    assert drawn == want


def test_a_source_is_split_over_the_devices():
    batches = points(3)
    one, many = (train.fit(problem(batches), SGD, 3, devices=n, **OPTIONS) for n in (1, 4))
    chex.assert_trees_all_close(many.last, one.last, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^Problem.source: wanted .* 4 devices, but 0 has shape \(6, 3\)"):
        train.fit(problem([jax.tree.map(lambda a: a[:6], batches[0])]), SGD, 3, devices=4, **OPTIONS)


def test_nan_in_a_batch_is_named_by_step_leaf_and_index():
    batches = points(4)
    x, y = batches[2]
    batches[2] = np.where((np.arange(24) == 16).reshape(8, 3), np.float32(np.nan), x), y
    said = r"^step 3, seed 0: wanted finite data, but the batch has nan in 0 at \(5, 1\); fill or mask these values"
    with pytest.raises(train.NotFiniteError, match=said):
        train.fit(problem(batches), SGD, 4, **OPTIONS)
