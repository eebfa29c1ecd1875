"""Plot of the eigenvalues of a step's Jacobian."""

import os
from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jax_lstm.checks import shown
from jax_lstm.gradflow.plots.canvas import canvas, figure_of, legend, styles

MARKERS = "o^svDPX"


def plot_eigenvalues(
    eigenvalues: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plot eigenvalues of ∂s_t/∂s_{t−1} in the complex plane, with the unit circle.

    A direction decays if its eigenvalue lies inside the circle, and grows if it lies outside.

    Args:
        eigenvalues: maps a name to eigenvalues of shape (N,), for example from `fixed_points`.
        path: PNG file to write; None: no file.
        title: title of the axes; None: no title.
        axes: matplotlib axes to draw in; None: a new figure.

    Returns:
        The figure; both axes have the same scale.

    Raises:
        ValueError: there are no eigenvalues, or an entry is not a finite array of shape (N,).
        TypeError: eigenvalues is not a mapping.
    """
    if not isinstance(eigenvalues, Mapping):
        raise TypeError(
            f"plot_eigenvalues: eigenvalues must map names to arrays, but is a {type(eigenvalues).__name__}; "
            'wrap one array in a dict: {"at rest": eigenvalues}'
        )
    clouds = {name: np.asarray(a) for name, a in eigenvalues.items()}
    for name, cloud in clouds.items():
        if cloud.ndim != 1 or not np.isfinite(cloud).all():
            raise ValueError(
                f"plot_eigenvalues: eigenvalues[{shown(name)}] must be finite with shape (N,), but "
                f"{'holds inf or NaN' if cloud.ndim == 1 else f'has shape {cloud.shape}'}; pass those of one Jacobian"
            )
    if not clouds:
        raise ValueError(
            "plot_eigenvalues: eigenvalues must have at least one entry, but is empty; pass one array or more"
        )
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
