"""The n-gram model of bytes: what a next byte costs that is foretold by counting.

    p_k(b | c) = (n(c b) + t(c) p_{k−1}(b | c')) / (n(c) + t(c))        c: the k bytes before b; c': all but the first
    p_{−1}(b)  = 1 / 256

n(c b) counts how often b followed c in the training text, n(c) = Σ_b n(c b), and t(c) how many different bytes did.
These are the weights of method C of Witten & Bell (1991, "The zero-frequency problem"), mixed with the lower orders
rather than used instead of them; of a c that was never seen the lower order is kept. The order is k: of 3, a byte is
foretold from the three before it.
"""

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt64

LARGEST = 7  # orders whose k + 1 bytes still fit into 64 bits


def bits_per_byte(train: UInt8[np.ndarray, " n"], streams: UInt8[np.ndarray, "B L"], order: int = 3) -> float:
    """−log2 p, the mean over the bytes of the streams after the first of each."""
    return float(-np.log2(probabilities(train, streams, order)[:, 1:]).mean())


def probabilities(
    train: UInt8[np.ndarray, " n"], streams: UInt8[np.ndarray, "B L"], order: int = 3
) -> Float[np.ndarray, "B L"]:
    """p of each byte after the `order` bytes before it, or as many as its stream has.

    Raises:
        ValueError: an order that is not from 0 to 7, or a training text of no more bytes than that.
    """
    if not 0 <= order <= LARGEST:
        raise ValueError(f"ngram: order must be from 0 to {LARGEST}, but is {order}")
    if len(train) <= order:
        raise ValueError(f"ngram: train must have more than {order} bytes, but has {len(train)}")
    p = np.full(streams.shape, 1 / 256)
    for k in range(min(order + 1, streams.shape[1])):
        grams, n = np.unique(_grams(train, k + 1), return_counts=True)
        contexts, first, t = np.unique(grams >> 8, return_index=True, return_counts=True)
        asked = _grams(streams, k + 1)
        n_cb = _found(grams, n, asked)
        n_c, t_c = (_found(contexts, values, asked >> 8) for values in (np.add.reduceat(n, first), t))
        seen, lower = n_c > 0, p[:, k:]
        p[:, k:] = np.where(seen, (n_cb + t_c * lower) / np.where(seen, n_c + t_c, 1), lower)
    return p


def _grams(text: UInt8[np.ndarray, "*B L"], size: int) -> UInt64[np.ndarray, "*B M"]:
    """Every `size` bytes in a row, as one number whose last eight bits are the last byte."""
    count = text.shape[-1] - size + 1
    grams = np.zeros((*text.shape[:-1], count), np.uint64)
    for i in range(size):
        grams = grams << 8 | text[..., i : i + count]
    return grams


def _found(
    keys: UInt64[np.ndarray, " K"], values: Shaped[np.ndarray, " K"], asked: UInt64[np.ndarray, "*B"]
) -> Shaped[np.ndarray, "*B"]:
    """The values of what was asked for; `keys` ascend; 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)
