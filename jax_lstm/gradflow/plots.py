"""Figures of what the other files measure. This file alone imports matplotlib, and no other imports this file."""

import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from jax_lstm.cells import door

# Okabe & Ito's colours, told apart by colour-blind readers; the yellow is left out: too faint on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
STYLES = ("-", "--", ":")
FLOAT32_LEAST = math.log10(float(jnp.finfo(jnp.float32).tiny))  # what a plain product of Jacobians could not show


def plot_profile(
    profiles: Mapping[str, ArrayLike], path: str | os.PathLike | None = None, *, title: str | None = None
) -> Figure:
    """How fast the gradient falls on its way back: log₁₀ ‖∂s_T/∂s_{T−k}‖₂ against k, one line a profile.

    Args:
        profiles: from a line's name to what `sensitivity` returned, (T + 1,) natural logs; T may differ.
        path: where to write the figure as a PNG; None: nowhere.
        title: above the axes.

    Returns:
        The figure. −inf, a norm of exactly zero, ends a line.

    Raises:
        ValueError: no profile, or one that has no step.
        TypeError: profiles is no mapping, or holds anything but arrays.
    """
    logs = _checked(profiles)
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)  # above it the gradient grows
    styles = itertools.cycle((colour, style) for style in STYLES for colour in COLOURS)
    for (name, log_norms), (colour, style) in zip(logs.items(), styles, strict=False):
        back = [float(log_norm) / math.log(10) for log_norm in log_norms[::-1]]
        axes.plot(
            range(len(back)), [d if d > -math.inf else math.nan for d in back],
            label=name, color=colour, linestyle=style, linewidth=1.8,
        )  # fmt: skip
    if axes.get_ylim()[0] < FLOAT32_LEAST:
        axes.axhline(FLOAT32_LEAST, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        axes.text(0.5, FLOAT32_LEAST, "least float32", color="0.4", fontsize="small", va="bottom")
    axes.set_xlabel("k, steps back from the last state")
    axes.set_ylabel(r"$\log_{10}\,\Vert\partial s_T/\partial s_{T-k}\Vert_2$  (decades)")
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize="small")
    if title is not None:
        axes.set_title(title)
    if path is not None:
        figure.savefig(path, format="png", dpi=150)
    return figure


def _checked(profiles: Any) -> dict[str, jax.Array]:
    """The profiles as arrays of one axis and at least one step."""
    if not isinstance(profiles, Mapping):
        raise TypeError(
            f"plot_profile: profiles must map names to log-norms, but is a {type(profiles).__name__}; "
            'one profile: {"LSTM": sensitivity(...)}'
        )
    if not profiles:
        raise ValueError("plot_profile: profiles must hold at least one, but is empty")
    logs = {name: door.array("plot_profile", f"profiles[{name!r}]", log_norms) for name, log_norms in profiles.items()}
    for name, log_norms in logs.items():
        if log_norms.ndim != 1 or len(log_norms) < 2:
            raise ValueError(
                f"plot_profile: profiles[{name!r}] must have shape (T + 1,) with T at least 1, but has "
                f"{log_norms.shape}; of a batch, draw one sequence or the mean"
            )
        if not jnp.issubdtype(log_norms.dtype, jnp.floating):
            raise TypeError(f"plot_profile: profiles[{name!r}] must hold floats, but holds {log_norms.dtype}")
    return logs
