"""Layers: stacks, bidirectional cells, dropout, learned initial states; embedding, readout, model and sampling.

A stack, a bidirectional cell, a cell with dropout and a cell with a learned initial state are cells themselves. The
rest are pure functions of NamedTuples of arrays.
"""

from jax_lstm.layers.bidirectional import Bidirectional, BidirectionalParams, BidirectionalState
from jax_lstm.layers.dropout import Dropout, DropoutSequenceNoise, DropoutStepNoise, drop_weights
from jax_lstm.layers.embedding import Embedding, EmbeddingParams
from jax_lstm.layers.learned_initial_state import LearnedInitialState, LearnedParams
from jax_lstm.layers.model import Model, ModelParams
from jax_lstm.layers.readout import Readout, ReadoutParams
from jax_lstm.layers.sampling import sample
from jax_lstm.layers.stack import Stack, StackStepNoise

__all__ = [
    "Bidirectional",
    "BidirectionalParams",
    "BidirectionalState",
    "Dropout",
    "DropoutSequenceNoise",
    "DropoutStepNoise",
    "Embedding",
    "EmbeddingParams",
    "LearnedInitialState",
    "LearnedParams",
    "Model",
    "ModelParams",
    "Readout",
    "ReadoutParams",
    "Stack",
    "StackStepNoise",
    "drop_weights",
    "sample",
]
