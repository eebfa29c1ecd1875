"""Random keys: each is consumed once, of the new kind or the old, and never invented."""

import inspect

import jax
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl

XS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
CELLS = [
    jl.LSTM(3, 4),
    jl.LSTM(3, 4, chrono=20.0, peephole=True, projection=2),
    jl.RNN(3, 4),
    jl.GRU(3, 4),
    jl.SLSTM(3, 4, heads=2),
]
DROPOUT = jl.Dropout(jl.LSTM(3, 4), inputs=0.2, hidden=0.2, zoneout=0.2, zoneout_c=0.2)
DRAWING = [
    DROPOUT,
    jl.RNN(3, 4, noise=0.1),
    jl.Stack((DROPOUT, jl.GRU(4, 4), jl.RNN(4, 2, noise=0.1)), dropout=0.3),
    jl.Stack((jl.RNN(3, 3, noise=0.1),) * 3, dropout=0.3),
    jl.Bidirectional(DROPOUT, jl.RNN(3, 2, noise=0.1)),
    jl.LearnedInitialState(DROPOUT),
]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_no_key_is_used_twice_inside_the_library(cell):
    def trained(key):
        params = cell.init(key)
        return params, jax.grad(lambda p: jl.unroll(cell, p, XS, remat_every=3)[1].sum())(params)

    with jax.debug_key_reuse(True):
        params, grads = jax.jit(trained)(jax.random.key(0))  # the reuse check reads the whole traced program
        cell.init(jax.random.key(1))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((params, grads)))


@pytest.mark.parametrize("cell", slow_except(DRAWING[:2], DRAWING), ids=repr)
def test_no_key_is_used_twice_by_a_cell_that_draws(cell):
    def trained(key):
        key_init, key_run, key_batch = jax.random.split(key, 3)
        params = cell.init(key_init)

        def loss(params):
            _, ys = jl.unroll(cell, params, XS, key=key_run)
            _, zs = jl.batched(jl.unroll)(cell, params, XS[None], key=key_batch)
            return ys.sum() + zs.sum()

        return jax.grad(loss)(params)

    with jax.debug_key_reuse(True):
        grads = jax.jit(trained)(jax.random.key(0))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(grads))


def test_a_key_given_to_a_run_is_used_up():
    params = DROPOUT.init(jax.random.key(0))
    for use in (
        lambda key: jl.unroll(DROPOUT, params, XS, key=key)[1],
        lambda key: jl.batched(jl.unroll)(DROPOUT, params, XS[None], key=key)[1],
        lambda key: jl.drop_weights(key, params, 0.5).w_h,
    ):
        with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key, use=use: (use(key), jax.random.normal(key)))(jax.random.key(1))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_key_given_to_init_is_used_up(cell):
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        cell.init(key)
        with pytest.raises(jax.errors.KeyReuseError):
            cell.init(key)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key: (cell.init(key), jax.random.normal(key)))(jax.random.key(1))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_an_old_key_draws_what_the_new_one_draws(cell):
    old, new = cell.init(jax.random.PRNGKey(7)), cell.init(jax.random.key(7))
    jax.tree.map(np.testing.assert_array_equal, old, new)
    assert not np.array_equal(old.w_x, cell.init(jax.random.PRNGKey(8)).w_x)


def test_an_old_key_is_accepted_while_keys_are_checked(cell):
    with jax.debug_key_reuse(True):
        params = cell.init(jax.random.PRNGKey(7))
    jax.tree.map(np.testing.assert_array_equal, params, cell.init(jax.random.PRNGKey(7)))


def test_many_keys_draw_many_params_under_vmap(cell):
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(cell.init)(keys)
    for n in range(3):
        one = cell.init(keys[n])
        jax.tree.map(lambda a, b, n=n: np.testing.assert_allclose(a[n], b, atol=1e-5), many, one)
    assert not np.allclose(many.w_x[0], many.w_x[1], atol=1e-2)


@pytest.mark.parametrize(
    ("key", "came"),
    [
        (np.uint32([0, 1]), r"uint32\[2\]"),
        (np.arange(2), "int"),
        (jax.eval_shape(lambda: jax.random.split(jax.random.key(0))), "ShapeDtypeStruct|array"),
    ],
)
def test_an_invalid_key_is_refused_by_name(cell, key, came):
    from jaxtyping import config

    config.update("jaxtyping_disable", True)  # the library's own message speaks, as it does for users
    try:
        with pytest.raises(TypeError, match=rf"{type(cell).__name__}.init: key must be one random key.*({came})"):
            cell.init(key)
        for seed in (0, None):
            with pytest.raises(TypeError, match=r"init: key must be one random key, .*jax.random.key\(seed\)"):
                cell.init(seed)
    finally:
        config.update("jaxtyping_disable", False)


def test_many_keys_are_not_one_key(cell):
    for keys in (jax.random.split(jax.random.key(0)), jax.random.split(jax.random.PRNGKey(0))):
        with pytest.raises(TypeError, match=r"init: key must be one random key.*\[2"):
            cell.init(keys)


def test_init_needs_a_key_and_deterministic_runs_refuse_one(cell):
    assert inspect.signature(cell.init).parameters["key"].default is inspect.Parameter.empty
    params = cell.init(jax.random.key(0))
    _, hs = jl.unroll(cell, params, XS, key=None)
    np.testing.assert_array_equal(hs, jl.unroll(cell, params, XS)[1])
    with pytest.raises(ValueError, match=r"unroll: key was given, but cell \w+ draws nothing at random; leave it out"):
        jl.unroll(cell, params, XS, key=jax.random.key(0))
