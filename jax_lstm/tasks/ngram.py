"""An n-gram model of bytes with Witten-Bell smoothing, to compare networks with.

    p_k(b | c) = (n(c b) + t(c) p_{k−1}(b | c')) / (n(c) + t(c))        c: the k bytes before b; c': all but the first
    p_{−1}(b)  = 1 / 256

n(c b) is how often b follows c in the training text, n(c) = Σ_b n(c b), and t(c) is the number of different bytes that
follow c. The weights are those of method C of Witten & Bell (1991, "The zero-frequency problem"), here used to mix each
order with the lower ones. For a c that was never seen, p_k is p_{k−1}. The order is k: order 3 predicts a byte from the
three bytes before it.
"""

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt64

LARGEST = 7  # the largest order whose k + 1 bytes fit into 64 bits


def bits_per_byte(train: UInt8[np.ndarray, " n"], streams: UInt8[np.ndarray, "B L"], order: int = 3) -> float:
    """The mean of −log2 p over the bytes of the streams, except the first byte of each.

    Args:
        train: the training text, (n,) bytes.
        streams: B streams of L bytes, (B, L).
        order: the order of the model, 0 to 7.
    """
    return float(-np.log2(probabilities(train, streams, order)[:, 1:]).mean())


def probabilities(
    train: UInt8[np.ndarray, " n"], streams: UInt8[np.ndarray, "B L"], order: int = 3
) -> Float[np.ndarray, "B L"]:
    """The probability of each byte, given the `order` bytes before it (fewer at the start of a stream).

    Args:
        train: the training text, (n,) bytes.
        streams: B streams of L bytes, (B, L).
        order: the order of the model, 0 to 7.

    Returns:
        Probabilities (B, L).

    Raises:
        ValueError: order is not from 0 to 7, or train has `order` bytes or fewer.
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
    """Every run of `size` bytes as one integer, whose lowest 8 bits are the last byte."""
    count = text.shape[-1] - size + 1
    grams = np.zeros((*text.shape[:-1], count), np.uint64)
    for i in range(size):
        grams = grams << 8 | text[..., i : i + count]
    return grams


def _found(
    keys: UInt64[np.ndarray, " K"], values: Shaped[np.ndarray, " K"], asked: UInt64[np.ndarray, "*B"]
) -> Shaped[np.ndarray, "*B"]:
    """The value of each asked key; 0 where the key is missing; `keys` are sorted."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)
