"""The figure of `paths`."""

import os

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import COLOURS, canvas, figure_of, floats, legend


def plot_path_shares(
    cell: ArrayLike,
    hidden: ArrayLike,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """By which way the gradient of c comes back: ‖cell‖ / (‖cell‖ + ‖hidden‖) of ∂c_T/∂c_{T−k} against k.

    Args:
        cell: (T + 1,), norms of the way along c: plain numbers, not logs.
        hidden: (T + 1,), norms of all ways that pass an h.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure. Where both norms are zero, or one is infinite, nothing is drawn.

    Raises:
        ValueError, TypeError: the two are not (T + 1,) floats with a step, of one length.
    """
    along_c, through_h = (
        np.asarray(floats("plot_path_shares", name, a, 1, "(T + 1,)"), np.float64)[::-1]
        for name, a in (("cell", cell), ("hidden", hidden))
    )
    if along_c.shape != through_h.shape:
        raise ValueError(
            f"plot_path_shares: cell and hidden must have one length, but have {along_c.size} and {through_h.size}"
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 and inf/inf have no share
        share = along_c / (along_c + through_h)
    k = np.arange(len(share))
    with canvas(axes, path, title) as axes:
        axes.fill_between(k, 0, share, color=COLOURS[2], linewidth=0, label="along c: the forget gates")
        axes.fill_between(k, share, 1, color=COLOURS[1], linewidth=0, label="through h and the gates")
        axes.set_ylim(0, 1)
        axes.set_xlabel("k, steps back from the last state")
        axes.set_ylabel(r"share of $\partial c_T/\partial c_{T-k}$, by norm")
        axes.margins(x=0)
        legend(axes)
    return figure_of(axes)
