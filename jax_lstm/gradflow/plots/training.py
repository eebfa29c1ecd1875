"""The figure of profiles that were measured while a network was trained."""

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
    """How the gradient's reach changes with training: log₁₀ ‖∂s_T/∂s_{T−k}‖₂ against k, one line a training step.

    Args:
        steps: the training steps, rising.
        profiles: (len(steps), T + 1), what `sensitivity` returned after each: natural logs.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure. Early lines are dark, late ones light.

    Raises:
        ValueError, TypeError: profiles is not (len(steps), T + 1) floats, of two training steps or more.
    """
    logs = floats("plot_training", "profiles", profiles, 2, "(training steps, T + 1)")
    if len(steps) != len(logs):
        raise ValueError(
            f"plot_training: wanted one profile a step, but got {len(steps)} steps and {len(logs)} profiles"
        )
    colours = ScalarMappable(Normalize(steps[0], steps[-1]), colormaps[COLOUR_MAP])
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for shade, line in zip(colours.to_rgba(np.asarray(steps)), decades(logs), strict=True):
            axes.plot(range(len(line)), line[::-1], color=shade, linewidth=1.4)
        figure_of(axes).colorbar(colours, ax=axes).set_label("training step")
        axes.set_xlabel("k, steps back from the last state")
        axes.set_ylabel(r"$\log_{10}\,\Vert\partial s_T/\partial s_{T-k}\Vert_2$  (decades)")
        axes.margins(x=0.01)
    return figure_of(axes)
