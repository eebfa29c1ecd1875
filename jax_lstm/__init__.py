"""jax_lstm: recurrent cells for JAX research code, unrolled fast, differentiated in every way, and measured."""

from jax_lstm import gradflow as gradflow
from jax_lstm.batch import batched as batched
from jax_lstm.cells.base import Cell as Cell
from jax_lstm.cells.base import SplitCell as SplitCell
from jax_lstm.cells.config import from_config as from_config
from jax_lstm.cells.config import to_config as to_config
from jax_lstm.cells.gru import GRU as GRU
from jax_lstm.cells.gru import GRUParams as GRUParams
from jax_lstm.cells.gru import GRUState as GRUState
from jax_lstm.cells.lstm import LSTM as LSTM
from jax_lstm.cells.lstm import LSTMParams as LSTMParams
from jax_lstm.cells.lstm import LSTMState as LSTMState
from jax_lstm.cells.lstm import TextbookParams as TextbookParams
from jax_lstm.cells.lstm import from_textbook as from_textbook
from jax_lstm.cells.lstm import to_textbook as to_textbook
from jax_lstm.cells.rnn import RNN as RNN
from jax_lstm.cells.rnn import RNNParams as RNNParams
from jax_lstm.cells.rnn import RNNState as RNNState
from jax_lstm.gates import Gates as Gates
from jax_lstm.sequence import gates_of as gates_of
from jax_lstm.sequence import lstm as lstm
from jax_lstm.sequence import lstm_step as lstm_step
from jax_lstm.sequence import step as step
from jax_lstm.sequence import unroll as unroll
from jax_lstm.sequence import unroll_states as unroll_states
