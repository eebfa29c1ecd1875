"""How fast is one LSTM layer, forward and in a train step, beside the peers? With one device, or cores as devices.

    python benchmarks/speed.py                one device: forward, train step, streaming step, compile time, bytes
    python benchmarks/speed.py --devices 2    the batch sharded over two CPU devices: train step

A train step is the value of ⟨g, hs⟩ and its gradients by weights and inputs, float32, xs (T, B, I). All have the same
weights; outputs and gradients are compared before anything is timed. On one device, ours is also measured with xs
(B, T, I), by `jl.batched` and by `jax.vmap`.
"""

import argparse
import os
import time
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--seconds", type=float, default=7.0, help="for one table row, in each process")
parser.add_argument("--out", default=None, help="the name of the result; speed or cores")
RUN = __name__ in ("__main__", "__mp_main__")  # the second is a fresh process, which has the arguments of the first
OPTIONS = parser.parse_args() if RUN else parser.parse_args([])

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", OPTIONS.devices)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
import timing  # noqa: E402

import jax_lstm as jl  # noqa: E402

SHAPES = (
    (16, 64, 32, 64), (32, 128, 128, 256), (8, 1000, 64, 128), (1, 256, 128, 256), (64, 100, 512, 512),
    (24, 96, 48, 96), (4, 512, 32, 200), (48, 64, 300, 150), (2, 2000, 16, 32),
)  # fmt: skip
STREAMED = 100  # steps in a row, as a stream has them: the weights stay in the cache
MAKERS = (peers.jax_lstm, peers.jax_lstm_batched, peers.jax_lstm_vmap, peers.custom_vjp, *peers.PEERS)
SHARDED = (peers.jax_lstm, peers.custom_vjp, *peers.PEERS)


def data(B: int, T: int, I: int, H: int) -> tuple[jl.LSTMParams, jax.Array, jax.Array]:
    """Weights, inputs and the cotangent of the outputs."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    params = jl.LSTMParams(normal(I, 4 * H, scale=I**-0.5), normal(H, 4 * H, scale=H**-0.5), normal(4 * H, scale=0.1))
    return params, normal(T, B, I), normal(T, B, H)


def train_step(one: peers.Implementation):
    """Value and gradients by weights and inputs."""
    return jax.value_and_grad(lambda params, xs, g: jnp.vdot(g, one.forward(params, xs)), (0, 1))


def check(one: peers.Implementation, answer: Any, expected: Any) -> None:
    """The same value and the same gradients, to float32's rounding, or nothing is timed."""
    value, (d_params, d_xs) = answer
    got = (value, *one.ours(d_params), one.layout(d_xs))
    for name, a, b in zip(("value", "w_x", "w_h", "b", "xs"), got, expected, strict=True):
        error = float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())
        if not error < 1e-3:
            raise ValueError(f"{one.name}: {name} differs by {error:.1e} of its size from jax_lstm's")


def measure(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Every figure of one shape, an entry a library."""
    params, xs, g = data(*shape)
    rows: dict[str, dict[str, Any]] = {}
    train, forward, expected = {}, {}, None
    for make in MAKERS:
        one = make(params)
        inputs, cotangents = one.layout(xs), one.layout(g)
        start = time.perf_counter()
        compiled = jax.jit(train_step(one)).lower(one.params, inputs, cotangents).compile()
        compile_seconds = time.perf_counter() - start
        answer = compiled(one.params, inputs, cotangents)
        expected = expected or (answer[0], *one.ours(answer[1][0]), answer[1][1])
        check(one, answer, expected)
        rows[one.name] = {
            "compile_s": round(compile_seconds, 3),
            "bytes": compiled.memory_analysis().temp_size_in_bytes,
        }
        train[one.name] = partial(compiled, one.params, inputs, cotangents)
        forward[one.name] = partial(jax.jit(one.forward).lower(one.params, inputs).compile(), one.params, inputs)
    if torch := peers.torch_layer(params):
        train["PyTorch"], forward["PyTorch"] = torch.train_step(xs, g), torch.forward(xs)
        peers.check_torch(torch, xs, g, expected)
    for kind, calls in (("train", train), ("forward", forward)):
        for name, figure in timing.minima(calls, OPTIONS.seconds).items():
            rows.setdefault(name, {})[kind] = figure
    for name, figure in timing.minima(streams(params), OPTIONS.seconds / 2).items():
        rows[name]["stream"] = {"ms": round(figure["ms"] / STREAMED, 5)}
    return rows


def streams(params: jl.LSTMParams) -> dict[str, Any]:
    """One step at B = 1, the state handed on."""
    calls = {}
    for make in MAKERS:
        one = make(params)
        if one.step is None:
            continue
        x = one.input(jnp.asarray(np.random.default_rng(1).normal(size=params.w_x.shape[0]), jnp.float32))
        step = one.step if one.name == "jax_lstm" else jax.jit(one.step)
        calls[one.name] = _handing_on(partial(step, one.params), one.state, x)
    if torch := peers.torch_layer(params):
        calls["PyTorch"] = torch.stream(STREAMED)
    return calls


def _handing_on(step: Any, state: Any, x: jax.Array) -> Any:
    held = [state]

    def call():
        for _ in range(STREAMED):
            held[0], h = step(held[0], x)
        return h

    return call


def measure_sharded(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """The train step with the batch over all devices, under jit alone and under shard_map with one psum."""
    params, xs, g = data(*shape)
    mesh = jax.make_mesh((OPTIONS.devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (jax.NamedSharding(mesh, spec) for spec in (jax.P(None, "data"), jax.P()))
    xs, g = jax.device_put((xs, g), split)
    calls, expected = {}, None
    for make in SHARDED:
        one = make(params)
        weights = jax.device_put(one.params, whole)
        step = train_step(one)

        def local(params, xs, g, step=step):
            value, (d_params, d_xs) = step(params, xs, g)
            return jax.lax.psum((value, d_params), "data"), d_xs

        spec = jax.P(None, "data")
        mapped = jax.shard_map(
            local, mesh=mesh, in_specs=(jax.P(), spec, spec), out_specs=((jax.P(), jax.P()), spec), check_vma=False
        )
        for way, f in (("jit", step), ("shard_map", mapped)):
            compiled = jax.jit(f).lower(weights, xs, g).compile()
            answer = compiled(weights, xs, g)
            if way == "shard_map":
                answer = answer[0][0], (answer[0][1], answer[1])
            expected = expected or (answer[0], *one.ours(answer[1][0]), answer[1][1])
            check(one, answer, expected)
            calls[f"{one.name}, {way}"] = partial(compiled, weights, xs, g)
    if torch := peers.torch_layer(params):
        calls["PyTorch"] = torch.train_step(*data(*shape)[1:])
    return {name: {"train": figure} for name, figure in timing.minima(calls, OPTIONS.seconds).items()}


def main() -> None:
    """Measure every shape and write the results."""
    shapes = SHAPES if OPTIONS.devices == 1 else [s for s in SHAPES if s[0] % OPTIONS.devices == 0]
    rows = []
    for shape in shapes:
        figures = timing.in_fresh_processes(measure if OPTIONS.devices == 1 else measure_sharded, shape)
        rows.append({"shape": shape, "figures": figures})
        print(dict(zip("BTIH", shape, strict=True)))
        for name, f in figures.items():
            print(f"  {name:28s}", *(f"{k} {v['ms'] if isinstance(v, dict) else v}" for k, v in f.items()), flush=True)
    print(timing.write(OPTIONS.out or ("speed" if OPTIONS.devices == 1 else "cores"), rows))


if __name__ == "__main__":
    main()
