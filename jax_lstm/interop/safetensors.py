"""Weights and their cell in one safetensors file, for every cell, layer and model.

A leaf has its checkpoint name (docs/layers.md), such as "0.forward.w_x", "cell.w_x" or "readout.b"; params that are one
array are called "params". The metadata of the file has two entries:

    jax_lstm    the config of the cell, `jl.to_config(cell)` as JSON
    format      the version of this layout, "1"

So `load` needs nothing but the file, and any reader of safetensors gets the weights by name. Nothing in a file is
executed: it holds numbers, and a config that can only name registered classes. safetensors has no checksum: a bit that
changed among the weights is not noticed.
"""

import json
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_lstm import checks
from jax_lstm.interop import torch
from jax_lstm.interop.files import Source, kind_of, package, read, write
from jax_lstm.interop.parts import Part, check_shape, check_values, named, read_array
from jax_lstm.registry import from_config, to_config

CONFIG, VERSION, FORMAT = "jax_lstm", "format", "1"
METADATA = "__metadata__"  # the entry of a header that is not a leaf
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def load(source: Source) -> Part:
    """The cell and the params of a safetensors file that `dump` wrote.

    >>> import jax
    >>> import jax_lstm as jl
    >>> from jax_lstm.interop import safetensors
    >>> model = jl.Model(jl.LSTM(3, 4), output_size=2)
    >>> data = safetensors.dump(model, model.init(jax.random.key(0)))
    >>> again, params = safetensors.load(data)
    >>> again == model, params.readout.w.shape
    (True, (4, 2))

    Args:
        source: the path of the file, or its bytes. Register the class of a cell of your own with `jl.register_cell`
            before you load it.

    Returns:
        (cell, params): the cell, layer, `Model`, `Readout` or `Embedding`, and its params as JAX arrays of the dtype
        in the file.

    Raises:
        ValueError: the file is damaged or of another kind, has no config or one that this library does not know, or
            a leaf is missing, unknown or misshapen; the message names the file or the leaf.
        TypeError: source is no path and no bytes, or the leaves are not floats of one dtype; or they are float64, and
            jax_enable_x64 is off.
        OSError: there is no such file.
        ImportError: the package safetensors is missing.
    """
    caller = "interop.safetensors.load"
    file, data = read(caller, source)
    metadata, leaves = _parsed(caller, file, data)
    cell, want = _described(caller, file, metadata, leaves)
    shapes = named(caller, "params", want)
    if missing := [name for name in shapes if name not in leaves]:
        raise ValueError(
            f"{caller}: {file} lacks {missing[0]}, which {type(cell).__name__} needs with shape "
            f"{shapes[missing[0]].shape}; it has {checks.listed(leaves) or 'no leaves'}"
        )
    if unknown := [name for name in leaves if name not in shapes]:
        raise ValueError(
            f"{caller}: {file} has {checks.shown(unknown[0], quoted=False)}, which is not a leaf of "
            f"{type(cell).__name__}; it takes {checks.listed(shapes) or 'no leaves'}"
        )
    arrays = []
    for name, like in shapes.items():
        array = _array(caller, name, leaves[name])
        check_shape(caller, name, array, like.shape, f"as the config of {type(cell).__name__} says")
        arrays.append(array)
    params = jax.tree.structure(want).unflatten(arrays)
    return cell, checks.check_params(caller, cell, params)[0]


