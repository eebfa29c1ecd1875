"""Cells that a user writes: what the engine takes, what it leaves to the plain scan, and what it refuses."""

import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import HLO, carried_shapes, products, scans

import jax_lstm as jl

ENGINES = ("hoisted", "plain")
XS = np.random.default_rng(0).normal(size=(6, 3))


@dataclass(frozen=True)
class Clipped(jl.LSTM):
    def step(self, params, state, x):  # pyrefly: ignore[bad-override]
        state, _ = super().step(params, state, x)
        state = state._replace(c=jnp.clip(state.c, -0.1, 0.1))
        return state, state.h


def params_of(cell):
    return cell.init(jax.random.key(0), jnp.float64)


def test_a_step_that_is_overridden_is_the_one_that_runs():
    cell = Clipped(3, 4)
    params = params_of(cell)
    state, _ = jl.unroll(cell, params, XS)
    by_hand = cell.initial_state(params)
    for x in XS:
        by_hand, _ = jl.step(cell, params, by_hand, x)
    np.testing.assert_allclose(state.c, by_hand.c, rtol=0, atol=1e-12)
    assert np.abs(state.c).max() <= 0.1 < np.abs(jl.unroll(jl.LSTM(3, 4), params, XS)[0].c).max()


class Slower:
    """Keeps half of the state before, in `update` only."""

    def update(self, params, state, zx, zh):
        return jax.tree.map(lambda old, new: (old + new) / 2, state, super().update(params, state, zx, zh))  # pyrefly: ignore


@dataclass(frozen=True)
class SlowerLSTM(Slower, jl.LSTM):
    pass


@dataclass(frozen=True)
class SlowerRNN(Slower, jl.RNN):
    pass


@dataclass(frozen=True)
class SlowerJANET(Slower, jl.JANET):
    pass


@dataclass(frozen=True)
class SlowerMinGRU(Slower, jl.MinGRU):
    pass


def gradient(cell, engine):
    key = jax.random.key(1) if getattr(cell, "noise", 0) else None
    return jax.grad(lambda p: jnp.sum(jl.unroll(cell, p, XS, key=key, engine=engine)[1] ** 2))(params_of(cell))


@pytest.mark.parametrize(
    "cell",
    [SlowerLSTM(3, 4), SlowerRNN(3, 4), SlowerRNN(3, 4, noise=0.1), SlowerJANET(3, 4), SlowerMinGRU(3, 4)],
    ids=["LSTM", "RNN", "RNN with noise", "JANET", "MinGRU"],
)
def test_a_subclass_with_its_own_update_gets_its_own_derivative(cell):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), *(gradient(cell, e) for e in ENGINES))
    inherited = gradient(type(cell).__mro__[2](3, 4), "plain")  # the update matters
    assert max(np.abs(a - b).max() for a, b in zip(gradient(cell, "plain"), inherited, strict=True)) > 1e-3


def test_a_subclass_with_its_own_update_is_not_run_as_affine():
    cell = SlowerMinGRU(3, 4)
    with pytest.raises(ValueError, match=r'engine "associative": .* linear .* SlowerMinGRU does not'):
        jl.unroll(cell, params_of(cell), XS, engine="associative")


@dataclass(frozen=True)
class Halved(jl.LSTM):
    def mix(self, params, state):
        return state._replace(h=state.h / 2)


@pytest.mark.parametrize("cell", [Halved(3, 4), jl.Dropout(Halved(3, 4), inputs=0.1)], ids=["LSTM", "in a Dropout"])
def test_a_subclass_with_its_own_mix_gets_its_own_derivative(cell):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), *(gradient(cell, e) for e in ENGINES))


@dataclass(frozen=True)
class IntegerPart(jl.RNN):
    def project(self, params, x):  # pyrefly: ignore[bad-override]
        return (super().project(params, x), jnp.argmax(x))

    def update(self, params, state, zx, zh):
        return super().update(params, state, zx[0] + zx[1].astype(zh.dtype), zh)


@dataclass(frozen=True)
class NonlinearRecur(jl.RNN):
    def recur(self, params, state):
        return jnp.tanh(super().recur(params, state))


@pytest.mark.parametrize(("cls", "says"), [(IntegerPart, "project.*int"), (NonlinearRecur, "recur.*linear")])
def test_parts_the_engine_cannot_differentiate_run_plain_only(cls, says):
    cell = cls(3, 4)
    params = params_of(cell)

    def gradient(engine):
        return jax.grad(lambda p: jl.unroll(cell, p, XS, engine=engine)[1].sum())(params)

    with pytest.raises(ValueError, match='engine "hoisted": .*' + says + r'.*engine="plain"'):
        gradient("hoisted")
    jax.tree.map(np.testing.assert_array_equal, gradient("auto"), gradient("plain"))
    gradient = gradient("plain")
    assert all(np.isfinite(a).all() and np.abs(a).max() > 0 for a in gradient)


def test_a_batched_partial_may_fix_the_cell():
    cell = jl.GRU(3, 4)
    params, xs = params_of(cell), np.stack([XS, -XS])
    expected = jl.batched(jl.unroll)(cell, params, xs)[1]
    assert np.array_equal(jl.batched(partial(jl.unroll, cell))(params, xs)[1], expected)
    assert np.array_equal(jl.batched(partial(jl.unroll, cell, reverse=False))(params, xs=xs)[1], expected)
    with pytest.raises(TypeError, match="xs"):
        jl.batched(jl.unroll)(cell, params, None)


