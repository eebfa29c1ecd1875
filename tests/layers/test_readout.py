"""The linear readout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_lstm.layers import Readout, ReadoutParams

READOUT = Readout(5, 3)


def draw(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def test_the_readout_is_the_affine_map_of_its_equation():
    params, h = READOUT.init(jax.random.key(0))._replace(b=draw(1, (3,))), draw(2, (5,))
    expected = [sum(h[i] * params.w[i, o] for i in range(5)) + params.b[o] for o in range(3)]
    np.testing.assert_allclose(READOUT.apply(params, h), expected, rtol=1e-5)


def test_a_sequence_of_features_gives_an_output_a_step():
    params, hs = READOUT.init(jax.random.key(0)), draw(3, (4, 5))
    np.testing.assert_allclose(READOUT.apply(params, hs), jax.vmap(lambda h: READOUT.apply(params, h))(hs), rtol=1e-6)


def test_initial_weights_have_lecun_variance_and_biases_are_zero():
    params = Readout(400, 100).init(jax.random.key(0))
    # 40,000 draws: the variance of a truncated normal is within 1 % of 1 / fan-in.
    np.testing.assert_allclose(np.var(params.w) * 400, 1, atol=0.03)
    np.testing.assert_array_equal(params.b, 0)


def test_params_take_the_dtype_that_is_asked_for():
    assert READOUT.init(jax.random.key(0), jnp.bfloat16).w.dtype == jnp.bfloat16


def test_a_readout_is_static_and_equal_by_value():
    assert Readout(5, 3) == READOUT
    assert jax.tree.leaves(READOUT) == []
    params, h = READOUT.init(jax.random.key(0)), draw(4, (5,))
    np.testing.assert_allclose(jax.jit(Readout.apply)(READOUT, params, h), READOUT.apply(params, h), rtol=1e-6)


@pytest.mark.parametrize(("sizes", "field"), [((0, 3), "input_size"), ((5, -1), "output_size")])
def test_a_size_below_one_is_refused_by_name(sizes, field):
    with pytest.raises(ValueError, match=f"Readout: {field} must be at least 1"):
        Readout(*sizes)


def test_features_of_another_width_are_refused_with_both_sizes():
    params = READOUT.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"h must have 5 features .* shape \(4,\)"):
        READOUT.apply(params, draw(5, (4,)))


@pytest.mark.usefixtures("own_messages")
@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"h": [1.0] * 5}, TypeError, "h must be a JAX or NumPy array, but is a list"),
        ({"h": np.float32(1)}, ValueError, r"h must have 5 features.*shape \(\)"),
        ({"params": None}, ValueError, "params lacks w, which cell Readout needs"),
        ({"params": {"w": 0}}, ValueError, "params must be ReadoutParams, but is a dict"),
        (
            {"params": ReadoutParams(np.zeros((5, 4), np.float32), np.zeros(4, np.float32))},
            ValueError,
            r"params.w has shape \(5, 4\).*takes \(5, 3\)",
        ),
    ],
)
def test_invalid_features_or_params_are_refused_by_name(changed, error, says):
    given = {"params": READOUT.init(jax.random.key(0)), "h": draw(5, (5,))}
    with pytest.raises(error, match=f"Readout.apply: {says}"):
        READOUT.apply(**(given | changed))
