"""The LSTM's variants: how their params start, which gates they have, what they read, and what they refuse.

Their equations, and every derivative, are in tests/test_matrix.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from problem import CELLS

import jax_lstm as jl

I, H, T = 3, 4, 5
VARIANTS = {name: row.cell for name, row in CELLS.items() if isinstance(row.cell, jl.LSTM) and name != "LSTM"}
EACH = pytest.mark.parametrize("name", list(VARIANTS))
XS = np.random.default_rng(0).normal(size=(T, I))


def drawn(cell) -> Any:
    return cell.init(jax.random.key(0))


@EACH
def test_a_variant_has_its_own_params_with_documented_values(name):
    cell = VARIANTS[name]
    params = drawn(cell)
    gates = 4 - cell.coupled - (cell.without is not None)
    P = cell.projection or H
    assert (params.w_x.shape, params.w_h.shape, params.b.shape) == ((I, gates * H), (P, gates * H), (gates * H,))
    has = {field for field, leaf in params._asdict().items() if leaf is not None} - {"w_x", "w_h", "b"}
    want = ["p"] * cell.peephole + ["w_p"] * bool(cell.projection) + ["s_x", "s_h", "s_c", "b_c"] * cell.layer_norm
    assert has == set(want)
    assert type(params).__name__ == ("LSTMVariantParams" if want else "LSTMParams")
    if cell.peephole:
        np.testing.assert_array_equal(params.p, np.zeros((gates - 1, H)))
    if cell.layer_norm:
        np.testing.assert_array_equal(np.concatenate(params[5:8]), np.ones(2 * gates * H + H))
        np.testing.assert_array_equal(params.b_c, np.zeros(H))
    at = {"forget_gate": None, "input_gate": 0}.get(cell.without or "", 0 if cell.coupled else 1)
    biases = np.zeros((gates, H))
    if at is not None:
        biases[at] = 1
    np.testing.assert_array_equal(params.b, biases.ravel())
    for w in np.split(np.asarray(params.w_h), gates, axis=1):
        np.testing.assert_allclose(w @ w.T if P < H else w.T @ w, np.eye(P), atol=1e-6)
    if gates == 4 and cell.projection is None:
        np.testing.assert_array_equal(params.w_x, jl.LSTM(I, H).init(jax.random.key(0)).w_x)


def test_a_projection_is_drawn_with_variance_one_over_its_inputs():
    w_p = drawn(jl.LSTM(1, 400, projection=50)).w_p
    assert w_p.shape == (400, 50)
    assert abs(float(w_p.var()) * 400 - 1) < 5 * (2 / w_p.size) ** 0.5


@EACH
def test_the_gates_match_the_step_and_an_absent_gate_is_one(name):
    cell = VARIANTS[name]
    params = cell.init(jax.random.key(0), jnp.float64)
    i, f, g, o = jl.gates_of(cell, params, XS)
    c = np.asarray(jl.unroll_states(cell, params, XS).c)
    np.testing.assert_allclose(f[1:] * c[:-1] + i[1:] * g[1:], c[1:], rtol=0, atol=1e-12)
    if cell.coupled:
        np.testing.assert_allclose(i, 1 - f, rtol=0, atol=1e-15)
    for gate, a in (("input_gate", i), ("forget_gate", f), ("output_gate", o)):
        assert np.all(a == 1) == (cell.without == gate)


@EACH
def test_each_variant_is_distinct_and_its_config_restores_it(name):
    cell = VARIANTS[name]
    assert cell != jl.LSTM(I, H)
    assert jl.from_config(jl.to_config(cell)) == cell


def test_neutral_peepholes_clip_and_projection_change_nothing():
    plain = jl.LSTM(I, H)
    params = plain.init(jax.random.key(0), jnp.float64)
    expected = jl.unroll(plain, params, XS)
    for cell, given in (
        (jl.LSTM(I, H, peephole=True), jl.LSTMVariantParams(*params, p=np.zeros((3, H)))),
        (jl.LSTM(I, H, clip=100), params),
        (jl.LSTM(I, H, projection=H), jl.LSTMVariantParams(*params, w_p=np.eye(H))),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), jl.unroll(cell, given, XS), expected
        )


def test_a_variant_has_chrono_biases_at_its_own_gates():
    for options, at_f, at_i in (({"coupled": True}, 0, None), ({"without": "output_gate"}, 1, 0)):
        b = np.asarray(jl.LSTM(I, 50, chrono=100, **options).init(jax.random.key(0)).b).reshape(3, 50)
        assert 0 <= b[at_f].min() < b[at_f].max() <= np.log(99)
        if at_i is not None:
            np.testing.assert_array_equal(b[at_i], -b[at_f])


@pytest.mark.parametrize(("mean", "spread"), [(10, 1.0), (100, 0.1), (1000, 1.0)])
def test_layer_norm_in_float32_is_accurate_far_from_zero(mean, spread):
    """c counts, so that its units may all be far from zero; what tells them apart must not be rounded away."""
    cell = jl.LSTM(1, 64, layer_norm=True)
    params = cell.init(jax.random.key(0), jnp.float32)
    c = (mean + spread * np.random.default_rng(0).normal(size=64)).astype(np.float32)
    kept = params._replace(b=np.repeat(np.float32([-100, 100, 0, 100]), 64))  # c_t = c, o = 1
    h = cell.step(kept, jl.LSTMState(np.zeros(64, np.float32), c), np.zeros(1, np.float32))[0].h
    np.testing.assert_allclose(h, np.tanh(reference.normalised(c.astype(np.float64))), rtol=0, atol=2e-3)


def test_layer_norm_in_float16_does_not_overflow():
    cell = jl.LSTM(1, 8, layer_norm=True)
    params = cell.init(jax.random.key(0), jnp.float16)
    c = jnp.asarray(2000 * np.arange(-4, 4), jnp.float16)
    kept = params._replace(b=jnp.repeat(jnp.asarray([-100, 100, 0, 100], jnp.float16), 8))  # c_t = c, o = 1
    shown = lambda c: cell.step(kept, jl.LSTMState(jnp.zeros(8, jnp.float16), c), jnp.zeros(1, jnp.float16))[0].h  # noqa: E731
    np.testing.assert_allclose(shown(c), np.tanh(reference.normalised(np.asarray(c, float))), rtol=0, atol=2e-3)
    assert np.isfinite(jax.jacobian(shown)(c)).all()


@pytest.mark.parametrize(
    ("choices", "error", "says"),
    [
        ({"without": "cell_gate"}, ValueError, "LSTM: without must be one of input_gate.*cell_gate"),
        (
            {"coupled": True, "without": "input_gate"},
            ValueError,
            "coupled=True computes the input gate.*without='input_gate'",
        ),
        (
            {"coupled": True, "without": "forget_gate"},
            ValueError,
            "coupled=True computes the input gate.*'forget_gate'",
        ),
        (
            {"without": "forget_gate", "forget_bias": 1.0},
            ValueError,
            "forget_bias sets the bias of the forget gate.*leave out one",
        ),
        (
            {"without": "forget_gate", "chrono": 10},
            ValueError,
            "chrono sets the bias of the forget gate.*leave out one",
        ),
        ({"projection": 0}, ValueError, "LSTM: projection must be at least 1"),
        ({"clip": 0}, ValueError, "LSTM: clip must be above 0"),
        ({"clip": True}, TypeError, "LSTM: clip must be a Python number"),
        ({"peephole": 1}, TypeError, "LSTM: peephole must be True or False"),
        ({"gate_activation": "softmax"}, ValueError, "LSTM: gate_activation must be one of.*softmax"),
    ],
)
def test_invalid_or_conflicting_choices_are_refused_by_name(choices, error, says):
    from jaxtyping import config

    config.update("jaxtyping_disable", True)  # the library's own message speaks, as it does for users
    try:
        with pytest.raises(error, match=says):
            jl.LSTM(I, H, **choices)
    finally:
        config.update("jaxtyping_disable", False)
