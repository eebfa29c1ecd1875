"""The figure of `singular_values`."""

import os

from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOUR_MAP, canvas, decades, figure_of, floats


def plot_spectrum(
    logs: ArrayLike, path: str | os.PathLike | None = None, *, title: str | None = None, axes: Axes | None = None
) -> Figure:
    """The fan of all directions: log₁₀ σ_i of ∂s_T/∂s_{T−k} against k, one line a singular value.

    Where the fan stays narrow the gradient keeps its directions; where one line stands and the others fall, it carries
    one number only.

    Args:
        logs: (T + 1, k), what `singular_values` returned: natural logs, largest first.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure. −inf ends a line.

    Raises:
        ValueError, TypeError: logs is not (T + 1, k) floats with a step.
    """
    a = floats("plot_spectrum", "logs", logs, 2, "(T + 1, k)")
    lines = decades(a[::-1]).T
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for i, line in enumerate(lines):
            shade = colormaps[COLOUR_MAP](0.9 * i / max(1, len(lines) - 1))
            axes.plot(range(len(line)), line, color=shade, linewidth=2 if i == 0 else 0.8)
        axes.set_xlabel("k, steps back from the last state")
        axes.set_ylabel(r"$\log_{10}\,\sigma_i(\partial s_T/\partial s_{T-k})$  (decades)")
        axes.margins(x=0.01)
    return figure_of(axes)
