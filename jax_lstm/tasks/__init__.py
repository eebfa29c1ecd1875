"""What is learned: one task a file, all of one protocol (base.py)."""

from jax_lstm.tasks.adding import Adding
from jax_lstm.tasks.base import Batch, Task
from jax_lstm.tasks.digits import Digits
from jax_lstm.tasks.long_lag import LongLag
from jax_lstm.tasks.marked import Marked
from jax_lstm.tasks.reber import Reber
from jax_lstm.tasks.temporal_order import TemporalOrder

__all__ = ["Adding", "Batch", "Digits", "LongLag", "Marked", "Reber", "Task", "TemporalOrder"]
