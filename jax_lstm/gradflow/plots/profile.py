"""Plot of `sensitivity`."""

import os
from collections.abc import Mapping

from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.checks import shown
from jax_lstm.gradflow.plots.canvas import FLOAT32_LEAST, canvas, decades, figure_of, floats, legend, styles


def plot_profile(
    profiles: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plot gradient profiles: log₁₀ ‖∂s_T/∂s_{T−k}‖₂ over k, one line per profile.

    Args:
        profiles: maps the name of a line to what `sensitivity` returned, natural logs of shape (T + 1,). T may differ
            between lines.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure. A line ends where the norm is zero (−inf).

    Raises:
        ValueError: profiles is empty, or an entry does not have shape (T + 1,) with T at least 1.
        TypeError: profiles is not a mapping, or an entry is not a float array.
    """
    if not isinstance(profiles, Mapping):
        raise TypeError(
            f"plot_profile: profiles must map names to log-norms, but is a {type(profiles).__name__}; "
            'wrap one profile in a dict: {"LSTM": sensitivity(...)}'
        )
    if not profiles:
        raise ValueError("plot_profile: profiles must have at least one entry, but is empty; pass one profile or more")
    logs = {name: floats("plot_profile", f"profiles[{shown(name)}]", a, 1, "(T + 1,)") for name, a in profiles.items()}
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)  # above this line the gradient grows
        for (name, log_norms), (colour, style) in zip(logs.items(), styles(), strict=False):
            back = decades(log_norms[::-1])
            axes.plot(range(len(back)), back, label=name, color=colour, linestyle=style, linewidth=1.8)
        if axes.get_ylim()[0] < FLOAT32_LEAST:
            axes.axhline(FLOAT32_LEAST, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
            axes.text(0.5, FLOAT32_LEAST, "smallest normal float32", color="0.4", fontsize="small", va="bottom")
        axes.set_xlabel("k, steps before the last state")
        axes.set_ylabel(r"$\log_{10}\,\Vert\partial s_T/\partial s_{T-k}\Vert_2$  (decades)")
        axes.margins(x=0.01)
        legend(axes)
    return figure_of(axes)
