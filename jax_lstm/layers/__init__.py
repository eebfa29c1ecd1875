"""Layers around cells: stacks, both directions, dropout, a learned state; embedding, readout, models and sampling.

Cells made of cells are cells themselves; the rest are pure functions on NamedTuples of arrays.
"""

from jax_lstm.layers.bidirectional import Bidirectional, BothWays
from jax_lstm.layers.dropout import Dropout, drop_weights
from jax_lstm.layers.embedding import Embedding, EmbeddingParams
from jax_lstm.layers.learned import LearnedParams, LearnedState
from jax_lstm.layers.model import Model, ModelParams
from jax_lstm.layers.readout import Readout, ReadoutParams
from jax_lstm.layers.sampling import sample
from jax_lstm.layers.stack import Stack

__all__ = [
    "Bidirectional",
    "BothWays",
    "Dropout",
    "Embedding",
    "EmbeddingParams",
    "LearnedParams",
    "LearnedState",
    "Model",
    "ModelParams",
    "Readout",
    "ReadoutParams",
    "Stack",
    "drop_weights",
    "sample",
]
