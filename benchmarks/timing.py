"""How things are timed: interleaved in one process, in three fresh processes, and by their minima.

The machine has other work too, hence interleaving and minima. And a process keeps what it happened to get: one program
is up to a quarter slower for a whole process where its weights lie badly for the caches. Hence more than one.
"""

import json
import multiprocessing
import os
import platform
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
PROCESSES = 3


def minima(
    calls: dict[str, Callable[[], Any]], seconds: float, rounds: int = 300, untimed: int = 2
) -> dict[str, dict[str, float]]:
    """The least time of each call in ms, over rounds that run every call once."""
    for call in calls.values():
        for _ in range(untimed):
            jax.block_until_ready(call())
    order = random.Random(0)  # some libraries' threads spin for a while after a call: nobody is always next
    best = dict.fromkeys(calls, float("inf"))
    end, n = time.perf_counter() + seconds, 0
    while n < 2 or (time.perf_counter() < end and n < rounds):
        for name, call in order.sample(list(calls.items()), len(calls)):
            start = time.perf_counter()
            jax.block_until_ready(call())
            best[name] = min(best[name], time.perf_counter() - start)
        n += 1
    return {name: {"ms": round(1e3 * seconds, 4)} for name, seconds in best.items()}


def compiled_at_once(lowered: dict[Any, Any], options: dict[str, Any] | None = None) -> dict[Any, Any]:
    """The programs, compiled at the same time in threads."""
    with ThreadPoolExecutor(8) as pool:
        compiled = {name: pool.submit(one.compile, options) for name, one in lowered.items()}
        return {name: future.result() for name, future in compiled.items()}


def in_fresh_processes(measure: Callable[..., Any], *args: Any) -> Any:
    """What `measure` gives in several processes, one after another: each number's least, each time's spread with it."""
    results = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results.append(pool.submit(measure, *args).result())
    return merged(results)


def merged(results: list[Any]) -> Any:
    """Results of one form as one: dicts and lists entry by entry, numbers by their minimum."""
    first = results[0]
    if isinstance(first, dict):
        all_of = {name: merged([r[name] for r in results]) for name in first}
        if "ms" in first:
            all_of["spread"] = round(max(r["ms"] for r in results) / all_of["ms"] - 1, 3)
        return all_of
    if isinstance(first, list):
        return [merged(list(parts)) for parts in zip(*results, strict=True)]
    return min(results)


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


def write(name: str, rows: Any, folder: Path = RESULTS) -> Path:
    """results/<name>.json, with the machine beside the figures."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path
