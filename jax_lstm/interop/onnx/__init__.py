"""Weights in ONNX files: `load` reads LSTM, GRU and RNN nodes, `dump` writes a model that onnxruntime runs."""

from jax_lstm.interop.onnx.dump import dump
from jax_lstm.interop.onnx.load import load

__all__ = ["dump", "load"]
