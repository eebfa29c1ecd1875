"""Loaders of other libraries as sources: a PyTorch DataLoader and a grain dataset."""

import chex
import jax
import numpy as np
import optax
import pytest

from jax_lstm import train
from jax_lstm.train.source import Feed
from tests.train.test_source import OPTIONS, points, problem

ADAM = optax.adam(0.1)


def rows():
    """32 sequences' worth of points of the toy problem."""
    xs, ys = (np.concatenate(leaves) for leaves in zip(*points(4), strict=True))
    return xs, ys


def test_a_torch_loader_trains_over_several_epochs():
    torch = pytest.importorskip("torch")
    xs, ys = rows()
    data = torch.utils.data.TensorDataset(torch.from_numpy(xs.copy()), torch.from_numpy(ys.copy()))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    got = train.fit(problem(loader), ADAM, 10, **OPTIONS)
    batches = [[xs[n : n + 8], ys[n : n + 8]] for n in range(0, 32, 8)]
    chex.assert_trees_all_equal(got.last, train.fit(problem(batches), ADAM, 10, **OPTIONS).last)


def test_the_smaller_last_batch_of_a_torch_loader_is_refused():
    torch = pytest.importorskip("torch")
    feed = Feed(torch.utils.data.DataLoader(torch.arange(12.0).reshape(6, 2), batch_size=4), 5)
    feed.take(1)
    with pytest.raises(ValueError, match=r"step 2: .* it has shape \(2, 2\) .* drop a smaller last batch"):
        feed.take(2)


def test_a_grain_dataset_resumes_in_the_middle_of_an_epoch(tmp_path):
    grain = pytest.importorskip("grain")
    xs, ys = rows()

    def source():
        data = grain.MapDataset.range(len(xs)).shuffle(seed=3).map(lambda n: (xs[n], ys[n]))
        return data.batch(8, drop_remainder=True).to_iter_dataset()

    whole = train.fit(problem(source()), ADAM, 6, run_dir=tmp_path / "whole", **OPTIONS | {"eval_every": 3})
    parts = tmp_path / "parts"
    train.fit(problem(source()), ADAM, 3, run_dir=parts, **OPTIONS | {"eval_every": 3})
    again = train.fit(problem(source()), ADAM, 6, run_dir=parts, resume=True, **OPTIONS | {"eval_every": 3})
    chex.assert_trees_all_equal(again.state, whole.state)
    other = train.fit(problem(points(4)), ADAM, 6, **OPTIONS)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, other.last, whole.last)))
