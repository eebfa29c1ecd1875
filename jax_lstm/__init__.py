"""LSTM, GRU and other recurrent networks for JAX, as pure functions of arrays.

A cell such as `LSTM` holds Python options only. Its weights and its state are NamedTuples of arrays, passed in and
returned. Functions take one sequence xs of shape (T, I); `batched` makes them take a batch.

    cells       LSTM, GRU, RNN, JANET, MinLSTM, MinGRU, SLSTM; `Cell` and `SplitCell` describe your own
    running     unroll (a sequence), batched (a batch), step (one step), stream (compiled steps), tbptt (truncated
                backpropagation through time), unroll_states, gates_of; lstm and lstm_step need no cell
    layers      Stack, Bidirectional, Dropout, LearnedState, Embedding, Readout, Model, sample
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

from jax_lstm import gradflow as gradflow
from jax_lstm.batch import batched as batched
from jax_lstm.cells.base import Cell as Cell
from jax_lstm.cells.base import SplitCell as SplitCell
from jax_lstm.cells.gru import GRU as GRU
from jax_lstm.cells.gru import GRUParams as GRUParams
from jax_lstm.cells.gru import GRUState as GRUState
from jax_lstm.cells.janet import JANET as JANET
from jax_lstm.cells.janet import JANETParams as JANETParams
from jax_lstm.cells.janet import JANETState as JANETState
from jax_lstm.cells.lstm import LSTM as LSTM
from jax_lstm.cells.lstm import LSTMParams as LSTMParams
from jax_lstm.cells.lstm import LSTMState as LSTMState
from jax_lstm.cells.lstm import LSTMVariantParams as LSTMVariantParams
from jax_lstm.cells.min_gru import MinGRU as MinGRU
from jax_lstm.cells.min_gru import MinGRUParams as MinGRUParams
from jax_lstm.cells.min_gru import MinGRUState as MinGRUState
from jax_lstm.cells.min_lstm import MinLSTM as MinLSTM
from jax_lstm.cells.min_lstm import MinLSTMParams as MinLSTMParams
from jax_lstm.cells.min_lstm import MinLSTMState as MinLSTMState
from jax_lstm.cells.rnn import RNN as RNN
from jax_lstm.cells.rnn import RNNParams as RNNParams
from jax_lstm.cells.rnn import RNNState as RNNState
from jax_lstm.cells.slstm import SLSTM as SLSTM
from jax_lstm.cells.slstm import SLSTMParams as SLSTMParams
from jax_lstm.cells.slstm import SLSTMState as SLSTMState
from jax_lstm.cells.textbook import TextbookParams as TextbookParams
from jax_lstm.cells.textbook import from_textbook as from_textbook
from jax_lstm.cells.textbook import to_textbook as to_textbook
from jax_lstm.gates import Gates as Gates
from jax_lstm.layers.bidirectional import Bidirectional as Bidirectional
from jax_lstm.layers.bidirectional import BothWays as BothWays
from jax_lstm.layers.config import from_config as from_config
from jax_lstm.layers.config import to_config as to_config
from jax_lstm.layers.dropout import Dropout as Dropout
from jax_lstm.layers.dropout import drop_weights as drop_weights
from jax_lstm.layers.embedding import Embedding as Embedding
from jax_lstm.layers.embedding import EmbeddingParams as EmbeddingParams
from jax_lstm.layers.learned import LearnedParams as LearnedParams
from jax_lstm.layers.learned import LearnedState as LearnedState
from jax_lstm.layers.model import Model as Model
from jax_lstm.layers.model import ModelParams as ModelParams
from jax_lstm.layers.readout import Readout as Readout
from jax_lstm.layers.readout import ReadoutParams as ReadoutParams
from jax_lstm.layers.sampling import sample as sample
from jax_lstm.layers.stack import Stack as Stack
from jax_lstm.sequence import gates_of as gates_of
from jax_lstm.sequence import lstm as lstm
from jax_lstm.sequence import lstm_step as lstm_step
from jax_lstm.sequence import step as step
from jax_lstm.sequence import tbptt as tbptt
from jax_lstm.sequence import unroll as unroll
from jax_lstm.sequence import unroll_states as unroll_states
from jax_lstm.stream import Stream as Stream
from jax_lstm.stream import stream as stream
