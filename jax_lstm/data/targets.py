"""What targets and weights must be, and which targets count."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from jax_lstm.data.sequences import Sequences
from jax_lstm.data.values import Wanted, array_of, holds_floats, pieces, place_of, shares, stored, valid_places


def with_targets(want: Wanted, data: Sequences, targets: Any, weights: Any, T: int | None) -> Sequences:
    """Add targets and weights.

    Args:
        want: what the data must be.
        data: the inputs.
        targets, weights: as in arrays.py.
        T: the steps of an array of inputs; None: the inputs are a list.
    """
    t, every_step = _listed(want, data, targets) if T is None and isinstance(targets, list | tuple) else (None, False)
    if t is None:
        t = _numbers(want, array_of(want, "targets", targets))
        if t.shape[:1] != (len(data),):
            raise ValueError(
                want.error("targets", f"must have {len(data)} rows, one per sequence of inputs, but have the shape "
                           f"{t.shape}")
            )  # fmt: skip
        every_step = _is_every_step(want, t, T)
        t = t.reshape(-1, *t.shape[2:]) if every_step else t
    if holds_floats(t) and want.outputs is not None and t.shape[-1] != want.outputs:
        raise ValueError(
            want.error("targets", f"must have {want.outputs} numbers on their last axis, as the model has outputs, but "
                       f"have {t.shape[-1]}")
        )  # fmt: skip
    t = stored([t])
    data = replace(
        data, targets=t, every_step=every_step, shared=data.shared | {"targets"} if shares(t, targets) else data.shared
    )
    if weights is not None:
        data = replace(data, weights=_weights(want, data, weights, T), shared=data.shared | {"weights"})
    _check_targets(want, data, ragged=T is None)
    return data


def counts(data: Sequences) -> Bool[np.ndarray, "P_or_N"]:
    """Which targets count: not padding, weight above 0, and not NaN in every output."""
    t = data.targets
    assert isinstance(t, np.ndarray)
    yes = valid_places(data) if data.every_step else np.ones(len(data), bool)
    if data.weights is not None:
        yes &= np.asarray(data.weights) > 0
    if holds_floats(t):
        for first, piece in pieces(t):
            yes[first : first + len(piece)] &= ~np.isnan(piece).all(axis=-1)
    return yes


def rows_that_count(data: Sequences) -> Bool[np.ndarray, " N"]:
    """Which sequences have a target that counts."""
    yes = counts(data)
    if not data.every_step:
        return yes
    some = np.asarray(data.lengths) > 0
    found = np.zeros(len(data), bool)
    found[some] = np.logical_or.reduceat(yes, np.asarray(data.starts)[some]) if some.any() else False
    return found


def has_partial_rows(data: Sequences) -> bool:
    """Whether some, but not all, outputs of a target are missing."""
    t = data.targets
    return holds_floats(t) and any(
        bool((nan.any(axis=-1) & ~nan.all(axis=-1)).any()) for nan in (np.isnan(piece) for _, piece in pieces(t))
    )


def _numbers(want: Wanted, t: np.ndarray) -> np.ndarray:
    """Targets of the dtype that the loss takes."""
    if want.kind == "classes" and not np.issubdtype(t.dtype, np.integer):
        if t.dtype == np.bool_:
            return t.astype(np.int32)
        raise TypeError(
            want.error("targets", f"must be classes, which are integers, for this loss, but hold {t.dtype}; cast them "
                       "with astype(int), take argmax(-1) of one-hot vectors, or use a loss of numbers such as mse")
        )  # fmt: skip
    if want.kind == "numbers" and not holds_floats(t):
        if t.dtype == np.bool_:
            return t.astype(np.float32)
        raise TypeError(
            want.error("targets", f"must be floats for this loss, but hold {t.dtype}; cast them with "
                       "astype(np.float32), or use cross_entropy for classes")
        )  # fmt: skip
    return t.astype(np.float32) if t.dtype == np.bool_ else t


def _listed(want: Wanted, data: Sequences, targets: Any) -> tuple[np.ndarray | None, bool]:
    """Targets of a list of sequences; (None, False): one target per sequence, which make one array."""
    if len(targets) != len(data):
        raise ValueError(
            want.error("targets", f"must have one entry per sequence, {len(data)}, but have {len(targets)}")
        )
    if all(isinstance(t, int | float) for t in targets):  # classes, or numbers that lack an axis
        return None, False
    arrays = [_numbers(want, array_of(want, f"targets[{n}]", t)) for n, t in enumerate(targets)]
    ndim = 1 + holds_floats(arrays[0])
    if all(a.ndim == arrays[0].ndim < ndim for a in arrays):
        alike = arrays[0].ndim == 1 and all(len(a) == T for a, T in zip(arrays, data.lengths, strict=True))
        if alike and want.outputs != len(arrays[0]):
            raise ValueError(
                want.error("targets", "(T,) of a sequence of T steps may be one number per step, or T numbers after "
                           "the last step; for one number per step pass targets[n][:, None]")
            )  # fmt: skip
        return None, False
    for n, (a, T) in enumerate(zip(arrays, data.lengths.tolist(), strict=True)):
        if a.ndim != ndim or len(a) != T or a.shape[1:] != arrays[0].shape[1:]:
            axes = f"({T}, {arrays[0].shape[-1]})" if ndim == 2 and arrays[0].ndim == 2 else f"({T},)"
            raise ValueError(
                want.error(
                    f"targets[{n}]", f"must have the shape {axes}, as inputs[{n}] has {T} steps, but has {a.shape}"
                )
            )
    t = stored(arrays)
    return t if len(t) else np.zeros((1, *t.shape[1:]), t.dtype), True


def _is_every_step(want: Wanted, t: np.ndarray, T: int | None) -> bool:
    """Whether targets (N, ...) are one per step, (N, T, ...)."""
    rank = t.ndim - holds_floats(t)  # 1: one target per sequence; 2: one per step
    if rank == 0:
        raise ValueError(
            want.error(
                "targets", f"must have the shape (N, O), but have {t.shape}; pass targets[:, None], of a NumPy array"
            )
        )
    if rank == 1 and holds_floats(t) and T is not None and t.shape[1] == T > 1 and want.outputs != T:
        raise ValueError(
            want.error("targets", f"(N, T) = {t.shape} may be one number per step, or T numbers after the last step; "
                       "for one number per step pass targets[..., None], for T numbers a jl.Model with T outputs")
        )  # fmt: skip
    if rank == 1:
        return False
    if rank != 2 or T is None or t.shape[1] != T:
        form = "(N, O) or (N, T, O)" if holds_floats(t) else "(N,) or (N, T)"
        steps = "a list of arrays at every step, as the inputs are" if T is None else f"T = {T}"
        raise ValueError(want.error("targets", f"must have the shape {form} with {steps}, but have {t.shape}"))
    return True


def _weights(want: Wanted, data: Sequences, weights: Any, T: int | None) -> np.ndarray:
    t = data.targets
    assert t is not None
    if T is None and data.every_step:
        if not isinstance(weights, list | tuple) or [len(w) for w in weights] != data.lengths.tolist():
            raise ValueError(
                want.error("weights", "must be a list of arrays (T,), one weight per step of each sequence")
            )
        w = np.concatenate([array_of(want, f"weights[{n}]", w).astype(np.float32) for n, w in enumerate(weights)])
    else:
        w = array_of(want, "weights", weights).astype(np.float32)
        shape = (len(data), T) if data.every_step else (len(data),)
        if w.shape != shape:
            raise ValueError(
                want.error("weights", f"must have the shape {shape}, one per target, but have the shape {w.shape}")
            )
        w = w.reshape(-1)
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(
            want.error("weights", f"must be finite and at least 0, but hold {w[~(np.isfinite(w) & (w >= 0))][0]}")
        )
    return w if len(w) else np.zeros(1, np.float32)


def _check_targets(want: Wanted, data: Sequences, ragged: bool) -> None:
    """Refuse infinite numbers, and classes that are none, where a target counts."""
    t = data.targets
    assert isinstance(t, np.ndarray)
    if not holds_floats(t) and want.kind is None:
        return
    yes, top = counts(data), want.outputs
    for first, piece in pieces(t):
        wrong = np.isinf(piece).any(axis=-1) if holds_floats(t) else piece < 0
        if not holds_floats(t) and top is not None:
            wrong |= piece >= top
        for place in np.flatnonzero(wrong & yes[first : first + len(piece)])[:1] + first:
            at, where = (f"targets[{place}]", f"row {place}")
            if data.every_step:
                at, where = place_of("targets", data, int(place), [], ragged)
            if holds_floats(t):
                raise ValueError(
                    want.error("targets", f"must be finite, or NaN where missing, but {at} ({where}) is inf")
                )
            classes = f"from 0 to {top - 1}" if top is not None else "0 or more"
            raise ValueError(
                want.error("targets", f"must be classes {classes}, but {at} ({where}) is {t[place]}; for a target that "
                           "does not count pass weights, 0 there")
            )  # fmt: skip
