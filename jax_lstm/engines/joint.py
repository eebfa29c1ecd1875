"""One matrix product for z_t in place of two: [x_t, h_{t−1}] [w_x; w_h] = x_t w_x + h_{t−1} w_h.

On a CPU, one product takes less time than two. [w_x; w_h] is a copy of the weights, made before the loop. Whether z_t
is such a sum is found in the jaxpr of `project` and `recur`. So this holds for any cell, and with dropout masks too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jax.extend.core.primitives import add_p, dot_general_p
from jax.interpreters import partial_eval as pe

from jax_lstm.engines.jaxpr import evaluate

VECTOR_TIMES_MATRIX = (((0,), (0,)), ((), ()))


def joint_product(preactivation: Callable, params: Any, *shapes: Any) -> Callable | None:
    """z = preactivation(params, *args) as a function of args, with one product; None if that is impossible.

    It is possible if z is the sum of two products whose weights are leaves of params, and nothing else reads the
    products. `shapes` has the shapes and dtypes of args. The stacked weights are computed at once.
    """
    closed, shape = jax.make_jaxpr(preactivation, return_shape=True)(params, *shapes)
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    closed, weights = ClosedJaxpr(jaxpr, closed.consts), jax.tree.leaves(params)
    last = jaxpr.eqns[-1] if jaxpr.eqns else None
    if last is None or last.primitive is not add_p or jaxpr.outvars != last.outvars:
        return None
    dots = {eqn.outvars[0]: eqn for eqn in jaxpr.eqns if eqn.primitive is dot_general_p}
    products: list[Any] = [dots[v] for v in last.invars if not isinstance(v, Literal) and v in dots]
    if len(products) < 2 or products[0] is products[1] or products[0].params != products[1].params:
        return None
    leaves = jaxpr.invars[: len(weights)]
    positions = [leaves.index(eqn.invars[1]) for eqn in products if eqn.invars[1] in leaves]
    one_dtype = len({v.aval.dtype for eqn in products for v in eqn.invars}) == 1
    options = dict(products[0].params)
    others = [v for eqn in jaxpr.eqns if eqn is not last for v in eqn.invars]
    if any(eqn.outvars[0] in others for eqn in products):
        return None
    if len(positions) < 2 or not one_dtype or options["dimension_numbers"] != VECTOR_TIMES_MATRIX:
        return None
    stacked = jnp.concatenate([weights[k] for k in positions])

    def compute(*args: Any) -> Any:
        def instead(eqn: Any, read: list[Any]) -> Any:
            if eqn in products:
                return read[0]  # the vector, for the product below
            if eqn is last:
                return dot_general_p.bind(jnp.concatenate(read), stacked, **options)
            return None

        return jax.tree.structure(shape).unflatten(evaluate(closed, instead, [*weights, *jax.tree.leaves(args)]))

    return compute
