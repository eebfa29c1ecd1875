"""Shared parts of the plots: axes, colors, line styles, decades and argument checks."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm import checks

# The colors of Okabe & Ito, which color-blind readers can tell apart. Yellow is left out: it is too faint on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
STYLES = ("-", "--", ":")
COLOUR_MAP = "cividis"  # uniform in lightness; for color-blind readers (Nuñez, Anderton & Renslow 2018)
FLOAT32_LEAST = math.log10(float(jnp.finfo(jnp.float32).tiny))  # below this, a float32 product underflows


@contextlib.contextmanager
def canvas(axes: Axes | None, path: str | os.PathLike | None, title: str | None) -> Iterator[Axes]:
    """Yield the given axes, or those of a new figure; afterwards set the title and write the PNG."""
    if axes is None:
        axes = Figure(figsize=(9, 4.8), layout="constrained").subplots()
    yield axes
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title)
    if path is not None:
        figure_of(axes).savefig(path, format="png", dpi=150)


def figure_of(axes: Axes) -> Figure:
    """Return the figure of the axes."""
    return cast(Figure, axes.get_figure(root=True))


def legend(axes: Axes) -> None:
    """Add a legend: beside the axes if they are alone in the figure, otherwise inside them."""
    figure = figure_of(axes)
    if len(figure.axes) == 1:
        figure.legend(loc="outside right center", frameon=False, fontsize="small")
    else:
        axes.legend(framealpha=0.8, edgecolor="none", fontsize="small")


def styles() -> Iterator[tuple[str, str]]:
    """Yield pairs of color and line style; the first 21 differ."""
    return itertools.cycle((colour, style) for style in STYLES for colour in COLOURS)


def decades(logs: Any) -> np.ndarray:
    """Convert natural logs to log₁₀; −inf becomes NaN, which matplotlib leaves out, so the line ends there."""
    values = np.asarray(logs, np.float64) / math.log(10)
    return np.where(np.isneginf(values), np.nan, values)


def floats(caller: str, name: str, value: ArrayLike, ndim: int, shape: str, least: int = 2) -> jax.Array:
    """Check an array of floats with `ndim` axes and at least `least` entries on the first."""
    a = checks.as_array(caller, name, value)
    if a.ndim != ndim or len(a) < least:
        raise ValueError(
            f"{caller}: {name} must have shape {shape} with T at least 1, but has shape {a.shape}; "
            "for a batch, plot one sequence or the mean over sequences"
        )
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise TypeError(f"{caller}: {name} must hold floats, but holds {a.dtype}; cast it, for example .astype(float)")
    return a
