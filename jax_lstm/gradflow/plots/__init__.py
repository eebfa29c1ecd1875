"""Plots of the measurements in `jax_lstm.gradflow`, one per file.

This is the only part of `gradflow` that imports matplotlib. The measurements do not import this folder.
"""

from jax_lstm.gradflow.plots.adjoints import plot_adjoint_norms as plot_adjoint_norms
from jax_lstm.gradflow.plots.eigenvalues import plot_eigenvalues as plot_eigenvalues
from jax_lstm.gradflow.plots.paths import plot_path_shares as plot_path_shares
from jax_lstm.gradflow.plots.profile import plot_profile as plot_profile
from jax_lstm.gradflow.plots.retention import plot_retention as plot_retention
from jax_lstm.gradflow.plots.spectrum import plot_spectrum as plot_spectrum
from jax_lstm.gradflow.plots.training import plot_training as plot_training
