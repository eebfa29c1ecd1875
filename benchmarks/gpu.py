"""Is an LSTM of jax_lstm right on an NVIDIA GPU, and how fast is it there, beside Flax nnx, Equinox and cuDNN?

    python benchmarks/gpu.py              about six minutes on one GPU; writes benchmarks/results/gpu.json
    python benchmarks/gpu.py --dry-run    runs the same code on a CPU with tiny shapes; writes to a temporary folder

The results are written after every row. No row starts after `--seconds`; the rows left out are listed as skipped, and a
row that fails is listed with its error. The sections of the results, in `rows`:

    correctness  errors of every engine against float64 on the host; gpu_correctness.py
    times        forward pass and train step of every library, for each shape and dtype
    kernels      kernels that one forward pass and one train step start, for each step; gpu_kernels.py
    extras       jax_lstm alone: under `jax.vmap`, with masks and resets, with compute_dtype, without TF32
    flags        jax_lstm with other settings of XLA, each in a process of its own

How it is timed: a time is that of several calls, queued until they take about `QUEUE` seconds, divided by their number;
the program waits for the GPU at the end of each queue. All calls of one row alternate in rounds in one process, and the
least time counts. So the time to start the kernels is included, where the GPU has to wait for it.

"float32" is what JAX and cuDNN do by default: operands of products are rounded to TF32. "bfloat16" means weights, data
and state in bfloat16, in every library. `difference` is the largest difference of a weight gradient from that of
jax_lstm, over the largest entry. `compile_s` is the time to trace and compile a train step at the first shape, one
program at a time: `first` includes the search for the fastest kernels, `again` does not. Elsewhere programs are
compiled at the same time.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dry-run", action="store_true", help="run everything on a CPU, with tiny shapes")
parser.add_argument("--seconds", type=float, default=320.0, help="no row starts after this time")
parser.add_argument("--out", type=Path, default=None, help="the folder of gpu.json; default benchmarks/results")
parser.add_argument("--child", choices=("torch", "flags"), default=None, help=argparse.SUPPRESS)
parser.add_argument("--unroll", type=int, default=0, help=argparse.SUPPRESS)
OPTIONS = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])
DRY = OPTIONS.dry_run

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch and other processes need memory too
if DRY:
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiling takes most of the time
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads wait for each other on a busy machine

import gpu_correctness  # noqa: E402
import gpu_kernels  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
import timing  # noqa: E402
from speed import data as random_data  # noqa: E402
from speed import train_step  # noqa: E402

import jax_lstm as jl  # noqa: E402
from jax_lstm.engines import recurrence, tangent  # noqa: E402
from jax_lstm.engines.layout import choose_layout  # noqa: E402

Shape = tuple[int, int, int, int]  # B, T, I, H
SMALL, LARGE, WIDE, LONG = (
    ((2, 5, 3, 4), (2, 4, 4, 4), (3, 4, 3, 2), (1, 9, 2, 3))
    if DRY
    else ((32, 128, 128, 256), (16, 1024, 768, 768), (128, 512, 512, 1024), (1, 10_000, 64, 64))
)
CHECKED = (2, 6, 3, 4) if DRY else (16, 100, 96, 128)  # the sizes of the correctness checks
QUEUE = 0.001 if DRY else 0.03  # seconds that the calls between two waits take
OURS, PLAIN, NNX, EQUINOX, TORCH = "jax_lstm", "jax_lstm, plain", "Flax nnx", "Equinox", "PyTorch"
KINDS = ("forward", "train")
TORCH_DEVICE = "cpu" if DRY else "cuda"
CHILD_SECONDS = 75.0
FLAGS = {  # XLA_FLAGS, and by how much loops are unrolled; 0: as the library does it
    "default": ("", 0),
    "loops not unrolled": ("", 1),
    "loops unrolled by 16": ("", 16),
    "no command buffers": ("--xla_gpu_enable_command_buffer=", 0),
    "loops in command buffers": (
        "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONDITIONAL,WHILE", 0
    ),
    "no Triton for products": ("--xla_gpu_enable_triton_gemm=false", 0),
}  # fmt: skip


class Case(NamedTuple):
    """One program to time."""

    name: str
    params: Any
    forward: Callable[[Any, jax.Array], jax.Array]
    xs: jax.Array
    g: jax.Array
    ours: Callable[[Any], jl.LSTMParams] | None = None  # gradients in our layout; None: they are not compared
    precision: str | None = None


class Report:
    """What has been measured so far, written after every row."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.start, self.seconds = folder, time.perf_counter(), seconds
        self.rows: dict[str, Any] = {
            "dry_run": DRY, "gpu": gpu(), "correctness": [], "times": [], "kernels": {}, "extras": [], "flags": {},
            "skipped": [], "errors": {}, "seconds": {},
        }  # fmt: skip
        self.programs: dict[tuple[str, str], Callable[[], Any]] = {}  # those of the first shape, for the profiler
        folder.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds in which another row may start."""
        return self.start + self.seconds - time.perf_counter()

    def row(self, name: str, measure: Callable[..., None], *args: Any) -> None:
        """Measure one row, unless the time is up; note its error, if it fails, and go on."""
        start = time.perf_counter()
        if self.left() <= 0:
            self.rows["skipped"].append(name)
        else:
            try:
                measure(self, *args)
            except Exception as error:
                self.rows["errors"][name] = f"{type(error).__name__}: {error}"[:600]
        self.rows["seconds"][name] = round(time.perf_counter() - start, 2)
        note = "skipped" if name in self.rows["skipped"] else self.rows["errors"].get(name, "done")
        print(f"{time.perf_counter() - self.start:6.1f} s  {name}: {note}", flush=True)
        timing.write("gpu", self.rows, self.folder)


def gpu() -> dict[str, Any]:
    """The GPU by the name that JAX gives, and by what nvidia-smi says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        said = f"{type(error).__name__}"
    return {"kind": jax.devices()[0].device_kind, "nvidia-smi": said}


