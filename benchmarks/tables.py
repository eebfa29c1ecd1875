"""The tables and the picture of the results, made from results/*.json.

python benchmarks/tables.py            prints the tables
python benchmarks/tables.py --write    writes them between the markers in FILES, and draws results/speed.png
"""

import argparse
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (
    ROOT / "README.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "data.md",
    ROOT / "benchmarks" / "README.md",
)
PICTURE = RESULTS / "speed.png"
OURS, TWIN, TORCH = "jax_lstm", "custom_vjp twin", "PyTorch"
BATCHED, VMAP = f"{OURS}, batched", f"{OURS}, vmap"


def read(name: str) -> dict[str, Any]:
    """results/<name>.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]], space: str = " ") -> str:
    """A Markdown table, with `space` around each cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{space}" + f"{space}|{space}".join(line) + f"{space}|" for line in lines)


def best(figures: dict[str, Any], kind: str) -> tuple[str, float]:
    """The fastest JAX peer, and its figure."""
    others = (OURS, BATCHED, VMAP, TWIN, TORCH)
    peers = {n: value(f[kind]) for n, f in figures.items() if n not in others and kind in f}
    name = min(peers, key=peers.__getitem__)
    return name, peers[name]


def value(figure: Any) -> float:
    """Milliseconds, or the number that it is."""
    return figure["ms"] if isinstance(figure, dict) else figure


def mean(ratios: list[float]) -> str:
    """The geometric mean."""
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}"


def worst(ratios: list[float]) -> str:
    """The largest."""
    return f"{max(ratios):.2f}"


def ratio_table(first: str, rows: dict[str, dict[str, float | None]], space: str = " ") -> str:
    """One row per name, then the geometric mean and the worst of each column. None leaves a cell empty."""
    heads = list(next(iter(rows.values())))
    lines = [[name, *("" if r is None else f"{r:.2f}" for r in ratios.values())] for name, ratios in rows.items()]
    for name, of in (("geometric mean", mean), ("worst", worst)):
        columns = [[ratios[head] for ratios in rows.values()] for head in heads]
        lines.append([name, *("" if None in column else of(column) for column in columns)])
    return table([first, *heads], lines, space)


def sizes(shape: list[int]) -> str:
    """The sizes of a shape."""
    return ", ".join(map(str, shape))


def speed_brief() -> str:
    """The README's: ours over the best JAX peer and PyTorch. No spaces around cells: the README must be short."""

    def over_peer(f: dict[str, Any], name: str, kind: str) -> float | None:
        return value(f[name][kind]) / best(f, kind)[1] if name in f else None

    rows = {}
    for row in read("speed")["rows"]:
        f = row["figures"]
        rows[sizes(row["shape"])] = {
            "train step / best JAX peer": over_peer(f, OURS, "train"),
            "train step, `batched` / best JAX peer": over_peer(f, BATCHED, "train"),
            "train step, `vmap` / best JAX peer": over_peer(f, VMAP, "train"),
            "forward / best JAX peer": over_peer(f, OURS, "forward"),
            "train step / PyTorch": value(f[OURS]["train"]) / value(f[TORCH]["train"]),
        }
    return ratio_table("B, T, I, H", rows, space="")


def speed_summary() -> str:
    """Ours over the best JAX peer, the hand-written `custom_vjp` and PyTorch."""
    rows, columns = [], [[] for _ in range(6)]
    for row in read("speed")["rows"]:
        f = row["figures"]
        ours, peer = value(f[OURS]["train"]), best(f, "train")
        ratios = [
            ours / peer[1],
            ours / value(f[TWIN]["train"]),
            ours / value(f[TORCH]["train"]),
            value(f[OURS]["forward"]) / best(f, "forward")[1],
            value(f[OURS]["stream"]) / best(f, "stream")[1],
            f[OURS]["bytes"] / best(f, "bytes")[1],
        ]
        for column, ratio in zip(columns, ratios, strict=True):
            column.append(ratio)
        shape = sizes(row["shape"])
        rows.append(
            [shape, f"{ours:.2f} ms", *(f"{r:.2f}" for r in ratios[:1]), peer[0], *(f"{r:.2f}" for r in ratios[1:])]
        )
    for name, of in (("geometric mean", mean), ("worst", worst)):
        rows.append([name, "", of(columns[0]), "", *map(of, columns[1:])])
    head = ["B, T, I, H", "train step", "/ best JAX peer", "which is", "/ hand-written `custom_vjp`", "/ PyTorch",
            "forward / best JAX peer", "streaming step / best JAX peer", "temporary bytes / best JAX peer"]  # fmt: skip
    return table(head, rows)


