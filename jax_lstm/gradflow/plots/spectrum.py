"""Plot of `singular_values`."""

import os

from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOUR_MAP, canvas, decades, figure_of, floats


def plot_spectrum(
    logs: ArrayLike, path: str | os.PathLike | None = None, *, title: str | None = None, axes: Axes | None = None
) -> Figure:
    """Plot all singular values of the gradient: log₁₀ σ_i of ∂s_T/∂s_{T−k} over k, one line per singular value.

    If the lines stay close together, the gradient keeps many directions. If one line stays high and the others fall, it
    carries one number only.

    Args:
        logs: (T + 1, k), what `singular_values` returned, natural logs, largest first.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure. A line ends where the singular value is zero (−inf).

    Raises:
        ValueError, TypeError: logs is not a float array of shape (T + 1, k) with T at least 1.
    """
    a = floats("plot_spectrum", "logs", logs, 2, "(T + 1, k)")
    lines = decades(a[::-1]).T
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for i, line in enumerate(lines):
            shade = colormaps[COLOUR_MAP](0.9 * i / max(1, len(lines) - 1))
            axes.plot(range(len(line)), line, color=shade, linewidth=2 if i == 0 else 0.8)
        axes.set_xlabel("k, steps before the last state")
        axes.set_ylabel(r"$\log_{10}\,\sigma_i(\partial s_T/\partial s_{T-k})$  (decades)")
        axes.margins(x=0.01)
    return figure_of(axes)
