"""Open an ONNX model: a file, its bytes, or the message itself. The package onnx is imported at the first use."""

import os
from pathlib import Path
from typing import Any

from jax_lstm.interop import files

METADATA = "jax_lstm"  # the key under which `dump` describes its cell


def package(caller: str) -> Any:
    """The package onnx with the parts that are used here, or an ImportError that says how to install it."""
    for part in ("onnx.inliner", "onnx.numpy_helper", "onnx.reference"):
        files.package(caller, part)
    return files.package(caller, "onnx")


def read_model(caller: str, source: Any) -> tuple[Any, str | None]:
    """(model, folder): the model without local functions, and the folder of its external data; None without a path."""
    onnx = package(caller)
    name, model, folder = "source", source, None
    if not isinstance(source, onnx.ModelProto):
        name, data = files.read(caller, source)
        model = _parsed(caller, name, data)
        folder = str(Path(source).parent) if isinstance(source, str | os.PathLike) else None
    if not model.graph.node:
        raise ValueError(f"{caller}: {name} is an ONNX model without nodes; pass a model with an LSTM, GRU or RNN")
    return (onnx.inliner.inline_local_functions(model) if model.functions else model), folder


def _parsed(caller: str, name: str, data: bytes) -> Any:
    """The model in these bytes."""
    from google.protobuf.message import DecodeError  # a dependency of onnx

    try:
        return package(caller).ModelProto.FromString(data)
    except DecodeError:
        what = files.kind_of(data, "not an ONNX model, or only a part of one; pass the whole file")
        raise ValueError(f"{caller}: {name} is {what}") from None
