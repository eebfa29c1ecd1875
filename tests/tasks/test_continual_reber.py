"""Endless embedded Reber strings, against a parser of the grammar."""

import re

import jax
import numpy as np
import pytest

from jax_lstm.tasks import ContinualReber
from jax_lstm.tasks.continual_reber import _streams

# The grammar as a regular expression: state 4 is left by S, or by X T* V to 5; that one by V, or by P to 4.
FROM_4 = "(?:XT*VP)*(?:S|XT*VV)"
INNER = f"B(?:TS*X{FROM_4}|PT*V(?:V|P{FROM_4}))E"
EMBEDDED = re.compile(f"B([TP])({INNER})([TP])E")


def test_a_stream_joins_strings_and_asks_for_each_outer_symbol():
    batch = _streams(jax.random.key(0), 8, 2000)
    letters = np.array(list("BTPSXVE"))
    read, wanted = letters[np.asarray(batch.xs).argmax(axis=2)], letters[np.asarray(batch.targets)]
    assert (read[:, 1:] == wanted[:, :-1]).all()
    for symbols, targets, weights in zip(read, wanted, np.asarray(batch.weights), strict=True):
        text, at, asked = "".join(symbols), 0, []
        while match := EMBEDDED.match(text, at):
            assert match[1] == match[3]
            asked.append(match.start(3) - 1)  # the step before the outer symbol comes back
            at = match.end()
        assert len(text) - at < 150, "only the last string is cut short"
        assert len(asked) > 50
        assert [t for t in np.flatnonzero(weights) if t < at] == asked
        assert set(targets[weights > 0]) == {"T", "P"}


def test_both_outer_symbols_are_equally_likely():
    batch = _streams(jax.random.key(1), 16, 2000)
    asked = np.asarray(batch.targets)[np.asarray(batch.weights) > 0]
    assert abs((asked == 1).mean() - 0.5) < 0.05


def test_scored_streams_are_longer_than_trained_ones():
    task = ContinualReber(200)
    assert task.train_batch(jax.random.key(0), 0, 2).xs.shape == (2, 200, 7)
    assert task.validation().xs.shape == (16, 2_000, 7)
    assert task.test().xs.shape == (16, 10_000, 7)


def test_a_short_stream_is_refused():
    with pytest.raises(ValueError, match="trained must be at least 100, but is 99"):
        ContinualReber(99)
