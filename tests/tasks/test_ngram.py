"""The n-gram model: probabilities, their interpolation by hand, and what they cost."""

import numpy as np
import pytest

from jax_lstm.tasks.ngram import bits_per_byte, probabilities

ABRA = np.frombuffer(b"abracadabra", np.uint8)
RNG = np.random.default_rng(0)
TEXT = RNG.integers(97, 101, 500).astype(np.uint8)  # a b c d, at random


def of(text):
    return np.frombuffer(text, np.uint8)[None]


def after(context, train=TEXT, order=3):
    """The probabilities of all 256 bytes after a context."""
    context = np.tile(np.frombuffer(context, np.uint8), (256, 1))
    streams = np.concatenate([context, np.arange(256, dtype=np.uint8)[:, None]], axis=1)
    return probabilities(train, streams, order)[:, -1]


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("context", [b"", b"a", b"abc", b"dabc", b"zabc", b"abz", b"zzz"])
def test_all_byte_probabilities_are_positive_and_sum_to_one(context, order):
    p = after(context, order=order)
    assert p.min() > 0
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)


def test_orders_are_mixed_with_witten_bell_weights():
    # abracadabra: a 5 times, b 2, r 2, c 1, d 1 of 11; after a come b twice, c and d; after ra, c once.
    p_b, p_c = ((count + 5 / 256) / 16 for count in (2, 1))
    np.testing.assert_allclose(probabilities(ABRA, of(b"b"))[0], [p_b], rtol=1e-12)
    np.testing.assert_allclose(probabilities(ABRA, of(b"ab"))[0, 1], (2 + 3 * p_b) / 7, rtol=1e-12)
    p_c_after_a = (1 + 3 * p_c) / 7
    np.testing.assert_allclose(probabilities(ABRA, of(b"rac"))[0, 2], (1 + 1 * p_c_after_a) / 2, rtol=1e-12)


def test_a_context_that_was_never_seen_leaves_the_order_below():
    np.testing.assert_array_equal(after(b"zab"), after(b"ab"))
    np.testing.assert_array_equal(after(b"zzz"), after(b""))


def test_only_the_last_three_bytes_of_the_same_stream_count():
    streams = RNG.integers(97, 101, (4, 9)).astype(np.uint8)
    p = probabilities(TEXT, streams)
    np.testing.assert_array_equal(p[:, 5], probabilities(TEXT, streams[:, 2:6])[:, 3])
    np.testing.assert_array_equal(p[2], probabilities(TEXT, streams[2:3])[0])
    other = streams.copy()
    other[:, 1] = ord("z")
    np.testing.assert_array_equal(probabilities(TEXT, other)[:, 5:], p[:, 5:])
    assert (probabilities(TEXT, other)[:, 4] != p[:, 4]).all()


def test_the_score_is_the_mean_bits_of_all_bytes_but_the_first():
    streams = RNG.integers(97, 101, (3, 50)).astype(np.uint8)
    expected = -np.mean([np.log2(p) for row in probabilities(TEXT, streams) for p in row[1:]])
    np.testing.assert_allclose(bits_per_byte(TEXT, streams), expected, rtol=1e-12)


def test_4_random_letters_cost_2_bits_and_repetition_almost_none():
    letters = RNG.integers(97, 101, 200_000).astype(np.uint8)
    assert bits_per_byte(letters[:-10_000], letters[None, -10_000:]) == pytest.approx(2, abs=0.01)
    again = np.tile(np.frombuffer(b"abcdefg", np.uint8), 1_000)
    assert bits_per_byte(again, again[None, :700]) < 0.01
    assert bits_per_byte(again, again[None, :700], order=0) == pytest.approx(np.log2(7), abs=0.01)


@pytest.mark.parametrize(
    ("order", "size", "said"), [(-1, 9, "from 0 to 7"), (8, 9, "from 0 to 7"), (3, 3, "more than 3")]
)
def test_an_order_or_a_text_that_cannot_be_counted_is_refused(order, size, said):
    with pytest.raises(ValueError, match=f"^ngram: .*{said}"):
        bits_per_byte(TEXT[:size], TEXT[None], order)
