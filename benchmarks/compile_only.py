"""What the compilers for an NVIDIA H100 and a TPU v5e make of a train step, ours and the peers', with neither at hand.

    pip install . dm-haiku equinox keras libtpu                      on Python 3.12 or newer
    pip install --no-deps jax-cuda13-plugin==V jax-cuda13-pjrt==V    V: the version of jax that this brought
    python benchmarks/compile_only.py                                writes benchmarks/results/compile_only.json

The train step is the value and the gradient, with respect to (params, xs), of vdot(g, forward(params, xs)), from a
zero state, with time first: B = 128, T = 512, I = 512, H = 1024, float32. It is lowered and compiled for a described
device (`jax.experimental.topologies`; h100.txtpb describes the H100) and never run. So nothing here is a time; these
are the compilers' own figures:

    kernels      what the body of each loop starts a step, forward loop first: every instruction that does work, be it
                 a fusion, a product, a copy or a library call; the loop's own counter is one. An asynchronous one
                 counts where it starts, what a loop in the loop holds as often as it runs. (GPU)
    cycles       the sum of `estimated_cycles` over the instructions, those of a loop times its trip count;
                 asynchronous copies have no estimate. (TPU)
    temporary    bytes that the program needs besides arguments and results, as `memory_analysis` says
    collectives  instructions between devices inside a loop and in all, the batch sharded over four devices

The GPU's kernels are chosen without tuning, as there is nothing to tune on (`--xla_gpu_autotune_level=0`).
"""

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

HERE = Path(__file__).parent
B, T, I, H = 128, 512, 512, 1024
SETTINGS = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_gpu_autotune_level=0",
    # libtpu would ask the cloud which machine this is.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda13-pjrt", "libtpu", "flax", "dm-haiku", "equinox", "keras")


class Target(NamedTuple):
    """A device to compile for: what `jax.default_backend` says there, and n of them."""

    name: str
    backend: str
    devices: Callable[[int], list[Any]]


def h100(n: int) -> list[Any]:
    """n H100 in one machine."""
    described = (HERE / "h100.txtpb").read_text()
    return topologies.get_topology_desc(platform="cuda", topology=f"1x1x{n}", target_config=described).devices


def v5e(n: int) -> list[Any]:
    """The first n chips of a TPU v5e 2x2."""
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[:n]


TARGETS = (Target("H100", "gpu", h100), Target("TPU v5e", "tpu", v5e))


class Instruction(NamedTuple):
    """One line of optimised HLO."""

    name: str
    opcode: str
    line: str

    def called(self, *roles: str) -> list[str]:
        """The computations it calls in these roles."""
        found = re.findall(rf"\b(?:{'|'.join(roles)})=(\{{[^}}]*\}}|%?[\w.\-]+)", self.line)
        return [name.strip(" %") for group in found for name in group.strip("{}").split(",")]


class Program:
    """Optimised HLO text."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = name = ""
        for line in text.splitlines():
            if opened := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                name = opened[2]
                self.computations[name] = []
                self.entry = name if opened[1] else self.entry
            elif name and (found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$", line)):
                # The type comes before the opcode, and may be a tuple of types whose layouts have brackets too.
                opcode = re.search(r"(?:^|[\s)\]}])([a-z][a-z0-9\-]*)\(", found[2])
                self.computations[name].append(Instruction(found[1], opcode[1] if opcode else "", line))

    def trips(self, loop: Instruction) -> int:
        """How often a while loop runs: as the compiler says, or n where its condition is i < n."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.line):
            return int(known[1])
        (condition,) = loop.called("condition")
        bounds = [re.search(r" constant\((\d+)\)", i.line) for i in self.computations[condition]]
        (bound,) = [int(b[1]) for b in bounds if b]
        if not any("direction=LT" in i.line for i in self.computations[condition]):
            raise ValueError(f"trips: {condition} is not of the form i < n")
        return bound

    def work(self, computation: str, times: int = 1) -> Iterator[tuple[int, Instruction]]:
        """Every instruction and how often it runs, loops and calls followed, fusions not opened."""
        for i in self.computations[computation]:
            if i.opcode == "while":
                for body in i.called("body"):
                    yield from self.work(body, times * self.trips(i))
            elif i.opcode in ("call", "call-start", "conditional", "async-start"):
                for inner in i.called("to_apply", "calls", "branch_computations", "called_computations"):
                    yield from self.work(inner, times)
            else:
                yield times, i

    def loops(self) -> list[tuple[str, int]]:
        """The body and the trip count of every loop that stands in no other, in the order in which they run."""
        found, todo = [], [self.entry]
        while todo:
            for i in self.computations[todo.pop(0)]:
                if i.opcode == "while":
                    found.append((i.called("body")[0], self.trips(i)))
                elif i.opcode == "call":
                    todo += i.called("to_apply", "calls")
        return found


