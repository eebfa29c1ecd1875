"""What the tasks have in common that draw their sequences: fresh ones to train on, fixed ones to score on."""

from abc import ABC, abstractmethod
from functools import partial

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch

VALIDATION_SEED, TEST_SEED = 1_000_001, 1_000_002


class Fresh(ABC):
    """A task that says how `size` sequences are drawn from a key; everything else follows."""

    validation_size = 512
    test_size = 2_560

    @abstractmethod
    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` sequences."""

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Fresh sequences at every step."""
        return self.sequences(jax.random.fold_in(key, step), size)

    def validation(self) -> Batch:
        """Fixed sequences."""
        return _sequences(self, jax.random.key(VALIDATION_SEED), self.validation_size)

    def test(self) -> Batch:
        """Fixed sequences, other than the validation ones."""
        return _sequences(self, jax.random.key(TEST_SEED), self.test_size)


# In one program, and once for equal tasks: op by op every one of them would be compiled, at every call.
@partial(jax.jit, static_argnums=(0, 2))
def _sequences(task: Fresh, key: Key[Array, ""], size: int) -> Batch:
    return task.sequences(key, size)
