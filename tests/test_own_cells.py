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
from tiers import slow_except

import jax_lstm as jl
from jax_lstm.layers.wrapper import CellWrapper
from jax_lstm.registry import CELLS as REGISTERED

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

    def update(self, params, state, z):
        return jax.tree.map(lambda old, new: (old + new) / 2, state, super().update(params, state, z))  # pyrefly: ignore


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

    def recur(self, params, state):  # pyrefly: ignore[bad-override]
        return (super().recur(params, state), None)

    def update(self, params, state, z):
        return super().update(params, state, z[0] + z[1].astype(z[0].dtype))


@pytest.mark.parametrize(("cls", "says"), [(IntegerPart, "pre-activation.*int")])
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


@dataclass(frozen=True)
class Bent(jl.RNN):
    """Parts that are not linear in the state."""

    def recur(self, params, state):
        return jnp.tanh(super().recur(params, state))

    def mix(self, params, state):
        return state._replace(h=jnp.sin(state.h) * params.b[0])


@dataclass(frozen=True)
class Tilted(jl.RNN):
    def recur(self, params, state):  # pyrefly: ignore[bad-override]
        return {"z": super().recur(params, state)}


def test_parts_that_are_not_linear_get_their_derivative():
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), *(gradient(Bent(3, 4), e) for e in ENGINES)
    )


@dataclass(frozen=True)
class Mixing(jl.RNN):
    """Reads a matrix in `update`, and the same one in `recur` and `mix`."""

    takes_constants = True

    def update(self, params, state, z, constants: Any = None):
        return jl.RNNState(jnp.tanh(z + params.b + params.w_h @ jnp.tanh(z) + constants @ state.h))

    def mix(self, params, state):
        return state._replace(h=params.b * (state.h @ params.w_h))


def test_a_matrix_of_update_has_its_gradient_after_the_loop():
    cell, constants = Mixing(3, 4), np.random.default_rng(1).normal(size=(5, 4, 4))
    xs = np.random.default_rng(2).normal(size=(5, 6, 3))

    def loss(params, xs, constants, engine):
        return jnp.sum(jl.batched(jl.unroll)(cell, params, xs, constants=constants, engine=engine)[1] ** 2)

    ours, plain = (jax.jit(jax.grad(partial(loss, engine=engine), (0, 1, 2))) for engine in ("hoisted", "plain"))
    arguments = params_of(cell), xs, constants
    close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
    jax.tree.map(close, ours(*arguments), plain(*arguments))
    carried = {s for scan in scans(jax.make_jaxpr(ours)(*arguments)) for s in carried_shapes(scan)}
    assert not carried & {(4, 4), (5, 4, 4)}
    tangent = jax.tree.map(jnp.cos, arguments)
    values = [jax.jvp(partial(loss, engine=engine), arguments, tangent)[1] for engine in ("hoisted", "plain")]
    close(*values)


def test_parts_that_cannot_be_added_are_named():
    cell = Tilted(3, 4)
    with pytest.raises(TypeError, match=r"cell Tilted: project and recur must return .* of one structure"):
        jl.unroll(cell, params_of(cell), XS)


# Own cells as arguments of transformations: every class is a static pytree, as those of the library are.


class Leak:
    """A cell without base class: s ← s + (tanh(x w) − s) / 2, in a NamedTuple whose field is h."""

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (self.input_size, self.hidden_size), dtype)  # pyrefly: ignore

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros(self.hidden_size, params.dtype))  # pyrefly: ignore

    def step(self, params, state, x):
        h = state.h + 0.5 * (jnp.tanh(x @ params) - state.h)
        return jl.RNNState(h), h


@dataclass(frozen=True)
class StepOnly(Leak):
    input_size: int = 3
    hidden_size: int = 4


@dataclass(frozen=True)
class Unregistered(Leak):
    input_size: int = 3
    hidden_size: int = 4


@dataclass(frozen=True, slots=True)
class Slotted(jl.RNN):
    name: str = "slotted"


@jax.tree_util.register_static
@dataclass(frozen=True)
class ByHand(jl.GRU):
    """Registered by its author too, as was needed for a subclass before."""


