"""Run the equations of a function one by one, so that some of them can be computed in another way."""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Literal


def evaluate(closed: ClosedJaxpr, instead: Callable[[Any, list[Any]], Any], leaves: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr for these arguments.

    `instead(eqn, values)` returns the result of an equation with one result, or None to compute it as it stands.
    """
    jaxpr = closed.jaxpr
    computed = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *leaves], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else computed[atom]

    for eqn in jaxpr.eqns:
        read = [value(atom) for atom in eqn.invars]
        with eqn.ctx.manager:
            result = instead(eqn, read)
            if result is None:
                result = eqn.primitive.bind(*read, **eqn.primitive.get_bind_params(eqn.params))
            results = result if eqn.primitive.multiple_results else [result]
        computed.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]
