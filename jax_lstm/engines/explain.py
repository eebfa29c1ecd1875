"""Describe which engine and which layout a run would use, and why."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jax_lstm import checks
from jax_lstm.engines.associative import Associative
from jax_lstm.engines.auto import Auto
from jax_lstm.engines.driver import run
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.hoisted import Hoisted
from jax_lstm.engines.layout import explain_layout
from jax_lstm.engines.plain import Plain
from jax_lstm.engines.run import ENGINES, check_engine, check_options


def explain(cell: Any, xs: Any, *, engine: Any = "auto", reverse: bool = False, remat_every: Any = None) -> str:
    """Describe in one line which engine and layout `unroll` would use for a cell and data of this shape, and why.

    Nothing is computed or compiled.

    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> print(jl.engines.explain(jl.MinGRU(3, 4), jnp.ones((6, 3)), engine="associative"))
    MinGRU: associative, a parallel prefix over 6 steps, because you asked for it

    Args:
        cell: as for `unroll`.
        xs: (T, I) for `unroll`, (T, B, I) for `batched(..., time_major=True)`: an array, or a `jax.ShapeDtypeStruct`.
            Only its shape and dtype are read. For data (B, T, I) swap the first two axes.
        engine, reverse, remat_every: as for `unroll`.

    Returns:
        One line. For a cell made of cells it has an entry for each different part, separated by "; ".

    Raises:
        ValueError, TypeError: as for `unroll`; also if the engine refuses the cell.
    """
    cell = checks.check_cell("explain", cell)
    engine = check_engine("explain", engine)
    if not checks.is_array(xs) or not jnp.issubdtype(xs.dtype, jnp.floating):
        raise TypeError(f"explain: xs must be an array of floats or a jax.ShapeDtypeStruct, but is {checks.shown(xs)}")
    if len(xs.shape) not in (2, 3) or xs.shape[-1] != cell.input_size:
        raise ValueError(
            f"explain: xs must be (T, {cell.input_size}) or (T, B, {cell.input_size}) for cell {type(cell).__name__}, "
            f"but has shape {tuple(xs.shape)}"
        )
    T, *batch, _ = xs.shape
    options = check_options("explain", T, reverse=reverse, remat_every=remat_every)
    params = checks.params_shapes(cell)
    watched = _Watched(engine)

    def everything(params: Any, xs: Any) -> Any:
        s_0 = jax.tree.map(lambda s: jnp.broadcast_to(s, (*batch, *s.shape)), cell.initial_state(params))
        return run(watched, cell, Inputs(params, s_0, None, xs), options)

    jax.eval_shape(everything, params, jax.ShapeDtypeStruct(xs.shape, jnp.float32))
    parts = "; ".join(dict.fromkeys(watched.seen))
    segments = "" if options.remat_every is None else f"; in checkpointed segments of {options.remat_every} steps"
    return parts + segments


@dataclass
class _Watched:
    """An engine that runs another one, and records a description of each cell that it runs."""

    engine: Engine
    seen: list[str] = field(default_factory=list)

    def refuses(self, cell: Any, inputs: Inputs, options: Options) -> str | None:
        return self.engine.refuses(cell, inputs, options)

    def run(self, cell: Any, inputs: Inputs, options: Options) -> tuple[Any, Any]:
        engine, why = self.engine, "because you asked for it"
        if isinstance(engine, Auto):
            engine, why_not = engine.choice(cell, inputs, options)
            why = "because it is a SplitCell" if why_not is None else f"because {why_not}"
        name = next((name for name, known in ENGINES.items() if known == engine), type(engine).__name__)
        self.seen.append(f"{type(cell).__name__}: {name}, {_how(engine, cell, inputs, options)}, {why}")
        return engine.run(cell, inputs, options)


def _how(engine: Engine, cell: Any, inputs: Inputs, options: Options) -> str:
    if isinstance(engine, Hoisted):
        return explain_layout()
    if isinstance(engine, Plain):
        return f"a scan of its step over {inputs.T} steps"
    kind = "a parallel prefix" if isinstance(engine, Associative) else "an engine of your own"
    return f"{kind} over {inputs.T} steps"
