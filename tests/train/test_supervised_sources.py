"""Batches that Python makes: lists, generators, PyTorch's DataLoader and grain's datasets."""

import itertools
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jax_lstm as jl
from jax_lstm import train
from jax_lstm.data import Scaling
from jax_lstm.train.host_batches import Batches
from jax_lstm.train.source import Feed

N, T, I, SIZE = 24, 5, 3, 8
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(N, T, I)).astype(np.float32)
YS = XS.sum(axis=1)[:, :1]
LENGTHS = RNG.integers(1, T + 1, N)
CELL = jl.RNN(I, 4)
PARTS = [slice(k, k + SIZE) for k in range(0, N, SIZE)]


def batches():
    """The data in three batches."""
    return [(XS[part], YS[part]) for part in PARTS]


def made(source, **options) -> Any:
    return train.supervised(CELL, source, validation=(XS, YS), **options)


def first_batch(problem):
    return next(iter(problem.source))


@pytest.fixture(scope="module")
def loss_of():
    """The loss of a batch, compiled once for all batches of these shapes."""
    problem = made(batches())
    run = jax.jit(lambda params, batch: problem.loss(params, batch, None, jax.random.key(0))[0])
    return lambda batch: run(problem.init(jax.random.key(0)), batch)


def test_a_list_is_read_again_and_a_generator_once(loss_of):
    listed, generated = made(batches()), made(part for part in batches())
    for problem, count in ((listed, 3), (listed, 3), (generated, 3), (generated, 0)):
        got = list(problem.source)
        assert len(got) == count
        for batch, (xs, ys) in zip(got, batches(), strict=False):
            np.testing.assert_array_equal(batch.xs, xs)
            np.testing.assert_array_equal(batch.targets, ys)
    params = listed.init(jax.random.key(0))
    ys = jl.batched(listed.predictor.model.apply_last)(params, XS[:SIZE])[1]
    np.testing.assert_allclose(loss_of(first_batch(listed)), np.mean((ys - YS[:SIZE]) ** 2), rtol=1e-5)


def test_fit_trains_on_a_list_and_says_when_a_generator_ends():
    run = train.fit(made(batches()), optax.adam(1e-2), steps=7, progress=False)
    assert run.predict(XS).shape == YS.shape
    with pytest.raises(train.SourceError, match="wanted a batch for step 4 of 7, but the iterator ended after 3"):
        train.fit(made(iter(batches())), optax.adam(1e-2), steps=7, progress=False)


def test_batches_may_be_dicts_and_have_lengths_or_masks():
    mask = np.arange(T)[None] < LENGTHS[:, None]
    forms = [
        [(XS[p], YS[p], LENGTHS[p]) for p in PARTS],
        [(XS[p], YS[p], mask[p]) for p in PARTS],
        [{"inputs": XS[p], "targets": YS[p], "lengths": LENGTHS[p]} for p in PARTS],
        [{"inputs": XS[p], "targets": YS[p], "mask": mask[p], "weights": np.ones(SIZE)} for p in PARTS],
    ]
    for form in forms:
        batch = first_batch(made(form))
        np.testing.assert_array_equal(batch.mask, mask[:SIZE])
    full = made([(XS[p], YS[p], np.full(SIZE, T)) for p in PARTS])
    assert first_batch(full).mask.all(), "all batches have the same leaves"


def test_validation_may_be_batches_of_different_lengths():
    short = [(XS[:4, :3], YS[:4]), (XS[4:9], YS[4:9])]
    problem = train.supervised(CELL, batches(), validation=short)
    model, params = problem.predictor.model, problem.init(jax.random.key(0))
    ys = [jl.batched(model.apply_last)(params, xs)[1] for xs, _ in short]
    errors = np.concatenate([(y - t) ** 2 for y, (_, t) in zip(ys, short, strict=True)])
    np.testing.assert_allclose(problem.score(params)["loss"], errors.mean(), rtol=1e-5)


def test_a_scaling_is_applied_in_the_step(loss_of):
    one, two = np.ones(I, np.float32), np.full(1, 2, np.float32)
    problem = made(batches(), scale=Scaling(one, 2 * one, two, two))
    batch = first_batch(problem)
    np.testing.assert_array_equal(batch.xs, XS[:SIZE])
    loss = problem.loss(problem.init(jax.random.key(0)), batch, None, jax.random.key(0))[0]
    scaled = batch._replace(xs=(batch.xs - 1) / 2, targets=(batch.targets - 2) / 2)
    np.testing.assert_allclose(loss, loss_of(scaled), rtol=1e-5)


