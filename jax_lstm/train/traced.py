"""Compile a function so that the data it closes over are arguments of the program, not constants in it.

    f(x) = g(x, data)        compiled as (data, x) -> f(x)

XLA keeps several copies of a large constant and tries to fold what is computed from it. 200 MB of data as a constant
take 1.6 GB and a minute to compile; as an argument they cost nothing.

`trace` runs a function once and lists its constants. JAX moves the constants of an inner function to the outermost one,
except those of a function under `jit`. So a call of a `jit` with data becomes the operations of that function. Each
function of a problem is traced on its own, before `grad` and `scan` are applied. What the rules of custom_jvp read is
known only after that: if data are left, `Program` traces the whole program again. Data in a `jit` inside a function
with custom_jvp or custom_vjp stay constants.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_lstm.train.devices import whole

LARGE = 1024  # bytes; XLA may fold smaller constants


@dataclass(frozen=True, eq=False)
class Traced:
    """A function that was traced once; its large constants are passed to every call.

    Args:
        closed: the jaxpr with all its constants.
        large: the large constants in it: NumPy or JAX arrays.
        tree: the structure of the result.
    """

    closed: ClosedJaxpr
    large: tuple[Any, ...]
    tree: Any

    @property
    def data(self) -> list[Any]:
        """The large constants: NumPy or JAX arrays, of the dtypes that JAX gives them."""
        return [c if isinstance(c, jax.Array) else np.asarray(c, jax.typeof(c).dtype) for c in self.large]

    @property
    def out(self) -> Any:
        """The shapes and dtypes of the result: a pytree of jax.ShapeDtypeStruct."""
        return self.tree.unflatten(
            [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in self.closed.out_avals]
        )

    def __call__(self, data: Sequence[Any], *args: Any) -> Any:
        """Run the function; `data` replaces its large constants."""
        instead = {id(const): array for const, array in zip(self.large, data, strict=True)}
        return self.tree.unflatten(_run(self.closed, instead, *jax.tree.leaves(args)))


def trace(f: Callable, *args: Any) -> Traced:
    """Trace a function once.

    Args:
        f: the function; it may close over NumPy and JAX arrays.
        args: its arguments: arrays, or jax.ShapeDtypeStruct.
    """
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    large = {id(c): c for c in _consts(closed) if _is_large(c)}
    return Traced(closed, tuple(large.values()), jax.tree.structure(shapes))


def _consts(closed: ClosedJaxpr) -> Iterator[Any]:
    """The constants of a jaxpr and of the inner ones that `_run` replaces."""
    yield from closed.consts
    for eqn in closed.jaxpr.eqns:
        for inner in _inner(eqn):
            yield from _consts(inner)


def _inner(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """The functions of an equation that `_again` runs."""
    names = {"jit": ("jaxpr",), "scan": ("jaxpr",), "while": ("cond_jaxpr", "body_jaxpr"), "remat2": ("jaxpr",)}
    if eqn.primitive.name == "cond":
        return list(eqn.params["branches"])
    found = [eqn.params[name] for name in names.get(eqn.primitive.name, ())]
    # From JAX 0.12 on a Jaxpr has constants too.
    return [inner if hasattr(inner, "consts") else ClosedJaxpr(inner, []) for inner in found]


def _run(closed: ClosedJaxpr, instead: dict[int, Any], *args: Any) -> list[Any]:
    """The results of a jaxpr with other constants: `instead` maps the id of a constant to an array."""
    consts = [instead.get(id(c), c) for c in closed.consts]
    inner = [[c for f in _inner(eqn) for c in _consts(f) if id(c) in instead] for eqn in closed.jaxpr.eqns]
    if not any(inner):
        return list(jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*args))
    known = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*consts, *args], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn, large in zip(closed.jaxpr.eqns, inner, strict=True):
        read = [value(atom) for atom in eqn.invars]
        with eqn.ctx.manager:
            if large:
                results = _again(eqn, instead, read)
            else:
                found = eqn.primitive.bind(*read, **eqn.primitive.get_bind_params(eqn.params))
                results = found if eqn.primitive.multiple_results else [found]
        known.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in closed.jaxpr.outvars]


def _again(eqn: JaxprEqn, instead: dict[int, Any], read: list[Any]) -> Any:
    """The results of an equation whose inner functions have data; `read` are its arguments."""
    params = eqn.params
    first, *rest = [partial(_run, inner, instead) for inner in _inner(eqn)]
    match eqn.primitive.name:
        case "jit":
            return first(*read)
        case "remat2":
            keep = {"prevent_cse": params["prevent_cse"], "policy": params["policy"]}
            return jax.checkpoint(first, **keep)(*read)
        case "cond":
            return jax.lax.switch(read[0], [first, *rest], *read[1:])
        case "while":
            n, m = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            body = rest[0]
            return jax.lax.while_loop(
                lambda carry: first(*read[:n], *carry)[0], lambda carry: body(*read[n:m], *carry), read[m:]
            )
        case _:
            # A stack has one axis more than its step. The names of these numbers depend on the version of JAX.
            inner = params["jaxpr"].jaxpr
            m = _unstacked(eqn.invars, inner.invars)
            n = m - _unstacked(eqn.outvars, inner.outvars)

            def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
                found = first(*read[:n], *carry, *xs)
                return found[: m - n], found[m - n :]

            how = {name: params[name] for name in ("length", "reverse", "unroll")}
            carry, ys = jax.lax.scan(body, read[n:m], read[m:], **how)
            return [*carry, *ys]


def _unstacked(outer: Sequence[Any], inner: Sequence[Any]) -> int:
    """How many variables of a scan have the same number of axes inside: constants and carries, not stacks."""
    return sum(v.aval.ndim == one.aval.ndim for v, one in zip(outer, inner, strict=True))


class Placed:
    """Puts the data of several programs on the devices of a mesh, each array once.

    Args:
        mesh: the devices; CPU devices share one copy, others hold one each. None: the default device.
    """

    def __init__(self, mesh: Mesh | None):
        self._mesh = mesh
        self._arrays: dict[Any, tuple[Any, jax.Array]] = {}

    def __call__(self, data: Sequence[Any]) -> list[jax.Array]:
        """The arrays on the devices."""
        return [self._put(array) for array in data]

    def _put(self, array: Any) -> jax.Array:
        key = id(array) if isinstance(array, jax.Array) else tuple(array.__array_interface__.get(k) for k in _SAME)
        if key not in self._arrays:  # the array is kept, so that no other one gets its address
            self._arrays[key] = array, _on_devices(array, self._mesh)
        return self._arrays[key][1]


_SAME = ("data", "shape", "strides", "typestr")


def _on_devices(array: Any, mesh: Mesh | None) -> jax.Array:
    """The array on every device of a mesh. CPU devices share one copy, which is in JAX's alignment."""
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    if mesh is None or mesh.size == 1 or is_key or mesh.devices.flat[0].platform != "cpu":
        return jax.device_put(array, whole(mesh))
    shared = np.asarray(jax.device_put(array, mesh.devices.flat[0]))
    parts = [jax.device_put(shared, device) for device in mesh.devices.flat]
    return jax.make_array_from_single_device_arrays(shared.shape, NamedSharding(mesh, PartitionSpec()), parts)


