"""Arrays as one and apart again: what stacking and indexing give, with every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import HLO

from jax_lstm.engines.layer_scan import stack_trees, unstack_tree

RNG = np.random.default_rng(0)
TREES = [{"a": RNG.normal(size=(2, 3)), "b": RNG.normal(size=4)} for _ in range(3)]
WEIGHTS = {"a": RNG.normal(size=(3, 2, 3)), "b": RNG.normal(size=(3, 4))}


def plain(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def assert_close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-14), ours, theirs)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
def test_unstacking_undoes_stacking(jit):
    assert_equal(jit(stack_trees)(TREES), plain(TREES))
    assert_equal(jit(lambda tree: unstack_tree(tree, 3))(plain(TREES)), TREES)


def value(join, trees):
    return sum(jnp.vdot(w, jnp.sin(a)) for w, a in zip(*map(jax.tree.leaves, (WEIGHTS, join(trees))), strict=True))


def test_its_derivatives_are_those_of_stacking():
    ours, theirs = (jax.grad(lambda trees, f=f: value(f, trees)) for f in (stack_trees, plain))
    assert_close(ours(TREES), theirs(TREES))
    for derivative in (
        lambda f: jax.jvp(f, (TREES,), (TREES[::-1],)),
        lambda f: jax.vjp(f, TREES)[1](TREES[::-1]),
        lambda f: jax.vmap(f)([jax.tree.map(lambda a: jnp.stack([a, 2 * a]), tree) for tree in TREES]),
    ):
        assert_close(derivative(ours), derivative(theirs))


def test_the_derivative_of_taking_apart_is_stacking():
    def value(take):
        return lambda tree: sum(jnp.sum(jnp.sin(k + part["a"])) for k, part in enumerate(take(tree)))

    whole = plain(TREES)
    ours = jax.grad(value(lambda tree: unstack_tree(tree, 3)))(whole)
    assert_close(ours, jax.grad(value(lambda tree: [jax.tree.map(lambda a, k=k: a[k], tree) for k in range(3)]))(whole))


def test_a_part_that_is_not_finite_stays_out_of_the_others():
    cotangents = jax.tree.map(lambda w: jnp.asarray(w).at[1].set(jnp.nan), WEIGHTS)
    (trees,) = jax.vjp(stack_trees, TREES)[1](cotangents)
    assert [bool(jnp.isfinite(tree["a"]).all()) for tree in trees] == [True, False, True]


def test_the_cotangents_of_all_parts_come_from_one_kernel():
    def kernels(join):
        f = jax.jit(lambda parts, g: jax.vjp(lambda parts: join(parts), parts)[1](g))
        parts = [jax.ShapeDtypeStruct((40,), jnp.float32)] * 9
        return len(HLO(f.lower(parts, jax.ShapeDtypeStruct((9, 40), jnp.float32)).compile().as_text() or "").kernels())

    assert kernels(stack_trees) < 9 <= kernels(plain)
