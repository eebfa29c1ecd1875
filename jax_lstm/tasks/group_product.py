"""State tracking: the running product of group elements (Barrington 1989; Merrill, Petty & Sabharwal 2024).

    x_t = one-hot of g_t, a random element of the group
    y_t = g_1 g_2 … g_t

    Z2     addition modulo 2: parity (Delétang et al. 2022)
    Z60    addition modulo 60; a sum, so it can be computed in parallel
    A5     the 60 even permutations of 5 elements: the smallest group that is not solvable, so no model of constant
           depth whose steps run in parallel can track it (unless TC⁰ = NC¹)

For parity (Z2) the only target is that of the last step, and test sequences are longer than training sequences. For Z60
and A5 the target is the product at every step. At first only the targets of the first two steps count in the training
loss; after every `ramp` batches one more step counts.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key

from jax_lstm.checks import shown
from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task


@cache
def table(group: Literal["Z2", "Z60", "A5"]) -> Int[np.ndarray, "n n"]:
    """The Cayley table of a group with n elements, (n, n): entry (a, b) is the index of a b; 0 is the identity."""
    if group != "A5":
        n = int(group[1:])
        return (np.arange(n)[:, None] + np.arange(n)) % n
    even = [p for p in itertools.permutations(range(5)) if _is_even(p)]
    number = {p: i for i, p in enumerate(even)}
    return np.array([[number[tuple(a[i] for i in b)] for b in even] for a in even])


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0


def products(group: Literal["Z2", "Z60", "A5"], elements: Int[Array, "T"]) -> Int[Array, "T"]:
    """The running products g_1 … g_t, for t = 1..T: indices of group elements (T,) -> (T,)."""
    cayley = jnp.asarray(table(group))

    def body(product: Int[Array, ""], g: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        product = cayley[product, g]
        return product, product

    return jax.lax.scan(body, jnp.zeros((), cayley.dtype), elements)[1]


@dataclass(frozen=True)
class Parity(GeneratedTask):
    """Whether the number of ones in a bit string is odd; trained on 1 to 40 bits, scored on 41 to 256."""

    input_size = 2
    output_size = 2
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True
    trained, scored = (1, 40), (41, 256)

    @property
    def length(self) -> int:
        """256, the bits of the longest sequence."""
        return self.scored[1]

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting "even"."""
        return {"chance": 0.5}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """New sequences at every step: xs (size, 40, 2), targets (size,), mask (size, 40)."""
        return _parity(jax.random.fold_in(key, step), size, *self.trained)

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences for scoring: xs (size, 256, 2), targets (size,), mask (size, 256)."""
        return _parity(key, size, *self.scored)


def _parity(key: Key[Array, ""], size: int, shortest: int, longest: int) -> Batch:
    key_bits, key_n = jax.random.split(key)
    n = jax.random.randint(key_n, (size,), shortest, longest + 1)
    live = jnp.arange(longest)[None] < n[:, None]
    bits = jnp.where(live, jax.random.randint(key_bits, (size, longest), 0, 2), 0)
    xs = jnp.where(live[..., None], jax.nn.one_hot(bits, 2, dtype=jnp.float32), 0)
    return Batch(xs, (bits.sum(axis=1) % 2).astype(jnp.int32), live)


@dataclass(frozen=True)
class GroupProduct(GeneratedTask):
    """The word problem of a group of 60 elements: the running product at every step.

    Args:
        group: "Z60" or "A5".
        trained: time steps of a training sequence.
        scored: time steps of a validation or test sequence.
        ramp: batches per further time step that counts in the loss; the first two count from the start.

    Raises:
        ValueError: group is neither, or a number is below 1.
    """

    group: Literal["Z60", "A5"]
    trained: int = 16
    scored: int = 32
    ramp: int = 200

    input_size = 60
    output_size = 60
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True
    validation_size, test_size = 512, 1_024

    def __post_init__(self):
        if self.group not in ("Z60", "A5"):
            raise ValueError(f"GroupProduct: group must be Z60 or A5, but is {shown(self.group)}")
        for name in ("trained", "scored", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"GroupProduct: {name} must be at least 1, but is {getattr(self, name)}")

    @property
    def length(self) -> int:
        """The steps of the longest sequence."""
        return max(self.trained, self.scored)

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting the same element."""
        return {"chance": 1 / 60}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """New sequences at every step: xs (size, trained, 60), targets and weights (size, trained).

        The weights are 1 at the time steps that count in the loss, else 0.
        """
        batch = self._products(jax.random.fold_in(key, step), size, self.trained)
        counted = jnp.arange(self.trained) < 2 + jnp.asarray(step) // self.ramp
        return batch._replace(weights=jnp.broadcast_to(counted.astype(jnp.float32), batch.targets.shape))

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences for scoring: xs (size, scored, 60), targets and weights (size, scored)."""
        return self._products(key, size, self.scored)

    def _products(self, key: Key[Array, ""], size: int, steps: int) -> Batch:
        g = jax.random.randint(key, (size, steps), 0, 60)
        ys = jax.vmap(lambda one: products(self.group, one))(g)
        xs = jax.nn.one_hot(g, 60, dtype=jnp.float32)
        return Batch(xs, ys.astype(jnp.int32), weights=jnp.ones((size, steps), jnp.float32))


def z60(trained: int = 16, scored: int = 32, ramp: int = 200) -> GroupProduct:
    """The word problem of Z60: the sum of the numbers so far, modulo 60, at every step.

    Args:
        trained: time steps of a training sequence.
        scored: time steps of a validation or test sequence.
        ramp: batches per further time step that counts in the loss; the first two count from the start.
    """
    return GroupProduct("Z60", trained, scored, ramp)


def a5(trained: int = 16, scored: int = 32, ramp: int = 200) -> GroupProduct:
    """The word problem of A5: the product of even permutations of 5 elements, at every step.

    Args:
        trained: time steps of a training sequence.
        scored: time steps of a validation or test sequence.
        ramp: batches per further time step that counts in the loss; the first two count from the start.
    """
    return GroupProduct("A5", trained, scored, ramp)


register_task("parity", Parity)
register_task("z60", z60)
register_task("a5", a5)
