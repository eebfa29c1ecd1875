"""The state of a training run: all that the next step needs, for S seeds."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree, UInt32

from jax_lstm.train.devices import must_be_shared, split_after_seeds, whole
from jax_lstm.train.forms import difference
from jax_lstm.train.problem import Problem


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
    ema: optax.EmaState | None = None


def init_state(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    seeds: tuple[int, ...],
    params: Any = None,
    ema: float | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        problem: what to train.
        optimizer: the optimizer.
        seeds: S seeds; the numbers of one seed do not depend on the other seeds.
        params: the params that every seed starts from: those of the model, or those of its cell alone, so that each
            seed draws the others, such as a readout; None: each seed draws all with `problem.init`.
        ema: the decay of the average of params; None: no average.

    Returns:
        The state, with a leading axis over S seeds.

    Raises:
        ValueError: params differ in structure or shape from those of `problem.init`; the message names the leaf.
    """
    numbers = jnp.asarray(seeds, jnp.uint32)
    return jax.jit(partial(_init_state, problem, optimizer, ema, _start(problem, params)))(numbers)


def _start(problem: Problem, params: Any) -> Callable[[Any], Any]:
    """Key -> the params that a seed starts from, with the dtypes of the model."""
    if params is None:
        return problem.init
    want = jax.eval_shape(problem.init, jax.random.key(0))
    inner, said = getattr(want, "cell", None), difference(want, params, dtypes=False)
    if said and inner is not None and difference(inner, params, dtypes=False) is None:
        given = jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), inner, params)
        return lambda key: problem.init(key)._replace(cell=given)
    if said:
        raise ValueError(
            f"fit: wanted params like those of the model to train, or of its cell, but {said}; give params of this "
            "model, for one seed"
        )
    given = jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), want, params)
    return lambda key: given


def _init_state(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    ema: float | None,
    start: Callable[[Any], Any],
    seeds: UInt32[Array, " S"],
) -> TrainState:
    init_keys, data_keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)), out_axes=1)(seeds)
    S = len(seeds)
    params = jax.vmap(start)(init_keys)
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
        ema=None if ema is None else _zero_average(ema, params),
    )


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Put a state on the devices of a mesh: the carry is split over its sequences, the rest is replicated.

    Raises:
        ValueError: the carry cannot be split equally over the devices.
    """
    must_be_shared(state.carry, mesh.size, "Problem.carry", seeds=1)
    return jax.device_put(state, layout_of(mesh))


def layout_of(mesh: Mesh) -> Any:
    """The sharding of each field of a state: a TrainState of shardings."""
    fields: dict[str, Any] = dict.fromkeys(TrainState._fields, whole(mesh))
    return TrainState(**fields | {"carry": split_after_seeds(mesh)})


def _zero_average(ema: float, params: Any) -> Any:
    return jax.vmap(optax.ema(ema).init)(params)


def averaged(state: TrainState, ema: float | None) -> PyTree[Array, "S ..."]:
    """The params to evaluate: their average over steps, or without `ema` those of the last step."""
    if ema is None or state.ema is None:
        return state.params
    return jax.vmap(lambda e: optax.tree.bias_correction(e.ema, ema, e.count))(state.ema)
