"""The task series with labels: one per sequence, and one per step."""

import jax
import numpy as np
import pytest
import ragged

from jax_lstm.tasks import Series
from jax_lstm.tasks.series_data import load


def sequences(count=10):
    """A CSV file of ragged sequences; the label of each is low or high; sequence 4 has none."""
    rows = ["id,x,kind,step"]
    for n in range(count):
        kind = ("low", "high", "high")[n % 3] if n != 4 else ""
        rows += [f"{n},{n + t / 10},{kind},{'up' if t % 2 else 'down'}" for t in range(3 + n % 4)]
    return "\n".join(rows) + "\n"


def test_classification_has_one_label_per_sequence(tmp_path):
    task = Series(ragged.write(tmp_path, "a.csv", sequences()), "x", "kind", sequence="id", kind="classification")
    assert (task.labels, task.output_size, task.loss, task.metric) == (("high", "low"), 2, "cross_entropy", "accuracy")
    assert (task.every_step, task.maximize, task.scores) == (False, True, ("f1",))
    batches = [task.validation(), task.test(), task.train_batch(jax.random.key(0), 0, 20)]
    seen = set()
    for batch in batches:
        assert batch.weights is None
        ids = np.floor(task.scaling.input_scale * np.asarray(batch.xs[:, 0]) + task.scaling.input_mean + 1e-4)[:, 0]
        assert [int(n % 3 == 0) for n in ids] == batch.targets.tolist()
        steps = batch.xs.shape[1] if batch.mask is None else np.asarray(batch.mask.sum(axis=1))
        np.testing.assert_array_equal(steps, 3 + ids % 4)
        assert not seen & set(ids)
        seen |= set(ids)
    assert seen == set(range(10)) - {4}
    share = np.mean(np.asarray(batches[1].targets) == 0)
    assert task.baselines("test") == {"most frequent": pytest.approx(share)}


def test_arrays_with_labels_are_classified(tmp_path):
    xs, labels = np.arange(60.0).reshape(5, 4, 3), np.array([7, 3, 7, 3, 3])
    path = ragged.write(tmp_path, "a.npz", ragged.npz({"xs": xs, "k": labels}, lengths=[4, 2, 3, 4, 1]))
    task = Series(path, "xs", "k", kind="classification", fractions=(0.6, 0.2, 0.2))
    assert (task.input_size, task.labels, task.features) == (3, ("3", "7"), ("xs_0", "xs_1", "xs_2"))
    batch = task.train_batch(jax.random.key(0), 0, 3)
    first = np.asarray(batch.xs[:, 0]) * task.scaling.input_scale + task.scaling.input_mean
    rows = np.round(first[:, 0] / 12).astype(int)
    assert [("3", "7")[k] for k in batch.targets] == labels[rows].astype(str).tolist()


def test_labeling_has_a_label_at_every_step(tmp_path):
    task = Series(ragged.write(tmp_path, "a.csv", sequences()), "x", "step", sequence="id", kind="labeling")
    assert (task.labels, task.every_step, task.split_by) == (("down", "up"), True, "time")
    batch, data = task.test(), load(task)
    assert batch.weights is not None
    assert batch.targets.shape == batch.weights.shape == batch.xs.shape[:2]
    for n, length in enumerate(data.rows.lengths):
        np.testing.assert_array_equal(batch.targets[n, :length], np.arange(length) % 2)
    assert list(task.baseline_scores("test")["most frequent"]) == ["accuracy", "f1"]


def test_numbers_as_labels_are_in_the_order_of_numbers(tmp_path):
    rows = "".join(f"{n},{n},{(10, 9, 2)[n % 3]}\n" for n in range(12) for _ in range(2))
    path = ragged.write(tmp_path, "a.csv", "id,x,k\n" + rows)
    task = Series(path, "x", "k", sequence="id", kind="classification")
    assert task.labels == ("2", "9", "10")


def test_labels_of_other_files_must_be_known(tmp_path):
    task = Series(ragged.write(tmp_path, "a.csv", sequences()), "x", "kind", sequence="id", kind="classification")
    other = ragged.write(tmp_path, "b.csv", sequences().replace("low", "middle"))
    again = Series(other, "x", "kind", sequence="id", kind="classification").with_facts(task.facts())
    with pytest.raises(ValueError, match="row 2, column 'kind': wanted one of the labels high, low, but got 'middle'"):
        again.test()


def test_labels_that_cannot_be_learned_are_refused(tmp_path):
    options = {"inputs": "x", "targets": "kind", "sequence": "id", "kind": "classification"}
    two = ragged.write(tmp_path, "a.csv", sequences().replace("0,0.1,low", "0,0.1,high"))
    with pytest.raises(ValueError, match="row 3, column 'kind': wanted one label per sequence, but sequence '0' has"):
        Series(two, **options).test()
    one = ragged.write(tmp_path, "b.csv", sequences().replace("low", "high"))
    with pytest.raises(ValueError, match="column 'kind': wanted two labels or more, but got only 'high'"):
        Series(one, **options).test()
    short = ragged.write(tmp_path, "c.csv", sequences(2))
    with pytest.raises(ValueError, match="wanted at least 3 sequences to split by sequence, but got 2; give more"):
        Series(short, **options).test()
    with pytest.raises(ValueError, match="but got 1; name the column of the sequences as sequence"):
        Series(
            short, **options | {"sequence": None, "targets": "step", "kind": "labeling", "split_by": "sequence"}
        ).test()
