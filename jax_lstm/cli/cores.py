"""Make each CPU core a JAX device, so that training on a CPU uses all cores."""

import contextlib
import os

import jax


def make_cores_devices() -> None:
    """Make each CPU core that this process may use a JAX device. Call it before the first use of a backend.

    A GPU or TPU is still preferred. A number of CPU devices set by JAX_NUM_CPU_DEVICES, by jax.config, or by the older
    flag in XLA_FLAGS is kept.
    """
    chosen = jax.config.jax_num_cpu_devices  # pyrefly: ignore[missing-attribute]
    if chosen >= 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):  # -1: nobody chose
        return
    # JAX refuses this once a backend is in use, as in a program that calls a command; then the devices do not change.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count_cores())


def count_cores() -> int:
    """The number of cores that this process may use, if the system tells; else all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
