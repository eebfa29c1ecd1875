"""What the figures share: where they are drawn, their colours, and the decades of their axes."""

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

from jax_lstm.cells import door

# Okabe & Ito's colours, told apart by colour-blind readers; the yellow is left out: too faint on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
STYLES = ("-", "--", ":")
COLOUR_MAP = "cividis"  # of even lightness steps, and made for colour-blind readers (Nuñez, Anderton & Renslow 2018)
FLOAT32_LEAST = math.log10(float(jnp.finfo(jnp.float32).tiny))  # what a plain product of Jacobians could not show


@contextlib.contextmanager
def canvas(axes: Axes | None, path: str | os.PathLike | None, title: str | None) -> Iterator[Axes]:
    """The given axes, or those of a figure of their own; afterwards with a title, and written where a path is given."""
    if axes is None:
        axes = Figure(figsize=(9, 4.8), layout="constrained").subplots()
    yield axes
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title)
    if path is not None:
        figure_of(axes).savefig(path, format="png", dpi=150)


def figure_of(axes: Axes) -> Figure:
    """The figure that the axes are in."""
    return cast(Figure, axes.get_figure(root=True))


def legend(axes: Axes) -> None:
    """Beside the axes that have a figure to themselves, else inside them."""
    figure = figure_of(axes)
    if len(figure.axes) == 1:
        figure.legend(loc="outside right center", frameon=False, fontsize="small")
    else:
        axes.legend(framealpha=0.8, edgecolor="none", fontsize="small")


def styles() -> Iterator[tuple[str, str]]:
    """Colour and line style, no two alike for 21 lines."""
    return itertools.cycle((colour, style) for style in STYLES for colour in COLOURS)


def decades(logs: Any) -> np.ndarray:
    """Natural logs as log₁₀; −inf, which cannot be drawn, as NaN, which ends a line."""
    values = np.asarray(logs, np.float64) / math.log(10)
    return np.where(np.isneginf(values), np.nan, values)


def floats(where: str, name: str, value: ArrayLike, ndim: int, shape: str, least: int = 2) -> jax.Array:
    """An array of floats with so many axes, the first of them over at least so many states."""
    a = door.array(where, name, value)
    if a.ndim != ndim or len(a) < least:
        raise ValueError(
            f"{where}: {name} must have shape {shape} with T at least 1, but has {a.shape}; "
            "of a batch, draw one sequence or the mean"
        )
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise TypeError(f"{where}: {name} must hold floats, but holds {a.dtype}")
    return a
