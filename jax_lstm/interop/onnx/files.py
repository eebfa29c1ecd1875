"""Open an ONNX model: a file, its bytes, or the message itself. The package onnx is imported at the first use."""

import os
from pathlib import Path
from typing import Any

from jax_lstm import checks
from jax_lstm.interop import files

# How files of other formats start, and what to do with them.
OTHERS = {
    b"\x80": "a pickle, which this library does not open; load it with its own library and pass the weights on",
    b"PK\x03\x04": "a zip archive, such as a file of PyTorch, Keras or NumPy; see the other formats of interop",
    b"\x89HDF": "an HDF5 file, such as a file of Keras; see interop.keras",
}
METADATA = "jax_lstm"  # the key under which `dump` describes its cell


def package(caller: str) -> Any:
    """The package onnx with the parts that are used here, or an ImportError that says how to install it."""
    for part in ("onnx.inliner", "onnx.numpy_helper", "onnx.reference"):
        files.package(caller, part)
    return files.package(caller, "onnx")


def read_model(caller: str, source: Any) -> tuple[Any, str | None]:
    """(model, folder): the model without local functions, and the folder of its external data; None without a path."""
    onnx = package(caller)
    name, folder = "source", None
    if isinstance(source, onnx.ModelProto):
        model = source
    elif isinstance(source, bytes):
        model = _parsed(caller, name, source)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        name, folder = repr(str(path)), str(path.parent)
        if path.is_dir():
            raise IsADirectoryError(f"{caller}: {name} is a directory; pass the .onnx file in it")
        if not path.exists():
            raise FileNotFoundError(f"{caller}: there is no file {name}; pass the path of an ONNX file")
        model = _parsed(caller, name, path.read_bytes())
    else:
        raise TypeError(
            f"{caller}: source must be a path, bytes or an onnx.ModelProto, but is {checks.shown(source)}"
            f"{checks.of_type(source)}"
        )
    if not model.graph.node:
        raise ValueError(f"{caller}: {name} is an ONNX model without nodes; pass a model with an LSTM, GRU or RNN")
    return (onnx.inliner.inline_local_functions(model) if model.functions else model), folder


def _parsed(caller: str, name: str, data: bytes) -> Any:
    """The model in these bytes."""
    from google.protobuf.message import DecodeError  # a dependency of onnx

    if not data:
        raise ValueError(f"{caller}: {name} is empty; pass an ONNX model")
    for start, what in OTHERS.items():
        if data.startswith(start):
            raise ValueError(f"{caller}: {name} is {what}")
    try:
        return package(caller).ModelProto.FromString(data)
    except DecodeError:
        raise ValueError(f"{caller}: {name} is not an ONNX model, or only a part of one; pass the whole file") from None
