"""How weights are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
from programs import equations

import jax_lstm as jl
from jax_lstm.cells.initializers import orthogonal


def ranks_of_decompositions(draw):
    keys = jax.random.split(jax.random.key(0), 3)
    names = ("geqrf", "geqp3", "qr", "householder_product")
    return [e.invars[0].aval.ndim for e in equations(jax.make_jaxpr(jax.vmap(draw))(keys)) if e.primitive.name in names]


def test_an_ensemble_is_drawn_without_a_batched_decomposition():
    ranks = ranks_of_decompositions(jl.LSTM(3, 4).init)
    assert len(ranks) >= 4
    assert set(ranks) == {2}


def test_a_batched_decomposition_would_be_noticed():
    plain = jax.nn.initializers.orthogonal()
    assert 3 in ranks_of_decompositions(lambda key: plain(key, (4, 4), jnp.float32))


def test_drawing_an_ensemble_equals_drawing_its_members(cell):
    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = jax.jit(jax.vmap(cell.init))(keys)
    for k, key in enumerate(keys):
        for ours, theirs in zip(jax.tree.leaves(ensemble), jax.tree.leaves(cell.init(key)), strict=True):
            np.testing.assert_allclose(ours[k], theirs, rtol=0, atol=1e-6)


def test_every_gate_has_an_orthogonal_block():
    w_h = jl.LSTM(3, 4).init(jax.random.key(0), jnp.float64).w_h
    for block in jnp.split(w_h, 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(4), atol=1e-12)
    assert not np.allclose(w_h[:, :4], w_h[:, 4:8])
    assert orthogonal(jax.random.key(0), (4, 4), jnp.float32).dtype == jnp.float32