def speed_full(kind: str, digits: int = 2) -> str:
    """Every library's figure, a column a shape."""
    rows = read("speed")["rows"]
    names = list(rows[0]["figures"])
    lines = []
    for name in names:
        cells = []
        for row in rows:
            figure = row["figures"].get(name, {}).get(kind)
            if figure is None:
                cells.append("")
            elif kind == "bytes":
                cells.append(f"{figure / 1e6:.2f}")
            elif isinstance(figure, dict):
                cells.append(f"{figure['ms']:.{digits}f} (+{100 * figure['spread']:.0f} %)")
            else:
                cells.append(f"{figure:.{digits}f}")
        if any(cells):
            lines.append([name, *cells])
    return table(["", *(sizes(row["shape"]) for row in rows)], lines)


def cores() -> str:
    """The batch over two CPU devices."""
    rows, columns = [], [[] for _ in range(3)]
    for row in read("cores")["rows"]:
        f = {name: value(figure["train"]) for name, figure in row["figures"].items()}
        ours = min(v for n, v in f.items() if n.startswith(OURS))
        peers = {
            way: min(v for n, v in f.items() if n.endswith(way) and not n.startswith((OURS, TWIN)))
            for way in ("jit", "shard_map")
        }
        ratios = [ours / f[TORCH], f[f"{OURS}, jit"] / peers["jit"], f[f"{OURS}, shard_map"] / peers["shard_map"]]
        for column, ratio in zip(columns, ratios, strict=True):
            column.append(ratio)
        rows.append([sizes(row["shape"]), f"{ours:.2f} ms", *(f"{r:.2f}" for r in ratios)])
    rows.append(["geometric mean", "", *map(mean, columns)])
    return table(["B, T, I, H", "train step", "/ PyTorch", "/ best JAX peer, both under jit",
                  "/ best JAX peer, both under shard_map"], rows)  # fmt: skip


def memory() -> str:
    """Bytes and time of a gradient against T."""
    figures = read("memory")["rows"]["figures"]
    plain = {(f["T"], f["loss"]): f for f in figures if f["way"] == "plain"}
    rows = []
    for f in figures:
        base = plain[f["T"], f["loss"]]
        share, times = f["bytes"] / base["bytes"], f["ms"] / base["ms"]
        size, time = f"{f['bytes'] / 1e6:,.1f} MB", f"{f['ms']:,.0f} ms"
        rows.append([f"{f['T']:,}", f["loss"], f["way"], size, f"{100 * share:.1f} %", time, f"{times:.2f}"])
    return table(["T", "loss on", "gradient", "temporary", "of plain", "time", "of plain"], rows)


def many() -> str:
    """Ensembles and per-example gradients."""
    results = read("many")["rows"]
    names = list(results[0]["figures"])
    rows = [[n, *(f"{row['figures'][n]['ms']:.2f} ms" for row in results)] for n in names]
    return table(["", *(sizes(row["shape"]) for row in results)], rows)


def ways(comparison: str, make: Callable[[list[dict[str, Any]]], str]) -> str:
    """A table of one comparison of ours with ours."""
    if not (RESULTS / "ways.json").exists():
        return "Not run yet."
    return make(read("ways")["rows"][comparison])


def over(ways: dict[str, Any], name: str, other: str, kind: str) -> float:
    """The time or the bytes of one way, divided by those of another."""
    return ways[name][kind] / ways[other][kind]


def cells(results: list[dict[str, Any]]) -> str:
    """The gradient of every cell: engine "auto" over "plain"."""
    kinds = {"ms": "time", "bytes": "bytes"}
    return ratio_table("cell", {
        name: {
            f"{kinds[kind]} at {sizes(row['shape'])}": over(row["figures"][name], "auto", "plain", kind)
            for row in results
            for kind in kinds
        }
        for name in results[0]["figures"]
    })  # fmt: skip


def ensembles(results: list[dict[str, Any]]) -> str:
    """P models under `vmap`, data shared: over engine "plain" and over copied data."""
    return ratio_table("P, B, T, I, H", {
        f"{sizes(row['shape'])}, {name}": {
            'time / engine="plain"': over(f, "auto", "plain", "ms"),
            'bytes / engine="plain"': over(f, "auto", "plain", "bytes"),
            "time / data copied": over(f, "auto", "auto, copied", "ms"),
            "bytes / data copied": over(f, "auto", "auto, copied", "bytes"),
        }
        for row in results
        for name, f in row["figures"].items()
    })  # fmt: skip


