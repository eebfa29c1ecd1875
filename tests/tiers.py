"""The two tiers of tests: `make test` runs the default one, `make test-all` also runs what is marked `slow`."""

import pytest


def slow_except(quick, values):
    """The values as parameters of a test; those that are not in `quick` are slow."""
    values = list(values)
    assert set(quick) <= set(values)  # a name that no longer exists would leave the default tier empty
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
