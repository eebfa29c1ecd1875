"""What the forward loop saves of a step for derivatives: the gates in place of z, where the gates are enough.

The derivatives of tanh and of the sigmoid are functions of their outputs:

    y = tanh x    dy = (1 + y) (1 − y) dx            y = σ(x)    dy = y (1 − y) dx

So a loop that goes back over an LSTM needs i, f, g and o, but not z, and computes no gate again. The activations of any
cell, and which leaves of z are read by anything else, are found in the jaxpr of its `update`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core.primitives import logistic_p, tanh_p
from jax.interpreters import partial_eval as pe

from jax_lstm.engines.jaxpr import evaluate

DERIVATIVES: dict[Any, Callable] = {tanh_p: lambda y: (1 + y) * (1 - y), logistic_p: lambda y: y * (1 - y)}


class Saved(NamedTuple):
    """What is saved of a step.

    z: the leaves of z that are read again; None in place of the others.
    y: the outputs of the first activations of `update`.
    """

    z: Any
    y: tuple[Any, ...]


@dataclass(frozen=True)
class Saving:
    """Which leaves of z are saved, and the outputs of how many activations."""

    leaves: tuple[bool, ...]
    activations: int

    def forward(self, update: Callable, *args: Any) -> tuple[Any, Saved]:
        """(u, saved) of u = update(*args), whose last argument is z."""
        y: list[Any] = []

        def compute(primitive: Any, x: Any, **params: Any) -> Any:
            y.append(primitive.bind(x, **params))
            return y[-1]

        u = _evaluate(update, compute, *args)
        leaves, tree = jax.tree.flatten(args[-1])
        kept = tree.unflatten([a if on else None for a, on in zip(leaves, self.leaves, strict=True)])
        return u, Saved(kept, tuple(y[: self.activations]))


def choose_saving(update: Callable, fixed: Any, moved: Any, s: Any, z: Any) -> Saving:
    """What to save of u = update(fixed, moved, s, z), whose derivative by all but `fixed` is needed; from shapes.

    Activations are saved from the first on, as many as are not larger than z. Together with the leaves of z that are
    still read they are sometimes larger (JANET has three gates from two leaves); then z is saved.
    """
    size, jaxpr = _size(z), jax.make_jaxpr(update)(fixed, moved, s, z).jaxpr
    y = [eqn.outvars[0].aval for eqn in jaxpr.eqns if eqn.primitive in DERIVATIVES]
    while _size(y) > size:
        y.pop()

    def both(y: Sequence[Any], dmoved: Any, ds: Any, dz: Any, fixed: Any, moved: Any, s: Any, z: Any) -> Any:
        f = partial(again, partial(update, fixed), y)
        return jax.jvp(f, (moved, s, z), (dmoved, ds, dz))

    jaxpr = jax.make_jaxpr(both)(y, moved, s, z, fixed, moved, s, z).jaxpr
    num_leaves = len(jax.tree.leaves(z))
    read = tuple(pe.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][-num_leaves:])
    kept = [a for a, on in zip(jax.tree.leaves(z), read, strict=True) if on]
    return Saving(read, len(y)) if _size(y) + _size(kept) <= size else Saving((True,) * num_leaves, 0)


def again(update: Callable, y: Sequence[Any], *args: Any) -> Any:
    """update(*args), without computing the activations whose outputs are y, the first ones."""
    known = iter(y)

    def compute(primitive: Any, x: Any, **params: Any) -> Any:
        output = next(known, None)
        return primitive.bind(x, **params) if output is None else _known(primitive, x, output)

    return _evaluate(update, compute, *args) if y else update(*args)


def _size(tree: Any) -> int:
    """How many numbers the tree holds."""
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _known(primitive: Any, x: Any, y: Any) -> Any:
    """y, the known output for x, with the derivative by x."""
    return y


@partial(_known.defjvp, symbolic_zeros=True)
def _known_jvp(primitive: Any, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    # For the first derivative y is fixed, and its tangent follows from dx. Where the first derivative is differentiated
    # again, y has a tangent of its own; that of x is not complete, because z was not saved.
    (_, y), (dx, dy) = primals, tangents
    return y, DERIVATIVES[primitive](y) * dx if isinstance(dy, SymbolicZero) else dy


def _evaluate(f: Callable, activation: Callable, *args: Any) -> Any:
    """f(*args), with each activation computed by `activation`."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)

    def instead(eqn: Any, read: list[Any]) -> Any:
        return activation(eqn.primitive, *read, **eqn.params) if eqn.primitive in DERIVATIVES else None

    return jax.tree.structure(shape).unflatten(evaluate(closed, instead, jax.tree.leaves(args)))
