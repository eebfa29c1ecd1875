"""The original LSTM's gradient: the same numbers, and a derivative that does not pass an h."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.gradflow import (
    Truncated,
    adjoint_norms,
    lyapunov_spectrum,
    retention,
    sensitivity,
    singular_values,
    step_jacobians,
    weight_gradient_by_step,
)

I, H, T = 3, 4, 6
CELL = jl.LSTM(I, H)
XS = np.random.default_rng(1).normal(size=(T, I))


@cache
def cell_params():
    return CELL.init(jax.random.key(0), jnp.float64)


def test_the_numbers_stay_the_same():
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14),
        jl.unroll(Truncated(CELL), cell_params(), XS),
        jl.unroll(CELL, cell_params(), XS),
    )


def test_the_truncated_jacobian_is_f_for_c_and_zero_for_h():
    J = step_jacobians(CELL, cell_params(), XS, truncate="1997")
    whole = step_jacobians(CELL, cell_params(), XS)
    np.testing.assert_array_equal(J[:, :, :H], 0)
    np.testing.assert_allclose(J[:, :, H:], whole[:, :, H:], rtol=1e-14)
    np.testing.assert_allclose(J[:, H:, H:], [np.diag(f) for f in jl.gates_of(CELL, cell_params(), XS).f], rtol=1e-14)
    assert np.abs(whole[:, :, :H]).max() > 0.01


def test_the_constant_error_carousel_keeps_everything():
    """O5: i = 0 and f = 1 make dc_T/dc_t the identity, for every t."""
    b_i, b_f, b_g, b_o = jnp.split(cell_params().b, 4)
    params = cell_params()._replace(b=jnp.concatenate([b_i - 1e3, b_f + 1e3, b_g, b_o]))
    J = np.asarray(step_jacobians(CELL, params, XS, truncate="1997"))
    for k in range(T):
        np.testing.assert_allclose(np.linalg.multi_dot([*J[k:][::-1], np.eye(2 * H)])[H:, H:], np.eye(H), rtol=1e-14)


@pytest.mark.parametrize(
    "measure",
    [sensitivity, singular_values, lyapunov_spectrum, retention, step_jacobians,
     partial(adjoint_norms, lambda s: s.c.sum()), partial(weight_gradient_by_step, lambda s: s.c.sum())],
)  # fmt: skip
def test_truncate_equals_the_truncated_cell_and_changes_results(measure):
    params = cell_params()
    cut, plain = measure(CELL, params, XS, truncate="1997"), measure(CELL, params, XS)
    of_cut_cell = measure(Truncated(CELL), params, XS)
    jax.tree.map(np.testing.assert_array_equal, cut, of_cut_cell)
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(cut), jax.tree.leaves(plain), strict=True))


def test_truncation_changes_the_sensitivity_at_every_step():
    plain, cut = sensitivity(CELL, cell_params(), XS), sensitivity(CELL, cell_params(), XS, truncate="1997")
    assert np.abs(plain - cut)[:-1].min() > 1e-3


def test_a_loss_of_c_flows_back_only_through_the_forget_gates():
    loss = lambda states: states.c[-1].sum()  # noqa: E731
    got = adjoint_norms(loss, CELL, cell_params(), XS, truncate="1997")
    assert np.isneginf(got.h).all(), "a loss of c alone never reaches an h"
    f = np.asarray(jl.gates_of(CELL, cell_params(), XS).f)
    want = [np.log(np.linalg.norm(np.prod(f[t + 1 :], axis=0))) for t in range(T)]
    np.testing.assert_allclose(got.c, want, rtol=1e-12)


def test_a_cell_whose_whole_state_is_h_is_refused():
    rnn = jl.RNN(I, H)
    params = rnn.init(jax.random.key(0), jnp.float64)
    with pytest.raises(
        ValueError, match=r'sensitivity: truncate="1997": the state of cell RNN must be a NamedTuple with h'
    ):
        sensitivity(rnn, params, XS, truncate="1997")
    with pytest.raises(ValueError, match="step_jacobians: truncate must be None or \"1997\", but is '2000'"):
        step_jacobians(CELL, cell_params(), XS, truncate="2000")


def test_a_truncated_cell_has_the_output_size_of_its_cell():
    cell = jl.LSTM(3, 4, projection=2)
    truncated = jl.gradflow.Truncated(cell)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (5, 3), jnp.float64)
    assert truncated.output_size == 2
    assert np.array_equal(
        jl.unroll(truncated, params, xs, engine="plain")[1], jl.unroll(cell, params, xs, engine="plain")[1]
    )
