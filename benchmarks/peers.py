"""The LSTMs that are compared, each on the same weights and the same data.

An implementation is made from our LSTMParams (gates i, f, g, o; weights (in, out); one bias) and gives
    params                       what it trains, in its own layout, which is also what `gradient` returns
    forward(params, xs)          hs (T, B, H) from xs (T, B, I), from a zero state; (B, T, ·) where `batch_major`
    step(params, state, x)       one step for streaming: state, h; x (1, I), `state` as it likes
    input(x)                     x (I,) as its step wants it
    ours(gradient)               a gradient of its params as an LSTMParams, for the check
Time comes first wherever a library can take it so, because no transposition is then timed; only Keras cannot. Haiku,
Equinox and Keras are imported where they are used, so that the others can be compared without them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import twin
from flax import linen, nnx

import jax_lstm as jl
from jax_lstm.engines.layout import choose_layout


class Implementation(NamedTuple):
    """One LSTM on JAX."""

    name: str
    params: Any
    forward: Callable[[Any, jax.Array], jax.Array]
    step: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]] | None
    state: Any
    ours: Callable[[Any], jl.LSTMParams]
    input: Callable[[jax.Array], jax.Array] = lambda x: x[None]
    batch_major: bool = False

    def layout(self, a: jax.Array) -> jax.Array:
        """Data (T, B, ·) as `forward` takes them, or the other way around."""
        return jnp.swapaxes(a, 0, 1) if self.batch_major else a


def gates(a: jax.Array) -> list[jax.Array]:
    """The four blocks of the last axis."""
    return jnp.split(a, 4, axis=-1)


def joined(blocks: Any) -> jax.Array:
    """The blocks side by side."""
    return jnp.concatenate(list(blocks), axis=-1)


def jax_lstm(p: jl.LSTMParams) -> Implementation:
    """Ours."""
    cell = jl.LSTM(p.w_x.shape[0], p.w_h.shape[0])
    unroll = jl.batched(jl.unroll, time_major=True)
    return Implementation(
        "jax_lstm",
        p,
        lambda params, xs: unroll(cell, params, xs)[1],
        jl.stream(cell).step,
        cell.initial_state(p),
        lambda g: g,
        lambda x: x,
    )


def jax_lstm_batched(p: jl.LSTMParams) -> Implementation:
    """Ours, for data (B, T, I)."""
    cell, unroll = jl.LSTM(p.w_x.shape[0], p.w_h.shape[0]), jl.batched(jl.unroll)
    return _ours_batch_major("jax_lstm, batched", p, lambda params, xs: unroll(cell, params, xs)[1])


def jax_lstm_vmap(p: jl.LSTMParams) -> Implementation:
    """Ours for one sequence, under jax.vmap."""
    cell = jl.LSTM(p.w_x.shape[0], p.w_h.shape[0])
    return _ours_batch_major(
        "jax_lstm, vmap", p, lambda params, xs: jax.vmap(lambda x: jl.unroll(cell, params, x)[1])(xs)
    )


def _ours_batch_major(name: str, p: jl.LSTMParams, forward: Callable[[Any, jax.Array], jax.Array]) -> Implementation:
    return Implementation(name, p, forward, None, None, lambda g: g, batch_major=True)


def custom_vjp(p: jl.LSTMParams) -> Implementation:
    """The hand-written twin, laid out as ours is."""

    def forward(params: jl.LSTMParams, xs: jax.Array) -> jax.Array:
        return twin.lstm(choose_layout(xs.shape[1:2]).inline, params, xs)

    return Implementation("custom_vjp twin", p, forward, None, None, lambda g: g)


def flax_linen(p: jl.LSTMParams, cell: Any = linen.OptimizedLSTMCell, name: str = "Flax linen") -> Implementation:
    """flax.linen.RNN over LSTMCell or OptimizedLSTMCell: eight kernels, the bias on the state's side."""
    H = p.w_h.shape[0]
    module = cell(H)
    rnn = linen.RNN(module, time_major=True)
    leaves = {}
    for k, w_x, w_h, b in zip("ifgo", gates(p.w_x), gates(p.w_h), gates(p.b), strict=True):
        leaves |= {f"i{k}": {"kernel": w_x}, f"h{k}": {"kernel": w_h, "bias": b}}

    def ours(g):
        g = g["cell"]
        return jl.LSTMParams(
            joined(g[f"i{k}"]["kernel"] for k in "ifgo"),
            joined(g[f"h{k}"]["kernel"] for k in "ifgo"),
            joined(g[f"h{k}"]["bias"] for k in "ifgo"),
        )

    def step(params, state, x):
        return module.apply({"params": params["cell"]}, state, x)

    state = (jnp.zeros((1, H)), jnp.zeros((1, H)))
    return Implementation(
        name, {"cell": leaves}, lambda params, xs: rnn.apply({"params": params}, xs), step, state, ours
    )