def dump(cell: Any, params: Any, path: Any = None) -> bytes:
    """Convert a cell and its params to a safetensors file; the inverse of `load`, bit for bit.

    Args:
        cell: a cell or layer whose class is registered: one of this library, or your own after `jl.register_cell`. Or
            a `Model`, `Readout` or `Embedding`.
        params: its params, float64, float32, float16 or bfloat16.
        path: where to write the file, or None. It is written in one step: if the process is stopped before the end, an
            old file stays as it was.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: the params do not fit the cell.
        TypeError: the class of the cell is not registered, a field of it is not plain data, or the params are not
            floats of one of these dtypes.
        OSError: the file cannot be written.
        ImportError: the package safetensors is missing.
    """
    caller = "interop.safetensors.dump"
    config = _config(caller, cell)
    params, dtype = checks.check_params(caller, cell, params)
    if dtype.name not in DTYPES.values():
        raise TypeError(f"{caller}: params are {dtype}, but must be {', '.join(DTYPES.values())}; cast them")
    check_values(caller, "params", params)
    save = package(caller, "safetensors.numpy").save
    arrays: dict[str, Any] = {
        name: np.asarray(leaf, order="C") for name, leaf in named(caller, "params", params).items()
    }
    if METADATA in arrays:
        raise ValueError(f"{caller}: a leaf of params must not be called {METADATA}, as safetensors does; rename it")
    data = _in_order(save(arrays, {CONFIG: config, VERSION: FORMAT}))
    if path is not None:
        write(caller, path, data)
    return data


def _config(caller: str, cell: Any) -> str:
    """The config of a cell as JSON, from which an equal cell can be made."""
    config = to_config(cell)
    try:
        text = json.dumps(config)
        if from_config(json.loads(text)) == cell:
            return text
        why = "its config makes another cell"
    except (TypeError, ValueError) as error:  # a field called model, for example, makes it the config of a Model
        why = str(error)
    raise TypeError(
        f"{caller}: cell {type(cell).__name__} must have plain data in its fields, but {why}; keep numbers, strings, "
        "bools, None, tuples and cells in them"
    )


def _in_order(data: bytes) -> bytes:
    """The same file with sorted metadata, so that equal weights give equal bytes: the package shuffles metadata."""
    header, rest = _header(data)
    header[METADATA] = dict(sorted(header[METADATA].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + rest


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a valid file, and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _parsed(caller: str, file: str, data: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata of a file, and its leaves by name: dicts of dtype, shape and bytes."""
    safetensors = package(caller, "safetensors")
    try:
        leaves = dict(sorted(safetensors.deserialize(data)))
    except safetensors.SafetensorError as error:
        why = str(error).removeprefix("Error while deserializing: ")
        what = kind_of(data, f"no safetensors file, or only a part of one ({why}); write it again with dump")
        raise ValueError(f"{caller}: {file} is {what}") from None
    return _header(data)[0].get(METADATA) or {}, leaves


def _described(caller: str, file: str, metadata: dict[str, str], names: Collection[str]) -> Part:
    """The cell that the metadata describe, and the shapes of its params."""
    if CONFIG not in metadata:
        of_torch = any(torch.NAME.fullmatch(name.rpartition(".")[-1]) for name in names)
        advice = (
            "interop.torch.load(safetensors.numpy.load_file(path))" if of_torch else "jl.params_from(cell, weights)"
        )
        leaves = f"the leaves {checks.listed(names)}" if names else "no leaves"
        raise ValueError(f"{caller}: {file} has no config of a cell in its metadata, but {leaves}; use {advice}")
    if (version := metadata.get(VERSION)) != FORMAT:
        raise ValueError(
            f"{caller}: {file} must have format {FORMAT!r} in its metadata, but has {checks.shown(version)}; update "
            "jax_lstm"
        )
    try:
        cell = from_config(json.loads(metadata[CONFIG]))
        return cell, checks.params_shapes(cell)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{caller}: the config in {file} makes no cell here ({str(error).removeprefix('from_config: ')}); register "
            "a class of your own with jl.register_cell before you load it, or update jax_lstm"
        ) from error


def _array(caller: str, name: str, leaf: dict[str, Any]) -> np.ndarray:
    if leaf["dtype"] not in DTYPES:
        raise TypeError(f"{caller}: {name} must hold floats, but holds {leaf['dtype']}; cast it to float32")
    array = np.frombuffer(leaf["data"], jnp.dtype(DTYPES[leaf["dtype"]])).reshape(leaf["shape"])
    return read_array(caller, name, array)
