"""The task series: batches from a file, splits without leaks, scaling, baselines and prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ragged

from jax_lstm.data import split_steps
from jax_lstm.tasks import Series, Task
from jax_lstm.tasks.series_data import load

PARTS = ("train", "validation", "test")


@pytest.fixture
def path(tmp_path):
    return ragged.write(tmp_path, "a.csv", ragged.csv(ragged.interleaved(ragged.columns())))


def counted(task, part):
    """The rows of the file that count in a part, by sequence and step."""
    data = load(task)
    return [np.flatnonzero(w).tolist() for w in data.rows.split(data.parts[part].weights)]


def test_a_batch_is_the_scaled_rows_of_windows(path):
    task = Series(path, **ragged.OPTIONS, window=6, stride=2, warmup=2)
    found, mean, scale = ragged.columns(), *task.scaling[:2]
    batch = jax.jit(task.train_batch, static_argnums=2)(jax.random.key(0), jnp.int32(1), 3)
    assert (batch.xs.shape, batch.targets.shape, batch.weights.shape) == ((3, 6, 4), (3, 6, 1), (3, 6))
    assert isinstance(task, Task)
    assert (task.input_size, task.output_size, task.length) == (4, 1, 24)
    assert task.features == ("rain", "temp", "area", "rain is absent")
    temp = np.asarray(batch.xs[..., 1]) * scale[1] + mean[1]
    for b in range(3):
        start = int(np.abs(found["temp"] - temp[b, 0]).argmin())
        rain, flow = (found[name][start : start + 6] for name in ("rain", "flow"))
        np.testing.assert_allclose(temp[b], found["temp"][start : start + 6], atol=1e-6)
        np.testing.assert_allclose(
            batch.xs[b, :, 0] * scale[0] + mean[0], np.where(np.isnan(rain), mean[0], rain), atol=1e-6
        )
        np.testing.assert_array_equal(batch.xs[b, :, 3], np.isnan(rain))
        np.testing.assert_array_equal(batch.weights[b], (np.arange(6) >= 2) & ~np.isnan(flow))
        targets = task.scaling.unscaled(np.asarray(batch.targets[b]))[:, 0]
        np.testing.assert_allclose(targets[~np.isnan(flow)], flow[~np.isnan(flow)], atol=1e-6)


def test_whole_sequences_are_padded_and_masked(path):
    task = Series(path, **ragged.OPTIONS, fractions=(0.4, 0.3, 0.3))
    batch = task.train_batch(jax.random.key(0), 0, 3)
    assert batch.mask is not None
    lengths = sorted(batch.mask.sum(axis=1).tolist())
    assert lengths == sorted(split_steps(T, task.fractions)[0].stop for T in ragged.LENGTHS.values())
    assert not np.asarray(batch.xs)[~np.asarray(batch.mask)].any()
    assert not np.asarray(batch.weights)[~np.asarray(batch.mask)].any()
    assert task.cut_lengths[-1] == batch.xs.shape[1] == max(lengths)


@pytest.mark.parametrize("kind", ["regression", "forecasting"])
@pytest.mark.parametrize("split_by", ["time", "sequence"])
def test_every_known_target_is_in_one_part(kind, split_by, path):
    ahead = 2 if kind == "forecasting" else 1
    task = Series(path, **ragged.OPTIONS, kind=kind, ahead=ahead, window=5, split_by=split_by)
    shift = ahead if kind == "forecasting" else 0
    flow, sites = ragged.columns()["flow"], ragged.columns()["site"]
    parts = [counted(task, part) for part in PARTS]
    for n, site in enumerate(ragged.LENGTHS):
        known = np.flatnonzero(~np.isnan(flow[sites == site][shift:])).tolist()
        assert sorted(parts[0][n] + parts[1][n] + parts[2][n]) == known
        if split_by == "time":
            T = ragged.LENGTHS[site]
            assert parts[0][n] + parts[1][n] + parts[2][n] == known
            assert max(parts[0][n]) + shift < split_steps(T)[1].start <= min(parts[1][n]) + shift
        else:
            assert sum(bool(part[n]) for part in parts) == 1
    for part in ("validation", "test"):
        batch = getattr(task, part)()
        assert int(batch.weights.sum()) == sum(map(len, parts[PARTS.index(part)]))


def test_dates_are_split_at_the_same_dates(tmp_path):
    found = ragged.columns() | {"flow": np.arange(61.0)}
    task = Series(ragged.write(tmp_path, "a.csv", ragged.csv(ragged.dates(found))), **ragged.OPTIONS)
    parts = [counted(task, part) for part in PARTS]
    days = [{day for part in parts[k] for day in part} for k in range(3)]
    assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])
    assert set.union(*days) == set(range(24))


def test_later_values_change_no_training_batch(tmp_path):
    """The first 70 % of each sequence are for training; all later values are replaced."""
    found, other = ragged.columns(), ragged.columns(seed=1)
    tasks = []
    for k, changed in enumerate((found, other)):
        training = {site: split_steps(T)[0].stop for site, T in ragged.LENGTHS.items()}
        first = found["day"] < np.array([training[site] for site in found["site"]])
        values = found | {c: np.where(first, found[c], changed[c] + 9 * k) for c in ("rain", "temp", "flow")}
        path = ragged.write(tmp_path, f"{k}.csv", ragged.csv(values))
        tasks.append(Series(path, **ragged.OPTIONS, kind="forecasting", ahead=2, window=5, stride=2))
    jax.tree.map(np.testing.assert_array_equal, *(task.scaling for task in tasks))
    for step in range(4):
        jax.tree.map(np.testing.assert_array_equal, *(task.train_batch(jax.random.key(0), step, 4) for task in tasks))
    assert tasks[0].features == tasks[1].features
    assert not np.array_equal(tasks[0].test().xs, tasks[1].test().xs)


def test_the_state_of_the_test_part_is_warmed_up_by_the_past(path):
    task = Series(path, **ragged.OPTIONS, window=6)
    batch, data = task.test(), load(task)
    assert batch.weights is not None
    for n, xs in enumerate(data.rows.split(data.xs)):
        np.testing.assert_array_equal(batch.xs[n, : len(xs)], xs)
        assert int(np.flatnonzero(batch.weights[n])[0]) >= split_steps(len(xs))[2].start
        assert not np.asarray(batch.weights[n, len(xs) :]).any()


def test_every_format_gives_the_same_task(tmp_path):
    found = ragged.columns()
    files = {"a.csv": ragged.csv(found), "b.parquet": ragged.parquet(found), "c.npz": ragged.npz(found)}
    files |= {"d.npz": ragged.npz(ragged.padded(found)), "e.csv": ragged.csv(ragged.interleaved(found), ";")}
    tasks = [Series(ragged.write(tmp_path, *file), **ragged.OPTIONS, window=6) for file in files.items()]
    for task in tasks[1:]:
        assert task.facts() == tasks[0].facts()
        jax.tree.map(np.testing.assert_array_equal, task.test(), tasks[0].test())


@pytest.mark.parametrize("kind", ["regression", "forecasting"])
def test_baselines_are_in_original_units(kind, path):
    task = Series(path, **ragged.OPTIONS, kind=kind, season=4, metric="rmse")
    batch = task.test()
    count, targets = np.asarray(batch.weights) > 0, task.scaling.unscaled(np.asarray(batch.targets))
    errors = targets[count] - task.scaling.target_mean
    found = task.baselines("test")
    assert list(found) == ["mean", "persistence", "seasonal naive"]
    np.testing.assert_allclose(found["mean"], np.sqrt(np.mean(errors**2)), rtol=1e-5)
    flow = ragged.columns()["flow"]
    inside = np.flatnonzero(load(task).parts["test"].weights)
    back = 1 if kind == "regression" else 0
    last = [flow[: k + 1 - back][~np.isnan(flow[: k + 1 - back])][-1] for k in inside]
    wanted = flow[inside + 1 - back]
    np.testing.assert_allclose(found["persistence"], np.sqrt(np.mean((wanted - last) ** 2)), rtol=1e-5)
    assert set(task.baseline_scores("test")["mean"]) == {task.metric, *task.scores}


def test_a_new_file_is_prepared_with_the_facts_of_the_old_one(path, tmp_path):
    task = Series(path, **ragged.OPTIONS, window=6)
    mean = task.scaling.input_mean
    new = Series("gone.csv", **ragged.OPTIONS, window=6).with_facts(task.facts())
    assert (new.input_size, new.output_size, new.length) == (task.input_size, task.output_size, task.length)
    jax.tree.map(np.testing.assert_array_equal, new.scaling, task.scaling)
    file = ragged.write(tmp_path, "new.csv", "site,day,rain,temp,area\nv,2,,3,5\nu,1,1,,6\nv,1,2,4,5\n")
    inputs, keys = new.prepare(file)
    np.testing.assert_array_equal(inputs[0], [[2, 4, 5, 0], [mean[0], 3, 5, 1]])
    np.testing.assert_array_equal(inputs[1], [[1, mean[1], 6, 0]])
    assert keys.sequences == ["v", "u"]
    assert [times.tolist() for times in keys.times or ()] == [["1", "2"], ["1"]]
    assert [records.tolist() for records in keys.records] == [[2, 0], [1]]
    assert new.with_facts(task.facts()) == new != Series("gone.csv", **ragged.OPTIONS, window=6)
    with pytest.raises(ValueError, match="wanted a file, but there is none"):
        new.test()


def test_prepared_inputs_are_those_of_the_batches(path):
    task = Series(path, **ragged.OPTIONS)
    batch = task.test()
    for n, xs in enumerate(task.prepare(path)[0]):
        np.testing.assert_allclose(task.scaling.inputs(xs), batch.xs[n, : len(xs)], rtol=1e-6, atol=1e-7)


def test_a_changed_file_is_read_again(path, tmp_path):
    task = Series(path, **ragged.OPTIONS)
    before = task.scaling
    assert load(task) is load(Series(path, **ragged.OPTIONS))
    ragged.write(tmp_path, "a.csv", ragged.csv(ragged.columns(seed=1)) + "\n")
    assert not np.array_equal(before.input_mean, task.scaling.input_mean)


def test_the_features_are_in_memory_once(path):
    task = Series(path, **ragged.OPTIONS)
    data = load(task)
    assert (data.xs.dtype, data.xs.shape) == (np.float32, (61, 4))
    rows = data.on_device.rows
    assert data.on_device.rows[0] is rows[0]
    assert np.shares_memory(data.xs, np.asarray(rows[0]))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("x", 1e8 + np.arange(20), "big.csv: column 'x': wanted numbers that vary by more than .* subtract a constant"),
        ("y", 1e8 + np.arange(20), "big.csv: column 'y': wanted numbers that vary by more than .* subtract a constant"),
        (
            "y",
            1e300 * np.arange(20),
            "big.csv: column 'y': wanted numbers .* but got numbers up to .*; change the unit",
        ),
    ],
)
def test_a_column_that_float32_cannot_hold_is_refused(tmp_path, column, values, message):
    columns = {"x": np.arange(20.0), "y": np.arange(20.0)} | {column: values}
    path = ragged.write(tmp_path, "big.csv", ragged.csv(columns))
    with pytest.raises(ValueError, match=message):
        load(Series(path, inputs="x", targets="y"))


def test_a_forecast_past_the_training_part_names_ahead(path):
    options = ragged.OPTIONS | {"kind": "forecasting", "ahead": 90}
    with pytest.raises(ValueError, match=r"wanted known targets in the train part, .* which are .*, ahead, warmup or"):
        load(Series(path, **options))


def test_one_series_in_the_shape_of_many_is_refused(tmp_path):
    xs = np.random.default_rng(0).normal(size=(30, 5))
    path = ragged.write(tmp_path, "series.npz", ragged.npz({"x": xs, "y": xs.sum(1)}))
    with pytest.raises(ValueError, match=r"column 'y': wanted a target at every step, but each sequence has one value"):
        load(Series(path, inputs="x", targets="y"))
