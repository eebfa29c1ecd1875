"""The figure of a Jacobian's eigenvalues."""

import os
from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.gradflow.plots.canvas import canvas, figure_of, legend, styles

MARKERS = "o^svDPX"


def plot_eigenvalues(
    eigenvalues: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """The cloud of eigenvalues of ∂s_t/∂s_{t−1} in the complex plane, with the unit circle: inside it, they fade.

    Args:
        eigenvalues: from a name to (N,) eigenvalues, for example of `fixed_points`.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.
        axes: where to draw; None: in a figure of its own.

    Returns:
        The figure; both axes have one scale.

    Raises:
        ValueError: no eigenvalues, or some that are not (N,) and finite.
        TypeError: eigenvalues is no mapping.
    """
    if not isinstance(eigenvalues, Mapping):
        raise TypeError(
            f"plot_eigenvalues: eigenvalues must map names to arrays, but is a {type(eigenvalues).__name__}"
        )
    clouds = {name: np.asarray(a) for name, a in eigenvalues.items()}
    for name, cloud in clouds.items():
        if cloud.ndim != 1 or not np.isfinite(cloud).all():
            raise ValueError(
                f"plot_eigenvalues: eigenvalues[{name!r}] must be (N,) finite numbers, but has shape {cloud.shape}"
            )
    if not clouds:
        raise ValueError("plot_eigenvalues: eigenvalues must hold at least one cloud, but is empty")
    with canvas(axes, path, title) as axes:
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color="0.6", linewidth=0.8, zorder=0)
        for (name, cloud), (colour, _), marker in zip(clouds.items(), styles(), MARKERS * 3, strict=False):
            axes.scatter(cloud.real, cloud.imag, s=14, marker=marker, color=colour, alpha=0.7, linewidths=0, label=name)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(r"real part of $\lambda$")
        axes.set_ylabel(r"imaginary part of $\lambda$")
        legend(axes)
    return figure_of(axes)
