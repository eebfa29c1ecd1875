"""Layers around a cell: pure functions on NamedTuples of arrays."""

from jax_lstm.layers.readout import Readout, ReadoutParams

__all__ = ["Readout", "ReadoutParams"]
