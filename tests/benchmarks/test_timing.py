"""How the benchmarks time: what several processes measured becomes one result."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import timing


def test_merged_keeps_minima_and_adds_the_spread_of_times():
    results = [
        {"ours": {"train": {"ms": 4.0}, "bytes": 10}, "rows": [{"T": 7, "ms": 2.0}]},
        {"ours": {"train": {"ms": 5.0}, "bytes": 10}, "rows": [{"T": 7, "ms": 1.0}]},
    ]
    assert timing.merged(results) == {
        "ours": {"train": {"ms": 4.0, "spread": 0.25}, "bytes": 10},
        "rows": [{"T": 7, "ms": 1.0, "spread": 1.0}],
    }


def test_each_call_runs_twice_untimed_and_twice_timed():
    calls = dict.fromkeys("ab", 0)

    def call(name):
        calls[name] += 1
        return name

    times = timing.minima({name: lambda name=name: call(name) for name in calls}, seconds=0.0)
    assert calls == {"a": 4, "b": 4}  # twice before the clock starts, twice on it
    assert all(0 <= figure["ms"] < 1000 for figure in times.values())


def test_every_measurement_is_in_a_process_of_its_own():
    pid = timing.in_fresh_processes(os.getpid)
    assert pid != os.getpid()
    with pytest.raises(ZeroDivisionError):
        timing.in_fresh_processes(divmod, 1, 0)
