"""Training: a pure step (step.py), a loop around it (loop.py), and the files of a run. Takes any pure loss function."""

from jax_lstm.registry import register_namedtuples
from jax_lstm.train.checkpoint import Checkpoints
from jax_lstm.train.config import OptConfig, TrainConfig, learning_rate, optimizer
from jax_lstm.train.devices import count_devices
from jax_lstm.train.loop import NotFiniteError, fit
from jax_lstm.train.metrics import read_metrics
from jax_lstm.train.run_dir import open_run, read_config
from jax_lstm.train.step import Best, Problem, Report, TrainState, init_state

register_namedtuples(__name__)

__all__ = [
    "Best",
    "Checkpoints",
    "NotFiniteError",
    "OptConfig",
    "Problem",
    "Report",
    "TrainConfig",
    "TrainState",
    "count_devices",
    "fit",
    "init_state",
    "learning_rate",
    "open_run",
    "optimizer",
    "read_config",
    "read_metrics",
]
