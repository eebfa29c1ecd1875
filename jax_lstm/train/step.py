"""One training step as a pure function, for many seeds at once.

    l, c   = loss(params, batch(key, t), c, key_t)      c: the carry between steps, or None
    params = params + optimizer(∇_params l)

The carry is a constant to the gradient, so gradients stop at step boundaries (truncated backpropagation through time,
Williams & Peng 1990). key_t is the key of step t; no batch is drawn from it.

TrainState is what the next step needs, Report is what is logged. This module does not read a clock, print or write
files, and it does not depend on cells or tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

from jax_lstm.train.devices import must_be_shared, split, split_after_seeds, whole

NOT_A_STEP = 2**32 - 1  # steps have 31 bits, so that no task folds this number into the data key


@dataclass(frozen=True)
class Problem:
    """What to train: pure functions of the params of one seed.

    Args:
        init: key -> params.
        batch: (key, step) -> batch; the first axis of every leaf is over sequences.
        loss: (params, batch, carry, key) -> (loss to minimize, (score of this batch, next carry)); each step gets its
            own key, for example for dropout.
        score: params -> validation score, a scalar.
        maximize: True if a larger score is better.
        metric: the name of the score.
        carry: params -> the carry before the first step; the first axis of every leaf is over the sequences of a
            batch. None: no carry; `loss` gets and returns None.
        probe: params -> (K,) natural logs of norms, which the loop records every `train.probe` steps. None: nothing to
            record.
    """

    init: Callable[[Any], Any]
    batch: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any, Any, Any], tuple[Any, tuple[Any, Any]]]
    score: Callable[[Any], Any]
    maximize: bool
    metric: str
    carry: Callable[[Any], Any] | None = None
    probe: Callable[[Any], Any] | None = None


class Best(NamedTuple):
    """The best results so far: the params of each seed with its best validation score, and the best mean over seeds."""

    params: PyTree[Array, "S ..."]
    score: Float[Array, " S"]
    step: Int[Array, " S"]
    mean: Float[Array, ""]
    stale: Int[Array, ""]  # validations since the mean last improved


class TrainState(NamedTuple):
    """All that the next step needs; every leaf has a leading axis over S seeds, except step, best.mean, best.stale."""

    step: Int[Array, ""]
    data_key: Key[Array, " S"]
    params: PyTree[Array, "S ..."]
    opt_state: PyTree[Array, "S ..."]
    carry: PyTree[Array, "S B ..."]
    best: Best


class Report(NamedTuple):
    """What one step reports; over n steps each leaf is (n, S, ...). `finite` has one bool per leaf of the gradient."""

    loss: Float[Array, "*n S"]
    score: Float[Array, "*n S"]
    grad_norm: Float[Array, "*n S"]
    finite: Bool[Array, "*n S leaves"]


def init_state(problem: Problem, optimizer: optax.GradientTransformation, seeds: tuple[int, ...]) -> TrainState:
    """The state before the first step.

    Args:
        problem: what to train.
        optimizer: the optimizer.
        seeds: S seeds; the numbers of one seed do not depend on the other seeds.

    Returns:
        The state, with a leading axis over S seeds.
    """
    return jax.jit(partial(_init_state, problem, optimizer))(jnp.asarray(seeds, jnp.uint32))


def _init_state(problem: Problem, optimizer: optax.GradientTransformation, seeds: UInt32[Array, " S"]) -> TrainState:
    init_keys, data_keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)), out_axes=1)(seeds)
    params = jax.vmap(problem.init)(init_keys)
    S = len(seeds)
    worst = jnp.asarray(-jnp.inf if problem.maximize else jnp.inf, jnp.float32)
    best = Best(
        params=jax.tree.map(jnp.copy, params),  # a copy here and below: all of it is donated, each buffer once
        score=jnp.full(S, worst),
        step=jnp.zeros(S, jnp.int32),
        mean=worst,
        stale=jnp.zeros((), jnp.int32),
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        data_key=data_keys,
        params=params,
        opt_state=jax.vmap(optimizer.init)(params),
        carry=None if problem.carry is None else jax.tree.map(jnp.copy, jax.vmap(problem.carry)(params)),
        best=best,
    )


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Put a state on the devices of a mesh: the carry is split over its sequences, the rest is replicated.

    Raises:
        ValueError: the carry cannot be split equally over the devices.
    """
    must_be_shared(state.carry, mesh.size, "Problem.carry", seeds=1)
    return jax.device_put(state, _layout(mesh))


def _layout(mesh: Mesh) -> Any:
    """The sharding of each field of a state: a TrainState of shardings."""
    fields: dict[str, Any] = dict.fromkeys(TrainState._fields, whole(mesh))
    return TrainState(**fields | {"carry": split_after_seeds(mesh)})


