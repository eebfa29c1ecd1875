"""The bytes of the standard library: which files, which split, streams that continue, and the scores beside them."""

import sysconfig
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.data.text import split_of
from jax_lstm.tasks import Bytes, Digits, ReadsTokens, ngram
from jax_lstm.tasks import bytes as bytes_of
from jax_lstm.tasks.byte_streams import STREAM
from jax_lstm.tasks.bytes import library, streams, texts

SPLITS = ("train", "validation", "test")


def test_the_files_are_the_standard_library_without_its_tests():
    names = set(library())
    assert {"ast.py", "json/decoder.py", "asyncio/events.py"} <= names
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"}
    assert all(name.endswith(".py") for name in names)
    assert list(library()) == sorted(names)
    assert library()["ast.py"] == Path(sysconfig.get_paths()["stdlib"], "ast.py").read_bytes()


def test_every_file_is_in_exactly_one_split():
    parts = {split: [name for name in library() if split_of(name) == split] for split in SPLITS}
    assert sum(map(len, parts.values())) == len(library())
    for split, text in zip(SPLITS, texts(), strict=True):
        assert text.tobytes() == b"".join(library()[name] for name in parts[split])
    sizes = np.array([len(text) for text in texts()]) / sum(map(len, texts()))
    assert 0.7 < sizes[0] < 0.9
    assert sizes[1:].min() > 0.05


def test_the_split_of_a_file_depends_on_its_name_only():
    # SHA-256 of the name, its first eight bytes modulo ten, which any language can recompute.
    named = {name: split_of(name) for name in ("ast.py", "zipfile.py", "_pydecimal.py", "json/decoder.py")}
    assert named == {
        "ast.py": "train",
        "zipfile.py": "test",
        "_pydecimal.py": "validation",
        "json/decoder.py": "train",
    }


def test_the_target_of_every_step_is_the_next_byte():
    batch = Bytes(trained=20).train_batch(jax.random.key(0), 3, 5)
    assert (batch.xs.shape, batch.targets.shape) == ((5, 20), (5, 20))
    assert batch.xs.dtype == batch.targets.dtype == jnp.int32
    assert batch.weights is not None
    np.testing.assert_array_equal(batch.weights, np.ones((5, 20)))
    np.testing.assert_array_equal(batch.xs[:, 1:], batch.targets[:, :-1])
    text = texts().train.tobytes()
    for row in np.concatenate([batch.xs[:, :1], batch.targets], axis=1):
        assert row.astype(np.uint8).tobytes() in text


def test_a_stream_continues_in_the_next_training_batch():
    task = Bytes(trained=16)
    parts = [task.train_batch(jax.random.key(0), t, 4) for t in range(10, 14)]
    whole = Bytes(trained=16 * 14).train_batch(jax.random.key(0), 0, 4)
    np.testing.assert_array_equal(np.concatenate([part.xs for part in parts], axis=1), whole.xs[:, 160:])
    np.testing.assert_array_equal(np.concatenate([part.targets for part in parts], axis=1), whole.targets[:, 160:])


def test_a_stream_wraps_around_the_end_of_the_text(monkeypatch):
    small = texts()._replace(train=np.arange(10, dtype=np.uint8))
    monkeypatch.setattr(bytes_of, "texts", lambda: small)
    xs = np.concatenate([Bytes(trained=3).train_batch(jax.random.key(0), t, 2).xs for t in range(50)], axis=1)
    np.testing.assert_array_equal(np.diff(xs) % 10, 1)
    np.testing.assert_array_equal(Bytes(trained=3).train_batch(jax.random.key(0), 700_000_000, 2).xs, xs[:, :3])


def test_a_batch_is_a_pure_traceable_function_of_key_and_step():
    task = Bytes(trained=8)
    once, again = (
        task.train_batch(jax.random.key(0), 40, 8),
        jax.jit(partial(task.train_batch, size=8))(jax.random.key(0), jnp.int32(40)),
    )
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert not np.array_equal(once.xs, task.train_batch(jax.random.key(2), 40, 8).xs)
    assert len(np.unique(task.train_batch(jax.random.key(0), 0, 64).xs, axis=0)) > 32


@pytest.mark.parametrize(("split", "count"), [("validation", 32), ("test", 128)])
def test_scored_streams_are_fixed_disjoint_parts_of_their_split(split, count):
    batch = getattr(Bytes(), split)()
    assert batch.xs.shape == (count, STREAM) == (count, Bytes().length)
    jax.tree.map(np.testing.assert_array_equal, batch, getattr(Bytes(trained=7), split)())
    text = getattr(texts(), split)
    assert len(text) // count > STREAM
    for b in (0, 1, count - 1):
        at = b * (len(text) // count)
        np.testing.assert_array_equal(batch.xs[b], text[at : at + STREAM])
        np.testing.assert_array_equal(batch.targets[b], text[at + 1 : at + STREAM + 1])


def test_the_baseline_is_the_entropy_of_the_training_texts_bytes():
    text = texts().train
    p = np.bincount(text, minlength=256) / len(text)
    np.testing.assert_allclose(Bytes().baselines("test")["byte frequencies"], -np.log2(p[text]).mean(), rtol=1e-9)


def test_the_second_baseline_is_the_order_3_n_gram_on_the_split():
    expected = ngram.bits_per_byte(texts().train, streams("validation"), 3)
    frequencies, n_gram = Bytes().baselines("validation").items()
    assert n_gram == ("order-3 n-gram", expected)
    assert 1.5 < expected < 0.6 * frequencies[1]


def test_bytes_reads_tokens_and_digits_does_not():
    assert isinstance(Bytes(), ReadsTokens)
    assert not isinstance(Digits(), ReadsTokens)
    assert max(int(text.max()) for text in texts()) < Bytes().vocabulary == Bytes().output_size


def test_a_stream_of_no_bytes_is_refused():
    with pytest.raises(ValueError, match=r"trained must be at least 1, but is 0"):
        Bytes(trained=0)


def test_an_interpreter_without_library_source_is_refused(monkeypatch):
    monkeypatch.setattr(bytes_of, "library", lambda: {"ast.py": b"import sys\n"})
    with pytest.raises(FileNotFoundError, match=r"^Bytes: wanted at least .* for validation, but found 0 under"):
        texts.__wrapped__()
