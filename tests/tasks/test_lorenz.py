"""The orbit, against SciPy's integrator and known averages of the attractor."""

import jax
import numpy as np
from scipy.integrate import solve_ivp

from jax_lstm.tasks import Lorenz
from jax_lstm.tasks.lorenz import DT, orbit, velocity


def test_a_step_of_the_orbit_is_that_of_the_equations():
    points = orbit().astype(np.float64)
    assert points.shape == (20_000, 3)
    assert np.abs(points).max() == 1
    # What the points were divided by: at a maximum of z its velocity is zero, x y = (8/3) z.
    tops = np.flatnonzero((points[1:-1, 2] > points[:-2, 2]) & (points[1:-1, 2] > points[2:, 2])) + 1
    scale = np.median(8 / 3 * points[tops, 2] / (points[tops, 0] * points[tops, 1]))
    assert 45 < scale < 50
    for start in (0, 777, 15_000):
        solved = solve_ivp(lambda t, s: velocity(s), (0, 20 * DT), scale * points[start], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(solved.y[:, -1] / scale, points[start + 20], atol=0.02)


def test_windows_are_consecutive_points_and_splits_are_disjoint():
    task, points = Lorenz(), orbit()
    seen = {}
    for name, batch in (
        ("train", task.train_batch(jax.random.key(0), 0, 256)), ("validation", task.validation()), ("test", task.test())
    ):  # fmt: skip
        xs, targets = np.asarray(batch.xs), np.asarray(batch.targets)
        assert xs.shape == targets.shape == (len(xs), 20, 3)
        np.testing.assert_array_equal(xs[:, 1:], targets[:, :-1])
        starts = [int(np.flatnonzero((points == x).all(axis=1))[0]) for x in xs[:, 0]]
        seen[name] = set(starts) | {s + 20 for s in starts}
        np.testing.assert_array_equal(np.asarray(batch.weights)[0], [0] * 10 + [1] * 10)
    assert max(seen["train"]) < 16_000 <= min(seen["validation"])
    assert max(seen["validation"]) < 18_000 <= min(seen["test"])
    assert max(seen["test"]) < 20_000