def models(results: list[dict[str, Any]]) -> str:
    """A Model over its parts, called by hand."""
    rows = [
        [sizes(row["shape"]), name, *(f"{f[way]['ms']:.2f} ms" for way in ("Model", "by hand")),
         *(f"{over(f, 'Model', 'by hand', kind):.2f}" for kind in ("ms", "bytes"))]
        for row in results
        for name, f in row["figures"].items()
    ]  # fmt: skip
    return table(["B, T, I, H", "", "Model", "by hand", "time, Model / by hand", "bytes, Model / by hand"], rows)


def depth() -> str:
    """Tracing and compiling of deep stacks, and over those of the fewest layers."""
    figures = read("depth")["rows"]["figures"]
    rows = []
    for kind in ("forward", "gradient"):
        for way, by_layers in figures.items():
            totals = [sum(f[kind]) for f in by_layers.values()]
            cells = [f"{sum(f[kind]):.2f} ({f[kind][1]:.2f})" for f in by_layers.values()]
            rows.append([kind, way, *cells, *(f"{total / totals[0]:.2f}" for total in totals[1:])])
    fewest, *more = next(iter(figures.values()))
    return table(["", "", *(f"{n} layers" for n in (fewest, *more)), *(f"{n} over {fewest}" for n in more)], rows)


def compiled() -> str:
    """What the compilers for targets that are not here make of a train step."""
    results = read("compile_only")
    gpu, tpu = results["H100"], results["TPU v5e"]
    rows = []
    for name, f in gpu.items():
        kernels = " + ".join(f"{k:.0f}" for k in f["kernels"])
        rows.append([name, kernels, f"{f['temporary'] / 1e9:.2f}", f"{tpu[name]['cycles']['all'] / 1e6:.1f}",
                     f"{tpu[name]['temporary'] / 1e9:.2f}",
                     str(f["collectives"]["loops"] + tpu[name]["collectives"]["loops"])])  # fmt: skip
    return table(["", "H100: kernels a step, forward + backward loop", "GB", "TPU v5e: estimated Mcycles", "GB",
                  "collectives in loops"], rows)  # fmt: skip


def gpu() -> str:
    """Times on a GPU, forward pass / train step; under the table, the kernels of a step and the errors."""
    if not (RESULTS / "gpu.json").exists():
        return "Not run yet."
    results = read("gpu")
    rows = results["rows"]
    names = {OURS: OURS, "jax_lstm, plain": 'engine="plain"', "Flax nnx": "Flax nnx", "Equinox": "Equinox",
             TORCH: "PyTorch (cuDNN)"}  # fmt: skip
    lines = []
    for row in rows["times"]:
        figures = [row["figures"].get(name, {}) for name in names]
        cells = [f"{f['forward']['ms']:.2f} / {f['train']['ms']:.2f}" if "train" in f else "" for f in figures]
        lines.append([sizes(row["shape"]), row["dtype"], *cells])
    parts = [table(["B, T, I, H", "dtype", *names.values()], lines), on_gpu(results)]
    return "\n\n".join([*parts, gpu_kernels(rows), gpu_errors(rows), *gpu_left_out(rows)])


def on_gpu(results: dict[str, Any]) -> str:
    """The GPU and the versions of what ran on it."""
    m = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in m["versions"].items() if v != "absent")
    return f"GPU: {results['rows']['gpu']['kind']}. Python {m['python']}, {versions}."


def gpu_kernels(rows: dict[str, Any]) -> str:
    """The kernels of a step, forward pass / train step, where a profiler counted them."""

    def shown(figure: dict[str, Any]) -> str:
        return "not counted" if figure["a_step"] is None else f"{figure['a_step']:.1f}"

    counts = [f"{name} {shown(f['forward'])} / {shown(f['train'])}" for name, f in rows["kernels"].items()]
    return f"Kernels started for each step, forward pass / train step: {'; '.join(counts) or 'not counted'}."


def gpu_errors(rows: dict[str, Any]) -> str:
    """The largest error of each precision over all cells and engines."""
    largest: dict[str, float] = {}
    for row in rows["correctness"]:
        largest[row["precision"]] = max(largest.get(row["precision"], 0), row["largest"])
    cells = ", ".join(dict.fromkeys(row["cell"] for row in rows["correctness"]))
    errors = "; ".join(f"{precision} {error:.1e}" for precision, error in largest.items())
    return f"Largest error against float64 on the host ({cells}): {errors}."


def gpu_left_out(rows: dict[str, Any]) -> list[str]:
    """The rows that are missing, if there are any."""
    missing = [*rows["skipped"], *rows["errors"]]
    return [f"Not measured: {'; '.join(missing)}."] if missing else []


