"""How things are timed: interleaved, in one process, and by their minima, because the machine has other work too."""

import json
import os
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
BLOCKS = 3  # minima are taken over each of these; their spread says how far to trust one


def minima(calls: dict[str, Callable[[], Any]], seconds: float, rounds: int = 300) -> dict[str, dict[str, float]]:
    """The least time of each call in ms, over rounds that run every call once, and the spread of the blocks' minima."""
    for call in calls.values():
        jax.block_until_ready(call())
        jax.block_until_ready(call())
    blocks, order = [], random.Random(0)  # some libraries' threads spin for a while after a call: nobody is always next
    for _ in range(BLOCKS):
        best = dict.fromkeys(calls, float("inf"))
        end, n = time.perf_counter() + seconds / BLOCKS, 0
        while n < 2 or (time.perf_counter() < end and n < rounds):
            for name, call in order.sample(list(calls.items()), len(calls)):
                start = time.perf_counter()
                jax.block_until_ready(call())
                best[name] = min(best[name], time.perf_counter() - start)
            n += 1
        blocks.append(best)
    return {
        name: {
            "ms": round(1e3 * min(b[name] for b in blocks), 4),
            "spread": round(max(b[name] for b in blocks) / min(b[name] for b in blocks) - 1, 3),
        }
        for name in calls
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((s.split(":")[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")), cpu)
    names = ("jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "devices": f"{jax.local_device_count()} {jax.default_backend()}",
        "versions": {name: _version(name) for name in names},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def write(name: str, rows: Any) -> Path:
    """results/<name>.json, with the machine beside the figures."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path