class Program:
    """A jitted function of `args`, whose data are arguments; it is built from the shapes of its first `args`.

    Args:
        build: args -> (function of (data, *args), data).
        placed: puts data on the devices.
        options: those of `jax.jit`.
    """

    def __init__(self, build: Callable[..., tuple[Callable, Any]], placed: Placed, **options: Any):
        self._build, self._placed, self._options = build, placed, options
        self._built: tuple[Any, Any] | None = None

    def _of(self, args: tuple[Any, ...]) -> tuple[Any, Any]:
        if self._built is None:
            run, data = self._build(*args)
            jitted = jax.jit(run, **self._options)
            if any(_is_large(const) for const in _consts(jitted.trace(data, *args).jaxpr)):
                again = trace(run, data, *args)
                jitted = jax.jit(lambda data, *args: again(data[1], data[0], *args), **self._options)
                data = data, self._placed(again.data)
            self._built = jitted, data
        return self._built

    def __call__(self, *args: Any) -> Any:
        """Run the program."""
        run, data = self._of(args)
        return run(data, *args)

    def lower(self, *args: Any) -> Any:
        """The lowered program, before it is compiled: see `jax.stages.Lowered`."""
        run, data = self._of(args)
        return run.lower(data, *args)


def _is_large(const: Any) -> bool:
    return getattr(const, "nbytes", 0) >= LARGE
