"""The figure of `adjoint_norms`."""

import os
from collections.abc import Mapping

from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import canvas, decades, figure_of, floats, legend, styles


def plot_adjoint_norms(
    norms: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """What the loss feels of every state: log₁₀ ‖dL/ds_t‖₂ against t, one line a part of the state.

    Args:
        norms: from a part's name to (T,) natural logs, for example `adjoint_norms(...)._asdict()`.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure. −inf ends a line.

    Raises:
        ValueError: no part, or one that is not (T,) with a step or more.
        TypeError: norms is no mapping, or holds anything but arrays of floats.
    """
    if not isinstance(norms, Mapping) or not norms:
        raise TypeError(f"plot_adjoint_norms: norms must map names to log-norms, but is {type(norms).__name__} {norms}")
    logs = {name: floats("plot_adjoint_norms", f"norms[{name!r}]", a, 1, "(T,)", least=1) for name, a in norms.items()}
    with canvas(axes, path, title) as axes:
        for (name, log_norms), (colour, style) in zip(logs.items(), styles(), strict=False):
            steps = range(1, len(log_norms) + 1)
            axes.plot(steps, decades(log_norms), color=colour, linestyle=style, linewidth=1.8, label=f"dL/d{name}_t")
        axes.set_xlabel("t, step")
        axes.set_ylabel(r"$\log_{10}\,\Vert dL/ds_t\Vert_2$  (decades)")
        axes.margins(x=0.01)
        legend(axes)
    return figure_of(axes)
