"""Check arrays, or lists of arrays, and store them as `Sequences`.

    inputs     (N, T, I) numbers, or (N, T) tokens; or a list of N arrays (T, I), or (T,) tokens
    targets    (N, O) numbers or (N,) classes after the last step; or (N, T, O) or (N, T) at every step. For a list of
               inputs, those at every step are a list of arrays (T, O) or (T,)
    lengths    (N,), or mask (N, T): which steps of arrays are padding
    weights    of the shape of the targets without O

No array is copied that already has a dtype of at most 32 bits.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from jax_lstm.data.sequences import Sequences
from jax_lstm.data.targets import with_targets
from jax_lstm.data.values import Wanted, array_of, check_inputs, shares, stored


def sequences_of(
    want: Wanted, inputs: Any, targets: Any = None, *, lengths: Any = None, mask: Any = None, weights: Any = None
) -> Sequences:
    """Check data and store them; the docstring of the module lists the shapes.

    Args:
        want: what the data must be.
        inputs, targets, lengths, mask, weights: the data. `targets` None: inputs only, to predict.

    Returns:
        The sequences, as NumPy arrays that share memory with the arguments where possible.

    Raises:
        ValueError: a shape or a value is wrong; the message names the argument, and the place of a wrong value.
        TypeError: an argument is not an array of numbers.
    """
    ragged = isinstance(inputs, list | tuple)
    data = _listed(want, inputs, lengths, mask) if ragged else _padded(want, inputs, lengths, mask)
    check_inputs(want, data, ragged)
    if shares(data.xs, inputs):
        data = replace(data, shared=data.shared | {"xs"})
    if targets is None:
        return data
    data = with_targets(want, data, targets, weights, None if ragged else int(np.shape(inputs)[1]))
    if not data.every_step and (data.lengths == 0).any():
        raise ValueError(
            want.error("inputs", f"must have at least 1 step in every sequence, since the targets belong to the last "
                       f"step, but row {int(data.lengths.argmin())} has none; leave the row out")
        )  # fmt: skip
    return data


def _padded(want: Wanted, inputs: Any, lengths: Any, mask: Any) -> Sequences:
    """Sequences of one array; padding is stored too."""
    xs = array_of(want, "inputs", inputs)
    axes, shape = ("(N, T) tokens", 2) if want.vocabulary is not None else ("(N, T, I)", 3)
    if xs.ndim != shape:
        advice = "inputs[..., None] for one feature, inputs[None] for one sequence (T, I)" if xs.ndim == 2 else ""
        if xs.ndim == 2 and np.issubdtype(xs.dtype, np.integer):
            advice += ", or a jl.Model with a vocabulary for tokens"
        raise ValueError(
            want.error(
                "inputs", f"must have the shape {axes}, but have {xs.shape}" + (f"; pass {advice}" * bool(advice))
            )
        )
    N, T = xs.shape[:2]
    if N == 0 or T == 0:
        raise ValueError(
            want.error("inputs", f"must have at least 1 sequence and 1 step, but have the shape {xs.shape}")
        )
    if lengths is not None and mask is not None:
        raise ValueError(want.error("lengths", "and mask were both given; give one of them"))
    counts, kept = np.full(N, T, np.int32), None
    if lengths is not None:
        counts = array_of(want, "lengths", lengths)
        if counts.shape != (N,) or not np.issubdtype(counts.dtype, np.integer):
            raise ValueError(
                want.error("lengths", f"must be {N} integers, one per sequence, but have the shape {counts.shape} and "
                           f"hold {counts.dtype}")
            )  # fmt: skip
        if (bad := (counts < 0) | (counts > T)).any():
            row = int(bad.argmax())
            raise ValueError(want.error("lengths", f"must be from 0 to {T}, but are {counts[row]} in row {row}"))
        counts = counts.astype(np.int32)
    if mask is not None:
        kept = array_of(want, "mask", mask)
        if kept.dtype != np.bool_ or kept.shape != (N, T):
            raise ValueError(
                want.error("mask", f"must be bools of the shape {(N, T)}, False at padding, but has the shape "
                           f"{kept.shape} and holds {kept.dtype}; for lengths pass lengths=")
            )  # fmt: skip
        counts = np.where(kept.any(axis=1), T - kept[:, ::-1].argmax(axis=1), 0).astype(np.int32)
        kept = None if (kept.sum(axis=1) == counts).all() else kept.reshape(-1)
    length = max(1, int(counts.max()))
    even = kept is None and bool((counts == length).all())
    return Sequences(
        _flat(want, xs.reshape(N * T, *xs.shape[2:])), _starts(want, np.full(N, T)), counts, length, even, mask=kept
    )


def _listed(want: Wanted, inputs: Any, lengths: Any, mask: Any) -> Sequences:
    """Sequences of a list of arrays, one after another."""
    if lengths is not None or mask is not None:
        raise ValueError(
            want.error("lengths" if mask is None else "mask", "must be None for a list of sequences, which has its own "
                       "lengths; leave it out")
        )  # fmt: skip
    if not len(inputs):
        raise ValueError(want.error("inputs", "must have at least 1 sequence, but is an empty list"))
    arrays = [array_of(want, f"inputs[{n}]", x) for n, x in enumerate(inputs)]
    axes, ndim = ("(T,) tokens", 1) if want.vocabulary is not None else ("(T, I)", 2)
    for n, x in enumerate(arrays):
        if x.ndim != ndim:
            advice = f"; pass inputs[{n}][:, None] for one feature" if x.ndim == 1 else ""
            raise ValueError(want.error(f"inputs[{n}]", f"must have the shape {axes}, but has {x.shape}{advice}"))
        if x.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                want.error(f"inputs[{n}]", f"must have {arrays[0].shape[1]} features, as inputs[0] has, but has "
                           f"{x.shape[1]}")
            )  # fmt: skip
    counts = np.array([len(x) for x in arrays], np.int32)
    length = max(1, int(counts.max()))
    xs = _flat(want, stored(arrays))
    xs = xs if len(xs) else np.zeros((1, *xs.shape[1:]), xs.dtype)
    return Sequences(xs, _starts(want, counts), counts, length, bool((counts == length).all()))


def _flat(want: Wanted, xs: np.ndarray) -> np.ndarray:
    if want.vocabulary is not None and not np.issubdtype(xs.dtype, np.integer):
        raise TypeError(want.error("inputs", f"must be tokens, which are integers, but hold {xs.dtype}; cast them"))
    if want.features is not None and xs.shape[1] != want.features:
        raise ValueError(
            want.error("inputs", f"have {xs.shape[1]} features on their last axis, but the cell takes {want.features}")
        )
    return stored([xs])


def _starts(want: Wanted, sizes: np.ndarray) -> np.ndarray:
    ends = np.cumsum(sizes, dtype=np.int64)
    if ends[-1] >= 2**31:
        raise ValueError(want.error("inputs", f"must have fewer than 2³¹ steps together, but have {ends[-1]:,}"))
    return (ends - sizes).astype(np.int32)
