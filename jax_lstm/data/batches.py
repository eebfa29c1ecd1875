"""Which rows are in the batch of a step, and how ragged sequences are run without much padding.

    epoch, place  = divmod(step, N // size)         an endless sequence of epochs, each with a new shuffle
    rows of batch = size rows of similar length     sort the rows of some batches by length, then shuffle the batches

All is a pure function of the key and the step, so a run can resume from its step alone. For large N, no list of all
rows is shuffled at every step: π, a random permutation of 0 to N − 1, is computed only at the places that a batch
needs, by a Feistel network (Luby & Rackoff 1988). A value that is not below N goes through the network again (Black &
Rogaway 2002).

    (l, r) → (r, l ⊕ F_k(r))                        one round, on the two halves of the bits of a number
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, UInt32

from jax_lstm.data.batch import Batch

SORTED = 16  # batches whose rows are sorted by length together
SHUFFLED = 4096  # up to this many rows are shuffled as a list
ROUNDS = 8
ALIKE = 0.9  # a length of at least this share of the next one is left out: each length is compiled


def rows_of_step(key: Key[Array, ""], step: ArrayLike, size: int, lengths: ArrayLike) -> Int[Array, " size"]:
    """The rows of batch number `step`: an endless sequence of epochs, each with a new shuffle.

    A batch never spans two epochs: the rows left at the end of an epoch, fewer than a batch, are skipped. They are
    others in each epoch. Rows of similar length share a batch.

    Args:
        key: the data key, the same at every step.
        step: the number of the batch, from 0; may be traced.
        size: the number of rows in a batch. If there are fewer rows, a batch has all of them, and repeats some.
        lengths: (N,) the number of steps of each row.

    Returns:
        (size,) row numbers, int32.

    Raises:
        ValueError: there is no row, or size is less than 1.
    """
    lengths = jnp.asarray(lengths)
    N = lengths.shape[0]
    if N < 1 or size < 1:
        raise ValueError(f"rows_of_step: wanted at least 1 row and a size of at least 1, but got {N} and {size}")
    batches = max(1, N // size)
    step = jnp.asarray(step, jnp.int32)
    of_rows, of_batches = jax.random.split(jax.random.fold_in(key, step // batches))
    if size >= N:
        return _permuted(of_rows, jnp.arange(size, dtype=jnp.int32) % N, N)
    together = min(SORTED, batches)
    batch = _permuted(of_batches, step % batches, batches)
    places = batch // together * (together * size) + jnp.arange(together * size, dtype=jnp.int32)
    rows = _permuted(of_rows, jnp.minimum(places, N - 1), N)
    # Places after the last whole batch sort behind all others, where no batch takes them.
    order = jnp.argsort(jnp.where(places < batches * size, lengths[rows], jnp.iinfo(lengths.dtype).max))
    return rows[jax.lax.dynamic_slice_in_dim(order, batch % together * size, size)]


def _permuted(key: Key[Array, ""], places: Int[Array, "*B"], N: int) -> Int[Array, "*B"]:
    """π(places) for a random permutation π of 0 to N − 1."""
    if N <= SHUFFLED:
        return jax.random.permutation(key, N).astype(jnp.int32)[places]
    bits = (N - 1).bit_length()
    low = bits // 2
    keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def network(v: UInt32[Array, "*B"]) -> UInt32[Array, "*B"]:
        widths = (bits - low, low)  # of the left and the right half; they change places in each round
        l, r = v >> low, v & ((1 << low) - 1)
        for k in range(ROUNDS):
            l, r = r, (l ^ _mixed(r ^ keys[k])) & ((1 << widths[0]) - 1)
            widths = widths[::-1]
        return l << widths[1] | r

    def again(v: UInt32[Array, "*B"]) -> UInt32[Array, "*B"]:
        return jnp.where(v < N, v, network(v))

    first = network(places.astype(jnp.uint32))
    return jax.lax.while_loop(lambda v: (v >= N).any(), again, first).astype(jnp.int32)


def _mixed(v: UInt32[Array, "*B"]) -> UInt32[Array, "*B"]:
    """A hash of 32 bits: multiply by odd constants, and mix high bits into low ones."""
    v = (v ^ (v >> 16)) * np.uint32(0x7FEB352D)
    v = (v ^ (v >> 15)) * np.uint32(0x846CA68B)
    return v ^ (v >> 16)


def cut(batch: Batch, length: int) -> Batch:
    """The first `length` steps of a batch; targets of whole sequences stay as they are."""
    mask = None if batch.mask is None else batch.mask[:, :length]
    if batch.weights is None or batch.weights.ndim == 1:
        return batch._replace(xs=batch.xs[:, :length], mask=mask)
    return Batch(batch.xs[:, :length], batch.targets[:, :length], mask, batch.weights[:, :length])


def few_lengths(lengths: Any, count: int = 4) -> tuple[int, ...]:
    """The few lengths to which batches are cut: quantiles of the lengths of the sequences.

    Args:
        lengths: (N,) the number of steps of each sequence.
        count: how many lengths, at most. Each is compiled. A length close to the next larger one is left out.

    Returns:
        Lengths in ascending order; the last is that of the longest sequence.

    Raises:
        ValueError: there is no sequence.
    """
    lengths = np.sort(np.asarray(lengths))
    if not len(lengths):
        raise ValueError("few_lengths: wanted at least one length, but got none")
    chosen = [max(1, int(lengths[-1]))]
    for k in range(count - 1, 0, -1):
        length = int(lengths[-(-len(lengths) * k // count) - 1])
        if 0 < length < ALIKE * chosen[0]:
            chosen.insert(0, length)
    return tuple(chosen)


def shortest(fn: Callable[..., Any], lengths: Sequence[int]) -> Callable[..., Any]:
    """Run a function of a batch on the shortest of a few lengths that holds every sequence of the batch.

    As if by::

        longest = 1 + the last step of any sequence in batch.mask
        return fn(params, cut(batch, min(length for length in lengths if length >= longest)), *args)

    The lengths are branches of one compiled program, and only one branch runs. Under `jax.vmap` over params or keys one
    branch runs for all: the shortest that holds every sequence.

    Args:
        fn: a function (params, batch, *args). What it returns must have the same shapes for every length.
        lengths: the lengths in ascending order. The last holds every sequence, and batches have that many steps.

    Returns:
        A function of the same arguments. It calls `fn` on the whole batch if the batch has no mask.
    """
    if len(lengths) == 1:
        return fn

    def run(params: Any, batch: Batch, *args: Any) -> Any:
        if batch.mask is None:
            return fn(params, batch, *args)
        steps = jnp.arange(1, batch.mask.shape[1] + 1, dtype=jnp.int32)
        longest = jnp.max(jnp.where(batch.mask, steps[None], 0))
        branch = _largest_of_all(jnp.searchsorted(jnp.asarray(lengths[:-1], jnp.int32), longest))
        branches = [lambda p, b, *a, length=length: fn(p, cut(b, length), *a) for length in lengths]
        return jax.lax.switch(branch, branches, params, batch, *args)

    return run


@custom_vmap
def _largest_of_all(branch: Int[Array, ""]) -> Int[Array, ""]:
    """The same number; under `jax.vmap` the largest, which is then one number for all, so that one branch runs."""
    return branch


@_largest_of_all.def_vmap
def _(axis_size: int, in_batched: list[bool], branch: Int[Array, " n"]) -> tuple[Int[Array, ""], bool]:
    return (_largest_of_all(jnp.max(branch)), False) if in_batched[0] else (_largest_of_all(branch), False)