# What is timed


def on_host() -> Any:
    """Run small operations on the CPU, because each would be compiled for the GPU first."""
    return jax.default_device(jax.devices("cpu")[0])


@lru_cache(maxsize=1)
def data(shape: Shape) -> tuple[jl.LSTMParams, jax.Array, jax.Array]:
    """Weights, inputs and the cotangent of the outputs, time-major, in float32."""
    with on_host():
        return random_data(*shape)


def case(one: peers.Implementation, xs: jax.Array, g: jax.Array, dtype: str) -> Case:
    """An implementation in one dtype, its arrays on the GPU."""
    with on_host():
        arrays = jax.tree.map(lambda a: a.astype(dtype), (one.params, xs, g))
    params, xs, g = jax.device_put(arrays, jax.devices()[0])
    return Case(one.name, params, one.forward, xs, g, one.ours)


def our_case(shape: Shape) -> Case:
    """Our LSTM as it is by default, in float32."""
    p, xs, g = data(shape)
    with on_host():
        return case(peers.jax_lstm(p), xs, g, "float32")


def run(cell: jl.LSTM, engine: str = "auto", **masks: np.ndarray) -> Callable[[Any, jax.Array], jax.Array]:
    """The outputs of our LSTM."""
    unroll = jl.batched(partial(jl.unroll, engine=engine), time_major=True)
    return lambda params, xs: unroll(cell, params, xs, **masks)[1]


def main_cases(shape: Shape, dtype: str) -> list[Case]:
    """Our two engines, and the peers; the first is what the others are compared with."""
    p, xs, g = data(shape)
    with on_host():
        ours, *others = [make(p) for make in (peers.jax_lstm, peers.flax_nnx, peers.equinox) if is_installed(make)]
    plain = ours._replace(name=PLAIN, forward=run(jl.LSTM(*shape[2:]), "plain"))
    return [case(one, xs, g, dtype) for one in (ours, plain, *others)]