def flax_nnx(p: jl.LSTMParams, kind: Any = nnx.OptimizedLSTMCell, name: str = "Flax nnx") -> Implementation:
    """flax.nnx.RNN over OptimizedLSTMCell (two fused kernels) or LSTMCell (eight)."""
    I, H = p.w_x.shape[0], p.w_h.shape[0]
    cell = kind(I, H, rngs=nnx.Rngs(0))
    fused = kind is nnx.OptimizedLSTMCell
    letters = ("i", "f", "g", "o")

    def leaf(side, k):
        return getattr(cell, side + k + ("_" if side + k == "if" else ""))

    if fused:
        cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...] = p
    else:
        for k, w_x, w_h, b in zip(letters, gates(p.w_x), gates(p.w_h), gates(p.b), strict=True):
            leaf("i", k).kernel[...], leaf("h", k).kernel[...], leaf("h", k).bias[...] = w_x, w_h, b
    graph, params, rest = nnx.split(nnx.RNN(cell, time_major=True, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def forward(params, xs):
        zero = jnp.zeros((xs.shape[1], H), xs.dtype)  # without a carry of ours nnx draws keys, which a trace forbids
        return nnx.merge(graph, params, rest)(xs, initial_carry=(zero, zero))

    def step(params, state, x):
        return nnx.merge(graph, params, rest).cell(state, x)

    def ours(g):
        g = g["cell"]
        value = lambda a: a[...]  # noqa: E731
        if fused:
            return jl.LSTMParams(
                value(g["dense_i"]["kernel"]), value(g["dense_h"]["kernel"]), value(g["dense_h"]["bias"])
            )
        name = {"i": ["ii", "if_", "ig", "io"], "h": ["hi", "hf", "hg", "ho"]}
        return jl.LSTMParams(
            joined(value(g[n]["kernel"]) for n in name["i"]),
            joined(value(g[n]["kernel"]) for n in name["h"]),
            joined(value(g[n]["bias"]) for n in name["h"]),
        )

    state = (jnp.zeros((1, H)), jnp.zeros((1, H)))
    return Implementation(name, params, forward, step, state, ours)


def haiku(p: jl.LSTMParams) -> Implementation:
    """hk.LSTM under hk.dynamic_unroll: one kernel on [x, h], gates i, g, f, o, and 1 added to f in the forward."""
    import haiku as hk

    I, H = p.w_x.shape[0], p.w_h.shape[0]

    def to_theirs(a):
        i, f, g, o = gates(a)
        return joined((i, g, f, o))

    b_i, b_f, b_g, b_o = gates(p.b)
    params = {"lstm/linear": {
        "w": jnp.concatenate([to_theirs(p.w_x), to_theirs(p.w_h)]),
        "b": joined((b_i, b_g, b_f - 1, b_o)),
    }}  # fmt: skip

    def net(xs):
        core = hk.LSTM(H)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    def one(state, x):
        return hk.LSTM(H)(x, state)

    forward = hk.without_apply_rng(hk.transform(net)).apply
    single = hk.without_apply_rng(hk.transform(one)).apply

    def step(params, state, x):
        h, state = single(params, state, x)
        return state, h

    def ours(g):
        g = g["lstm/linear"]
        return jl.LSTMParams(to_theirs(g["w"][:I]), to_theirs(g["w"][I:]), to_theirs(g["b"]))

    state = hk.LSTMState(jnp.zeros((1, H)), jnp.zeros((1, H)))
    return Implementation("Haiku", params, forward, step, state, ours)


def equinox(p: jl.LSTMParams) -> Implementation:
    """eqx.nn.LSTMCell in a lax.scan, vmapped over the batch, as its documentation does."""
    import equinox as eqx

    I, H = p.w_x.shape[0], p.w_h.shape[0]
    cell = eqx.nn.LSTMCell(I, H, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, (p.w_x.T, p.w_h.T, p.b))
    params, static = eqx.partition(cell, eqx.is_array)

    def forward(params, xs):
        cell = eqx.combine(params, static)

        def one(xs):
            def body(state, x):
                state = cell(x, state)
                return state, state[0]

            zero = jnp.zeros(H, xs.dtype)
            return jax.lax.scan(body, (zero, zero), xs)[1]

        return jax.vmap(one, 1, 1)(xs)

    def step(params, state, x):
        state = jax.vmap(eqx.combine(params, static))(x, state)
        return state, state[0]

    state = (jnp.zeros((1, H)), jnp.zeros((1, H)))
    return Implementation(
        "Equinox", params, forward, step, state,
        lambda g: jl.LSTMParams(g.weight_ih.T, g.weight_hh.T, g.bias),
    )  # fmt: skip


def keras_jax(p: jl.LSTMParams) -> Implementation:
    """keras.layers.LSTM on the JAX backend, stateless; batch-major, so it transposes by itself."""
    import keras

    I, H = p.w_x.shape[0], p.w_h.shape[0]
    layer = keras.layers.LSTM(H, return_sequences=True)
    layer.build((None, None, I))
    rest = [v.value for v in layer.non_trainable_variables]

    def forward(params, xs):
        return jnp.swapaxes(layer.stateless_call(params, rest, jnp.swapaxes(xs, 0, 1))[0], 0, 1)

    def step(params, state, x):
        with keras.StatelessScope(state_mapping=list(zip(layer.trainable_variables, params, strict=True))):
            h, state = layer.cell(x, state)
        return state, h

    state = [jnp.zeros((1, H)), jnp.zeros((1, H))]
    return Implementation("Keras (jax)", list(p), forward, step, state, lambda g: jl.LSTMParams(*g))


PEERS = (
    flax_linen,
    partial(flax_linen, cell=linen.LSTMCell, name="Flax linen LSTMCell"),
    flax_nnx,
    haiku,
    equinox,
    keras_jax,
)


class TorchLayer(NamedTuple):
    """torch.nn.LSTM with the same weights, and its calls."""

    layer: Any
    torch: Any

    def _tensor(self, a: jax.Array) -> Any:
        return self.torch.from_numpy(np.array(a, np.float32)).to(self.layer.weight_ih_l0)

    def train_step(self, xs: jax.Array, g: jax.Array) -> Callable[[], None]:
        """Forward and backward, by weights and inputs; gradients are left in .grad."""
        x, g = self._tensor(xs).requires_grad_(), self._tensor(g)

        def call():
            self.layer.zero_grad()
            x.grad = None
            self.layer(x)[0].backward(g)
            call.d_xs = x.grad

        return call

    def gradients(self, call: Callable[[], None]) -> dict[str, np.ndarray]:
        """What one call of a train step leaves in .grad, in our layout."""
        call()
        w_x, w_h, b, _ = (q.grad.float().cpu().numpy() for q in self.layer.parameters())
        return {"w_x": w_x.T, "w_h": w_h.T, "b": b, "xs": call.d_xs.float().cpu().numpy()}

    def forward(self, xs: jax.Array) -> Callable[[], None]:
        """Forward without a graph."""
        x = self._tensor(xs)

        def call():
            with self.torch.no_grad():
                self.layer(x)

        return call

    def stream(self, steps: int) -> Callable[[], None]:
        """Steps of one sequence, the state handed on."""
        x = self.torch.zeros(1, 1, self.layer.input_size)
        held = [None]

        def call():
            with self.torch.no_grad():
                for _ in range(steps):
                    held[0] = self.layer(x, held[0])[1]

        return call


def torch_layer(p: jl.LSTMParams, device: str = "cpu", dtype: str = "float32") -> TorchLayer | None:
    """PyTorch's layer, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    layer = torch.nn.LSTM(p.w_x.shape[0], p.w_h.shape[0])
    with torch.no_grad():
        for theirs, a in zip(layer.parameters(), (p.w_x.T, p.w_h.T, p.b, 0 * p.b), strict=True):
            theirs.copy_(torch.from_numpy(np.array(a)))
    return TorchLayer(layer.to(device, getattr(torch, dtype)), torch)


def check_torch(torch: TorchLayer, xs: jax.Array, g: jax.Array, expected: Any) -> None:
    """The same gradients as jax_lstm's, or nothing is timed."""
    gradients = torch.gradients(torch.train_step(xs, g))
    for (name, a), e in zip(gradients.items(), expected[1:], strict=True):
        error = float(np.abs(a - np.asarray(e)).max() / np.abs(np.asarray(e)).max())
        if not error < 1e-3:
            raise ValueError(f"PyTorch: {name} differs by {error:.1e} of its size from jax_lstm's")
