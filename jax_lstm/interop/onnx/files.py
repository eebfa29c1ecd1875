"""Open an ONNX model: a file, its bytes, or the message itself. The package onnx is imported at the first use."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jax_lstm import checks
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


def array_of(caller: str, tensor: Any, folder: str | None) -> np.ndarray:
    """An initializer as an array; `folder` is that of external data."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
    if location is not None and (folder is None or not os.path.exists(Path(folder) / location)):
        raise ValueError(
            f"{caller}: the tensor {tensor.name!r} is in the file {checks.shown(location)}, which is not there; pass "
            "the path of the model, with that file beside it"
        )
    try:
        return package(caller).numpy_helper.to_array(tensor, folder or "")
    except Exception as error:  # bytes that do not fit the shape, for example
        raise ValueError(
            f"{caller}: the tensor {tensor.name!r} cannot be read ({type(error).__name__}); the file is damaged"
        ) from error
