"""Embedded Reber strings: every one is a walk of the grammar, and the outer symbol is asked for."""

import re

import jax
import numpy as np

from jax_lstm.tasks import Reber

# The grammar again, as a regular expression, read off the graph by hand.
INNER = re.compile(r"B(TS*X(S|XT*V(V|P(XT*VP)*(S|XT*VV)))|PT*V(V|P(XT*VP)*(S|XT*VV)))E")


def read(batch):
    """Every sequence as text, without its padding."""
    for xs, mask in zip(np.asarray(batch.xs), np.asarray(batch.mask), strict=True):
        n = mask.sum()
        np.testing.assert_array_equal(mask, np.arange(len(mask)) < n)
        np.testing.assert_array_equal(xs.sum(axis=1), mask)
        yield "".join("BTPSXVE"[k] for k in xs[:n].argmax(axis=1))


def test_strings_are_valid_and_the_outer_symbol_is_the_target():
    batch = Reber().sequences(jax.random.key(0), 2_000)
    lengths = set()
    for text, target in zip(read(batch), batch.targets.tolist(), strict=True):
        assert text[0] == "B"
        assert text[1] == "BTPSXVE"[target]
        assert text[1] in "TP"
        assert INNER.fullmatch(text[2:]), text
        lengths.add(len(text) - 2)
    assert lengths == set(range(5, 17))
    np.testing.assert_allclose(np.mean(np.asarray(batch.targets) == 1), 0.5, atol=0.05)


def test_the_regex_of_the_grammar_rejects_invalid_strings():
    assert INNER.fullmatch("BTXSE")
    assert INNER.fullmatch("BPVVE")
    assert INNER.fullmatch("BTSSXXTVPXVPSE")
    assert not INNER.fullmatch("BTXVE")
    assert not INNER.fullmatch("BTSE")


def test_the_shortest_strings_have_the_expected_frequency():
    """BTXSE takes three coins, T, X and S, as BPVVE does, P, V and V."""
    texts = [text[2:] for text in read(Reber().sequences(jax.random.key(1), 4_000))]
    for shortest in ("BTXSE", "BPVVE"):
        share = texts.count(shortest) / len(texts)
        # A little above 1/8, as the 2.8 % that are longer than 16 are drawn again; 0.0053 is a standard deviation.
        np.testing.assert_allclose(share, 1 / 8 / 0.972, atol=4 * 0.0053)


def test_batches_are_functions_of_key_and_step_and_splits_differ():
    task, key = Reber(), jax.random.key(5)
    once, again = task.train_batch(key, 3, 8), jax.jit(task.train_batch, static_argnums=2)(key, 3, 8)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert not np.array_equal(once.xs, task.train_batch(key, 4, 8).xs)
    assert not np.array_equal(task.validation().xs[:100], task.test().xs[:100])