NO_WORK = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id")
BETWEEN_DEVICES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def kernels(program: Program) -> list[float]:
    """What the body of each loop starts, for a step of T."""

    def starts(i: Instruction) -> bool:
        return i.opcode not in NO_WORK and not i.opcode.endswith(("-done", "-update"))

    def in_loop(body: str, trips: int) -> float:
        return sum(n for n, i in program.work(body, trips) if starts(i)) / T

    return [in_loop(*loop) for loop in program.loops()]


def cycles(program: Program) -> dict[str, Any]:
    """The compiler's estimate for the whole program, and for a step of T in each loop."""

    def total(work: Iterator[tuple[int, Instruction]]) -> int:
        found = ((n, re.search(r'"estimated_cycles":"(\d+)"', i.line)) for n, i in work)
        return sum(n * int(m[1]) for n, m in found if m)

    loops = [total(program.work(*loop)) // T for loop in program.loops()]
    return {"all": total(program.work(program.entry)), "step": loops}


def collectives(program: Program) -> dict[str, int]:
    """How many instructions between devices stand in the loops, and in all."""

    def among(computation: str) -> int:
        return sum(i.opcode.removesuffix("-start") in BETWEEN_DEVICES for _, i in program.work(computation))

    return {"loops": sum(among(body) for body, _ in program.loops()), "all": among(program.entry)}


def compiled(implementation: Any, devices: list[Any]) -> Any:
    """The train step for these devices, the batch sharded over them."""
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    whole, sharded = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), (None, "data")))
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), implementation.params)
    xs, g = (jax.ShapeDtypeStruct((T, B, n), jnp.float32, sharding=sharded) for n in (I, H))

    def loss(params: Any, xs: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.vdot(g, implementation.forward(params, xs))

    step = jax.jit(jax.value_and_grad(loss, (0, 1)), out_shardings=(whole, (whole, sharded)))
    return step.lower(params, xs, g).compile()


def measured(implementation: Any, target: Target) -> dict[str, Any]:
    """The figures of one implementation on one target."""
    one = compiled(implementation, target.devices(1))
    program = Program(one.as_text())
    own = {"kernels": kernels(program)} if target.backend == "gpu" else {"cycles": cycles(program)}
    temporary = {"temporary": one.memory_analysis().temp_size_in_bytes}
    return (
        own | temporary | {"collectives": collectives(Program(compiled(implementation, target.devices(4)).as_text()))}
    )


def table(target: Target, figures: dict[str, dict[str, Any]]) -> str:
    """The figures as text, ours first."""
    rows = []
    for name, f in figures.items():
        own = " + ".join(f"{k:g}" for k in f["kernels"]) if "kernels" in f else f"{f['cycles']['all'] / 1e6:.1f}"
        step = " + ".join(str(c) for c in f["cycles"]["step"]) if "cycles" in f else ""
        between = f"{f['collectives']['loops']} of {f['collectives']['all']}"
        rows.append((name, own, step, f"{f['temporary'] / 1e9:.2f}", between))
    gpu = target.backend == "gpu"
    head = (target.name, "kernels a step" if gpu else "Mcycles", "" if gpu else "cycles a step", "temporary GB",
            "collectives in loops")  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True) if w) for row in (head, *rows))


def main() -> None:
    """Compile everything for every target; write the figures and print them."""
    os.environ.update(SETTINGS)
    jax.config.update("jax_platforms", "cpu")
    import peers

    import jax_lstm as jl

    zeros = jl.LSTMParams(*(jnp.zeros(shape) for shape in ((I, 4 * H), (H, 4 * H), (4 * H,))))
    implementations = [factory(zeros) for factory in (peers.jax_lstm, *peers.PEERS)]
    results = {
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "problem": {"B": B, "T": T, "I": I, "H": H, "dtype": "float32", "settings": SETTINGS},
    }
    for target in TARGETS:
        jax.clear_caches()  # what was traced for another backend
        with mock.patch("jax.default_backend", return_value=target.backend):
            results[target.name] = {i.name: measured(i, target) for i in implementations}
        print(table(target, results[target.name]), end="\n\n")
    (HERE / "results" / "compile_only.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
