"""Where the time of a test run goes: seconds and compiled programs of each file of tests.

`make test-times` loads this as a pytest plugin (`-p tests.times`). With pytest-xdist each worker counts its own
programs and sends the counts with its reports, so the table is the sum over all workers.
"""

from collections import defaultdict

import jax
import pytest

PROGRAM_COMPILED = "/jax/core/compile/backend_compile_duration"
SHOWN = 10

seconds_compiling: list[float] = []  # of every program that this process compiled
totals: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])  # by file: seconds, programs, compiling


def _listen(event: str, seconds: float, **_: object) -> None:
    if event == PROGRAM_COMPILED:
        seconds_compiling.append(seconds)


def pytest_configure(config):
    jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Attach to a report what was compiled since the last one."""
    outcome = yield
    outcome.get_result().compiled = (len(seconds_compiling), sum(seconds_compiling))
    seconds_compiling.clear()


def pytest_runtest_logreport(report):
    programs, compiling = report.compiled
    for k, amount in enumerate((report.duration, programs, compiling)):
        totals[report.nodeid.split("::")[0]][k] += amount


def pytest_terminal_summary(terminalreporter):
    slowest = sorted(totals.items(), key=lambda entry: -entry[1][0])
    write = terminalreporter.write_line
    terminalreporter.section(f"the {SHOWN} slowest files of {len(totals)}")
    write(f"{'seconds':>8} {'programs':>8} {'compiling':>9}  file")
    rows = [*slowest[:SHOWN], ("all files", [sum(column) for column in zip(*totals.values(), strict=True)])]
    for file, (seconds, programs, compiling) in rows:
        write(f"{seconds:8.1f} {programs:8.0f} {compiling:9.1f}  {file}")
