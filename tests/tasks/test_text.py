"""The task text: any file or folder, its three parts, and its scores."""

import jax
import numpy as np
import pytest

from jax_lstm.data.text import split_of
from jax_lstm.tasks import Bytes, ReadsTokens, Task, Text, ngram

RNG = np.random.default_rng(0)
WORDS = b" ".join(RNG.choice([b"the", b"cell", b"state", b"gate"], 2_000).tolist())


@pytest.fixture
def path(tmp_path):
    (tmp_path / "words.txt").write_bytes(WORDS)
    return str(tmp_path / "words.txt")


@pytest.fixture
def folder(tmp_path):
    for k in range(60):
        file = tmp_path / "all" / f"part{k % 3}" / f"{k}.{('txt', 'md', 'bin')[k % 3]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(RNG.integers(0, 256, 100 + k).astype(np.uint8).tobytes())
    (tmp_path / "all" / ".hidden").write_bytes(b"hidden")
    return tmp_path / "all"


def test_a_file_is_split_by_position(path):
    task = Text(path, trained=16)
    n = len(WORDS) // 10
    assert task.texts().train.tobytes() == WORDS[: -2 * n]
    assert task.texts().validation.tobytes() == WORDS[-2 * n : -n]
    assert task.texts().test.tobytes() == WORDS[-n:]
    assert isinstance(task, Task)
    assert isinstance(task, ReadsTokens)


def test_a_short_text_has_few_and_short_streams(path):
    task = Text(path, trained=16)
    length = len(WORDS) // 10 - 1
    assert task.length == length < 2_048
    for batch, text in ((task.validation(), task.texts().validation), (task.test(), task.texts().test)):
        assert batch.xs.shape == (1, length)
        np.testing.assert_array_equal(batch.xs[0], text[:length])
        np.testing.assert_array_equal(batch.targets[0], text[1 : length + 1])
    batch = task.train_batch(jax.random.key(0), 2, 3)
    assert batch.xs.shape == (3, 16)
    for row in np.asarray(batch.xs, np.uint8):
        assert row.tobytes() in WORDS[: -2 * (length + 1)] * 2


def test_a_folder_is_its_files_in_the_order_of_their_paths(folder):
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".hidden")
    task = Text(str(folder))
    assert np.concatenate(task.texts()).tobytes() == b"".join((folder / name).read_bytes() for name in files)
    some = Text(str(folder), suffixes=".txt,md")
    kept = [name for name in files if not name.endswith(".bin")]
    assert np.concatenate(some.texts()).tobytes() == b"".join((folder / name).read_bytes() for name in kept)
    assert some == Text(str(folder), suffixes=["txt", ".md"])
    by_file = Text(str(folder), split_by="file").texts()
    for part, text in by_file._asdict().items():
        assert text.tobytes() == b"".join((folder / name).read_bytes() for name in files if split_of(name) == part)


def test_the_default_is_the_task_bytes():
    task, other = Text(trained=32), Bytes(trained=32)
    assert task.length == other.length
    assert task.texts() is other.texts()
    np.testing.assert_array_equal(task.streams("test"), other.streams("test"))
    assert task.baselines("validation") == other.baselines("validation")
    jax.tree.map(np.testing.assert_array_equal, *(t.train_batch(jax.random.key(0), 5, 2) for t in (task, other)))


def test_baselines_are_counted_on_the_training_part(path):
    task = Text(path)
    found = task.baselines("test")
    p = np.bincount(task.texts().train) / len(task.texts().train)
    assert found["byte frequencies"] == pytest.approx(-(p[p > 0] * np.log2(p[p > 0])).sum())
    assert found["order-3 n-gram"] == ngram.bits_per_byte(task.texts().train, task.texts().test[None], 3)


def test_a_changed_file_is_read_again(path, tmp_path):
    task = Text(path)
    assert task.texts() is task.texts()
    (tmp_path / "words.txt").write_bytes(WORDS[::-1] + b".")
    assert task.texts().test[-1] == ord(".")


def test_bad_texts_get_one_sentence(tmp_path, folder):
    def refused(content, message, **options):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Text(str(tmp_path / "a.txt"), **options).test()

    refused(b"", r"a\.txt: wanted a text of 1,000 to 1,073,741,824 bytes, but it is empty")
    refused(b"ab" * 499, "but it has 998")
    refused(WORDS, "wanted at least 100 bytes in the .* part, but its files have 0; set split_by", split_by="file")
    for path, options, message in (
        (tmp_path / "gone", {}, "gone: wanted a file or a folder, but there is none"),
        (folder, {"suffixes": ".py"}, r"wanted files \.py in this folder, but there are none; change suffixes"),
    ):
        with pytest.raises(ValueError, match=message):
            Text(str(path), **options).test()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained": 0}, "^Text: trained must be at least 1, but is 0"),
        ({"split_by": "line"}, "split_by must be one of auto, position, file"),
        ({"suffixes": ".txt"}, r"suffixes must be None .* for the standard library, .* --data\.path"),
        ({"split_by": "position"}, r"split_by auto or file for the standard library, .* --data\.path"),
        ({"path": "a", "suffixes": ".txt,"}, "Text: suffixes must be names"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Text(**options)