class Counter:
    """An iterator with the state that grain's iterators have."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return batches()[(self.position - 1) % 3]

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def test_the_state_of_an_iterator_is_kept():
    source = Counter()
    problem = made(source)
    assert problem.source.get_state() == {"position": 0}, "reading the first batch does not count"
    second = list(itertools.islice(problem.source, 2))[1]
    problem.source.set_state({"position": 1})
    np.testing.assert_array_equal(next(problem.source).xs, second.xs)
    assert not hasattr(made(batches()).source, "get_state")


def test_a_resumed_run_reads_on_where_it_stopped(tmp_path):
    whole = train.fit(made(Counter()), optax.adam(1e-2), steps=4, progress=False)
    train.fit(made(Counter()), optax.adam(1e-2), steps=2, run_dir=tmp_path, progress=False)
    parts = train.fit(made(Counter()), optax.adam(1e-2), steps=4, run_dir=tmp_path, resume=True, progress=False)
    jax.tree.map(np.testing.assert_array_equal, parts.last, whole.last)


def test_a_dataloader_of_pytorch_is_a_source(loss_of):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.as_tensor(XS), torch.as_tensor(YS))
    problem = made(torch.utils.data.DataLoader(data, batch_size=SIZE, drop_last=True))
    np.testing.assert_allclose(loss_of(first_batch(problem)), loss_of(first_batch(made(batches()))), rtol=1e-6)
    assert len(list(problem.source)) == len(list(problem.source)) == 3


@pytest.mark.filterwarnings("default")
def test_a_dataset_of_grain_is_a_source(loss_of, tmp_path):
    grain = pytest.importorskip("grain")
    data = grain.MapDataset.source([{"inputs": x, "targets": y} for x, y in zip(XS, YS, strict=True)])
    ordered = data.batch(SIZE)
    problem = made(ordered.to_iter_dataset())
    np.testing.assert_allclose(loss_of(first_batch(problem)), loss_of(first_batch(made(batches()))), rtol=1e-6)
    feeds = [Feed(made(iter(data.shuffle(seed=1).repeat().batch(SIZE).to_iter_dataset())).source, 5) for _ in range(2)]
    for step in (1, 2):
        feeds[0].take(step)
    feeds[0].save(tmp_path, 2)
    feeds[1].load(tmp_path, 2)
    for step in (3, 4):
        jax.tree.map(np.testing.assert_array_equal, feeds[1].take(step), feeds[0].take(step))


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ([], {}, "inputs must give at least one batch, but are empty; a generator can be read only once"),
        ([XS], {}, r"targets are missing; pass them after inputs"),
        ([(XS,)], {}, r"batch must be \(inputs, targets\), .*, or a dict, but is 1 entries"),
        ([{"x": XS, "y": YS}], {}, "batch must have inputs and targets, .*, but has x, y"),
        ([(XS, YS)], {"scale": True}, "scale must be False or a Scaling for an iterable of batches, but is True"),
        ([(XS, YS)], {"scores": "f1"}, "scores must be some of mse, .*, but has 'f1'"),
        ([(XS, YS)], {"weights": np.ones(N)}, "weights must be in each batch of an iterable, but was given once"),
        ([(XS, YS[:3])], {}, "targets must have 24 rows, one per sequence of inputs"),
        ([(XS, np.zeros(N, int))], {"loss": "cross_entropy"}, "model must be a jl.Model for an iterable"),
    ],
)  # fmt: skip
def test_batches_of_a_wrong_form_are_refused(source, options, said):
    with pytest.raises((ValueError, TypeError), match=f"^supervised: {said}"):
        made(source, **options)


def test_an_iterable_needs_validation_data():
    source = batches()
    for validation, came in ((None, "is None"), (source, "is the training iterable")):
        with pytest.raises(ValueError, match=f"^supervised: validation must be .*, but {came}"):
            train.supervised(CELL, source, validation=validation)
    used = iter(batches())
    list(used)
    with pytest.raises(ValueError, match="validation must have at least one batch, but has none; a generator can be"):
        train.supervised(CELL, source, validation=used)
    with pytest.raises(ValueError, match="validation must be other data than the training inputs"):
        train.supervised(CELL, XS, YS, validation=XS)


def test_a_wrong_value_in_a_later_batch_is_named():
    broken = XS[SIZE : 2 * SIZE].copy()
    broken[1, 2, 0] = np.nan
    source = [batches()[0], (broken, YS[SIZE : 2 * SIZE])]
    with pytest.raises(train.SourceError, match=r"step 2.* inputs\[1, 2, 0\] \(row 1, step 2, feature 0\) is nan"):
        train.fit(made(source), optax.adam(1e-2), steps=3, progress=False)


def test_only_the_states_of_the_source_are_passed_on():
    assert not hasattr(Batches(batches(), None), "position")
