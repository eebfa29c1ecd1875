"""A program is a function of arrays that is traced again when `jax.vmap` gives the arrays one more axis.

Sequences of a batch are independent, so `jax.vmap` over them needs no program of its own: the function gets arrays with
one more batch axis, after the time axis, and runs them together. A vmap over the parameters too cannot be written so;
then the function is mapped by `jax.vmap` as usual, but it knows how many sequences there are in all.

A program is bound as one equation, of a primitive of its own, so that the vmap that is seen is the vmap that runs: no
equation is left behind that only counts. The equation is compiled as if its jaxpr stood in its place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from jax_lstm.engines.sharding import match_sharding

Axes = tuple[int | None, ...]


class Function(Protocol):
    """A static, hashable function of arrays, (members, *arrays) -> a pytree of arrays.

    members: how many vmaps over parameters run at once: the product of their sizes.

    in_axes: for each array where its batch axes are: 1 after a time axis, 0 without one, None if it has none.
    out_axes: the same for the results, as a prefix of the tree that it returns.
    """

    @property
    def in_axes(self) -> Axes: ...

    @property
    def out_axes(self) -> Any: ...

    def __call__(self, members: int, *arrays: Any) -> Any: ...

    def transposed(self, linear: tuple[bool, ...], nonzero: tuple[bool, ...]) -> "Function":
        """The transpose with respect to the arrays that are `linear`; results that are not `nonzero` have no cotangent.

        It takes all other arrays, then the cotangents, and returns a list with one result for each linear array.
        """
        ...


class Map(NamedTuple):
    """One `jax.vmap` around a function: its size, the arrays that it maps, and the results that it does not sum."""

    size: Any
    arrays: tuple[bool, ...]
    results: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Program:
    """A function, and the vmaps around it, the outermost first."""

    function: Any
    maps: tuple[Map, ...] = ()

    def __call__(self, *arrays: Any) -> Any:
        members = math.prod(m.size for m in self.maps)

        def f(*arrays: Any) -> Any:
            return self.function(members, *arrays)

        for one in reversed(self.maps):
            f = self._mapped(f, one)
        return f(*arrays)

    def _mapped(self, f: Callable, one: Map) -> Callable:
        axes = zip(self.function.in_axes, one.arrays, strict=True)
        in_axes = [axis or 0 if is_mapped else None for axis, is_mapped in axes]
        out_axes = jax.tree.map(lambda axis: axis or 0, self.function.out_axes, is_leaf=lambda axis: axis is None)
        mapped = jax.vmap(f, in_axes, out_axes)
        if one.results is None:
            return mapped

        def summed(*arrays: Any) -> list[Any]:
            results = zip(mapped(*arrays), out_axes, one.results, strict=True)
            return [a if is_mapped else a.sum(axis) for a, axis, is_mapped in results]

        return summed

    def transposed(self, linear: tuple[bool, ...], nonzero: tuple[bool, ...]) -> "Program":
        """The transpose; an array that a map does not map gets the sum over the map."""
        maps = []
        for one in self.maps:
            kept = tuple(m for m, is_linear in zip(one.arrays, linear, strict=True) if not is_linear)
            moved = tuple(m for m, is_linear in zip(one.arrays, linear, strict=True) if is_linear)
            maps.append(Map(one.size, kept + (True,) * sum(nonzero), moved))
        return Program(self.function.transposed(linear, nonzero), tuple(maps))


run_p = Primitive("jax_lstm_run")
run_p.multiple_results = True


def run_program(program: Program, *arrays: Any) -> Any:
    """program(*arrays), as one equation."""
    if jax.config.jax_disable_jit:  # pyrefly: ignore[missing-attribute]
        return program(*arrays)
    closed, shapes = jax.make_jaxpr(program, return_shape=True)(*arrays)
    if closed.effects:  # a collective over the axis of a vmap: that vmap must see it
        return program(*arrays)
    leaves, tree = jax.tree.flatten(shapes)
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(leaves), instantiate=True)
    out_axes = _flat_axes(program.function.out_axes, shapes)
    results = run_p.bind(*arrays, program=program, jaxpr=ClosedJaxpr(jaxpr, closed.consts), out_axes=out_axes)
    return tree.unflatten(results)


def _flat_axes(prefix: Any, tree: Any) -> Axes:
    """The axis of every leaf, from a prefix of the tree."""
    axes: list[int | None] = []
    jax.tree.map(
        lambda axis, part: axes.extend([axis] * len(jax.tree.leaves(part))), prefix, tree,
        is_leaf=lambda axis: axis is None,
    )  # fmt: skip
    return tuple(axes)


@run_p.def_abstract_eval
def _abstract(*_: Any, jaxpr: ClosedJaxpr, **params: Any) -> Any:
    return jaxpr.out_avals


@run_p.def_impl
def _run(*arrays: Any, jaxpr: ClosedJaxpr, **_: Any) -> list[Any]:
    return jaxpr_as_fun(jaxpr)(*arrays)


mlir.register_lowering(run_p, mlir.lower_fun(_run, multiple_results=True))


def _batch(arrays: Sequence[Any], dims: Sequence[Any], *, program: Program, out_axes: Axes, **_: Any) -> Any:
    in_axes, maps = program.function.in_axes, program.maps
    is_mapped = tuple(d is not None for d in dims)
    like, at = next((a, d) for a, d, m in zip(arrays, dims, is_mapped, strict=True) if m)
    shared = any(m and axis is None for m, axis in zip(is_mapped, in_axes, strict=True))
    moved = []
    if shared or None in out_axes:
        program = replace(program, maps=(Map(like.shape[at], is_mapped), *maps))
        for a, d, m, axis in zip(arrays, dims, is_mapped, in_axes, strict=True):
            moved.append(jax.numpy.moveaxis(a, d, axis or 0) if m else a)
        results = [axis or 0 for axis in out_axes]
    else:
        for k, (a, d, m, axis) in enumerate(zip(arrays, dims, is_mapped, in_axes, strict=True)):
            if axis is not None:
                to = axis + sum(one.arrays[k] for one in maps)
                a = jax.numpy.moveaxis(a, d, to) if m else _repeated(a, to, like, at)
            moved.append(a)
        results = [
            (axis or 0) + sum(one.results is None or one.results[k] for one in maps) for k, axis in enumerate(out_axes)
        ]
    return jax.tree.leaves(run_program(program, *moved)), results


def _repeated(a: Any, to: int, like: Any, at: int) -> Any:
    """The array with one more axis, as long and sharded as that axis of `like`."""
    return jax.vmap(lambda x: match_sharding(a, x), at, to)(like)


batching.primitive_batchers[run_p] = _batch


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, program: Program, **_: Any) -> tuple[Any, Any]:
    """JAX differentiates the function: this is for derivatives of derivatives."""
    moved = [k for k, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def f(*new: Any) -> list[Any]:
        arrays = list(primals)
        for k, a in zip(moved, new, strict=True):
            arrays[k] = a
        return jax.tree.leaves(program(*arrays))

    return jax.jvp(f, [primals[k] for k in moved], [tangents[k] for k in moved])


ad.primitive_jvps[run_p] = _jvp


def _transpose(cotangents: Sequence[Any], *arrays: Any, program: Program, **_: Any) -> list[Any]:
    linear = tuple(ad.is_undefined_primal(a) for a in arrays)
    nonzero = tuple(not isinstance(ct, ad.Zero) for ct in cotangents)
    given = [a for a, is_linear in zip(arrays, linear, strict=True) if not is_linear]
    given += [ct for ct, is_nonzero in zip(cotangents, nonzero, strict=True) if is_nonzero]
    results = iter(run_program(program.transposed(linear, nonzero), *given))
    return [next(results) if is_linear else None for is_linear in linear]


ad.primitive_transposes[run_p] = _transpose
