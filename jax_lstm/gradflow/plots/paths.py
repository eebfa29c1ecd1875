"""Plot of `paths`."""

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
    """Plot the share of the cell-state gradient along c: ‖cell‖ / (‖cell‖ + ‖hidden‖) of ∂c_T/∂c_{T−k} over k.

    Args:
        cell: (T + 1,), norms of the path along c; plain numbers, not logs.
        hidden: (T + 1,), norms of the sum over all paths through an h; plain numbers, not logs.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure. Nothing is drawn where both norms are zero, or where `cell` is infinite.

    Raises:
        ValueError, TypeError: cell and hidden are not float arrays of the same shape (T + 1,) with T at least 1.
    """
    along_c, through_h = (
        np.asarray(floats("plot_path_shares", name, a, 1, "(T + 1,)"), np.float64)[::-1]
        for name, a in (("cell", cell), ("hidden", hidden))
    )
    if along_c.shape != through_h.shape:
        raise ValueError(
            f"plot_path_shares: cell and hidden must have the same length, but have {along_c.size} and "
            f"{through_h.size}; measure both on the same sequence"
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 and inf/inf have no share
        share = along_c / (along_c + through_h)
    k = np.arange(len(share))
    with canvas(axes, path, title) as axes:
        axes.fill_between(k, 0, share, color=COLOURS[2], linewidth=0, label="along c (forget gates)")
        axes.fill_between(k, share, 1, color=COLOURS[1], linewidth=0, label="through h")
        axes.set_ylim(0, 1)
        axes.set_xlabel("k, steps before the last state")
        axes.set_ylabel(r"share of the norm of $\partial c_T/\partial c_{T-k}$")
        axes.margins(x=0)
        legend(axes)
    return figure_of(axes)
