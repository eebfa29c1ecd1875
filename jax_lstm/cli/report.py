"""A report on the gradients of one network: figures, numbers, and sentences that say what they mean.

The profile covers every seed and is averaged over sequences. Everything else is for one seed and one sequence.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from matplotlib.figure import Figure

import jax_lstm as jl
from jax_lstm import gradflow
from jax_lstm.cli.profile import Profile, json_ready
from jax_lstm.gradflow import plots

VANISHED, EXPLODED = -2.0, 2.0  # limits of log₁₀ ‖∂s_T/∂s_0‖
HELD = 0.1  # a unit holds its memory if more than this share of its gradient remains


class Details(NamedTuple):
    """The measurements of one seed on one sequence; natural logs, and Lyapunov exponents in nats per step."""

    leaf: str  # the measured part of the state: c, or h if there is no c, or the first field if there is neither
    retention: Float[np.ndarray, "T+1 H"]  # ln |∂m_T,j/∂m_k,j|, where m is that part
    spectrum: Float[np.ndarray, "T+1 N"]  # ln σ_i of ∂s_T/∂s_k
    eigenvalues: Mapping[str, Complex[np.ndarray, " N"]]  # of ∂s_t/∂s_{t−1}, at rest and at the last step
    adjoints: Mapping[str, Float[np.ndarray, " T"]]  # ln ‖dL/ds_t‖
    ways: Mapping[
        str, Float[np.ndarray, " T+1"]
    ]  # ‖∂c_T/∂c_k‖, along c ("cell") and through h ("hidden"); empty if there is no c
    exponents: Float[np.ndarray, " N"]  # Lyapunov exponents, nats per step

    def as_data(self) -> dict[str, Any]:
        """For JSON; complex numbers become [real, imaginary]."""
        clouds = {name: np.stack([z.real, z.imag], axis=1) for name, z in self.eigenvalues.items()}
        return json_ready(
            {
                "memory": self.leaf,
                "ln_retention": self.retention,
                "ln_singular_values": self.spectrum,
                "eigenvalues": clouds,
                "ln_norm_dL_ds_t": dict(self.adjoints),
                "norm_dc_T_dc_k": dict(self.ways),
                "lyapunov_exponents": self.exponents,
            }
        )


def details(cell: jl.Cell, params: Any, xs: Float[Array, "T I"], loss: Callable) -> Details:
    """Measure one network on one sequence.

    Args:
        cell: the cell.
        params: its params.
        xs: the sequence, (T, I).
        loss: the stacked states over T steps -> a scalar.
    """
    states = jax.eval_shape(lambda: gradflow.retention(cell, params, xs))
    leaf = next((name for name in ("c", "h") if hasattr(states, name)), states._fields[0])
    rest = jax.tree.map(jnp.zeros_like, cell.initial_state(params))
    J_rest = gradflow.step_jacobians(cell, params, jnp.zeros_like(xs[:1]), rest)[0]
    J_T = gradflow.step_jacobians(cell, params, xs)[-1]
    ways = {}
    if leaf == "c":
        for through in ("cell", "hidden"):
            ways[through] = np.asarray(jnp.linalg.norm(gradflow.paths(cell, params, xs, through=through), axis=(1, 2)))
    return Details(
        leaf,
        np.asarray(getattr(gradflow.retention(cell, params, xs), leaf)),
        np.asarray(gradflow.singular_values(cell, params, xs)),
        {"at rest": np.asarray(jnp.linalg.eigvals(J_rest)), "at the last step": np.asarray(jnp.linalg.eigvals(J_T))},
        {name: np.asarray(a) for name, a in gradflow.adjoint_norms(loss, cell, params, xs)._asdict().items()},
        ways,
        np.asarray(gradflow.lyapunov_spectrum(cell, params, xs)),
    )


def words(profile: Profile, one: Details) -> list[str]:
    """What the numbers of one seed mean: a list of sentences."""
    T = len(profile.log_norms) - 1
    fall = profile.log10_norm(T)
    if fall < VANISHED:
        verdict = f"Vanishing: over {T} steps the gradient norm falls to 10^{fall:.1f} of its value."
    elif fall > EXPLODED:
        verdict = f"Exploding: over {T} steps the gradient norm grows to 10^{fall:.1f} times its value."
    else:
        verdict = f"Preserved: over {T} steps the gradient norm changes only by a factor of 10^{fall:.1f}."
    said = [verdict]
    if math.isfinite(profile.data_horizon):
        said.append(f"On data, the gradient norm falls by a factor of e every {profile.data_horizon:.1f} steps; ")
        said[-1] += (
            f"at rest (state and input 0), every {profile.horizon:.1f}."
            if math.isfinite(profile.horizon)
            else "at rest (state and input 0), it does not fall."
        )
    else:
        said.append("On data, the gradient norm does not fall, so the horizon is infinite.")
    back = T // 2
    held = int((one.retention[T - back] > math.log(HELD)).sum())
    said.append(
        f"{held} of {one.retention.shape[1]} units of {one.leaf} keep more than {100 * HELD:.0f} % of their own "
        f"gradient over {back} steps."
    )
    if one.ways:
        cell, hidden = (float(one.ways[name][T - back]) for name in ("cell", "hidden"))
        share = f"{100 * cell / (cell + hidden):.0f} %" if cell + hidden > 0 else "nothing"
        said.append(f"Over {back} steps, {share} of the gradient from c to c (by norm) takes the direct path along c.")
    largest = float(one.exponents[0])
    kind = (
        "nearby states move apart (chaos)"
        if largest > 0.01
        else "nearby states converge"
        if largest < -0.01
        else "nearby states keep their distance"
    )
    said.append(f"The largest Lyapunov exponent along the sequence is {largest:+.3f} nats per step: {kind}.")
    return said


def page(
    title: str,
    seeds: Mapping[int, Profile],
    seed: int,
    one: Details,
    probed: tuple[list[int], Float[np.ndarray, "P T+1"]] | None,
    path: Path,
) -> None:
    """Draw all figures on one page and write it as a PNG.

    Args:
        title: what was measured.
        seeds: the profile of every seed.
        seed: the seed that `one` is of.
        one: its measurements.
        probed: P training steps, and the profiles (P, T + 1) measured at them; None: there are none.
        path: where to write the page.
    """
    figure = Figure(figsize=(15, 13.5), layout="constrained")
    panels = figure.subplots(3, 3) if probed is not None else figure.subplots(3, 2)
    axes = iter(panels.ravel())
    plots.plot_profile(
        {f"seed {s}": p.log_norms for s, p in seeds.items()},
        title="Gradient norm of each seed",
        axes=next(axes),
    )
    plots.plot_retention(
        one.retention, title=f"Gradient that each unit of {one.leaf} keeps", axes=next(axes), name=one.leaf
    )
    plots.plot_spectrum(one.spectrum, title="Singular values of the Jacobian", axes=next(axes))
    plots.plot_eigenvalues(one.eigenvalues, title="Eigenvalues of the one-step Jacobian", axes=next(axes))
    plots.plot_adjoint_norms(one.adjoints, title="Gradient of the loss at each state", axes=next(axes))
    last = next(axes)
    if one.ways:
        plots.plot_path_shares(
            one.ways["cell"], one.ways["hidden"], title="Paths of the gradient from c to c", axes=last
        )
    else:
        last.set_axis_off()
    if probed is not None:
        plots.plot_training(*probed, title=f"Gradient norm of seed {seed} during training", axes=next(axes))
    for empty in axes:
        empty.set_axis_off()
    scope = f"{title}. Gradient norms are means over sequences; all else is for seed {seed} and one sequence."
    figure.suptitle(scope + "\n" + "  ".join(words(seeds[seed], one)), fontsize="medium", wrap=True)
    figure.savefig(path, format="png", dpi=110)