def key_of_step(data_key: Key[Array, ""], step: Int[Array, ""]) -> Key[Array, ""]:
    """The key that the loss gets at a step."""
    return jax.random.fold_in(jax.random.fold_in(data_key, NOT_A_STEP), step)


def over_seeds(f: Callable, vmap: bool | None) -> Callable:
    """Apply `f` to every seed: with `vmap`, or one after another in the same program.

    On CPUs XLA's batched products are slow: three LSTMs of 64 units took 96 ms per step with vmap, 54 ms one after
    another.

    Args:
        f: a function of one seed's arguments.
        vmap: True: vmap; False: one after another; None: vmap, except on a CPU.

    Returns:
        A function of the same arguments, each with a leading axis over seeds.
    """
    if vmap or (vmap is None and jax.default_backend() != "cpu"):
        return jax.vmap(f)
    return lambda *args: jax.lax.map(lambda one: f(*one), args)


def compile_steps(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    n: int,
    vmap: bool | None = None,
    mesh: Mesh | None = None,
) -> Callable[[TrainState], tuple[TrainState, Report]]:
    """Compile n steps of every seed into one program.

    As if by::

        for _ in range(n):
            for s in range(S):
                params[s], opt_state[s], carry[s], report[t, s] = one_step(
                    data_key[s], t, params[s], opt_state[s], carry[s]
                )
            t = t + 1

    Args:
        problem: what to train.
        optimizer: the optimizer.
        n: the number of steps.
        vmap: how to run the seeds; see `over_seeds`.
        mesh: the devices; they split each batch and the carry, and replicate the rest. None: one device.

    Returns:
        A function state -> (state, Report); it donates its argument. Every leaf of the Report is (n, S, ...).
    """

    def one_seed(t, key, params, opt_state, carry):
        batch, carry = split(problem.batch(key, t), mesh), split(carry, mesh, "Problem.carry")
        (loss, (score, carry)), g = jax.value_and_grad(problem.loss, has_aux=True)(
            params, batch, carry, key_of_step(key, t)
        )
        # Read before clipping, which would spread one infinite entry over every leaf.
        finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(g)])
        updates, opt_state = optimizer.update(g, opt_state, params)
        report = Report(loss, score, optax.tree.norm(g), finite)
        return optax.apply_updates(params, updates), opt_state, split(carry, mesh, "Problem.carry"), report

    def body(state: TrainState, _):
        step = over_seeds(partial(one_seed, state.step), vmap)
        params, opt_state, carry, report = step(state.data_key, state.params, state.opt_state, state.carry)
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state, carry=carry), report

    def steps(state: TrainState):
        return jax.lax.scan(body, state, length=n)

    laid_out = None if mesh is None else (_layout(mesh), whole(mesh))
    return jax.jit(steps, donate_argnums=0, out_shardings=laid_out)


def compile_validation(
    problem: Problem, vmap: bool | None = None
) -> Callable[[TrainState], tuple[TrainState, Float[Array, " S"]]]:
    """Compile one validation: score every seed, and keep the best params of each.

    Of two equal scores, the later params are kept. A small validation set gives many ties, and while the learning rate
    falls, an earlier equal score is more likely to be luck. Early stopping counts strict improvements only.

    Returns:
        A function state -> (state, scores (S,)); it donates its argument.
    """
    better = jnp.greater if problem.maximize else jnp.less

    def validate(state: TrainState):
        old, score = state.best, over_seeds(problem.score, vmap)(state.params).astype(jnp.float32)
        mean = jnp.mean(score)
        won = ~better(old.score, score)
        best = Best(
            params=_where(won, state.params, old.params),
            score=jnp.where(won, score, old.score),
            step=jnp.where(won, state.step, old.step),
            mean=jnp.where(better(mean, old.mean), mean, old.mean),
            stale=jnp.where(better(mean, old.mean), 0, old.stale + 1),
        )
        return state._replace(best=best), score

    return jax.jit(validate, donate_argnums=0)


def compile_probe(problem: Problem, vmap: bool | None = None) -> Callable[[Any], Float[Array, "S K"]]:
    """Compile the problem's probe for every seed.

    Returns:
        A function params -> (S, K) natural logs of norms.

    Raises:
        ValueError: the problem has no probe.
    """
    if problem.probe is None:
        raise ValueError(
            "train.probe: wanted null, because this problem has no probe, but got a number of steps; set it to null"
        )
    return jax.jit(over_seeds(problem.probe, vmap))


def _where(won: Bool[Array, " S"], new: PyTree, old: PyTree) -> PyTree:
    """The new leaves of each seed where `won` is True, else its old ones."""
    return jax.vmap(lambda w, a, b: jax.tree.map(partial(jnp.where, w), a, b))(won, new, old)
