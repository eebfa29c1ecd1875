"""Training: a pure step (step.py), a loop around it (loop.py), and the files of a run. Takes any pure loss function."""

from jax_lstm.registry import register_namedtuples
from jax_lstm.train.checkpoint import Checkpoints
from jax_lstm.train.config import OptConfig, TrainConfig, learning_rate, optimizer
from jax_lstm.train.devices import count_devices
from jax_lstm.train.finite import NotFiniteError
from jax_lstm.train.hooks import Hook, TensorBoard
from jax_lstm.train.loop import fit
from jax_lstm.train.metrics import read_metrics
from jax_lstm.train.predictor import Predictor
from jax_lstm.train.problem import Problem
from jax_lstm.train.run import Run, load, save
from jax_lstm.train.run_dir import open_run, read_config
from jax_lstm.train.source import SourceError
from jax_lstm.train.state import Best, TrainState, init_state
from jax_lstm.train.step import Report
from jax_lstm.train.supervised import supervised

register_namedtuples(__name__)

__all__ = [
    "Best",
    "Checkpoints",
    "Hook",
    "NotFiniteError",
    "OptConfig",
    "Predictor",
    "Problem",
    "Report",
    "Run",
    "SourceError",
    "TensorBoard",
    "TrainConfig",
    "TrainState",
    "count_devices",
    "fit",
    "init_state",
    "learning_rate",
    "load",
    "open_run",
    "optimizer",
    "read_config",
    "read_metrics",
    "save",
    "supervised",
]
