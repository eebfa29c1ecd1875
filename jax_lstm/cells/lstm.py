"""The LSTM cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

    [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
    i = σ(z_i)    f = σ(z_f)    g = φ(z_g)    o = σ(z_o)        φ = ψ = tanh
    c_t = f ⊙ c_{t−1} + i ⊙ g
    h_t = o ⊙ ψ(c_t)

and its variants, in any combination (Greff et al. 2017 compare most of them):

    peephole     i = σ(z_i + p_i ⊙ c_{t−1}), f = σ(z_f + p_f ⊙ c_{t−1}), o = σ(z_o + p_o ⊙ c_t)
                                                                        Gers & Schmidhuber 2000
    coupled      i = 1 − f, without z_i (CIFG)                          Greff et al. 2017
    without      i = 1, f = 1 or o = 1, without its z                   Greff et al. 2017
    projection   h_t = (o ⊙ ψ(c_t)) w_p with P features (LSTMP)         Sak, Senior & Beaufays 2014
    layer_norm   z = s_x ⊙ N(x_t w_x) + s_h ⊙ N(h_{t−1} w_h) + b, h_t = o ⊙ ψ(s_c ⊙ N(c_t) + b_c)
                 N(a) = (a − mean a) / √(var a + 1e-5)                   Ba, Kiros & Hinton 2016
                 mean and var over all entries of a: for x_t w_x and h_{t−1} w_h those of all gates together
    clip         every z is clipped to [−clip, clip]; then peephole terms are added, unclipped

The gates are side by side in w_x, w_h and b, in the order i, f, g, o. A gate that a variant lacks is left out.
Weights have the shape (in, out).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks, gates
from jax_lstm.cell import add_preactivations
from jax_lstm.cells.initializers import draw_per_gate, forget_biases, forget_choice, lecun_normal, orthogonal
from jax_lstm.cells.linear import PreactivationCell, product
from jax_lstm.gates import ACTIVATIONS, Gates

WITHOUT = ("input_gate", "forget_gate", "output_gate")


class LSTMParams(NamedTuple):
    """Weights of an `LSTM`; the n = 4 gates are side by side in the order i, f, g, o.

    w_x: (I, n H), multiplies the input.
    w_h: (H, n H), multiplies h.
    b: (n H,), added.

    n is 3 with `coupled` (no i) or `without` (not the gate named there); with both it is 2.
    """

    w_x: Float[Array, "I n*H"]
    w_h: Float[Array, "H n*H"]
    b: Float[Array, " n*H"]


class LSTMVariantParams(NamedTuple):
    """Weights of an `LSTM` with peepholes, a projection or layer normalization; a field is None if not used.

    w_x: (I, n H), multiplies the input; gates in the order i, f, g, o, n as in `LSTMParams`.
    w_h: (P, n H), multiplies h; P is H without a projection.
    b: (n H,), added.
    p: (m, H), peepholes, one row for each of i, f, o that has a pre-activation.
    w_p: (H, P), the projection.
    s_x, s_h: (n H,), scales of the layer norms of x w_x and h w_h.
    s_c, b_c: (H,), scale and shift of the layer norm of c.
    """

    w_x: Float[Array, "I n*H"]
    w_h: Float[Array, "P n*H"]
    b: Float[Array, " n*H"]
    p: Float[Array, "m H"] | None = None
    w_p: Float[Array, "H P"] | None = None
    s_x: Float[Array, " n*H"] | None = None
    s_h: Float[Array, " n*H"] | None = None
    s_c: Float[Array, " H"] | None = None
    b_c: Float[Array, " H"] | None = None


class Sides(NamedTuple):
    """x w_x and h w_h, each (n H,), which layer norms need apart."""

    x: Any
    h: Any


Params = LSTMParams | LSTMVariantParams


class LSTMState(NamedTuple):
    """State of an `LSTM`.

    h: (P,), the output; P is H without a projection.
    c: (H,), the cell state.
    """

    h: Float[Array, " P"]
    c: Float[Array, " H"]


@dataclass(frozen=True)
class LSTM(PreactivationCell):
    """LSTM cell with forget gate, and its common variants (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    One step, with φ = ψ = tanh unless chosen otherwise::

        [z_i, z_f, z_g, z_o] = x_t w_x + h_{t−1} w_h + b
        i = σ(z_i)    f = σ(z_f)    g = φ(z_g)    o = σ(z_o)
        c_t = f ⊙ c_{t−1} + i ⊙ g
        h_t = o ⊙ ψ(c_t)

    x_t (I,) is the input, h_t (H,) the output, c_t (H,) the cell state. i is the input gate, f the forget gate, o the
    output gate, and g the candidate for c. σ is the sigmoid unless chosen otherwise; ⊙ is the elementwise product.
    The columns of w_x, w_h and b are in the order i, f, g, o, H columns each. With `projection`, h_t is (P,).

    The cell holds options only. `init` returns its weights: an `LSTMParams` for the plain LSTM, and an
    `LSTMVariantParams` instead with `peephole`, `projection` or `layer_norm`. Its state is an `LSTMState`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.LSTM(input_size=3, hidden_size=4)
    >>> params = cell.init(jax.random.key(0))
    >>> state, hs = jl.unroll(cell, params, jnp.ones((6, 3), jnp.float32))
    >>> params.w_x.shape, state.h.shape, state.c.shape, hs.shape
    ((3, 16), (4,), (4,), (6, 4))

    Args:
        input_size: I, the number of features of x.
        hidden_size: H, the number of units, and of entries of c.
        forget_bias: initial value of b_f, set once by `init`. The default is 1 unless `chrono` is given.
        chrono: T_max, the longest dependency in time steps, above 2. For each unit `init` draws u uniformly from
            (1, T_max − 1), and sets b_f = log u and b_i = −b_f. The units' time constants then spread over 1 to T_max
            steps (Tallec & Ollivier 2018). You cannot set both `chrono` and `forget_bias`.
        compute_dtype: dtype that the operands of matrix products are rounded to, such as "bfloat16". Sums, gates and
            state keep the params' dtype. None: no rounding. Prefer it to bfloat16 params: if every step adds 1 to c, a
            bfloat16 c stops at 256. A float32 c reaches 1,000 in 1,000 steps, with this option too.
        peephole: whether the gates also read c: i and f read c_{t−1}, o reads c_t (Gers & Schmidhuber 2000).
        coupled: whether i = 1 − f (CIFG; Greff et al. 2017).
        without: "input_gate", "forget_gate" or "output_gate": fix that gate at 1 (Greff et al. 2017). None: keep all.
        projection: P, the number of features of h_t = (o ⊙ ψ(c_t)) w_p (Sak, Senior & Beaufays 2014). None: no
            projection.
        layer_norm: whether to normalize x w_x, h w_h and c (Ba, Kiros & Hinton 2016):
            z = s_x ⊙ N(x_t w_x) + s_h ⊙ N(h_{t−1} w_h) + b and h_t = o ⊙ ψ(s_c ⊙ N(c_t) + b_c), with
            N(a) = (a − mean a) / √(var a + 1e-5). Mean and variance are over all 4H entries of x w_x or of h w_h (all
            gates together, not per gate), and over the H entries of c.
        gate_activation, cell_activation, output_activation: σ, φ and ψ, each an elementwise function of `jax.nn`, by
            name or as the function; the names are those of `RNN`.
        clip: clip every entry of z to [−clip, clip], after b and layer norms. Peephole terms are added after that, and
            are not clipped. Above 0. None: no clipping.

    Raises:
        ValueError: a field is out of range, or two fields exclude each other; the message names them.
        TypeError: a field has a wrong type; the message names it.
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
    gate_activation: str | Callable[..., Any] = "sigmoid"
    cell_activation: str | Callable[..., Any] = "tanh"
    output_activation: str | Callable[..., Any] = "tanh"
    clip: float | int | None = None

    def __post_init__(self):
        checks.check_fields(self)
        for name in ("peephole", "coupled", "layer_norm"):
            object.__setattr__(self, name, checks.check_bool("LSTM", name, getattr(self, name)))
        for name in ("gate_activation", "cell_activation", "output_activation"):
            object.__setattr__(self, name, checks.activation_name("LSTM", name, getattr(self, name)))
        if self.without is not None:
            checks.one_of("LSTM", "without", self.without, WITHOUT)
        if self.coupled and self.without in ("input_gate", "forget_gate"):
            raise ValueError(
                f"LSTM: coupled=True computes the input gate from the forget gate, but without={self.without!r} "
                "removes one of the two; leave out one of these options"
            )
        if self.projection is not None:
            object.__setattr__(self, "projection", checks.positive_int("LSTM", "projection", self.projection))
        if self.clip is not None:
            object.__setattr__(self, "clip", checks.finite_number("LSTM", "clip", self.clip))
            if self.clip <= 0:
                raise ValueError(f"LSTM: clip must be above 0, but is {self.clip}")
        if self.without == "forget_gate":
            for name in ("forget_bias", "chrono"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"LSTM: {name} sets the bias of the forget gate, but without='forget_gate' removes that gate; "
                        "leave out one of the two"
                    )
            return
        forget_bias, chrono = checks.check_forget_bias("LSTM", self.forget_bias, self.chrono)
        object.__setattr__(self, "forget_bias", forget_bias)
        object.__setattr__(self, "chrono", chrono)

    @property
    def output_size(self) -> int:
        """P, the number of features of h: `projection`, or H without one."""
        return self.hidden_size if self.projection is None else self.projection

    @property
    def _plain(self) -> bool:
        """Whether this is the LSTM without any variant."""
        varied = self.peephole or self.coupled or self.without or self.projection or self.layer_norm or self.clip
        squashed = (self.gate_activation, self.cell_activation, self.output_activation)
        return not varied and squashed == ("sigmoid", "tanh", "tanh")

    @property
    def _names(self) -> str:
        """The letters of the gates that have a pre-activation, in the order i, f, g, o."""
        left_out = {"i"} if self.coupled else set()
        if self.without is not None:
            left_out.add(self.without[0])
        return "".join(name for name in "ifgo" if name not in left_out)

    def init(
        self, key: Array, dtype: DTypeLike = jnp.float32, *,
        forget_bias: ArrayLike | None = None, chrono: ArrayLike | None = None,
    ) -> Params:  # fmt: skip
        """Draw the weights: for each gate w_x LeCun normal and w_h orthogonal; b zero except for the forget bias.

        The projection w_p is LeCun normal. Peepholes and b_c start at 0, layer norm scales at 1.

        Args:
            key: one random key, for example `jax.random.key(0)`. Do not reuse it.
            dtype: floating dtype of every leaf, float32 by default. Values are drawn in float32 or wider, then cast.
            forget_bias: b_f for this draw, in place of the fields `forget_bias` and `chrono`: a number, or an array of
                shape () or (H,), which may be traced. None: as the fields say.
            chrono: T_max for this draw, in place of both fields; a number or an array as for `forget_bias`, above 2
                (not checked if traced).

        Returns:
            LSTMParams(w_x (I, 4H), w_h (H, 4H), b (4H,)), or an `LSTMVariantParams` with `peephole`, `projection` or
            `layer_norm`.

        Raises:
            ValueError: `forget_bias` or `chrono` is out of range, has a wrong shape or has no gate; or both are given.
            TypeError: key is not a random key, dtype is not floating, or `forget_bias` or `chrono` is not a number.
        """
        key, dtype = checks.check_key("LSTM.init", key), checks.float_dtype("LSTM.init", "dtype", dtype)
        H, P, names = self.hidden_size, self.output_size, self._names
        keys = jax.random.split(key, 3 if self.projection is None else 4)
        if "f" not in names and (forget_bias is not None or chrono is not None):
            name = "chrono" if forget_bias is None else "forget_bias"
            raise ValueError(
                f"LSTM.init: {name} sets the bias of the forget gate, but without='forget_gate' removes that gate; "
                "leave out one of the two"
            )
        fields = self.forget_bias, self.chrono
        forget_bias, chrono = forget_choice("LSTM.init", H, (forget_bias, chrono), fields)
        biases = {name: jnp.zeros(H, dtype) for name in names}
        if "f" in names:
            biases["f"] = forget_biases(keys[2], H, dtype, forget_bias, chrono)
        if "i" in names and chrono is not None:
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

    def initial_state(self, params: Params) -> LSTMState:
        """The state before the first step: h = c = 0.

        Args:
            params: what `init` returns; only the dtype is read.

        Returns:
            LSTMState(h (P,), c (H,)).
        """
        dtype = params.w_h.dtype  # two arrays: each may be donated
        return LSTMState(h=jnp.zeros(self.output_size, dtype), c=jnp.zeros(self.hidden_size, dtype))

    def project(self, params: Any, x: Float[Array, " I"]) -> Any:
        """The input's part of the pre-activation: x w_x, (Z,); with layer norms apart from the state's."""
        zx = super().project(params, x)
        return Sides(zx, None) if self.layer_norm else zx

    def recur(self, params: Any, state: Any) -> Any:
        """The state's part of the pre-activation: h w_h, (Z,); with layer norms apart from the input's."""
        zh = super().recur(params, state)
        return Sides(None, zh) if self.layer_norm else zh

    def update(self, params: Params, state: LSTMState, z: Any) -> LSTMState:
        """The next state (h_t, c_t); b is added to z here. With a projection h_t is still o ⊙ ψ(c_t), (H,)."""
        return self._gated(params, state.c, z)[1]

    def mix(self, params: Any, state: LSTMState) -> LSTMState:
        """The state with the projection applied: h_t = (o ⊙ ψ(c_t)) w_p; unchanged without a projection."""
        if self.projection is None:
            return state
        return state._replace(h=product(state.h, params.w_p, self.compute_dtype))

    def gates(self, params: Params, state: LSTMState, x: Float[Array, " I"]) -> Gates:
        """The gates i, f, g, o of one step, each (H,); a gate left out by `without` is 1.

        Args:
            params: what `init` returns.
            state: the state before the step.
            x: (I,).

        Returns:
            Gates(i, f, g, o). `jl.gates_of` gives those of a whole sequence.
        """
        z = add_preactivations(self, self.project(params, x), self.recur(params, state))
        return self._gated(params, state.c, z)[0]

    def _gated(self, params: Any, c_tm1: Array, z: Any) -> tuple[Gates, LSTMState]:
        """i, f, g, o, and c_t with o ⊙ ψ(c_t)."""
        names = self._names
        if self._plain:
            ifgo = gates.lstm_gates(Gates(*jnp.split(z + params.b, 4)))
            return ifgo, LSTMState(*gates.lstm_state(c_tm1, ifgo))
        if self.layer_norm:
            z = params.s_x * gates.layer_norm(z.x) + params.s_h * gates.layer_norm(z.h)
        z = z + params.b
        z = z if self.clip is None else jnp.clip(z, -self.clip, self.clip)
        z = dict(zip(names, jnp.split(z, len(names)), strict=True))
        p = {} if not self.peephole else dict(zip(names.replace("g", ""), params.p, strict=True))
        chosen: Any = self.gate_activation, self.cell_activation, self.output_activation
        σ, φ, ψ = (ACTIVATIONS[name] for name in chosen)

        def normalize_c(c: Array) -> Array:
            return params.s_c * gates.layer_norm(c) + params.b_c if self.layer_norm else c

        ifgo, h_t, c_t = gates.lstm_variant(z, c_tm1, p, (σ, φ, ψ), self.coupled, normalize_c)
        return ifgo, LSTMState(h=h_t, c=c_t)


def cell_of(caller: str, params: Any) -> LSTM:
    """The plain LSTM with the sizes of these params."""
    if not isinstance(params, LSTMParams):
        raise TypeError(
            f"{caller}: params must be LSTMParams(w_x, w_h, b), but is a {type(params).__name__}; "
            f"for another cell use jl.unroll(cell, params, ...)"
        )
    w_x, w_h, b = (checks.as_array(caller, f"params.{n}", a) for n, a in zip(params._fields, params, strict=True))
    if w_h.ndim != 2 or w_h.shape[1] != 4 * w_h.shape[0]:
        raise ValueError(f"{caller}: params.w_h must have shape (H, 4H), but has {w_h.shape}")
    if w_x.ndim != 2 or w_x.shape[1] != w_h.shape[1]:
        raise ValueError(f"{caller}: params.w_x must have shape (I, {w_h.shape[1]}), but has {w_x.shape}")
    if b.shape != (w_h.shape[1],):
        raise ValueError(f"{caller}: params.b must have shape {(w_h.shape[1],)}, but has {b.shape}")
    return LSTM(w_x.shape[0], w_h.shape[0])
