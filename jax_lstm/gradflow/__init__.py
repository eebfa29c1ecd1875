"""Measurements of gradient flow through time.

    step_jacobians, input_jacobians           ∂s_t/∂s_{t−1} and ∂s_t/∂x_t of every step
    sensitivity, singular_values, retention   norm, singular values and diagonal of ∂s_T/∂s_k
    paths                                     ∂c_T/∂c_k, split into the path along c and the paths through h
    adjoint_norms, weight_gradient_by_step    dL/ds_t of a loss, and each step's part of dL/dW
    horizon, data_horizon                     the steps in which a gradient falls by a factor e
    lyapunov_spectrum, lyapunov_exponents     Lyapunov exponents of a cell, or of any map
    fixed_points                              fixed points of a step, and their eigenvalues

Call them as `jl.gradflow.sensitivity(cell, params, xs)`, or import them: `from jax_lstm.gradflow import sensitivity`.
Each function takes one sequence. For a batch use `jax.vmap(lambda xs: jl.gradflow.sensitivity(cell, params, xs))(xs)`.
N is the number of entries of the state: 2H for an LSTM. All logarithms are natural (nats).
"""

from jax_lstm.gradflow.adjoint import adjoint_norms as adjoint_norms
from jax_lstm.gradflow.fixed_points import FixedPoints as FixedPoints
from jax_lstm.gradflow.fixed_points import fixed_points as fixed_points
from jax_lstm.gradflow.flat import flatten_state as flatten_state
from jax_lstm.gradflow.flat import unflatten_state as unflatten_state
from jax_lstm.gradflow.horizon import data_horizon as data_horizon
from jax_lstm.gradflow.horizon import horizon as horizon
from jax_lstm.gradflow.jacobians import input_jacobians as input_jacobians
from jax_lstm.gradflow.jacobians import step_jacobians as step_jacobians
from jax_lstm.gradflow.lyapunov import LyapunovState as LyapunovState
from jax_lstm.gradflow.lyapunov import lyapunov_exponents as lyapunov_exponents
from jax_lstm.gradflow.lyapunov import lyapunov_init as lyapunov_init
from jax_lstm.gradflow.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from jax_lstm.gradflow.lyapunov import lyapunov_update as lyapunov_update
from jax_lstm.gradflow.paths import paths as paths
from jax_lstm.gradflow.retention import retention as retention
from jax_lstm.gradflow.sensitivity import sensitivity as sensitivity
from jax_lstm.gradflow.singular import singular_values as singular_values
from jax_lstm.gradflow.truncated import Truncated as Truncated
from jax_lstm.gradflow.weight_gradient import weight_gradient_by_step as weight_gradient_by_step