@pytest.mark.parametrize("flag", [True, np.bool_(True)])
def test_a_step_takes_the_bools_that_environments_give(flag):
    cell = jl.LSTM(3, 4)
    params = params_of(cell)
    state, _ = jl.unroll(cell, params, XS)
    fresh, _ = jl.step(cell, params, cell.initial_state(params), XS[0])
    assert np.array_equal(jl.step(cell, params, state, XS[0], None, flag)[0].h, fresh.h)
    assert not np.array_equal(jl.step(cell, params, state, XS[0], None, not flag)[0].h, fresh.h)
    assert np.array_equal(jl.unroll(cell, params, XS, reverse=flag)[1], jl.unroll(cell, params, XS, reverse=True)[1])


def test_float64_still_works_after_being_turned_off_and_on():
    cell = jl.LSTM(3, 6)
    params = params_of(cell)
    with jax.enable_x64(False), pytest.raises(TypeError, match=r"float64.*jax_enable_x64"):
        jl.unroll(cell, params, XS.astype(np.float32))
    assert jl.unroll(cell, params, XS, cell.initial_state(params))[1].dtype == jnp.float64


def test_params_of_a_dict_go_through_params_from():
    class Dicts(jl.SplitCell):
        input_size, hidden_size = 3, 4

        def init(self, key, dtype=jnp.float32):
            return {"w": jax.random.normal(key, (3, 4), dtype)}

        def initial_state(self, params):
            return jl.RNNState(jnp.zeros(4, params["w"].dtype))

        def project(self, params, x):
            return x @ params["w"]

        def recur(self, params, state):
            return 0.5 * state.h

        def update(self, params, state, zx, zh):
            return jl.RNNState(jnp.tanh(zx + zh))

    cell = Dicts()
    params = params_of(cell)
    assert np.array_equal(cell.params_from(params)["w"], params["w"])
    with pytest.raises(ValueError, match="w"):
        cell.params_from({"v": params["w"]})


# The cells that the README and docs/semantics.md write. Sizes that share no product, so that a shape tells what it is.

B, T, I, H = 8, 11, 3, 7
PAGES = ("README.md", "docs/semantics.md")


@cache
def documented_cell(page):
    text = (Path(__file__).parents[1] / page).read_text()
    code = re.findall(r"```python\n(.*?)```", text.split("## Your own cell")[1], re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "page", "jax": jax, "jnp": jnp, "jl": jl}
    exec(compile(code, page, "exec"), names)
    return names["Leaky"](I, H)


def flagged():
    mask = jnp.arange(T)[None] < jnp.arange(4, 4 + B)[:, None]
    reset = jnp.arange(T)[None] % jnp.arange(3, 3 + B)[:, None] == 2
    return np.random.default_rng(1).normal(size=(B, T, I)), mask, reset


def documented_loss(cell, engine, params, xs, mask, reset):
    state, hs = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset, engine=engine)
    return jnp.mean(hs**2) + jnp.mean(state.h)


@pytest.mark.parametrize("page", PAGES)
def test_a_documented_cell_has_two_loops_with_one_product_each(page):
    cell, data = documented_cell(page), flagged()
    params = params_of(cell)
    step = jax.value_and_grad(partial(documented_loss, cell, "hoisted"), (0, 1))
    loops = scans(jax.make_jaxpr(step)(params, *data))
    assert [products(scan.params["jaxpr"]) for scan in loops] == [1, 1]
    assert not {s for scan in loops for s in carried_shapes(scan)} & {a.shape for a in jax.tree.leaves(params)}
    hlo = HLO(jax.jit(step).lower(params, *data).compile().as_text() or "")
    assert [hlo.count(body, "dot") for body in hlo.loop_bodies()] == [1, 1]
    plain = scans(jax.make_jaxpr(jax.grad(partial(documented_loss, cell, "plain")))(params, *data))
    assert max(products(scan.params["jaxpr"]) for scan in plain) > 1


@pytest.mark.parametrize("page", PAGES)
def test_a_documented_cell_with_flags_matches_its_equation(page):
    cell, (xs, mask, reset) = documented_cell(page), flagged()
    params = params_of(cell)
    state, hs = jl.batched(jl.unroll)(cell, params, xs, None, mask, reset)
    w_x, w_h = (np.asarray(params[name]) for name in ("w_x", "w_h"))
    a = 1 / (1 + np.exp(-np.asarray(params["α"]))) if "α" in params else 0.1
    b = np.asarray(params.get("b", 0.0))
    for k in range(B):
        h = np.zeros(H)
        for t in range(T):
            if mask[k, t]:
                h = np.zeros(H) if reset[k, t] else h
                h = (1 - a) * h + a * np.tanh(xs[k, t] @ w_x + h @ w_h + b)
            np.testing.assert_allclose(hs[k, t], h if mask[k, t] else 0 * h, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.h[k], h, rtol=0, atol=1e-12)
    ours, plain = (
        jax.grad(partial(documented_loss, cell, engine), (0, 1))(params, *flagged()) for engine in ("hoisted", "plain")
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-12), ours, plain)


@pytest.mark.parametrize("page", PAGES)
def test_a_documented_cell_is_measured(page):
    cell, (xs, *_) = documented_cell(page), flagged()
    params = params_of(cell)
    log_norms = jl.gradflow.sensitivity(cell, params, xs[0])
    for k in range(T + 1):
        h_k = jl.unroll(cell, params, xs[0, :k])[0].h
        J = jax.jacrev(lambda h, k=k: jl.unroll(cell, params, xs[0, k:], jl.RNNState(h))[0].h)(h_k)
        np.testing.assert_allclose(log_norms[k], np.log(np.linalg.norm(J, 2)), rtol=0, atol=1e-10)