def fulda() -> str:
    """The test NSE on the river Fulda: LSTM, ridge regression, persistence."""
    rows = read("fulda")["rows"]

    def lstm(name: str) -> str:
        seeds = rows[name]
        return f"{sum(seeds) / len(seeds):.3f} ({' '.join(f'{score:.3f}' for score in seeds)})"

    lines = [
        ["weather, to the day", lstm("LSTM"), f"{rows['ridge']:.3f}", ""],
        ["these and discharge, to the day before", lstm("LSTM with flow"), f"{rows['ridge with flow']:.3f}",
         f"{rows['persistence']:.3f}"],
    ]  # fmt: skip
    return table(["inputs", "LSTM", "ridge regression, lagged inputs", "persistence"], lines)


def machine() -> str:
    """What the figures were measured on."""
    m = read("speed")["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"{m['cpu']}, {m['cores']} cores, Python {m['python']}, {versions}; float32."


TABLES = {
    "brief": speed_brief,
    "speed": speed_summary,
    "train": lambda: speed_full("train"),
    "forward": lambda: speed_full("forward"),
    "stream": lambda: speed_full("stream", 4),
    "compile": lambda: speed_full("compile_s"),
    "bytes": lambda: speed_full("bytes"),
    "cores": cores,
    "memory": memory,
    "many": many,
    "cells": lambda: ways("cells", cells),
    "ensembles": lambda: ways("ensembles", ensembles),
    "models": lambda: ways("models", models),
    "depth": depth,
    "compiled": compiled,
    "gpu": gpu,
    "fulda": fulda,
    "machine": machine,
}


def filled(text: str) -> str:
    """The text of a page, with each of its marked tables made again."""

    def put(match: re.Match) -> str:
        name = match.group(1)
        return f"<!-- bench:{name} -->\n{TABLES[name]()}\n<!-- /bench:{name} -->"

    return re.sub(r"<!-- bench:(\w+) -->.*?<!-- /bench:\1 -->", put, text, flags=re.DOTALL)


def drawn_from() -> str:
    """The figures behind the picture."""
    return speed_full("train") + "\n\n" + speed_full("forward")


def draw(path: Path) -> None:
    """The picture: the times of jax_lstm, the best JAX peer and PyTorch, divided by that of the best JAX peer.

    `drawn_from` is stored as the picture's Description. A test compares it with the results.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read("speed")["rows"]
    figure, panels = plt.subplots(1, 2, figsize=(10, 1.6 + len(rows)), sharey=True, layout="constrained")
    for axes, kind, title in zip(panels, ("train", "forward"), ("Train step", "Forward pass"), strict=True):
        longest = 0.0
        for k, row in enumerate(rows):
            figures = row["figures"]
            peer, base = best(figures, kind)
            bars = [
                (OURS, value(figures[OURS][kind]), "#0072B2", "white"),
                (peer, base, "#D0D0D0", "black"),
                (TORCH, value(figures[TORCH][kind]), "#E69F00", "black"),
            ]
            for j, (name, ms, color, ink) in enumerate(bars):
                at, ratio = k + 0.27 * (j - 1), ms / base
                longest = max(longest, ratio)
                bold = "bold" if name == OURS else "normal"
                axes.barh(at, ratio, 0.25, color=color)
                axes.text(0.02, at, name, va="center", color=ink, fontsize=11, fontweight=bold)
                behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(ratio + 0.02, at, f"{ratio:.2f}", va="center", fontsize=11, fontweight=bold, bbox=behind)
        axes.axvline(1, color="black", linewidth=1, linestyle=":", zorder=0)
        axes.set_xlim(0, max(1.3, longest + 0.15))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=11)
        axes.set_title(title, fontsize=14, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    shapes = ["batch of {}, {:,} steps\n{} inputs, {} units".format(*row["shape"]) for row in rows]
    panels[0].set_yticks(range(len(rows)), shapes, fontsize=11)
    panels[0].invert_yaxis()
    figure.suptitle("Time of one LSTM layer on one CPU device; lower is faster", fontsize=15)
    figure.supxlabel("time / time of the fastest JAX peer (Flax linen, Flax nnx, Haiku, Equinox or Keras)", fontsize=12)
    figure.savefig(path, dpi=120, metadata={"Description": drawn_from()})
    plt.close(figure)


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        for path in FILES:
            path.write_text(filled(path.read_text()))
        draw(PICTURE)
    else:
        for name, make in TABLES.items():
            print(f"\n{name}\n\n{make()}")


if __name__ == "__main__":
    main()
