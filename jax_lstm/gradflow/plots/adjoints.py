"""Plot of `adjoint_norms`."""

import os
from collections.abc import Mapping

from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.checks import shown
from jax_lstm.gradflow.plots.canvas import canvas, decades, figure_of, floats, legend, styles


def plot_adjoint_norms(
    norms: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plot the norms of the adjoint states: log₁₀ ‖dL/ds_t‖₂ over t, one line per part of the state.

    Args:
        norms: maps the name of a part to natural logs of shape (T,), for example `adjoint_norms(...)._asdict()`.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure. A line ends where the norm is zero (−inf).

    Raises:
        ValueError: an entry does not have shape (T,) with T at least 1.
        TypeError: norms is empty or not a mapping, or an entry is not a float array.
    """
    if not isinstance(norms, Mapping) or not norms:
        raise TypeError(
            "plot_adjoint_norms: norms must map names to log-norms, but is "
            f"{'empty' if isinstance(norms, Mapping) else f'a {type(norms).__name__}'}; "
            "pass, for example, adjoint_norms(...)._asdict()"
        )
    logs = {
        name: floats("plot_adjoint_norms", f"norms[{shown(name)}]", a, 1, "(T,)", least=1) for name, a in norms.items()
    }
    with canvas(axes, path, title) as axes:
        for (name, log_norms), (colour, style) in zip(logs.items(), styles(), strict=False):
            steps = range(1, len(log_norms) + 1)
            axes.plot(steps, decades(log_norms), color=colour, linestyle=style, linewidth=1.8, label=f"dL/d{name}_t")
        axes.set_xlabel("step t")
        axes.set_ylabel(r"$\log_{10}\,\Vert dL/ds_t\Vert_2$  (decades)")
        axes.margins(x=0.01)
        legend(axes)
    return figure_of(axes)
