"""The embedding: a row a symbol, NaN for what is none, and a gradient for the rows that were read."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jax_lstm as jl

V, E = 5, 3
EMBEDDING = jl.Embedding(V, E)


@cache
def embedding_params():
    return EMBEDDING.init(jax.random.key(0))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_it_gives_the_rows_of_its_symbols(shape, dtype):
    symbols = np.random.default_rng(0).integers(0, V, size=shape).astype(dtype)
    np.testing.assert_array_equal(
        EMBEDDING.apply(embedding_params(), symbols), np.asarray(embedding_params().w)[symbols]
    )


@pytest.mark.parametrize("symbol", [V, V + 7, -1, -V, 2**31 - 1, -(2**31)])
def test_a_symbol_out_of_range_gives_nan_in_its_own_row_only(symbol):
    rows = jax.jit(EMBEDDING.apply)(embedding_params(), np.array([1, symbol, 4]))
    assert np.isnan(rows[1]).all()
    np.testing.assert_array_equal(rows[np.array([0, 2])], embedding_params().w[np.array([1, 4])])


@pytest.mark.parametrize("symbol", [2**32, 2**32 + 1, -(2**32), 2**63 - 1])
def test_a_symbol_beyond_32_bits_is_out_of_range_too(symbol):
    assert np.isnan(EMBEDDING.apply(embedding_params(), np.array([symbol]))).all()


def test_a_row_gets_a_gradient_for_each_time_that_it_is_read():
    gradient = jax.grad(lambda p: EMBEDDING.apply(p, np.array([1, 3, 1])).sum())(embedding_params()).w
    np.testing.assert_array_equal(gradient, np.outer([0, 2, 0, 1, 0], np.ones(E)))


PADS = [-1, V, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("pad", PADS)
def test_a_masked_symbol_is_not_looked_up(pad):
    symbols, mask = np.array([1, pad, 4, pad]), np.array([True, False, True, False])
    want = np.asarray(embedding_params().w)[[1, 0, 4, 0]] * mask[:, None]
    checked = checkify.checkify(EMBEDDING.apply, errors=checkify.index_checks | checkify.float_checks)
    error, rows = checked(embedding_params(), symbols, mask)
    assert error.get() is None
    np.testing.assert_array_equal(rows, want)
    with jax.debug_nans(True):
        np.testing.assert_array_equal(EMBEDDING.apply(embedding_params(), symbols, mask), want)
    assert checked(embedding_params(), symbols)[0].get() is not None
    gradient = jax.grad(lambda p: EMBEDDING.apply(p, symbols, mask).sum())(embedding_params()).w
    np.testing.assert_array_equal(gradient, np.outer([0, 1, 0, 0, 1], np.ones(E)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_rows_are_normal_and_of_the_dtype_asked_for(dtype):
    w = jl.Embedding(1000, 20).init(jax.random.key(1), dtype).w
    assert (w.shape, w.dtype) == ((1000, 20), jnp.dtype(dtype))
    assert abs(float(w.mean(dtype="float32"))) < 5 / 20_000**0.5
    assert abs(float(w.astype("float32").var()) - 1) < 5 * (2 / 20_000) ** 0.5


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: EMBEDDING.apply(embedding_params(), np.array([1.0])),
            TypeError,
            "symbols must be integers, but are float64",
        ),
        (
            lambda: EMBEDDING.apply(embedding_params(), np.array([True])),
            TypeError,
            "symbols must be integers, but are bool",
        ),
        (lambda: EMBEDDING.apply(embedding_params(), [1, 2]), TypeError, "symbols must be a JAX or NumPy array.*list"),
        (
            lambda: EMBEDDING.apply(embedding_params(), np.array([1, 2]), np.array([True])),
            ValueError,
            r"Embedding.apply: mask must have shape \(2,\)",
        ),
        (lambda: EMBEDDING.apply(None, np.array([1])), ValueError, "Embedding.apply: params lacks w"),
        (lambda: EMBEDDING.apply(jl.Embedding(V, 9).init(jax.random.key(0)), np.array([1])), ValueError, "w has shape"),
        (lambda: jl.Embedding(0, 3), ValueError, "Embedding: vocabulary must be at least 1"),
        (lambda: jl.Embedding(3, 2.5), TypeError, "Embedding: output_size must be a Python integer"),
        (lambda: EMBEDDING.init(0), TypeError, "Embedding.init: key must be one random key"),
    ],
)
def test_an_invalid_symbol_or_size_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()
