"""The gradient's way through time, measured: logs are natural (nats), a sequence is one, a batch is `vmap`."""

from jax_lstm.gradflow.adjoint import adjoint_norms as adjoint_norms
from jax_lstm.gradflow.flat import flatten_state as flatten_state
from jax_lstm.gradflow.flat import unflatten_state as unflatten_state
from jax_lstm.gradflow.horizon import data_horizon as data_horizon
from jax_lstm.gradflow.horizon import horizon as horizon
from jax_lstm.gradflow.jacobians import step_jacobians as step_jacobians
from jax_lstm.gradflow.sensitivity import sensitivity as sensitivity
