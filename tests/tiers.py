"""The two tiers of tests: `make test` runs the default one, `make test-all` also runs what is marked `slow`."""

import pytest


def slow_except(quick, values):
    """The values as parameters of a test; those that are not in `quick` are slow. A tuple is several parameters."""
    values = list(values)
    assert quick
    assert all(value in values for value in quick)  # an old name would leave the default tier empty
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        pytest.param(*row, marks=() if value in quick else pytest.mark.slow)
        for value, row in zip(values, rows, strict=True)
    ]
