"""The arrays that a user passes to a run: check them, for one sequence, for one step, or for a batch of either.

The checks are made while JAX traces the run, so that an eager call is one compiled program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_lstm import checks
from jax_lstm.abilities import has_noise, takes_constants
from jax_lstm.cell import Noise, OptionalMethods
from jax_lstm.engines.sharding import place_on_mesh

AXES = {"xs": "(T, I)", "x": "(I,)"}  # of one sequence, and of one step


class Arguments(NamedTuple):
    """The arrays of a call of `unroll`, or of `step`, for which xs is one x.

    In a batch, all but params and key have a batch axis.
    """

    params: Any
    xs: Any
    state: Any = None
    mask: Any = None
    reset: Any = None
    key: Any = None
    noise: Any = None
    constants: Any = None


def are_arrays(leaves: list[Any]) -> bool:
    """Whether all leaves of the arguments are arrays or bools, so that they can be passed to a compiled program."""
    return all(
        isinstance(leaf, bool) or (checks.is_array(leaf) and type(leaf) is not jax.ShapeDtypeStruct) for leaf in leaves
    )


def check_arguments(caller: str, cell: Any, arguments: Arguments, name: str) -> Arguments:
    """Check the arrays of one sequence, or of one step; `name` is that of xs, "xs" or "x".

    Returns:
        The same as JAX arrays. A state of None is replaced by the initial state.
    """
    params, dtype = checks.check_params(caller, cell, arguments.params)
    xs = checks.check_input(caller, name, arguments.xs, cell, dtype, AXES[name])
    state = arguments.state
    state = cell.initial_state(params) if state is None else checks.check_state(caller, cell, state, dtype)
    mask = checks.check_mask(caller, "mask", arguments.mask, xs)
    reset = checks.check_mask(caller, "reset", arguments.reset, xs)
    key, noise = check_key(caller, cell, arguments.key), _check_noise(caller, cell, arguments, params, xs)
    return Arguments(params, xs, state, mask, reset, key, noise, _check_constants(caller, cell, arguments.constants))


def check_batch(caller: str, cell: Any, arguments: Arguments, name: str, axis: int) -> Arguments:
    """Check the arrays of a batch: xs (B, T, I), or (T, B, I) with axis 1; or x (B, I).

    Returns:
        As `check_arguments`. xs, mask, reset and noise.steps are (T, B, …), or (B, …) for one step; the rest is (B, …).
        Every sequence has its own key, split from `key`.
    """
    layout = {"x": "(B, I)", "xs": "(T, B, I)" if axis else "(B, T, I)"}[name]
    arrays = arguments._asdict()
    del arrays["params"], arrays["key"]
    check_batch_axes({name: arrays.pop("xs")} | arrays, axis, layout)
    batch_axes = checks.mesh_axes(jax.typeof(arguments.xs).sharding.spec[axis])
    checks.check_params_sharding(caller, arguments.params, batch_axes, "over which the batch is sharded")
    key = check_key(caller, cell, arguments.key)

    def axes(axis: int) -> Arguments:
        noise = Noise(axis, 0) if isinstance(arguments.noise, Noise) else 0
        return Arguments(None, axis, 0, axis, axis, 0, noise, 0)

    def one(arguments: Arguments) -> Arguments:
        checked = check_arguments(caller, cell, arguments, name)
        return checked._replace(state=place_on_mesh(checked.state))

    lead = arguments.xs.shape[: 2 if name == "xs" else 1]
    masks = (jnp.full(lead, b) if is_one_bool(b) else b for b in (arguments.mask, arguments.reset))
    arguments = arguments._replace(**dict(zip(("mask", "reset"), masks, strict=True)))
    keys = None if key is None else batch_keys(key, arguments.xs, axis)
    return jax.vmap(one, (axes(axis),), axes(1 if name == "xs" else 0))(arguments._replace(key=keys))


def check_batch_axes(arrays: dict[str, Any], axis: int, layout: str | None = None) -> None:
    """Check that every array has the batch size of the first, and that masks are sharded as it is.

    Args:
        arrays: xs or x first; None where an argument is not given.
        axis: the batch axis of xs and of what has its time axis.
        layout: the axes that xs or x must have, in words.
    """
    name, given = next(iter(arrays.items()))
    xs = checks.as_array("batched", name, given)
    lead = 2 if name == "xs" else 1
    if xs.ndim < lead or (layout is not None and xs.ndim != layout.count(",") + 1):
        raise ValueError(
            f"batched: {name} must be {layout or 'an array with a batch axis'}, but has {xs.ndim} axes "
            f"({name}.shape={xs.shape})"
        )
    lead = xs.shape[:lead]
    for other in ("mask", "reset"):
        if arrays.get(other) is not None and not is_one_bool(arrays[other]):
            b = checks.as_array("batched", other, arrays[other])
            if b.shape != lead:
                raise ValueError(f"batched: {other} must have shape {lead}, as {name} has, but has {b.shape}")
            checks.check_same_sharding("batched", other, b, xs)
    for other in ("state", "constants", "noise"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays.get(other)):
            of_step = other == "noise" and jax.tree_util.keystr(path[:1], simple=True) == "steps"
            at = axis if of_step else 0
            leaf = checks.as_array("batched", f"every leaf of {other}", leaf)
            if leaf.ndim <= at or leaf.shape[at] != xs.shape[axis]:
                raise ValueError(
                    f"batched: every leaf of {other} must have a {'leading ' * (not at)}batch axis of "
                    f"{xs.shape[axis]}, as {name} has ({name}.shape={xs.shape}), but one has shape {leaf.shape}"
                )
            placed, wanted = jax.typeof(leaf).sharding.spec[at], jax.typeof(xs).sharding.spec[axis]
            if placed != wanted:
                raise ValueError(
                    f"batched: every leaf of {other} must be sharded as {name} is on the batch axis, {wanted}, but one "
                    f"is {jax.typeof(leaf)}; place it so, states with jl.initial_states(..., like={name})"
                )


def is_one_bool(value: Any) -> bool:
    """Whether a mask or reset is one bool, for the whole batch."""
    return isinstance(value, bool) or (checks.is_array(value) and value.shape == ())


def batch_keys(key: Any, xs: Array, axis: int) -> Array:
    """One key per sequence, split from `key` and sharded as the batch is."""
    keys = jax.random.split(key, xs.shape[axis])
    placed = jax.typeof(xs).sharding
    if placed.spec[axis] is None:
        return keys
    return jax.sharding.reshard(keys, jax.NamedSharding(placed.mesh, jax.P(placed.spec[axis])))


def check_key(caller: str, cell: Any, key: Any) -> Any:
    """Check a key: None, or one key for a cell that draws random numbers."""
    if key is None:
        return None
    if not has_noise(cell):
        raise ValueError(
            f"{caller}: key was given, but cell {type(cell).__name__} draws nothing at random; leave it out"
        )
    return checks.check_key(caller, key)


def _check_noise(caller: str, cell: Any, arguments: Arguments, params: Any, xs: Array) -> Noise | None:
    """Check noise that the user drew: None, or a `Noise` of the shapes and dtypes that the cell draws."""
    noise = arguments.noise
    if noise is None:
        return None
    if not has_noise(cell) and getattr(type(cell), "sample_noise", None) in (None, OptionalMethods.sample_noise):
        raise ValueError(
            f"{caller}: noise was given, but cell {type(cell).__name__} draws nothing at random; leave it out"
        )
    if arguments.key is not None:
        raise ValueError(f"{caller}: key and noise both set the random numbers; give one of the two")
    if not isinstance(noise, Noise):
        raise TypeError(
            f"{caller}: noise must be a Noise, but is a {type(noise).__name__}; make one with "
            "cell.sample_noise(params, key, T)"
        )
    for leaf in jax.tree.leaves(noise.steps):
        if leaf.shape[:1] != xs.shape[:1]:
            raise ValueError(
                f"{caller}: noise.steps must have a leading axis of {xs.shape[0]} steps, as xs has, but one leaf has "
                f"shape {leaf.shape}; draw it with cell.sample_noise(params, key, {xs.shape[0]})"
            )
    drawn = jax.eval_shape(lambda p, k: cell.sample_noise(p, k, xs.shape[0]), params, checks.some_key())
    again = f"draw it with cell.sample_noise(params, key, {xs.shape[0]})"
    if not all(_alike(given, want) for given, want in zip(noise, drawn, strict=True)):
        raise ValueError(
            f"{caller}: noise must be that of cell {type(cell).__name__}, but is that of another cell; {again}"
        )
    wanted = dict(jax.tree_util.tree_leaves_with_path(drawn))
    for path, leaf in jax.tree_util.tree_leaves_with_path(noise):
        want = wanted.get(path, leaf)  # with `rates` there may be more masks
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{caller}: noise.{name} must be {want.dtype}{list(want.shape)}, as cell {type(cell).__name__} draws "
                f"it, but is {leaf.dtype}{list(leaf.shape)}; {again}"
            )
    return noise


def _alike(given: Any, want: Any) -> bool:
    """Whether two pytrees are both arrays, or containers of the same type and length; None is like anything."""
    if given is None or want is None:
        return True
    if checks.is_array(given) or checks.is_array(want):
        return checks.is_array(given) and checks.is_array(want)
    return type(given) is type(want) and len(given) == len(want)


def _check_constants(caller: str, cell: Any, constants: Any) -> Any:
    """Check constants: a pytree of arrays for a cell that takes them, else None."""
    name = type(cell).__name__
    if not takes_constants(cell):
        if constants is None:
            return None
        raise ValueError(
            f"{caller}: constants were given, but cell {name} takes none; leave them out, or set "
            "takes_constants = True in its class"
        )
    if constants is None:
        raise ValueError(f"{caller}: cell {name} takes constants, but none were given; pass constants=")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: checks.as_array(caller, checks.leaf_name("constants", path), leaf), constants
    )
