"""Mean and deviation of columns."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.data import Scaling, fit_scaling
from jax_lstm.data.scaling import CHUNK

RNG = np.random.default_rng(0)
XS = (RNG.normal(size=(5, 7, 3)) * [1, 10, 0] + [2, 300, 4]).astype(np.float32)
YS = RNG.normal(size=(5, 7, 2)).astype(np.float32)


def test_scaled_columns_have_mean_0_and_deviation_1():
    scaling = fit_scaling(XS, YS)
    xs, ys = scaling.inputs(XS), scaling.targets(YS)
    np.testing.assert_allclose(xs.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(xs.std(axis=(0, 1)), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(ys.std(axis=(0, 1)), 1, rtol=1e-5)
    np.testing.assert_allclose(scaling.unscaled(ys), YS, rtol=1e-5, atol=1e-6)
    assert scaling.input_scale[2] == 1, "a constant column"
    assert scaling.input_mean[2] == 4


def test_jax_arrays_and_numpy_arrays_are_scaled_alike():
    scaling = fit_scaling(XS, YS)
    for fn, a in ((scaling.inputs, XS), (scaling.targets, YS), (scaling.unscaled, YS[:, 0])):
        got = fn(jnp.asarray(a))
        assert got.dtype == jnp.float32
        assert isinstance(fn(a), np.ndarray)
        np.testing.assert_allclose(got, fn(a), rtol=1e-6)
    assert scaling.inputs(np.ones((4, 3), np.uint8)).dtype == np.float32


def test_padding_nan_and_weight_0_are_left_out():
    mask = np.arange(7)[None] < np.array([[7], [1], [3], [7], [2]])
    weights = np.where(RNG.random((5, 7)) < 0.3, 0.0, 2.0)
    xs, ys = np.where(mask[..., None], XS, 1e30), np.where((weights > 0)[..., None], YS, -1e30)
    ys[0, 0, 1] = xs[0, 1, 0] = np.nan
    scaling = fit_scaling(xs, ys, mask, weights)
    kept = xs[mask].astype(np.float64)
    np.testing.assert_allclose(scaling.input_mean, np.nanmean(kept, axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaling.input_scale[:2], np.nanstd(kept, axis=0)[:2], rtol=1e-6)
    counted = ys[mask & (weights > 0)].astype(np.float64)
    np.testing.assert_allclose(scaling.target_mean, np.nanmean(counted, axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaling.target_scale, np.nanstd(counted, axis=0), rtol=1e-5)


def test_a_list_of_sequences_is_one_table():
    lists = [[*XS[:2], XS[2, :3]], [*YS[:2], YS[2, :3]]]
    rows = np.concatenate([a.reshape(-1, a.shape[-1]) for a in lists[0]])
    got = fit_scaling(*lists)
    np.testing.assert_allclose(got.input_mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-6)
    want = fit_scaling(XS[:3], YS[:3], mask=np.arange(7)[None] < np.array([[7], [7], [3]]))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_weights_of_single_numbers_are_kept():
    weights = np.ones(YS.shape)
    weights[1:, :, 0] = 0
    scaling = fit_scaling(XS, YS, weights=weights)
    np.testing.assert_allclose(scaling.target_mean, [YS[0, :, 0].mean(), YS[..., 1].mean()], rtol=1e-5, atol=1e-7)


def test_classes_and_unwanted_columns_are_not_scaled():
    scaling = fit_scaling(XS, np.zeros(5, int))
    assert scaling.target_mean.tolist() == [0]
    assert scaling.target_scale.tolist() == [1]
    plain = fit_scaling(XS, YS, scale_inputs=False, scale_targets=False)
    np.testing.assert_array_equal(plain.inputs(XS), XS)
    np.testing.assert_array_equal(plain.unscaled(YS), YS)


def test_sums_are_exact_for_large_numbers_and_many_rows():
    xs = np.full((CHUNK + 3, 1), 1e6, np.float32)
    xs[::2] += 1
    scaling = fit_scaling(xs)
    np.testing.assert_allclose(scaling.input_mean, xs.mean(dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(scaling.input_scale, 0.5, rtol=1e-6)
    in_float32 = np.cumsum(xs[:, 0], dtype=np.float32)[-1] / len(xs)
    assert abs(in_float32 / xs.mean(dtype=np.float64) - 1) > 1e-4, "a float32 sum is not enough"


def test_json_keeps_every_bit():
    scaling = fit_scaling(XS, YS)
    again = Scaling.from_dict(json.loads(json.dumps(scaling.to_dict())))
    for a, b in zip(again, scaling, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"from_dict: wanted input_mean, input_scale, .*, but got nothing"):
        Scaling.from_dict({})


@pytest.mark.parametrize(
    ("xs", "said"),
    [
        (np.array([[1.0, np.nan], [2.0, np.nan]]), "column 1 has none"),
        (np.array([[1.0, 2.0], [np.inf, 3.0]]), "of inputs must be finite float32 numbers, but are inf"),
        (np.array([[1e200], [-1e200]]), "in column 0"),
    ],
)  # fmt: skip
def test_columns_without_a_deviation_are_refused(xs, said):
    with pytest.raises(ValueError, match=said):
        fit_scaling(xs)
