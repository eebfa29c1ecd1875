"""Predict the next point of the Lorenz system (Lorenz 1963).

    ẋ = 10 (y − x)    ẏ = x (28 − z) − y    ż = x y − (8/3) z

The data are 20,000 points of one orbit on the attractor, dt = 0.01 apart, divided by their largest absolute value. A
sequence is 20 successive points, from a random start. The target at every step is the next point. Only the last 10
steps count.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

DT, POINTS, WARM_UP, COUNTED = 0.01, 20_000, 10, 10
SUBSTEPS, TRANSIENT = 4, 1_000  # Runge-Kutta steps a point; points until the orbit is on the attractor

Point = tuple[float, float, float]


@cache
def orbit() -> Float[np.ndarray, "n 3"]:
    """The 20,000 points of the orbit, scaled to [−1, 1]."""
    s, points = (1.0, 1.0, 20.0), []
    for _ in range(TRANSIENT + POINTS):
        for _ in range(SUBSTEPS):
            s = _runge_kutta(s, DT / SUBSTEPS)
        points.append(s)
    on_attractor = np.array(points[TRANSIENT:])
    return (on_attractor / np.abs(on_attractor).max()).astype(np.float32)


def velocity(s: Point) -> Point:
    """The right-hand side of the equations: (ẋ, ẏ, ż) at a point."""
    x, y, z = s
    return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z


def _runge_kutta(s: Point, h: float) -> Point:
    """One step of the classical fourth-order method; Python floats are faster here than arrays of 3."""

    def after(t: float, k: Point) -> Point:
        return s[0] + t * k[0], s[1] + t * k[1], s[2] + t * k[2]

    k_1 = velocity(s)
    k_2 = velocity(after(h / 2, k_1))
    k_3 = velocity(after(h / 2, k_2))
    k_4 = velocity(after(h, k_3))
    x, y, z = ((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k_1, k_2, k_3, k_4, strict=True))
    return after(h, (x, y, z))


@dataclass(frozen=True)
class Lorenz(GeneratedTask):
    """Windows of the orbit: 16,000 points for training, then 2,000 for validation and 2,000 for test."""

    input_size = 3
    output_size = 3
    loss = "mse"
    metric = "mse"
    maximize = False
    length = WARM_UP + COUNTED
    validation_size, test_size = 512, 512

    def baselines(self, split: Split) -> dict[str, float]:
        """The mean variance of the three coordinates: the squared error of the mean point."""
        return {"always the mean": float(orbit().var(axis=0).mean())}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` training windows: xs and targets (size, 20, 3), weights (size, 20)."""
        return _windows(jax.random.randint(key, (size,), 0, 16_000 - self.length))

    def validation(self) -> Batch:
        """512 evenly spaced windows of the validation points."""
        return _windows(jnp.linspace(16_000, 18_000 - self.length - 1, self.validation_size).astype(jnp.int32))

    def test(self) -> Batch:
        """512 evenly spaced windows of the test points."""
        return _windows(jnp.linspace(18_000, POINTS - self.length - 1, self.test_size).astype(jnp.int32))


def _windows(starts: Int[Array, " B"]) -> Batch:
    points = jnp.asarray(orbit())
    steps = starts[:, None] + jnp.arange(WARM_UP + COUNTED, dtype=starts.dtype)[None]
    weights = jnp.broadcast_to((jnp.arange(WARM_UP + COUNTED) >= WARM_UP).astype(jnp.float32), steps.shape)
    return Batch(points[steps], points[steps + 1], weights=weights)


register_task("lorenz", Lorenz)
