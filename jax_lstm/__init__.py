"""LSTM, GRU and other recurrent networks for JAX, as pure functions of arrays.

A cell such as `LSTM` holds Python options only. Its weights and its state are NamedTuples of arrays, passed in and
returned. Functions take one sequence xs of shape (T, I); `batched` makes them take a batch.

    cells       LSTM, GRU, RNN, JANET, MinLSTM, MinGRU, SLSTM; `Cell` and `SplitCell` describe your own
    running     unroll (a sequence), batched (a batch), step (one step), stream (compiled steps), tbptt (truncated
                backpropagation through time), unroll_states, gates_of; lstm and lstm_step need no cell
    configs     to_config, from_config, register_cell; params_from and state_from read checkpoints
    layers      Stack, Bidirectional, Dropout, LearnedInitialState, Embedding, Readout, Model, sample
    gradients   `jax_lstm.gradflow` measures how gradients vanish or explode over time
    Flax        `jax_lstm.nnx` and `jax_lstm.linen`; import them yourself

>>> import jax
>>> import jax.numpy as jnp
>>> import jax_lstm as jl
>>> cell = jl.LSTM(input_size=3, hidden_size=4)
>>> params = cell.init(jax.random.key(0))
>>> state, hs = jl.unroll(cell, params, jnp.ones((6, 3), jnp.float32))
>>> state.h.shape, state.c.shape, hs.shape
((4,), (4,), (6, 4))
"""

from jax_lstm import engines, gradflow, registry
from jax_lstm.batch import batched, initial_states
from jax_lstm.cell import Cell, CompositeCell, Noise, SplitCell
from jax_lstm.cells.gru import GRU, GRUParams, GRUState
from jax_lstm.cells.janet import JANET, JANETParams, JANETState
from jax_lstm.cells.lstm import LSTM, LSTMParams, LSTMState, LSTMVariantParams
from jax_lstm.cells.min_gru import MinGRU, MinGRUParams, MinGRUState
from jax_lstm.cells.min_lstm import MinLSTM, MinLSTMParams, MinLSTMState
from jax_lstm.cells.rnn import RNN, LeakyRNNParams, RNNParams, RNNState
from jax_lstm.cells.slstm import SLSTM, SLSTMParams, SLSTMState
from jax_lstm.gates import Gates
from jax_lstm.interop.textbook import TextbookParams, from_textbook, to_textbook
from jax_lstm.layers.bidirectional import Bidirectional, BidirectionalParams, BidirectionalState
from jax_lstm.layers.dropout import Dropout, DropoutSequenceNoise, DropoutStepNoise, drop_weights
from jax_lstm.layers.embedding import Embedding, EmbeddingParams
from jax_lstm.layers.learned_initial_state import LearnedInitialState, LearnedParams
from jax_lstm.layers.model import Model, ModelParams
from jax_lstm.layers.readout import Readout, ReadoutParams
from jax_lstm.layers.sampling import sample
from jax_lstm.layers.stack import Stack, StackStepNoise
from jax_lstm.registry import from_config, register_cell, to_config
from jax_lstm.restore import params_from, state_from
from jax_lstm.sequence import gates_of, lstm, lstm_step, step, tbptt, unroll, unroll_states
from jax_lstm.stream import Stream, stream

__version__ = "0.1.0"

registry.register_namedtuples(__name__)

__all__ = [
    "GRU",
    "JANET",
    "LSTM",
    "RNN",
    "SLSTM",
    "Bidirectional",
    "BidirectionalParams",
    "BidirectionalState",
    "Cell",
    "CompositeCell",
    "Dropout",
    "DropoutSequenceNoise",
    "DropoutStepNoise",
    "Embedding",
    "EmbeddingParams",
    "GRUParams",
    "GRUState",
    "Gates",
    "JANETParams",
    "JANETState",
    "LSTMParams",
    "LSTMState",
    "LSTMVariantParams",
    "LeakyRNNParams",
    "LearnedInitialState",
    "LearnedParams",
    "MinGRU",
    "MinGRUParams",
    "MinGRUState",
    "MinLSTM",
    "MinLSTMParams",
    "MinLSTMState",
    "Model",
    "ModelParams",
    "Noise",
    "RNNParams",
    "RNNState",
    "Readout",
    "ReadoutParams",
    "SLSTMParams",
    "SLSTMState",
    "SplitCell",
    "Stack",
    "StackStepNoise",
    "Stream",
    "TextbookParams",
    "batched",
    "drop_weights",
    "engines",
    "from_config",
    "from_textbook",
    "gates_of",
    "gradflow",
    "initial_states",
    "lstm",
    "lstm_step",
    "params_from",
    "register_cell",
    "sample",
    "state_from",
    "step",
    "stream",
    "tbptt",
    "to_config",
    "to_textbook",
    "unroll",
    "unroll_states",
]
