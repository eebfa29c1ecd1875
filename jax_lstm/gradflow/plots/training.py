"""Plot of gradient profiles that were measured during training."""

import os
from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOUR_MAP, canvas, decades, figure_of, floats


def plot_training(
    steps: Sequence[int],
    profiles: ArrayLike,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plot how the gradient profile changes during training: log₁₀ ‖∂s_T/∂s_{T−k}‖₂ over k, one line per training step.

    Args:
        steps: the training steps, in increasing order.
        profiles: (len(steps), T + 1), what `sensitivity` returned after each of these steps, natural logs.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure. Early training steps are dark, late ones light.

    Raises:
        ValueError, TypeError: profiles is not a float array of shape (len(steps), T + 1) with 2 training steps or more.
    """
    logs = floats("plot_training", "profiles", profiles, 2, "(training steps, T + 1)")
    if len(steps) != len(logs):
        raise ValueError(
            f"plot_training: profiles must have one row per training step, but has {len(logs)} rows for {len(steps)} "
            "steps; pass the profile of every step"
        )
    colours = ScalarMappable(Normalize(steps[0], steps[-1]), colormaps[COLOUR_MAP])
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for shade, line in zip(colours.to_rgba(np.asarray(steps)), decades(logs), strict=True):
            axes.plot(range(len(line)), line[::-1], color=shade, linewidth=1.4)
        figure_of(axes).colorbar(colours, ax=axes).set_label("training step")
        axes.set_xlabel("k, steps before the last state")
        axes.set_ylabel(r"$\log_{10}\,\Vert\partial s_T/\partial s_{T-k}\Vert_2$  (decades)")
        axes.margins(x=0.01)
    return figure_of(axes)
