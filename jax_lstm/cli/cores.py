"""Cores as devices: where JAX computes on a CPU, each core that the process may use is a device of its own."""

import contextlib
import os

import jax


def make_cores_devices() -> None:
    """Make each core a device; to be called before the first use of a backend. An accelerator is used all the same.

    A number that was chosen stays: by JAX_NUM_CPU_DEVICES, by jax.config, or by the older flag in XLA_FLAGS.
    """
    chosen = jax.config.jax_num_cpu_devices  # pyrefly: ignore[missing-attribute]
    if chosen >= 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):  # -1: nobody chose
        return
    # JAX refuses this once a backend is in use, as in a program that calls a command: it trains on what there is.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count_cores())


def count_cores() -> int:
    """The cores that this process may use, where the system tells; else all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