class Plain(jl.SplitCell):
    """No dataclass: equal to itself only."""

    input_size, hidden_size = 3, 4

    def init(self, key, dtype=jnp.float32):
        return {"w": jax.random.normal(key, (3, 4), dtype)}

    def initial_state(self, params):
        return jl.RNNState(jnp.zeros(4, params["w"].dtype))

    def project(self, params, x):
        return x @ params["w"]

    def recur(self, params, state):
        return 0.5 * state.h

    def update(self, params, state, z):
        return jl.RNNState(jnp.tanh(z))


@dataclass(frozen=True)
class Scaled(CellWrapper):
    """Doubles the inputs of a cell."""

    def init(self, key, dtype=jnp.float32):
        return self.cell.init(key, dtype)

    def initial_state(self, params):
        return self.cell.initial_state(params)

    def step(self, params, state, x):
        return self.cell.step(params, state, 2 * x)


@dataclass(frozen=True)
class Mean(jl.CompositeCell):
    """The mean of two cells that read the same inputs."""

    one: Any
    other: Any

    @property
    def input_size(self):
        return self.one.input_size

    @property
    def hidden_size(self):
        return self.one.hidden_size

    def init(self, key, dtype=jnp.float32):
        return [cell.init(key, dtype) for cell in (self.one, self.other)]

    def initial_state(self, params):
        return [cell.initial_state(p) for cell, p in zip((self.one, self.other), params, strict=True)]

    def step(self, params, state, x):
        (s, y), (r, z) = self.one.step(params[0], state[0], x), self.other.step(params[1], state[1], x)
        return [s, r], (y + z) / 2

    def unroll_with(self, run, inputs, *, reverse):
        s_initial = (None, None) if inputs.s_initial is None else inputs.s_initial
        parts = [inputs._replace(params=inputs.params[k], s_0=inputs.s_0[k], s_initial=s_initial[k]) for k in (0, 1)]
        (s, ss, y), (r, rs, z) = (
            run(c, i, reverse=reverse) for c, i in zip((self.one, self.other), parts, strict=True)
        )
        return [s, r], [ss, rs], (y + z) / 2


OWN = {
    "subclass of LSTM": lambda: Halved(3, 4),
    "subclass of SplitCell": Plain,
    "with slots": lambda: Slotted(3, 4),
    "wrapper": lambda: Scaled(jl.JANET(3, 4)),
    "composite": lambda: Mean(jl.GRU(3, 4), Plain()),
    "registered by hand": lambda: ByHand(3, 4),
    "step only, registered": StepOnly,
    "in a Stack": lambda: jl.Stack((Slotted(3, 4), StepOnly(4, 4), Halved(4, 4))),
    "in a Bidirectional": lambda: jl.Bidirectional(StepOnly(), Plain()),
    "in a Dropout": lambda: jl.LearnedInitialState(jl.Dropout(Slotted(3, 4), zoneout=0.2)),
}


@pytest.fixture
def registry():
    """The registry, restored after the test."""
    cells = dict(REGISTERED)
    yield REGISTERED
    REGISTERED.clear()
    REGISTERED.update(cells)


def transformed(cell, params, xs):
    """Outputs by unroll, by vmap and by lax.scan of step, and the gradient of a loss; the cell is an argument."""
    ys = jl.unroll(cell, params, xs)[1]
    mapped = jax.vmap(jl.unroll, (None, None, 0))(cell, params, jnp.stack([-xs, xs]))[1][1]
    causal = getattr(cell, "causal", True)
    scanned = jax.lax.scan(partial(cell.step, params), cell.initial_state(params), xs)[1] if causal else ys
    gradient = jax.grad(lambda p, c: jnp.sum(jl.unroll(c, p, xs)[1] ** 2))(params, cell)
    return ys, mapped, scanned, gradient


