"""Training tasks: one per file, each with the protocol `Task` (base.py) and registered by its name (registry.py)."""

from jax_lstm.registry import register_namedtuples
from jax_lstm.tasks.adding import Adding
from jax_lstm.tasks.base import Batch, Continues, ReadsTokens, Split, Task
from jax_lstm.tasks.byte_streams import ByteStreams
from jax_lstm.tasks.bytes import Bytes
from jax_lstm.tasks.continual_reber import ContinualReber
from jax_lstm.tasks.copy_memory import CopyMemory
from jax_lstm.tasks.digits import Digits
from jax_lstm.tasks.group_product import GroupProduct, Parity
from jax_lstm.tasks.long_lag import LongLag
from jax_lstm.tasks.lorenz import Lorenz
from jax_lstm.tasks.marked_numbers import MarkedNumbers
from jax_lstm.tasks.reber import Reber
from jax_lstm.tasks.registry import TASKS, register_task, task_class
from jax_lstm.tasks.series import Series
from jax_lstm.tasks.temporal_order import TemporalOrder
from jax_lstm.tasks.text import Text
from jax_lstm.tasks.timing import Timing
from jax_lstm.tasks.two_classes import TwoClasses

register_namedtuples(__name__)

__all__ = [
    "TASKS",
    "Adding",
    "Batch",
    "ByteStreams",
    "Bytes",
    "ContinualReber",
    "Continues",
    "CopyMemory",
    "Digits",
    "GroupProduct",
    "LongLag",
    "Lorenz",
    "MarkedNumbers",
    "Parity",
    "ReadsTokens",
    "Reber",
    "Series",
    "Split",
    "Task",
    "TemporalOrder",
    "Text",
    "Timing",
    "TwoClasses",
    "register_task",
    "task_class",
]
