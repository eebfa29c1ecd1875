"""The LSTM cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

    [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
    i = σ(z_i)    f = σ(z_f)    g = φ(z_g)    o = σ(z_o)        φ = ψ = tanh
    c_t = f ⊙ c_{t−1} + i ⊙ g
    h_t = o ⊙ ψ(c_t)

and its variants, in any combination (Greff et al. 2017 compare most of them):

    peephole     i = σ(z_i + p_i ⊙ c_{t−1}), f = σ(z_f + p_f ⊙ c_{t−1}), o = σ(z_o + p_o ⊙ c_t)
                                                                        Gers & Schmidhuber 2000
    coupled      i = 1 − f: no z_i (CIFG)                               Greff et al. 2017
    without      i = 1, f = 1 or o = 1: no such z                       Greff et al. 2017
    projection   h_t = (o ⊙ ψ(c_t)) w_p, of P numbers (LSTMP)           Sak, Senior & Beaufays 2014
    layer_norm   z = s_x ⊙ N(x_t w_x) + s_h ⊙ N(h_{t−1} w_h) + b, h_t = o ⊙ ψ(s_c ⊙ N(c_t) + b_c)
                 N(a) = (a − mean a) / √(var a + 1e-5)                   Ba, Kiros & Hinton 2016
    clip         every z is cut at ±clip, before peepholes

Gates stand in the order i, f, g, o, those that a variant lacks left out; weights are (in, out).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm import gates
from jax_lstm.cells import door
from jax_lstm.cells.activations import ACTIVATIONS
from jax_lstm.cells.affine import AffineCell
from jax_lstm.cells.base import check_fields, zeros
from jax_lstm.cells.weights import at_least_float32, draw_per_gate, forget_biases, lecun_normal, orthogonal, product
from jax_lstm.gates import Gates

WITHOUT = ("input_gate", "forget_gate", "output_gate")


class LSTMParams(NamedTuple):
    """w_x acts on the input, w_h on h, b is added: gates side by side in the order i, f, g, o.

    n is 4, less one for each gate that has no pre-activation.
    """

    w_x: Float[Array, "I n*H"]
    w_h: Float[Array, "H n*H"]
    b: Float[Array, " n*H"]


class LSTMVariantParams(NamedTuple):
    """The same, and what peepholes, a projection or layer norms add; None without them."""

    w_x: Float[Array, "I n*H"]
    w_h: Float[Array, "P n*H"]
    b: Float[Array, " n*H"]
    p: Float[Array, "m H"] | None = None
    """Peepholes, a row each of i, f, o that there is."""
    w_p: Float[Array, "H P"] | None = None
    """The projection."""
    s_x: Float[Array, " n*H"] | None = None
    s_h: Float[Array, " n*H"] | None = None
    s_c: Float[Array, " H"] | None = None
    b_c: Float[Array, " H"] | None = None
    """Scales of the layer norms, and the shift of that of c."""


Params = LSTMParams | LSTMVariantParams


class LSTMState(NamedTuple):
    """The output h and the cell state c."""

    h: Float[Array, " P"]
    c: Float[Array, " H"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class LSTM(AffineCell):
    """The LSTM: choices only; its arrays are in LSTMParams, or in LSTMVariantParams.

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units.
        forget_bias: what b_f starts at, added once, by `init`. 1 if neither this nor `chrono` is given.
        chrono: T_max, the longest dependency in steps: b_f = log U(1, T_max − 1) and b_i = −b_f, so that the units'
            memories spread over 1 to T_max steps (Tallec & Ollivier 2018). Instead of `forget_bias`.
        compute_dtype: round products' operands to this ("bfloat16"); gates, sums and state keep the params' dtype.
        peephole: whether the gates also see c.
        coupled: whether i is 1 − f.
        without: "input_gate", "forget_gate" or "output_gate", to leave that gate open for good.
        projection: P, how many numbers h has; H of them, and no projection, if None.
        layer_norm: whether pre-activations and c are normalised over the units.
        gate_activation, cell_activation, output_activation: σ, φ and ψ, by name (cells/activations.py).
        clip: how large a pre-activation may be; any if None.

    Raises:
        ValueError, TypeError: a field out of range or of another type; the message names it.
    """

    input_size: int
    hidden_size: int
    forget_bias: float | int | None = None
    chrono: float | int | None = None
    compute_dtype: str | None = None
    peephole: bool = False
    coupled: bool = False
    without: str | None = None
    projection: int | None = None
    layer_norm: bool = False
    gate_activation: str = "sigmoid"
    cell_activation: str = "tanh"
    output_activation: str = "tanh"
    clip: float | int | None = None

    def __post_init__(self):
        check_fields(self)
        for name in ("peephole", "coupled", "layer_norm"):
            object.__setattr__(self, name, door.flag("LSTM", name, getattr(self, name)))
        for name in ("gate_activation", "cell_activation", "output_activation"):
            door.choice("LSTM", name, getattr(self, name), tuple(ACTIVATIONS))
        if self.without is not None:
            door.choice("LSTM", "without", self.without, WITHOUT)
        if self.coupled and self.without in ("input_gate", "forget_gate"):
            raise ValueError(f"LSTM: coupled makes the input gate of the forget gate, but without={self.without!r}")
        if self.projection is not None:
            object.__setattr__(self, "projection", door.size("LSTM", "projection", self.projection))
        if self.clip is not None:
            object.__setattr__(self, "clip", door.number("LSTM", "clip", self.clip))
            if self.clip <= 0:
                raise ValueError(f"LSTM: clip must be above 0, but is {self.clip}")
        if self.without == "forget_gate":
            for name in ("forget_bias", "chrono"):
                if getattr(self, name) is not None:
                    raise ValueError(f"LSTM: {name} is of the forget gate, but without='forget_gate'; leave one out")
            return
        forget_bias, chrono = door.forget_bias("LSTM", self.forget_bias, self.chrono)
        object.__setattr__(self, "forget_bias", forget_bias)
        object.__setattr__(self, "chrono", chrono)

    @property
    def output_size(self) -> int:
        """P, the number of features of h: H, or those of the projection."""
        return self.hidden_size if self.projection is None else self.projection

    @property
    def own_derivative(self) -> bool:
        """Whether the LSTM is the plain one, whose derivative is written out; JAX finds that of a variant."""
        varied = self.peephole or self.coupled or self.without or self.projection or self.layer_norm or self.clip
        squashed = (self.gate_activation, self.cell_activation, self.output_activation)
        return not varied and squashed == ("sigmoid", "tanh", "tanh")

    @property
    def _names(self) -> str:
        """The gates that have a pre-activation."""
        left_out = {"i"} if self.coupled else set()
        if self.without is not None:
            left_out.add(self.without[0])
        return "".join(name for name in "ifgo" if name not in left_out)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Params:
        """w_x LeCun normal and w_h orthogonal, each a gate at a time; b zero but for the forget bias.

        A projection is drawn LeCun normal; peepholes start at 0, scales at 1.

        Args:
            key: one random key; consumed.
            dtype: of every leaf. Numbers are drawn in float32 or wider, then cast.

        Raises:
            TypeError: key is no key, or dtype is not floating.
        """
        key, dtype = door.prng_key("LSTM.init", key), door.float_dtype("LSTM.init", "dtype", dtype)
        H, P, names = self.hidden_size, self.output_size, self._names
        keys = jax.random.split(key, 3 if self.projection is None else 4)
        biases = {name: jnp.zeros(H, dtype) for name in names}
        if "f" in names:
            biases["f"] = forget_biases(keys[2], H, dtype, self.forget_bias, self.chrono)
        if "i" in names and self.chrono is not None:
            biases["i"] = -biases["f"]
        params = LSTMVariantParams(
            w_x=draw_per_gate(lecun_normal, keys[0], len(names), (self.input_size, H), dtype),
            w_h=draw_per_gate(orthogonal, keys[1], len(names), (P, H), dtype),
            b=jnp.concatenate([biases[name] for name in names]),
        )
        if self.peephole:
            params = params._replace(p=jnp.zeros((len(names) - 1, H), dtype))
        if self.projection is not None:
            params = params._replace(w_p=draw_per_gate(lecun_normal, keys[3], 1, (H, P), dtype))
        if self.layer_norm:
            one = jnp.ones(len(names) * H, dtype)
            params = params._replace(s_x=one, s_h=one, s_c=jnp.ones(H, dtype), b_c=jnp.zeros(H, dtype))
        return LSTMParams(*params[:3]) if all(leaf is None for leaf in params[3:]) else params

    def initial_state(self, params: Params, like: Array | None = None) -> LSTMState:
        """h = c = 0; with `like` (*B, T, I), each with *B before, on devices as `like`'s leading axes are."""
        dtype = params.w_h.dtype  # two arrays: each may be donated
        return LSTMState(h=zeros(self.output_size, dtype, like), c=zeros(self.hidden_size, dtype, like))

    def update(self, params: Params, state: LSTMState, zx: Float[Array, " Z"], zh: Float[Array, " Z"]) -> LSTMState:
        """(h_t, c_t) from the gates of z = zx + zh + b; of a projection, what it is to act on in place of h_t."""
        return self._gated(params, state.c, zx, zh)[1]

    def mix(self, params: Any, state: LSTMState) -> LSTMState:
        """The projection, if there is one."""
        if self.projection is None:
            return state
        return state._replace(h=product(state.h, params.w_p, self.compute_dtype))

    def linearise(
        self, params: Params, state: LSTMState, z: Float[Array, " Z"]
    ) -> tuple[LSTMState, tuple[Array, Gates]]:
        """(h_t, c_t) from z = zx + zh, without b yet; its derivative hangs on c_{t−1} and the gates."""
        ifgo = gates.lstm_gates(Gates(*jnp.split(z + params.b, 4)))
        return LSTMState(*gates.lstm_state(state.c, ifgo)), (state.c, ifgo)

    def along(self, at: tuple[Array, Gates], dstate: LSTMState, dz: Float[Array, " Z"]) -> LSTMState:
        """(dh_t, dc_t) from dc_{t−1} and dz; dh_{t−1} acts through dz alone."""
        return LSTMState(*gates.lstm_along(*at, dstate.c, Gates(*jnp.split(dz, 4))))

    def gates(self, params: Params, state: LSTMState, x: Float[Array, " I"]) -> Gates:
        """i, f, g, o of one step, from the state before it; a gate that is left out is 1."""
        return self._gated(params, state.c, self.project(params, x), self.recur(params, state))[0]

    def _gated(self, params: Any, c_tm1: Array, zx: Array, zh: Array) -> tuple[Gates, LSTMState]:
        """i, f, g, o, and c_t with o ⊙ ψ(c_t)."""
        names = self._names
        if self.own_derivative:
            ifgo = gates.lstm_gates(Gates(*jnp.split(zx + zh + params.b, 4)))
            return ifgo, LSTMState(*gates.lstm_state(c_tm1, ifgo))
        if self.layer_norm:
            zx, zh = params.s_x * _normalised(zx), params.s_h * _normalised(zh)
        z = zx + zh + params.b
        z = z if self.clip is None else jnp.clip(z, -self.clip, self.clip)
        z = dict(zip(names, jnp.split(z, len(names)), strict=True))
        p = {} if not self.peephole else dict(zip(names.replace("g", ""), params.p, strict=True))
        σ, φ, ψ = (ACTIVATIONS[name] for name in (self.gate_activation, self.cell_activation, self.output_activation))

        def gate(name: str, c: Array) -> Array:
            if name not in z:
                return jnp.ones_like(c)
            return σ(z[name] + p[name] * c if p else z[name])

        f, g = gate("f", c_tm1), φ(z["g"])
        i = 1 - f if self.coupled else gate("i", c_tm1)
        c_t = f * c_tm1 + i * g
        o = gate("o", c_t)
        shown = params.s_c * _normalised(c_t) + params.b_c if self.layer_norm else c_t
        return Gates(i, f, g, o), LSTMState(h=o * ψ(shown), c=c_t)


def _normalised(a: Float[Array, " n"]) -> Float[Array, " n"]:
    wide = a.astype(at_least_float32(a.dtype))  # a square of a float16 soon overflows
    centred = wide - jnp.mean(
        wide
    )  # first, and not as the mean of squares less the square of the mean: that loses digits
    return (centred * jax.lax.rsqrt(jnp.mean(centred * centred) + jnp.asarray(1e-5, wide.dtype))).astype(a.dtype)
