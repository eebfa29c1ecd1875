"""The figure of `retention`."""

import os

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOUR_MAP, canvas, decades, figure_of, floats

DECADES = 6  # what is kept below 10⁻⁶ is drawn as that


def plot_retention(
    logs: ArrayLike,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
    name: str = "c",
) -> Figure:
    """What each unit keeps of itself: log₁₀ |∂s_{T,j}/∂s_{T−k,j}| over k and units, the longest memories on top.

    Args:
        logs: (T + 1, H), one leaf of what `retention` returned: natural logs.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.
        name: the leaf's, for the labels.

    Returns:
        The figure. Units stand in the order of their mean over k; what is below 10⁻⁶ has the darkest colour.

    Raises:
        ValueError, TypeError: logs is not (T + 1, H) floats with a step.
    """
    a = floats("plot_retention", "logs", logs, 2, "(T + 1, H)")
    kept = np.nan_to_num(decades(a[::-1]), nan=-np.inf).clip(-DECADES, 1).T  # a row a unit, a column a step back
    kept = kept[np.argsort(-kept.mean(axis=1))]
    with canvas(axes, path, title) as axes:
        image = axes.imshow(
            kept, aspect="auto", interpolation="nearest", cmap=COLOUR_MAP, vmin=-DECADES, vmax=max(0, kept.max())
        )
        bar = figure_of(axes).colorbar(image, ax=axes, extend="min")
        bar.set_label(rf"$\log_{{10}}\,|\partial {name}_{{T,j}}/\partial {name}_{{T-k,j}}|$  (decades)")
        axes.set_xlabel("k, steps back from the last state")
        axes.set_ylabel(f"units of {name}, longest memory on top")
    return figure_of(axes)
