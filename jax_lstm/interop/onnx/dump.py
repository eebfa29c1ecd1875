"""ONNX models from cells, which onnxruntime and other programs run without JAX."""

import os
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jax_lstm import checks
from jax_lstm.abilities import is_causal
from jax_lstm.interop import files
from jax_lstm.interop.onnx.files import package
from jax_lstm.interop.onnx.plan import FORM
from jax_lstm.interop.parts import check_values, checked
from jax_lstm.layers.model import Model

if TYPE_CHECKING:
    import onnx


def dump(
    cell: Any,
    params: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    streaming: bool = False,
    lengths: bool = False,
) -> "onnx.ModelProto":
    """An ONNX model that runs a cell or a `Model` over a batch of sequences; the inverse of `load`.

    The batch size B and the number of steps T are free. Inputs and outputs by name, in the dtype of the params:

        inputs     xs          (B, T, I), or int64 symbols (B, T) for a `Model` with a vocabulary
                   lengths     (B,) int32, with `lengths` only
                   state.h     (B, H), with `streaming` only: the state before the first step
        outputs    ys          (B, T, O): the outputs of the cell, or of the `Model`'s readout
                   state.h     (B, H): the state after the last step; with `streaming` it is called next_state.h

    States have the names of docs/layers.md, "Checkpoint names", after "state.": for example state.0.c is c of the
    lowest LSTM of a `Stack`. The state of a `Model` is that of its cell.

    >>> import jax
    >>> import jax_lstm as jl
    >>> from jax_lstm.interop import onnx
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> model = onnx.dump(cell, cell.init(jax.random.key(0)))
    >>> [one.name for one in model.graph.input], [one.name for one in model.graph.output]
    (['xs'], ['ys', 'state.h', 'state.c'])

    Args:
        cell: an LSTM with any of peephole, coupled, clip (not with peephole) and activations that ONNX has, a GRU, or
            an RNN without leak and noise; a `Stack`, also residual, a `Bidirectional` of two alike cells, a
            `LearnedInitialState` or a `Dropout` without zoneout of those; or a `Model` of those. Dropout does nothing
            here, as in `unroll` without a key.
        params: its params, float32 for onnxruntime. ONNX also has float64 and float16.
        path: a file to write. An existing file is replaced in one step, or left as it is if writing fails.
        streaming: whether the state before the first step is an input, so that a sequence can be run in chunks of one
            or more steps. Start with the states of `jl.initial_states(cell, params, B)`, which are zeros except for a
            `LearnedInitialState`.
        lengths: whether the length of each sequence is an input, from 0 to T. As with a mask of `unroll`, steps from
            the end on are skipped: `ys` is 0 there, or b of the readout, and the state stays as it is.

    Returns:
        The model, opset 17 and IR version 8.

    Raises:
        NotImplementedError: ONNX lacks the cell, an option or the dtype; the message names it, and what has it.
        ValueError: the params do not fit the cell, or `streaming` is set for a cell that is not causal.
        TypeError: cell is not a cell, or params are not its params.
        ImportError: the package onnx is not installed.
    """
    caller = "interop.onnx.dump"
    package(caller)
    from jax_lstm.interop.onnx.build import model_of  # imports onnx

    is_model = isinstance(cell, Model)
    params = checks.check_params(caller, cell, params)[0] if is_model else checked(caller, cell, params)[1]
    streaming = checks.check_bool(caller, "streaming", streaming)
    lengths = checks.check_bool(caller, "lengths", lengths)
    _check_dtype(caller, params)
    check_values(caller, "params", params)
    core = cell.cell if is_model else cell
    if streaming and not is_causal(core):
        raise ValueError(
            f"{caller}: streaming needs a causal cell, but {type(core).__name__} reads later inputs; "
            "leave out streaming=True"
        )
    model = model_of(caller, cell, params, streaming=streaming, lengths=lengths)
    if path is not None:
        files.write(caller, path, model.SerializeToString())
    return model


def _check_dtype(caller: str, params: Any) -> None:
    """Refuse params of a dtype that ONNX lacks."""
    dtype = jax.tree.leaves(params)[0].dtype
    if dtype not in (np.float16, np.float32, np.float64):
        raise NotImplementedError(
            f"{caller}: {FORM} has no recurrent nodes with {dtype} weights; cast the params to float32"
        )
