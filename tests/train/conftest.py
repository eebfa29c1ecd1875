"""Optax's Adam mixes dtypes, so tests that train relax strict promotion, and nothing else."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def standard_dtype_promotion():
    """Strict promotion off while a module's tests and fixtures run."""
    with jax.numpy_dtype_promotion("standard"):
        yield