def check_transformed(cell, run):
    """Compare with a Python loop over step, and the gradient with a difference quotient."""
    params = params_of(cell)
    ys, mapped, scanned, gradient = run(cell, params, XS)
    expected, state = [], cell.initial_state(params)
    if getattr(cell, "causal", True):
        for x in jnp.asarray(XS):
            state, y = cell.step(params, state, x)
            expected.append(y)
        np.testing.assert_allclose(ys, np.stack(expected), rtol=0, atol=1e-12)
    for same in (mapped, scanned):
        np.testing.assert_allclose(ys, same, rtol=0, atol=1e-12)
    moved = jax.tree.map(lambda p: np.random.default_rng(2).normal(size=p.shape), params)
    up, down = (run(cell, jax.tree.map(lambda p, v, e=e: p + e * v, params, moved), XS)[0] for e in (1e-6, -1e-6))
    along = sum(np.vdot(g, v) for g, v in zip(jax.tree.leaves(gradient), jax.tree.leaves(moved), strict=True))
    np.testing.assert_allclose(along, (np.sum(up**2) - np.sum(down**2)) / 2e-6, rtol=1e-6)
    assert abs(along) > 1e-3


QUICK = ["subclass of SplitCell", "with slots", "wrapper", "registered by hand", "step only, registered"]


@pytest.mark.parametrize("name", slow_except(QUICK, OWN))
def test_an_own_cell_is_an_argument_of_transformations(name, registry):
    jl.register_cell(StepOnly)
    cell = OWN[name]()
    assert jax.tree.leaves(cell) == []
    assert jax.tree.unflatten(jax.tree.structure(cell), []) is cell
    check_transformed(cell, jax.jit(transformed))


def test_an_unregistered_cell_is_a_static_argument():
    check_transformed(Unregistered(), jax.jit(transformed, static_argnums=0))
    with pytest.raises(TypeError, match="Unregistered"):
        jax.jit(jl.unroll)(Unregistered(), params_of(Unregistered()), XS)


def test_equal_own_cells_share_one_program():
    run = jax.jit(lambda cell, params, xs: jl.unroll(cell, params, xs))
    for cell in (Halved(3, 4), Halved(3, 4), Slotted(3, 4), Slotted(3, 4)):
        run(cell, params_of(cell), XS)
    assert run._cache_size() == 2  # pyrefly: ignore


def test_a_subclass_of_a_model_is_static_too():
    @dataclass(frozen=True)
    class Scored(jl.Model):
        def score(self, params, xs):
            return jnp.sum(self.apply(params, xs)[1])

    model = Scored(Halved(3, 4), output_size=2)
    params = params_of(model)
    score = jax.jit(lambda model, params, xs: model.score(params, xs))(model, params, XS)
    np.testing.assert_allclose(
        score, np.sum(jl.unroll(Halved(3, 4), params.cell, XS)[1] @ params.readout.w), atol=1e-12
    )
    assert jax.tree.leaves((model, model.readout, jl.Embedding(5, 3))) == []


def test_a_class_that_is_a_pytree_with_leaves_stays_one():
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class WithArray(jl.GRU):
        shift: Any = None

    assert len(jax.tree.leaves(WithArray(3, 4, shift=np.ones(2)))) > 0


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

        def update(self, params, state, z):
            return jl.RNNState(jnp.tanh(z))

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
def test_a_documented_cell_has_no_weight_gradient_in_a_loop(page):
    cell, data = documented_cell(page), flagged()
    params = params_of(cell)
    step = jax.value_and_grad(partial(documented_loss, cell, "hoisted"), (0, 1))
    loops = scans(jax.make_jaxpr(step)(params, *data))
    assert [products(scan.params["jaxpr"]) for scan in loops] == [2, 1]
    assert not {s for scan in loops for s in carried_shapes(scan)} & {a.shape for a in jax.tree.leaves(params)}
    hlo = HLO(jax.jit(step).lower(params, *data).compile().as_text() or "")
    assert [hlo.count(body, "dot") for body in hlo.loop_bodies()] == [2, 1]
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


@pytest.mark.parametrize("page", slow_except(["README.md"], PAGES))
def test_a_documented_cell_is_measured(page):
    cell, (xs, *_) = documented_cell(page), flagged()
    params = params_of(cell)
    log_norms = jl.gradflow.sensitivity(cell, params, xs[0])
    for k in range(T + 1):
        h_k = jl.unroll(cell, params, xs[0, :k])[0].h
        J = jax.jacrev(lambda h, k=k: jl.unroll(cell, params, xs[0, k:], jl.RNNState(h))[0].h)(h_k)
        np.testing.assert_allclose(log_norms[k], np.log(np.linalg.norm(J, 2)), rtol=0, atol=1e-10)
