"""Programs: the run of a cell or model, compiled to StableHLO by `jax.export`, in one file.

A program runs on "cpu", "cuda", "rocm" and "tpu", for any batch size B ≥ 1 and number of steps T ≥ 1. Nothing is drawn
at random and no step is masked.

    dump(cell, params)                      (params, xs) -> (state, ys)
    dump(cell, params, streaming=True)      (params, state, xs) -> (state, ys)

The params are arguments, not constants of the program. So the file is small, one program runs every checkpoint of a
cell, and the gradient with respect to the weights exists. The weights themselves go into a safetensors file. With
`flat=True` the program takes that file's dict of arrays, in a process that does not have this library:

    program = jax.export.deserialize(data)
    state, ys = program.call(safetensors.flax.load_file(path), xs)

A file ends with the SHA-256 of the program, because XLA may crash on damaged bytes. `jax.export.deserialize` ignores
what follows the program.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.abilities import check_causal, takes_constants
from jax_lstm.batch import batched
from jax_lstm.interop.files import Source, kind_of, read, write
from jax_lstm.interop.parts import named
from jax_lstm.layers.embedding import Embedding
from jax_lstm.layers.model import Model
from jax_lstm.layers.readout import Readout
from jax_lstm.sequence import unroll

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
END = b"jax_lstm.stablehlo.1"  # after the digest: the version of this layout
DIGEST = hashlib.sha256().digest_size


def load(source: Source) -> Callable[..., Any]:
    """The function in a file that `dump` wrote.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> from jax_lstm.interop import stablehlo
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> run = stablehlo.load(stablehlo.dump(cell, params))
    >>> state, hs = run(params, jnp.ones((2, 6, 3), jnp.float32))
    >>> type(state).__name__, hs.shape
    ('LSTMState', (2, 6, 4))

    A program is code: load only files that you trust. The digest shows damage, not who wrote the file. `jax.export`
    promises to read the programs of an older JAX for at least six months.

    Args:
        source: the path of the file, or its bytes. For a cell of your own, import the module that registers its
            NamedTuples first, or write the program with flat=True.

    Returns:
        A jitted function with the arguments and results that `dump` lists. It also works under `jax.jit`, and with
        gradient=True under `jax.grad` and `jax.vjp`. A program of float64 needs jax_enable_x64.

    Raises:
        ValueError: the file is damaged, of another kind, or cannot be read by this JAX; the message names it.
        TypeError: source is no path and no bytes.
        OSError: there is no such file.
    """
    caller = "interop.stablehlo.load"
    file, data = read(caller, source)
    if not data.endswith(END):
        what = kind_of(data, "no program, or only a part of one; write it again with dump")
        raise ValueError(f"{caller}: {file} is {what}")
    data = data.removesuffix(END)
    program, digest = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(program).digest() != digest:
        raise ValueError(f"{caller}: {file} is damaged, as its SHA-256 shows; copy it again, or write it with dump")
    try:
        return jax.jit(jax.export.deserialize(bytearray(program)).call)
    except Exception as error:
        raise ValueError(
            f"{caller}: {file} cannot be read here ({' '.join(str(error).split())}); import the module that registers "
            "its NamedTuples and cells, or update JAX"
        ) from error


def dump(
    cell: Any, params: Any, path: Any = None, *, streaming: bool = False, gradient: bool = False, flat: bool = False
) -> bytes:
    """Export the run of a batch as a program. With B sequences of T steps::

        streaming=False     (params, xs (B, T, I)) -> (state, ys (B, T, H))
        streaming=True      (params, state, xs (B, T, I)) -> (state, ys (B, T, H))

    All are pytrees, of the types that `jl.batched(jl.unroll)` takes and returns. With flat=True params and states are
    dicts instead, one array per checkpoint name, such as "w_x" or "0.forward.w_x" (docs/layers.md), and
    `jax.export.deserialize` reads the file without this library. One array instead of a tree has the name "params" or
    "state".

    A runtime other than JAX takes the StableHLO module, `jax.export.deserialize(data).mlir_module_serialized`. Its
    arguments are the index of the platform in the list above, then the leaves of (params, state, xs); its results are
    the leaves of (state, ys). Leaves are in the order of `jax.tree.leaves`: those of a dict are sorted by name.

    The first state of a stream is `jl.initial_states(cell, params, B)`, or the state that the program without
    streaming returns for the first chunk.

    Args:
        cell: a cell or layer, or a `Model`, whose ys are (B, T, O) and whose xs are (B, T) int32 with a vocabulary.
            Noise and dropout are left out, as in `unroll` without a key.
        params: its params, of which only the shapes and the dtype enter the program. xs and states have this dtype.
        path: where to write the file, or None. It is written in one step: if the process is stopped before the end, an
            old file stays as it was.
        streaming: whether the state is an argument. The cell must be causal.
        gradient: whether the file also has the derivative, so that the loaded function works under `jax.grad` and
            `jax.vjp`, with respect to every argument. It makes the file about three times as large.
        flat: whether params and states are dicts of arrays.

    Returns:
        The bytes of the file.

    Raises:
        NotImplementedError: the cell takes constants, or is a `Readout` or `Embedding`.
        ValueError: the cell is not causal and streaming is True, or the params do not fit the cell.
        TypeError: cell is no cell or `Model`, or has params or states of a type that is not registered; or params are
            not its params.
        OSError: the file cannot be written.
    """
    caller = "interop.stablehlo.dump"
    for name, value in {"streaming": streaming, "gradient": gradient, "flat": flat}.items():
        checks.check_bool(caller, name, value)
    if isinstance(cell, Readout | Embedding):
        name = type(cell).__name__
        raise NotImplementedError(f"{caller}: a {name} does not run over time; export its apply with jax.export")
    inner = checks.check_cell(caller, cell.cell if isinstance(cell, Model) else cell)
    params, dtype = checks.check_params(caller, cell, params)
    if takes_constants(inner):
        raise NotImplementedError(
            f"{caller}: a program has no constants, which {type(inner).__name__} takes; export a function of your own "
            "with jax.export"
        )
    B, T = jax.export.symbolic_shape("b, t")
    trees = {"params": jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)}  # without sharding
    if streaming:
        check_causal(caller, inner)
        state = checks.state_shapes(cell, dtype)
        trees["state"] = jax.tree.map(lambda s: jax.ShapeDtypeStruct((B, *s.shape), s.dtype), state)
    symbols = isinstance(cell, Model) and cell.vocabulary is not None
    xs = jax.ShapeDtypeStruct((B, T) if symbols else (B, T, inner.input_size), jnp.int32 if symbols else dtype)
    run = _flat(caller, cell, trees) if flat else partial(_run, cell)
    given = [named(caller, what, tree) if flat else tree for what, tree in trees.items()]
    with _no_source_locations(), _no_mesh():
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(*given, xs)
        program = _serialized(caller, exported, int(gradient))
    data = program + hashlib.sha256(program).digest() + END
    if path is not None:
        write(caller, path, data)
    return data


def _run(cell: Any, params: Any, *rest: Any) -> tuple[Any, jax.Array]:
    """One batch; `rest` is xs, or a state and xs."""
    *state, xs = rest
    if isinstance(cell, Model):
        return batched(cell.apply)(params, xs, *state)
    return batched(unroll)(cell, params, xs, *state)


def _flat(caller: str, cell: Any, trees: dict[str, Any]) -> Callable[..., tuple[dict[str, jax.Array], jax.Array]]:
    """`_run` with dicts of arrays by name in place of trees like `trees`."""

    def run(*args: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        *dicts, xs = args
        given = [
            jax.tree.structure(tree).unflatten([arrays[name] for name in named(caller, what, tree)])
            for (what, tree), arrays in zip(trees.items(), dicts, strict=True)
        ]
        state, ys = _run(cell, *given, xs)
        return named(caller, "state", state), ys

    return run


@contextmanager
def _no_source_locations() -> Iterator[None]:
    """Leave the paths of source files on this machine out of a program; then equal programs are equal bytes."""
    before = jax.config.jax_traceback_in_locations_limit  # pyrefly: ignore[missing-attribute]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _no_mesh() -> AbstractContextManager[Any]:
    """Leave a mesh of `jax.set_mesh` out of a program, so that it runs on one device too."""
    if jax.sharding.get_abstract_mesh().empty:
        return nullcontext()
    return jax.set_mesh(jax.sharding.Mesh(np.empty((), object), ()))


def _serialized(caller: str, exported: jax.export.Exported, vjp_order: int) -> bytes:
    try:
        return bytes(exported.serialize(vjp_order=vjp_order))
    except ValueError as error:
        raise TypeError(
            f"{caller}: the program takes or returns a type that jax.export does not know ({error}); use flat=True, or "
            "register the type with jax.export.register_namedtuple_serialization"
        ) from error
