"""Plot of `retention`."""

import os

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOUR_MAP, canvas, decades, figure_of, floats

DECADES = 6  # values below 10⁻⁶ are drawn as 10⁻⁶


def plot_retention(
    logs: ArrayLike,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
    name: str = "c",
) -> Figure:
    """Plot the retention of every unit as an image: log₁₀ |∂s_{T,j}/∂s_{T−k,j}| over k and units.

    Args:
        logs: (T + 1, H), one leaf of what `retention` returned, natural logs.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.
        name: name of the leaf, for the labels.

    Returns:
        The figure. Units are sorted by their mean over k, the longest memory at the top. Values below 10⁻⁶ have the
        darkest color.

    Raises:
        ValueError, TypeError: logs is not a float array of shape (T + 1, H) with T at least 1.
    """
    a = floats("plot_retention", "logs", logs, 2, "(T + 1, H)")
    # Rows are units, columns are steps before the last state.
    kept = np.nan_to_num(decades(a[::-1]), nan=-np.inf).clip(-DECADES, 1).T
    kept = kept[np.argsort(-kept.mean(axis=1))]
    with canvas(axes, path, title) as axes:
        image = axes.imshow(
            kept, aspect="auto", interpolation="nearest", cmap=COLOUR_MAP, vmin=-DECADES, vmax=max(0, kept.max())
        )
        bar = figure_of(axes).colorbar(image, ax=axes, extend="min")
        bar.set_label(rf"$\log_{{10}}\,|\partial {name}_{{T,j}}/\partial {name}_{{T-k,j}}|$  (decades)")
        axes.set_xlabel("k, steps before the last state")
        axes.set_ylabel(f"units of {name}, longest memory at the top")
    return figure_of(axes)
