"""A program is a function of arrays that is traced again when `jax.vmap` gives the arrays one more axis.

Sequences of a batch are independent, so `jax.vmap` over them needs no program of its own: the function gets arrays with
one more batch axis, after the time axis, and runs them together. A vmap over the parameters too cannot be written so;
then the function is mapped by `jax.vmap` as usual, but it knows how many sequences there are in all.

A program is bound as one equation, of a primitive of its own, so that the vmap that is seen is the vmap that runs: no
equation is left behind that only counts. The equation is compiled as if its jaxpr stood in its place.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from jax_lstm.checks import is_at_least
from jax_lstm.engines.sharding import match_sharding

Axes = tuple[int | None, ...]
MAX_REPEATED = 16  # a vmap repeats arrays that it does not map if all are at most so many times what it maps


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


class Settings(NamedTuple):
    """Settings of JAX that a trace depends on. A program is traced again under those of its first trace."""

    matmul_precision: Any
    x64: bool
    dtype_promotion: Any
    rank_promotion: Any

    @classmethod
    def now(cls) -> "Settings":
        """The settings at this place."""
        config: Any = jax.config
        return cls(
            config.jax_default_matmul_precision, config.jax_enable_x64, config.jax_numpy_dtype_promotion,
            config.jax_numpy_rank_promotion,
        )  # fmt: skip

    def restored(self) -> contextlib.ExitStack:
        """A context with these settings."""
        stack = contextlib.ExitStack()
        stack.enter_context(jax.default_matmul_precision(self.matmul_precision))
        stack.enter_context(jax.enable_x64(self.x64))
        stack.enter_context(jax.numpy_dtype_promotion(self.dtype_promotion))
        stack.enter_context(jax.numpy_rank_promotion(self.rank_promotion))
        return stack


@dataclass(frozen=True)
class Program:
    """A function, the vmaps around it, the outermost first, and the settings that it is traced under."""

    function: Any
    maps: tuple[Map, ...] = ()
    settings: Settings = field(default_factory=Settings.now)

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
        return replace(self, function=self.function.transposed(linear, nonzero), maps=tuple(maps))


class RunPrimitive(Primitive):
    """The primitive of a program. Its parameter `call_jaxpr` has the name that `checkify` looks for."""

    multiple_results = True

    def bind(self, *arrays: Any, subfuns: tuple[Any, ...] = (), **params: Any) -> Any:
        """One equation; or, for `checkify`, the equations inside together with their checks (`subfuns`)."""
        return subfuns[0].call_wrapped(*arrays) if subfuns else super().bind(*arrays, **params)


run_p = RunPrimitive("jax_lstm_run")


def run_program(program: Program, *arrays: Any) -> Any:
    """program(*arrays), as one equation."""
    with program.settings.restored():
        if jax.config.jax_disable_jit:  # pyrefly: ignore[missing-attribute]
            return program(*arrays)
        closed, shapes = jax.make_jaxpr(program, return_shape=True)(*arrays)
        if closed.effects:  # a collective over the axis of a vmap: that vmap must see it
            return program(*arrays)
        leaves, tree = jax.tree.flatten(shapes)
        jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(leaves), instantiate=True)
        out_axes = _flat_axes(program.function.out_axes, shapes)
        results = run_p.bind(*arrays, program=program, call_jaxpr=ClosedJaxpr(jaxpr, closed.consts), out_axes=out_axes)
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
def _abstract(*_: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    return call_jaxpr.out_avals


@run_p.def_impl
def _run(*arrays: Any, call_jaxpr: ClosedJaxpr, **_: Any) -> list[Any]:
    return jaxpr_as_fun(call_jaxpr)(*arrays)


mlir.register_lowering(run_p, mlir.lower_fun(_run, multiple_results=True))


def _batch(
    arrays: Sequence[Any], dims: Sequence[Any], *, program: Program, call_jaxpr: ClosedJaxpr, out_axes: Axes
) -> Any:
    in_axes, maps = program.function.in_axes, program.maps
    is_mapped = tuple(d is not None for d in dims)
    like, at = next((a, d) for a, d, m in zip(arrays, dims, is_mapped, strict=True) if m)
    shared = any(m and axis is None for m, axis in zip(is_mapped, in_axes, strict=True))
    size = like.shape[at]
    # How much would be repeated for every sequence, such as the data where only states are mapped.
    mapped_numbers = sum(a.size for a, m in zip(arrays, is_mapped, strict=True) if m)
    repeated = sum(a.size for a, m, axis in zip(arrays, is_mapped, in_axes, strict=True) if not m and axis is not None)
    moved = []
    if shared or None in out_axes or not is_at_least(MAX_REPEATED * mapped_numbers - size * repeated, 0):
        program = replace(program, maps=(Map(size, is_mapped), *maps))
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
    try:
        return jax.tree.leaves(run_program(program, *moved)), results
    except NameError:  # it reads an axis name whose vmap has ended
        return jax.vmap(jaxpr_as_fun(call_jaxpr), list(dims))(*arrays), [0] * len(out_axes)


def _repeated(a: Any, to: int, like: Any, at: int) -> Any:
    """The array with one more axis, as long and sharded as that axis of `like`."""
    return jax.vmap(lambda x: match_sharding(a, x), at, to)(like)


batching.primitive_batchers[run_p] = _batch


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call_jaxpr: ClosedJaxpr, **_: Any) -> tuple[Any, Any]:
    """JAX differentiates the equations: this is for derivatives of derivatives."""
    moved = [k for k, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def f(*new: Any) -> list[Any]:
        arrays = list(primals)
        for k, a in zip(moved, new, strict=True):
            arrays[k] = a
        return jaxpr_as_fun(call_jaxpr)(*arrays)

    return jax.jvp(f, [primals[k] for k in moved], [tangents[k] for k in moved])


ad.primitive_jvps[run_p] = _jvp


def _transpose(
    cotangents: Sequence[Any], *arrays: Any, program: Program, call_jaxpr: ClosedJaxpr, **_: Any
) -> list[Any]:
    linear = tuple(ad.is_undefined_primal(a) for a in arrays)
    nonzero = tuple(not isinstance(ct, ad.Zero) for ct in cotangents)
    given = [a for a, is_linear in zip(arrays, linear, strict=True) if not is_linear]
    given += [ct for ct, is_nonzero in zip(cotangents, nonzero, strict=True) if is_nonzero]
    try:
        results = iter(run_program(program.transposed(linear, nonzero), *given))
    except (AttributeError, NameError):
        # A function without a transpose of its own, or one that reads an axis name whose vmap has ended.
        results = iter(_transposed_equations(cotangents, arrays, call_jaxpr))
    return [next(results) if is_linear else None for is_linear in linear]


def _transposed_equations(cotangents: Sequence[Any], arrays: Sequence[Any], jaxpr: ClosedJaxpr) -> Sequence[Any]:
    """The transpose that JAX finds, one result for each linear array."""

    def f(*linear: Any) -> list[Any]:
        rest = iter(linear)
        return jaxpr_as_fun(jaxpr)(*(next(rest) if ad.is_undefined_primal(a) else a for a in arrays))

    avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in arrays if ad.is_undefined_primal(a)]
    return jax.linear_transpose(f, *avals)([ad.instantiate_zeros(ct) for ct in cotangents])


ad.primitive_transposes[run_p] = _transpose
