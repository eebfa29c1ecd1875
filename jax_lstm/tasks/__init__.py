"""Training tasks: one per file, all with the protocol `Task` (base.py)."""

from jax_lstm.tasks.adding import Adding
from jax_lstm.tasks.base import Batch, Continues, HasRivals, ReadsTokens, Split, Task, rivals
from jax_lstm.tasks.bytes import Bytes
from jax_lstm.tasks.continual_reber import ContinualReber
from jax_lstm.tasks.copy_memory import CopyMemory
from jax_lstm.tasks.digits import Digits
from jax_lstm.tasks.long_lag import LongLag
from jax_lstm.tasks.lorenz import Lorenz
from jax_lstm.tasks.marked import Marked
from jax_lstm.tasks.noise import Noise
from jax_lstm.tasks.reber import Reber
from jax_lstm.tasks.temporal_order import TemporalOrder
from jax_lstm.tasks.timing import Timing
from jax_lstm.tasks.two_classes import TwoClasses
from jax_lstm.tasks.words import Parity, Words

__all__ = [
    "Adding",
    "Batch",
    "Bytes",
    "ContinualReber",
    "Continues",
    "CopyMemory",
    "Digits",
    "HasRivals",
    "LongLag",
    "Lorenz",
    "Marked",
    "Noise",
    "Parity",
    "ReadsTokens",
    "Reber",
    "Split",
    "Task",
    "TemporalOrder",
    "Timing",
    "TwoClasses",
    "Words",
    "rivals",
]
