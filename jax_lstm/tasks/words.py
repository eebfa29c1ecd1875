"""State tracking: the product of group elements so far (Barrington 1989; Merrill, Petty & Sabharwal 2024).

    x_t = one-hot of g_t, an element of the group drawn at random
    y_t = g_1 g_2 … g_t

    Z2     addition modulo 2: parity (Delétang et al. 2022)
    Z60    addition modulo 60; it can be computed in parallel, by a sum
    A5     the even permutations of five things, also 60: the smallest group that is not solvable, so that no model of
           constant depth with parallel steps tracks it (unless TC⁰ = NC¹)

Parity is asked for after the last step, and tested at lengths that training did not have. Of the larger groups the
product is asked for at every step, and training begins with the first steps: a step more counts every so many batches.
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

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh


@cache
def table(group: Literal["Z2", "Z60", "A5"]) -> Int[np.ndarray, "n n"]:
    """The Cayley table: entry (a, b) is the number of a b; 0 is the neutral element."""
    if group != "A5":
        n = int(group[1:])
        return (np.arange(n)[:, None] + np.arange(n)) % n
    even = [p for p in itertools.permutations(range(5)) if _is_even(p)]
    number = {p: i for i, p in enumerate(even)}
    return np.array([[number[tuple(a[i] for i in b)] for b in even] for a in even])


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0


def products(group: Literal["Z2", "Z60", "A5"], elements: Int[Array, "T"]) -> Int[Array, "T"]:
    """g_1 … g_t for every t."""
    cayley = jnp.asarray(table(group))

    def body(product: Int[Array, ""], g: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        product = cayley[product, g]
        return product, product

    return jax.lax.scan(body, jnp.zeros((), cayley.dtype), elements)[1]


@dataclass(frozen=True)
class Parity(Fresh):
    """Whether the number of ones is odd, after the last bit.

    Trained on 1 to 40 bits, scored on 41 to 256.
    """

    input_size = 2
    output_size = 2
    loss = "cross_entropy"
    metric = "accuracy"
    maximise = True
    baseline = 0.5
    trained, scored = (1, 40), (41, 256)

    @property
    def length(self) -> int:
        """256, the longest."""
        return self.scored[1]

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Fresh short sequences at every step."""
        return _parity(jax.random.fold_in(key, step), size, *self.trained)

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` long sequences: xs (size, 256, 2), targets (size,), and the mask of their lengths."""
        return _parity(key, size, *self.scored)


def _parity(key: Key[Array, ""], size: int, shortest: int, longest: int) -> Batch:
    key_bits, key_n = jax.random.split(key)
    n = jax.random.randint(key_n, (size,), shortest, longest + 1)
    live = jnp.arange(longest)[None] < n[:, None]
    bits = jnp.where(live, jax.random.randint(key_bits, (size, longest), 0, 2), 0)
    xs = jnp.where(live[..., None], jax.nn.one_hot(bits, 2, dtype=jnp.float32), 0)
    return Batch(xs, (bits.sum(axis=1) % 2).astype(jnp.int32), live)


@dataclass(frozen=True)
class Words(Fresh):
    """The word problem of a group of order 60, at every step.

    Args:
        group: Z60 or A5.
        trained: steps of a training sequence.
        scored: steps of a validation or test sequence.
        ramp: batches until one step more counts; two do at first.

    Raises:
        ValueError: another group, or a number below 1.
    """

    group: Literal["Z60", "A5"]
    trained: int = 16
    scored: int = 32
    ramp: int = 200

    input_size = 60
    output_size = 60
    loss = "cross_entropy"
    metric = "accuracy"
    maximise = True
    baseline = 1 / 60
    validation_size, test_size = 512, 1_024

    def __post_init__(self):
        if self.group not in ("Z60", "A5"):
            raise ValueError(f"Words: group must be Z60 or A5, but is {self.group!r}")
        for name in ("trained", "scored", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"Words: {name} must be at least 1, but is {getattr(self, name)}")

    @property
    def length(self) -> int:
        """The steps of the longest sequence."""
        return max(self.trained, self.scored)

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Fresh sequences at every step, of which the first steps count."""
        batch = self._words(jax.random.fold_in(key, step), size, self.trained)
        counted = jnp.arange(self.trained) < 2 + jnp.asarray(step) // self.ramp
        return batch._replace(weights=jnp.broadcast_to(counted.astype(jnp.float32), batch.targets.shape))

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` sequences: xs (size, scored, 60), targets and weights (size, scored)."""
        return self._words(key, size, self.scored)

    def _words(self, key: Key[Array, ""], size: int, steps: int) -> Batch:
        g = jax.random.randint(key, (size, steps), 0, 60)
        ys = jax.vmap(lambda one: products(self.group, one))(g)
        xs = jax.nn.one_hot(g, 60, dtype=jnp.float32)
        return Batch(xs, ys.astype(jnp.int32), weights=jnp.ones((size, steps), jnp.float32))
