"""Weights of other libraries and formats, one module per format, with the same two functions.

    cell, params = load(source)         a cell of this library, ready to run, with its params
    dump(cell, params)                  the same weights as the other library stores them

`load` finds kind, sizes, layers and directions in the weights. `dump` refuses what the other side cannot express, with
a NotImplementedError that names the feature and a format that has it. No other library is imported, except for files:
the packages onnx, safetensors, h5py (Keras) and flatbuffers (StableHLO), which the extra `interop` installs.

Two modules differ. `stablehlo` holds a compiled program, not weights. `textbook` has `to_textbook` and `from_textbook`
for one matrix W per gate.

A module is imported when it is first used: `jl.interop.torch.load(…)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_lstm.interop import equinox, flax, haiku, keras, onnx, safetensors, stablehlo, textbook, torch

__all__ = ["equinox", "flax", "haiku", "keras", "onnx", "safetensors", "stablehlo", "textbook", "torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
