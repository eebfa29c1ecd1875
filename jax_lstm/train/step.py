"""One training step as a pure function, for many seeds at once.

    l, m, c = loss(params, batch(key, t), c, key_t)     m: metrics; c: the carry between steps, or None
    params  = params + optimizer(∇_params l)
    ema     = d ema + (1 − d) params                    with `TrainConfig.ema` = d

The carry is a constant to the gradient, so gradients stop at step boundaries (truncated backpropagation through time,
Williams & Peng 1990). key_t is the key of step t; no batch is drawn from it. Validation takes ema / (1 − dᵗ), the
average without the zeros that it starts from, in place of params.

TrainState is what the next step needs, Report is what is logged. This module does not read a clock, print or write
files, and it does not depend on cells or tasks. Data that the problem's functions close over are arguments of the
compiled programs (traced.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jax_lstm.train.devices import split, whole
from jax_lstm.train.forms import checked_loss, scores_of, trace_batch
from jax_lstm.train.problem import Problem
from jax_lstm.train.state import Best, TrainState, averaged, layout_of
from jax_lstm.train.traced import Placed, Program, Traced, trace

NOT_A_STEP = 2**32 - 1  # steps have 31 bits, so that no task folds this number into the data key


class Report(NamedTuple):
    """What one step reports; over n steps each leaf is (n, S, ...). `finite` has one bool per leaf of the gradient."""

    loss: Float[Array, "*n S"]
    metrics: dict[str, Float[Array, "*n S"]]
    grad_norm: Float[Array, "*n S"]
    finite: Bool[Array, "*n S leaves"]


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


def of_one_seed(tree: PyTree[Array, "S ..."]) -> Any:
    """The shapes and dtypes of the leaves of one seed."""
    return jax.eval_shape(lambda leaves: jax.tree.map(lambda a: a[0], leaves), tree)


def compile_steps(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    n: int,
    vmap: bool | None = None,
    mesh: Mesh | None = None,
    ema: float | None = None,
    placed: Placed | None = None,
    traced: Traced | None = None,
) -> Program:
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
        n: the number of steps; 1 for a problem with a source.
        vmap: how to run the seeds; see `over_seeds`.
        mesh: the devices; they split each batch and the carry, and replicate the rest. None: one device.
        ema: the decay of the average of params; None: no average.
        placed: puts data on the devices; give the same one to all programs of a run. None: a new one.
        traced: `problem.batch`, traced; None: trace it here.

    Returns:
        A function state -> (state, Report), or (state, batch) -> (state, Report) for a problem with a source. It
        donates the state. Every leaf of the Report is (n, S, ...).
    """
    placed = Placed(mesh) if placed is None else placed
    average = None if ema is None else optax.ema(ema)
    tx = optax.with_extra_args_support(optimizer)  # some optimizers read the loss: optax.contrib.reduce_on_plateau

    def build(state: TrainState, *given: Any) -> tuple[Any, Any]:
        key = of_one_seed(state.data_key)
        draw = traced if traced or problem.batch is None else trace_batch(problem.batch, key, state.step)
        shapes = given[0] if draw is None else draw.out
        params, carry = of_one_seed(state.params), of_one_seed(state.carry)
        loss = trace(checked_loss(problem.loss, problem.carry is not None), params, shapes, carry, key)
        data = placed([] if draw is None else draw.data), placed(loss.data)

        def steps(data: Any, state: TrainState, *given: Any) -> tuple[TrainState, Report]:
            def one_seed(t, key, params, opt_state, carry, ema):
                batch = given[0] if draw is None else draw(data[0], key, t)
                batch, carry = split(batch, mesh), split(carry, mesh, "Problem.carry")

                def value(params: Any) -> Any:
                    return loss(data[1], params, batch, carry, key_of_step(key, t))

                (l, (metrics, carry)), g = jax.value_and_grad(value, has_aux=True)(params)
                # Read before clipping, which would spread one infinite entry over every leaf.
                finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(g)])
                more = {"value": l, "grad": g, "value_fn": lambda params: value(params)[0]}
                updates, opt_state = tx.update(g, opt_state, params, **more)
                params = optax.apply_updates(params, updates)
                if average is not None:
                    _, ema = average.update(params, ema)
                report = Report(l, metrics, optax.tree.norm(g), finite)
                return params, opt_state, split(carry, mesh, "Problem.carry"), ema, report

            def body(state: TrainState, _):
                step = over_seeds(partial(one_seed, state.step), vmap)
                params, opt_state, carry, ema, report = step(
                    state.data_key, state.params, state.opt_state, state.carry, state.ema
                )
                new = {"params": params, "opt_state": opt_state, "carry": carry, "ema": ema}
                return state._replace(step=state.step + 1, **new), report

            return jax.lax.scan(body, state, length=n)

        return steps, data

    laid_out = None if mesh is None else (layout_of(mesh), whole(mesh))
    return Program(build, placed, donate_argnums=1, out_shardings=laid_out)


def compile_validation(
    problem: Problem, vmap: bool | None = None, ema: float | None = None, placed: Placed | None = None
) -> Program:
    """Compile one validation: score every seed, and keep the best params of each.

    Of two equal scores, the later params are kept. A small validation set gives many ties, and while the learning rate
    falls, an earlier equal score is more likely to be luck. Early stopping counts strict improvements only.

    Args:
        problem: what to train.
        vmap: how to run the seeds; see `over_seeds`.
        ema: the decay of the average of params, which is scored and kept; None: the params themselves.
        placed: as in `compile_steps`.

    Returns:
        A function state -> (state, scores {name: (S,)}); it donates its argument.
    """
    placed = Placed(None) if placed is None else placed
    better = jnp.greater if problem.maximize else jnp.less

    def build(state: TrainState) -> tuple[Any, Any]:
        scores = trace(lambda params: scores_of(problem.score(params), problem.metric), of_one_seed(state.params))

        def validate(data: Any, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
            params = averaged(state, ema)
            old, found = state.best, over_seeds(partial(scores, data), vmap)(params)
            score = found[problem.metric]
            mean = jnp.mean(score)
            won = ~better(old.score, score)
            best = Best(
                params=_where(won, params, old.params),
                score=jnp.where(won, score, old.score),
                step=jnp.where(won, state.step, old.step),
                mean=jnp.where(better(mean, old.mean), mean, old.mean),
                stale=jnp.where(better(mean, old.mean), 0, old.stale + 1),
            )
            return state._replace(best=best), found

        return validate, placed(scores.data)

    return Program(build, placed, donate_argnums=1)


def compile_probe(problem: Problem, vmap: bool | None = None, placed: Placed | None = None) -> Program:
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
    placed, probe = Placed(None) if placed is None else placed, problem.probe

    def build(params: Any) -> tuple[Any, Any]:
        traced = trace(probe, of_one_seed(params))
        return lambda data, params: over_seeds(partial(traced, data), vmap)(params), placed(traced.data)

    return Program(build, placed)


def _where(won: Bool[Array, " S"], new: PyTree, old: PyTree) -> PyTree:
    """The new leaves of each seed where `won` is True, else its old ones."""
    return jax.vmap(lambda w, a, b: jax.tree.map(partial(jnp.where, w), a, b))(won, new, old)
