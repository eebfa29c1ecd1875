"""Base class of tasks that generate their sequences: new ones for training, fixed ones for validation and test."""

from abc import ABC, abstractmethod
from functools import partial

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch

VALIDATION_SEED, TEST_SEED = 1_000_001, 1_000_002


class GeneratedTask(ABC):
    """Base class of generated tasks; a subclass implements `sequences`."""

    validation_size = 512
    test_size = 2_560

    @abstractmethod
    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences from a key."""

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """`size` new sequences at every step."""
        return self.sequences(jax.random.fold_in(key, step), size)

    def validation(self) -> Batch:
        """`validation_size` fixed sequences."""
        return _sequences(self, jax.random.key(VALIDATION_SEED), self.validation_size)

    def test(self) -> Batch:
        """`test_size` fixed sequences, drawn from another key than those of validation."""
        return _sequences(self, jax.random.key(TEST_SEED), self.test_size)


# Jitted with the task as a static argument, so that equal tasks share one program. Without jit, every operation would
# be compiled on its own.
@partial(jax.jit, static_argnums=(0, 2))
def _sequences(task: GeneratedTask, key: Key[Array, ""], size: int) -> Batch:
    return task.sequences(key, size)
