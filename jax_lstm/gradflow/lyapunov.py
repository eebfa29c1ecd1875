"""Lyapunov exponents: the mean rates at which nearby states separate or converge, in nats per step, largest first.

    λ_i = lim 1/T Σ_t log |R_t,ii|        J_t Q_{t−1} = Q_t R_t        J_t = ∂s_t/∂s_{t−1}

of the full state (Benettin et al. 1980). If the largest exponent is negative, the gradient vanishes and the network
forgets its initial state. If it is positive, the gradient explodes and the network is chaotic. The sum of all exponents
equals the mean of log |det J_t|, exactly and for any T, if no J_t is singular.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jax_lstm import checks
from jax_lstm.abilities import check_pure
from jax_lstm.cell import Cell
from jax_lstm.gates import at_least_float32
from jax_lstm.gradflow.flat import flatten_state, unflatten_state
from jax_lstm.gradflow.trajectory import checked, checked_step


class LyapunovState(NamedTuple):
    """A running estimate of Lyapunov exponents: the state of the system, and the sums over the steps so far.

    Make one with `lyapunov_init`, advance it with `lyapunov_update`, and read `exponents`.
    """

    state: Any
    Q: Float[Array, "N k"]  # k orthonormal directions
    log_growth: Float[Array, " k"]  # Σ log |R_ii|
    lost: Int[Array, " k"]  # number of steps whose R_ii was below the resolution of a QR decomposition
    steps: Int[Array, ""]

    @property
    def exponents(self) -> Float[Array, " k"]:
        """The estimate so far, (k,): nats per step, largest first; NaN before the first step."""
        # A step below resolution still has the right order of magnitude. If all are, the map has no such direction.
        steps = self.steps[..., None]
        mean = self.log_growth / steps.astype(self.log_growth.dtype)
        return jnp.sort(jnp.where((self.lost == steps) & (steps > 0), -jnp.inf, mean), descending=True)


def lyapunov_spectrum(
    cell: Cell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    *,
    k: int | None = None,
    burn_in: int = 0,
    truncate: str | None = None,
    constants: Any = None,
) -> Float[Array, " k"]:
    """Lyapunov exponents of a cell that is driven by a sequence.

    N is the number of entries of the state: 2H for an LSTM. As if by::

        Q, log_growth = np.eye(N), np.zeros(N)
        for J_t in step_jacobians(cell, params, xs, state):
            Q, R = np.linalg.qr(J_t @ Q)
            log_growth += np.log(np.abs(np.diag(R)))
        return np.sort(log_growth / T)[::-1]

    with memory O(N²). The result is differentiable if no exponent is −inf.

    Args:
        cell: a causal cell or layer, as for `step`.
        params: the parameters, as returned by `cell.init`.
        xs: (T, I) floats, one sequence. For a batch xs (B, T, I):
            `jax.vmap(lambda xs: jl.gradflow.lyapunov_spectrum(cell, params, xs))(xs)`.
        state: s_0, the state before the first step; None: `cell.initial_state(params)`.
        k: number of exponents, the largest ones; None: all N of the full state (h, c). A smaller k costs less.
        burn_in: number of first steps that align the directions Q but do not count in the mean.
        truncate: "1997" stops the gradient at every h that enters a step (see `Truncated`); None: full gradient.
        constants: as for `unroll`.

    Returns:
        (k,), nats per step, in the params' dtype or float32, whichever is wider.
        −inf for a direction that one step maps to exactly zero, or that every step maps to zero up to rounding.
        If only some steps are singular up to rounding, each of them adds the log of its rounding error: about −37 in
        float64, −16 in float32.

    Raises:
        ValueError: burn_in leaves no steps, or k is larger than N; other cases as for `unroll`.
        TypeError: as for `unroll`.

    Source: Benettin et al. 1980; for recurrent networks Engelken, Wolf & Abbott 2023.
    """
    cell, params, xs, state = checked("lyapunov_spectrum", cell, params, xs, state, truncate, constants)
    k, burn_in = _counts("lyapunov_spectrum", state, k, burn_in, xs.shape[0])
    return _spectrum(cell, k, burn_in, params, xs, state)


@partial(jax.jit, static_argnames=("cell", "k", "burn_in"))
def _spectrum(cell: Any, k: int, burn_in: int, params: Any, xs: Float[Array, "T I"], state: Any) -> Float[Array, " k"]:
    check_pure(cell, params, state, xs)
    return _along(lambda s, x: cell.step(params, s, x)[0], state, k, burn_in, xs)


def lyapunov_exponents(
    step_fn: Callable,
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
) -> Float[Array, " k"]:
    """Lyapunov exponents of any map, driven by a sequence or autonomous.

    Args:
        step_fn: (state, x_t) -> state, or state -> state if `xs` is None.
        state: s_0, any pytree of floats of one dtype.
        xs: a pytree of arrays with a leading axis of T steps; None for an autonomous map.
        steps: T, for an autonomous map.
        k, burn_in: as for `lyapunov_spectrum`.

    Returns:
        (k,), nats per step, as for `lyapunov_spectrum`. For a flow sampled every dt, exponents / dt are nats per unit
        of time.

    Raises:
        ValueError: not exactly one of xs and steps is given, burn_in leaves no steps, k is larger than N, or step_fn
            returns a state of another type, shape or dtype.
        TypeError: step_fn is not callable, or the state is not floats of one dtype.
    """
    if not callable(step_fn):
        raise TypeError(
            f"lyapunov_exponents: step_fn must be a function, but is a {type(step_fn).__name__}; "
            "pass one that maps (state, x_t), or state alone, to the next state"
        )
    if (xs is None) == (steps is None):
        raise ValueError(
            f"lyapunov_exponents: exactly one of xs and steps must be given, but {'neither' if xs is None else 'both'} "
            "came; pass xs for a driven map, or steps for an autonomous one"
        )
    if xs is None:
        T, F = checks.positive_int("lyapunov_exponents", "steps", steps), lambda s, _: step_fn(s)
    else:
        xs = jax.tree.map(lambda a: checks.as_array("lyapunov_exponents", "every leaf of xs", a), xs)
        shapes = [leaf.shape for leaf in jax.tree.leaves(xs)]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(
                "lyapunov_exponents: every leaf of xs must have the same leading axis of steps, but "
                + (f"the shapes are {', '.join(map(str, shapes))}" if shapes else "xs has no leaves")
                + "; stack the inputs of all steps along axis 0"
            )
        T, F = shapes[0][0], step_fn
    state = jax.tree.map(lambda a: checks.as_array("lyapunov_exponents", "every leaf of state", a), state)
    k, burn_in = _counts("lyapunov_exponents", state, k, burn_in, T)
    made, want = jax.eval_shape(F, state, None if xs is None else jax.tree.map(lambda a: a[0], xs)), state
    if jax.tree.structure(made) != jax.tree.structure(want) or [(a.shape, a.dtype) for a in jax.tree.leaves(made)] != [
        (a.shape, a.dtype) for a in jax.tree.leaves(want)
    ]:
        raise ValueError(
            f"lyapunov_exponents: step_fn must return a state of the type, shapes and dtype of its argument, "
            f"{jax.eval_shape(lambda s: s, want)}, but returns {made}; return the next state only"
        )
    return _along(F, state, k, burn_in, xs, T)


def lyapunov_init(state: Any, *, k: int | None = None) -> LyapunovState:
    """Start a running estimate of Lyapunov exponents, for data that arrives step by step.

    Args:
        state: s_0, a pytree of floats of one dtype.
        k: number of exponents, the largest ones; None: all N.

    Returns:
        The LyapunovState before the first step. Pass it to `lyapunov_update`.

    Raises:
        ValueError: k is larger than N, the size of the state.
        TypeError: the state is not floats of one dtype.
    """
    k, _ = _counts("lyapunov_init", state, k, 0, 1)
    return _start(state, k)


def lyapunov_update(
    cell: Cell, params: Any, running: LyapunovState, x: ArrayLike, *, constants: Any = None
) -> LyapunovState:
    """Advance a running estimate by one step of the cell.

    Args:
        cell, params: as for `lyapunov_spectrum`.
        running: the LyapunovState from `lyapunov_init` or from the previous `lyapunov_update`.
        x: (I,), the input of this step.
        constants: as for `unroll`.

    Returns:
        The LyapunovState after the step; its `exponents` are the estimate so far.

    Raises:
        ValueError: as for `step`.
        TypeError: `running` is not a LyapunovState; other cases as for `step`.
    """
    if not isinstance(running, LyapunovState):
        raise TypeError(
            f"lyapunov_update: running must be a LyapunovState, but is a {type(running).__name__}; "
            "make one with lyapunov_init(state), or convert a restored one with LyapunovState(**running)"
        )
    cell = checks.check_cell("lyapunov_update", cell)
    cell, params, x, state = checked_step("lyapunov_update", cell, params, x, running.state, constants)
    return _update(cell, params, running._replace(state=state), x)


@partial(jax.jit, static_argnames="cell")
def _update(cell: Any, params: Any, running: LyapunovState, x: Float[Array, " I"]) -> LyapunovState:
    check_pure(cell, params, running.state, x[None])
    return _advance(lambda s, x: cell.step(params, s, x)[0], running, x)


def _counts(caller: str, state: Any, k: Any, burn_in: Any, T: int) -> tuple[int, int]:
    """Return k and burn_in, checked."""
    N = flatten_state(state).size
    k = N if k is None else checks.positive_int(caller, "k", k)
    if k > N:
        raise ValueError(f"{caller}: k must be at most {N}, the size of the state, but is {k}; None gives all {N}")
    burn_in = checks.positive_int(caller, "burn_in", burn_in, least=0)
    if not checks.is_at_least(T, burn_in + 1):
        raise ValueError(
            f"{caller}: at least 1 step must be left after burn_in, but burn_in is {burn_in} and there are {T} steps; "
            "pass a longer sequence or a smaller burn_in"
            + ("" if isinstance(T, int) else f", or make the shape with constraints=['{T} >= {burn_in + 1}']")
        )
    return k, burn_in


def _start(state: Any, k: int) -> LyapunovState:
    """An estimate before its first step, with all N unit directions or with k that favor no axis.

    The first k unit vectors could all lie in a subspace that one step maps to zero.
    """
    s = flatten_state(state)
    N, wide = s.size, at_least_float32(s.dtype)
    if k == N:
        Q = jnp.eye(N, dtype=wide)
    else:
        # The discrete cosine transform of type IV is orthonormal and has no zero entry.
        odd = 2 * jnp.arange(N, dtype=wide) + 1
        Q = math.sqrt(2 / N) * jnp.cos(math.pi / (4 * N) * odd[:, None] * odd[None, :k])
    return LyapunovState(state, Q, jnp.zeros(k, wide), jnp.zeros(k, jnp.int32), jnp.zeros((), jnp.int32))


def _along(F: Callable, state: Any, k: int, burn_in: int, xs: Any, T: int | None = None) -> Float[Array, " k"]:
    """Exponents along xs, or over T steps."""

    def body(running: LyapunovState, x: Any) -> tuple[LyapunovState, None]:
        return _advance(F, running, x), None

    T = jax.tree.leaves(xs)[0].shape[0] if T is None else T
    running = _start(state, k)
    if burn_in:
        running, _ = jax.lax.scan(body, running, jax.tree.map(lambda a: a[:burn_in], xs), length=burn_in)
        running = _start(running.state, k)._replace(Q=running.Q)
    # `lax.scan` takes no symbolic length; it reads the length from the data instead.
    length = T - burn_in if isinstance(T, int) else None
    running, _ = jax.lax.scan(body, running, jax.tree.map(lambda a: a[burn_in:], xs), length=length)
    return running.exponents


def _advance(F: Callable, running: LyapunovState, x: Any) -> LyapunovState:
    """Advance the system s_t = F(s_{t−1}, x_t) and its directions by one step."""
    s_tm1, k = flatten_state(running.state), running.Q.shape[1]

    def flat(s: Float[Array, " N"]) -> Float[Array, " N"]:
        return flatten_state(F(unflatten_state(s, running.state), x))

    # By default, accelerators round the operands of float32 products; a measurement needs full precision.
    with jax.default_matmul_precision("highest"):
        s_t, J_along = jax.linearize(flat, s_tm1)
        if k == s_tm1.size:
            J = jax.vmap(J_along, out_axes=1)(jnp.eye(k, dtype=s_tm1.dtype)).astype(running.Q.dtype)
            JQ, terms = J @ running.Q, jnp.abs(J) @ jnp.abs(running.Q)
        else:
            JQ = jax.vmap(J_along, 1, 1)(running.Q.astype(s_tm1.dtype)).astype(running.Q.dtype)
            terms = jnp.abs(JQ)
        Q, R = jnp.linalg.qr(JQ)
    size = jnp.abs(jnp.diagonal(R))
    # Compare with the terms of the sum, not with the sum itself: the sum may consist of rounding errors only.
    lost = size <= 4 * k * jnp.finfo(R.dtype).eps * terms.max(axis=0)
    # `where` is applied twice, because the derivative of the branch not taken would be NaN.
    growth = jnp.where(size == 0, -jnp.inf, jnp.log(jnp.where(size == 0, 1, size)))
    return LyapunovState(
        unflatten_state(s_t, running.state),
        Q,
        running.log_growth + growth,
        running.lost + lost.astype(running.lost.dtype),
        running.steps + 1,
    )
