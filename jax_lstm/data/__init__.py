"""Data of your own: batches, scaling, splits, and the order in which rows are trained on."""

from jax_lstm.data.batch import Batch
from jax_lstm.data.batches import cut, few_lengths, rows_of_step, shortest
from jax_lstm.data.scaling import Scaling, fit_scaling
from jax_lstm.data.split import split_rows, split_steps
from jax_lstm.registry import register_namedtuples

register_namedtuples(__name__)

__all__ = [
    "Batch",
    "Scaling",
    "cut",
    "few_lengths",
    "fit_scaling",
    "rows_of_step",
    "shortest",
    "split_rows",
    "split_steps",
]
