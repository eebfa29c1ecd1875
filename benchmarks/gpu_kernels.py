"""How many kernels a program starts on a GPU, counted by the profilers of JAX and PyTorch."""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

SHOWN = 12  # how many names of kernels are kept, the most frequent first


def count(call: Callable[[], Any], steps: int) -> dict[str, Any]:
    """The events on the GPU's streams during one call: all, for each step, and by name."""
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        events, problems = Counter(), []
        for read in (from_json, from_xplane):
            try:
                found = read(Path(folder))
            except Exception as error:
                problems.append(f"{read.__name__}: {type(error).__name__}: {error}")
            else:
                events = events or found
        if not events:
            problems.append(f"no events of a GPU's stream among the lines {lines(Path(folder))}")
    return summary(events, steps, "; ".join(problems)[:1000])


def summary(events: Counter, steps: int, reason: str) -> dict[str, Any]:
    """The events, or null and the reason."""
    if not events:
        return {"a_step": None, "reason": reason}
    total = sum(events.values())
    return {"a_step": round(total / steps, 2), "events": total, "names": dict(events.most_common(SHOWN))}


def is_counted(process: str, line: str) -> bool:
    """Whether a line of the trace is a stream of a GPU; without a GPU every line is counted, to run the same code."""
    return jax.default_backend() != "gpu" or ("GPU" in process and line.startswith("Stream"))


def from_json(folder: Path) -> Counter:
    """The events of the trace in Chrome's format."""
    (file,) = folder.rglob("*.trace.json.gz")
    with gzip.open(file) as f:
        events = json.load(f)["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    lines = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    return Counter(
        e["name"]
        for e in events
        if e.get("ph") == "X" and is_counted(processes.get(e["pid"], ""), lines.get((e["pid"], e["tid"]), ""))
    )


def from_xplane(folder: Path) -> Counter:
    """The events of the trace in XLA's own format."""
    (file,) = folder.rglob("*.xplane.pb")
    return Counter(
        event.name
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        if is_counted(plane.name, line.name)
        for event in line.events
    )


def lines(folder: Path) -> list[str]:
    """The names of all lines of the trace."""
    planes = [
        plane for file in folder.rglob("*.xplane.pb") for plane in jax.profiler.ProfileData.from_file(str(file)).planes
    ]
    return sorted({f"{plane.name} {line.name}" for plane in planes for line in plane.lines})


def count_torch(call: Callable[[], Any], steps: int) -> dict[str, Any]:
    """The same of a call of PyTorch."""
    import torch

    gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * gpu
    call()
    with torch.profiler.profile(activities=activities) as profile:
        call()
        if gpu:
            torch.cuda.synchronize()
    wanted = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    events = Counter(e.name for e in profile.events() if e.device_type == wanted)
    return summary(events, steps, "torch.profiler recorded no events of the GPU")