def is_installed(make: Callable[..., Any]) -> bool:
    """Whether the library of a peer can be imported; Flax always can, because jax_lstm needs it."""
    return make is not peers.equinox or importlib.util.find_spec("equinox") is not None


def extra_cases(shape: Shape) -> list[Case]:
    """Our LSTM in other ways; the first is the same as in the main table, to compare with."""
    B, T, I, H = shape
    ours = our_case(shape)
    cell = jl.LSTM(I, H)
    rng = np.random.default_rng(0)
    mask = np.arange(T)[:, None] < rng.integers(T // 2, T, size=B, endpoint=True)
    reset = rng.random((T, B)) < 0.01
    batch_major = [jax.device_put(np.swapaxes(np.asarray(a), 0, 1), jax.devices()[0]) for a in data(shape)[1:]]

    def mapped(params: Any, xs: jax.Array) -> jax.Array:
        return jax.vmap(lambda xs: jl.unroll(cell, params, xs)[1])(xs)

    rounded = run(jl.LSTM(I, H, compute_dtype="bfloat16"))
    return [
        ours,
        ours._replace(name="jax.vmap, batch-major", forward=mapped, xs=batch_major[0], g=batch_major[1]),
        ours._replace(name="with a mask", forward=run(cell, mask=mask), ours=None),
        ours._replace(name="with mask and reset", forward=run(cell, mask=mask, reset=reset), ours=None),
        ours._replace(name='compute_dtype="bfloat16"', forward=rounded),
        ours._replace(name='precision "highest"', precision="highest"),
    ]


def lowered(one: Case, kind: str) -> Any:
    """The program of a forward pass or a train step, traced but not compiled."""
    with jax.default_matmul_precision(one.precision):
        if kind == "train":
            return jax.jit(train_step(one)).lower(one.params, one.xs, one.g)
        return jax.jit(one.forward).lower(one.params, one.xs)


def compile_seconds(one: Case) -> dict[str, float]:
    """To trace and compile a train step for the first time, and again."""
    seconds = {}
    for when in ("first", "again"):
        jax.clear_caches()
        start = time.perf_counter()
        lowered(one, "train").compile()
        seconds[when] = round(time.perf_counter() - start, 3)
    return seconds


def jax_calls(cases: list[Case], figures: dict[str, Any]) -> dict[tuple[str, str], Callable[[], Any]]:
    """Every program as a call without arguments; the bytes and the difference of each are put into `figures`."""
    programs = timing.compiled_at_once({(one.name, kind): lowered(one, kind) for one in cases for kind in KINDS})
    calls, expected = {}, None
    for one in cases:
        train, forward = programs[one.name, "train"], programs[one.name, "forward"]
        calls[one.name, "forward"] = partial(forward, one.params, one.xs)
        calls[one.name, "train"] = partial(train, one.params, one.xs, one.g)
        figure = figures.setdefault(one.name, {})
        figure["bytes"] = {
            kind: getattr(programs[one.name, kind].memory_analysis(), "temp_size_in_bytes", None) for kind in KINDS
        }
        if one.ours is not None:
            got = one.ours(jax.device_get(calls[one.name, "train"]()[1][0]))
            got = jl.LSTMParams(*(np.asarray(a, np.float32) for a in got))
            expected = expected or got
            figure["difference"] = gpu_correctness.error(got, expected)
    figures["expected"] = expected
    return calls


def torch_calls(name: str, shape: Shape, dtype: str, tf32: bool, figures: dict[str, Any]) -> dict[Any, Any]:
    """The calls of PyTorch, where it is installed; `tf32` says whether cuDNN may round operands to TF32."""
    p, xs, g = data(shape)
    if (layer := peers.torch_layer(p, TORCH_DEVICE, dtype)) is None:
        return {}
    cudnn = layer.torch.backends.cudnn

    def allowed(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            cudnn.allow_tf32 = tf32
            call()

        return run

    train = layer.train_step(xs, g)
    cudnn.allow_tf32 = tf32
    gradients = layer.gradients(train)
    if (expected := figures.get("expected")) is not None:
        got = jl.LSTMParams(*(gradients[k] for k in ("w_x", "w_h", "b")))
        figures[name] = {"difference": gpu_correctness.error(got, expected)}
    return {(name, "forward"): allowed(layer.forward(xs)), (name, "train"): allowed(train)}


def finish(result: Any = None) -> None:
    """Wait for the GPU."""
    jax.block_until_ready(result)
    if not DRY and "torch" in sys.modules:
        sys.modules["torch"].cuda.synchronize()


def add_times(calls: dict[tuple[str, str], Callable[[], Any]], figures: dict[str, Any], seconds: float) -> None:
    """Time the calls and put the milliseconds into `figures`."""
    queues, lengths = {}, {}
    for name, call in calls.items():
        finish(call())
        start = time.perf_counter()
        finish(call())
        lengths[name] = n = max(1, min(100, round(QUEUE / (time.perf_counter() - start))))
        queues[name] = partial(queue, call, n)
    for (name, kind), figure in timing.minima(queues, 0.05 if DRY else seconds, untimed=0).items():
        n = lengths[name, kind]
        figures.setdefault(name, {})[kind] = {"ms": round(figure["ms"] / n, 4), "queued": n}


def queue(call: Callable[[], Any], n: int) -> None:
    """Call n times, and wait once."""
    result = None
    for _ in range(n):
        result = call()
    finish(result)


# The rows


def correctness(report: Report, name: str) -> None:
    """Every engine of one cell."""
    report.rows["correctness"] += gpu_correctness.check(name, CHECKED)


def times(report: Report, shape: Shape, dtype: str) -> None:
    """Every library at one shape."""
    figures: dict[str, Any] = {}
    cases = main_cases(shape, dtype)
    first = shape == SMALL and dtype == "float32"
    if first:
        jax.jit(jnp.dot)(jnp.ones((256, 256)), jnp.ones((256, 256))).block_until_ready()  # starts the GPU's libraries
        for one in cases:
            figures[one.name] = {"compile_s": compile_seconds(one)}
    calls = jax_calls(cases, figures)
    if first:
        report.programs = dict(calls)
    calls |= torch_calls(TORCH, shape, dtype, True, figures)
    del figures["expected"]
    add_times(calls, figures, seconds=4)
    report.rows["times"].append({"shape": shape, "dtype": dtype, "figures": figures})


def extras(report: Report, shape: Shape) -> None:
    """Our LSTM in other ways at one shape, and cuDNN with exact float32 products."""
    figures: dict[str, Any] = {}
    calls = jax_calls(extra_cases(shape), figures)
    calls |= torch_calls("PyTorch without TF32", shape, "float32", False, figures)
    del figures["expected"]
    add_times(calls, figures, seconds=4)
    report.rows["extras"].append({"shape": shape, "dtype": "float32", "figures": figures})


def kernels(report: Report) -> None:
    """The kernels of our engines and Flax nnx for each step."""
    for (name, kind), call in report.programs.items():
        if name != EQUINOX:
            report.rows["kernels"].setdefault(name, {})[kind] = gpu_kernels.count(call, SMALL[1])


def torch_kernels(report: Report) -> None:
    """The kernels of PyTorch for each step, in a process of its own: two profilers may disturb each other."""
    report.rows["kernels"] |= child("torch", {"JAX_PLATFORMS": "cpu"}, report)


def flags(report: Report, name: str) -> None:
    """Our times with other settings of XLA."""
    xla, unroll = FLAGS[name]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()
    report.rows["flags"][name] = {
        "xla_flags": xla, "unroll": unroll, "times": child("flags", {"XLA_FLAGS": flags}, report, "--unroll", unroll)
    }  # fmt: skip


# Other processes


def child(kind: str, environment: dict[str, str], report: Report, *options: Any) -> Any:
    """What this file measures in a fresh process; its last line is JSON."""
    command = [sys.executable, __file__, "--child", kind, *(["--dry-run"] if DRY else []), *map(str, options)]
    limit = min(CHILD_SECONDS, report.left() + 30)
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=limit
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"exit code {done.returncode}: {said}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def torch_child() -> dict[str, Any]:
    """The kernels of PyTorch."""
    p, xs, g = data(SMALL)
    if (layer := peers.torch_layer(p, TORCH_DEVICE)) is None:
        return {TORCH: {kind: {"a_step": None, "reason": "PyTorch is not installed"} for kind in KINDS}}
    calls = {"forward": layer.forward(xs), "train": layer.train_step(xs, g)}
    return {TORCH: {kind: gpu_kernels.count_torch(call, SMALL[1]) for kind, call in calls.items()}}


def flags_child() -> list[dict[str, Any]]:
    """Our times at two shapes under the flags of this process."""
    if OPTIONS.unroll:
        for module in (recurrence, tangent):
            module.choose_layout = lambda *sizes: choose_layout(*sizes)._replace(unroll=OPTIONS.unroll)
    results = []
    for shape in (SMALL, LARGE):
        figures: dict[str, Any] = {}
        calls = jax_calls([our_case(shape)], figures)
        add_times(calls, figures, seconds=1)
        results.append({"shape": shape} | {kind: figures[OURS][kind] for kind in KINDS})
    return results


def rows_of(section: str, measure: Callable[..., None], *arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Rows of one section: the name, the function, and its arguments."""
    return [(f"{section}: {', '.join(map(str, args))}", measure, *args) for args in arguments]


def plan() -> list[tuple[Any, ...]]:
    """Every row, the most valuable first. A dry run leaves out rows that differ from others in cell or shape only."""
    rows = [
        *rows_of("correctness", correctness, ("LSTM",)),
        *rows_of("times", times, (SMALL, "float32"), (LARGE, "float32"), (LARGE, "bfloat16")),
        ("kernels of PyTorch", torch_kernels),
        ("kernels", kernels),
        *rows_of("correctness", correctness, ("MinLSTM",), ("GRU",), ("Stack of 2 LSTM",)),
        *rows_of("extras", extras, (SMALL,)),
        *rows_of("times", times, (WIDE, "float32"), (WIDE, "bfloat16"), (LONG, "float32"), (SMALL, "bfloat16")),
        *rows_of("extras", extras, (LARGE,)),
        *rows_of("flags", flags, *((name,) for name in FLAGS)),
        *rows_of("correctness", correctness, ("MinGRU",)),
        *rows_of("times", times, (LONG, "bfloat16")),
    ]
    repeated = (("GRU",), ("MinGRU",), (WIDE, "float32"), (WIDE, "bfloat16"), (LONG, "bfloat16"))
    return [row for row in rows if not DRY or row[2:] not in repeated]


def main() -> None:
    """Measure what the command line asks for."""
    if OPTIONS.child:
        print(json.dumps(torch_child() if OPTIONS.child == "torch" else flags_child()))
        return
    if not DRY and jax.default_backend() != "gpu":
        sys.exit(
            f"benchmarks/gpu.py needs an NVIDIA GPU that JAX can use, but JAX uses a {jax.default_backend()}; run it "
            "with --dry-run to try it without one"
        )
    folder = OPTIONS.out or (Path(tempfile.mkdtemp()) if DRY else timing.RESULTS)
    report = Report(folder, OPTIONS.seconds)
    for name, measure, *args in plan():
        report.row(name, measure, *args)
    print(folder / "gpu.json")
    wrong = [f"{r['cell']}, {r['precision']}" for r in report.rows["correctness"] if not r["ok"]]
    if wrong:
        sys.exit(f"errors above the limit: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
