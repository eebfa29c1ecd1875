"""The figure of `sensitivity`."""

import os
from collections.abc import Mapping

from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import FLOAT32_LEAST, canvas, decades, figure_of, floats, legend, styles


def plot_profile(
    profiles: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """How fast the gradient falls on its way back: log₁₀ ‖∂s_T/∂s_{T−k}‖₂ against k, one line a profile.

    Args:
        profiles: from a line's name to what `sensitivity` returned, (T + 1,) natural logs; T may differ.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure. −inf, a norm of exactly zero, ends a line.

    Raises:
        ValueError: no profile, or one that has no step.
        TypeError: profiles is no mapping, or holds anything but arrays.
    """
    if not isinstance(profiles, Mapping):
        raise TypeError(
            f"plot_profile: profiles must map names to log-norms, but is a {type(profiles).__name__}; "
            'one profile: {"LSTM": sensitivity(...)}'
        )
    if not profiles:
        raise ValueError("plot_profile: profiles must hold at least one, but is empty")
    logs = {name: floats("plot_profile", f"profiles[{name!r}]", a, 1, "(T + 1,)") for name, a in profiles.items()}
    with canvas(axes, path, title) as axes:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)  # above it the gradient grows
        for (name, log_norms), (colour, style) in zip(logs.items(), styles(), strict=False):
            back = decades(log_norms[::-1])
            axes.plot(range(len(back)), back, label=name, color=colour, linestyle=style, linewidth=1.8)
        if axes.get_ylim()[0] < FLOAT32_LEAST:
            axes.axhline(FLOAT32_LEAST, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
            axes.text(0.5, FLOAT32_LEAST, "least float32", color="0.4", fontsize="small", va="bottom")
        axes.set_xlabel("k, steps back from the last state")
        axes.set_ylabel(r"$\log_{10}\,\Vert\partial s_T/\partial s_{T-k}\Vert_2$  (decades)")
        axes.margins(x=0.01)
        legend(axes)
    return figure_of(axes)
