"""Dropout for recurrent cells: on inputs, on h, on weights, and zoneout.

    inputs    x_t ⊙ m_x / (1 − p)       one mask per sequence, the same at every step        Gal & Ghahramani 2016
    hidden    h_{t−1} ⊙ m_h / (1 − p)   before the recurrent product; one mask per sequence  Gal & Ghahramani 2016
    zoneout   h_t = h_{t−1} with probability p, per unit and step; c_t = c_{t−1} with its own p and mask;
              without a key the expected value, p h_{t−1} + (1 − p) h_t                      Krueger et al. 2017
    weights   w_h ⊙ M / (1 − p)         one mask for a whole batch (DropConnect)             Merity et al. 2018

The entries of m_x, m_h and M are 0 with probability p, else 1. `drop_weights` draws M, `Dropout` the other masks. All
random numbers are drawn from the key before the first step. Without a key nothing is dropped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jax_lstm import checks
from jax_lstm.abilities import has_noise, init_cell, is_linear, is_split, noise_of, output_size
from jax_lstm.cell import Noise, SplitCell, call_given
from jax_lstm.layers.wrapper import CellWrapper

RATES = ("inputs", "hidden", "zoneout", "zoneout_c")
ZONEOUT = {"zoneout": "h", "zoneout_c": "c"}  # the field of the state that each zoneout rate acts on


def rate(caller: str, name: str, value: Any) -> float:
    """Check a probability in [0, 1); return it as a Python float."""
    p = checks.finite_number(caller, name, value)
    if not 0 <= p < 1:
        raise ValueError(f"{caller}: {name} must be a rate of at least 0 and below 1, but is {p}")
    return p


def rate_or_array(caller: str, name: str, value: Any, shape: tuple[Any, ...]) -> float | Array:
    """Check a rate that `sample_noise` gets: a number in [0, 1), or an array that broadcasts to the mask's shape."""
    p = checks.number_or_array(caller, name, value, shape, lambda p: 0 <= p < 1, "a rate of at least 0 and below 1")
    # In the dtype that a Python number has, so that equal rates draw equal masks.
    return p if isinstance(p, float) else p.astype(jnp.result_type(float))


def keep_mask(key: Array, p: float | Array, shape: tuple[Any, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """A mask of this shape: each entry is 1 with probability 1 − p, else 0. p broadcasts to the shape."""
    kept = 1 - p if isinstance(p, float) else jnp.broadcast_to(1 - p, shape)
    return jax.random.bernoulli(key, kept, shape).astype(dtype)


def scaled_mask(key: Array, p: float | Array, shape: tuple[Any, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """A mask of this shape: each entry is 1 / (1 − p) with probability 1 − p, else 0. p broadcasts to the shape."""
    return keep_mask(key, p, shape, dtype) / _kept(p, shape, dtype)


def _kept(p: float | Array, shape: tuple[Any, ...], dtype: DTypeLike) -> float | Array:
    """1 − p, as a number, or as an array of this shape and dtype."""
    return 1 - p if isinstance(p, float) else jnp.broadcast_to(1 - p, shape).astype(dtype)


def drop_weights(key: Array, params: Any, p: ArrayLike, names: Sequence[str] = ("w_h",)) -> Any:
    """Apply dropout to weights (DropConnect): w ⊙ M / (1 − p) (Merity, Keskar & Socher 2018).

    Each entry of M is 0 with probability p, else 1. Call it once per training step, before `unroll`. All time steps and
    the whole batch then share one mask.

    Args:
        key: one random key. Do not reuse it.
        params: the params of any cell or layer.
        p: the dropout rate, at least 0 and below 1: a number or an array (), which may be traced. The value of a
            traced array is not checked.
        names: the names of the leaves to drop; "w_h" are the recurrent weights. In a stack every leaf of that name is
            dropped.

    Returns:
        Params of the same structure, shapes and dtype.

    Raises:
        ValueError: p is out of range or has a shape, or no leaf has one of the names.
        TypeError: key is not a random key, or p is not a number.
    """
    key, rate = checks.check_key("drop_weights", key), rate_or_array("drop_weights", "p", p, ())
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    called = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in leaves]
    if unknown := sorted(set(names) - set(called)):
        raise ValueError(
            f"drop_weights: names must be names of leaves of params, but none is called {checks.shown(unknown[0])}; "
            f"params have {checks.listed(dict.fromkeys(called))}"
        )
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(
        [
            w * keep_mask(k, rate, w.shape, w.dtype) / _kept(rate, w.shape, w.dtype) if name in names else w
            for (_, w), k, name in zip(leaves, keys, called, strict=True)
        ]
    )


@dataclass(frozen=True)
class Dropout(CellWrapper, SplitCell):
    """A cell with dropout on its inputs and on h, and zoneout. It has the params, state and sizes of the cell inside.

    One step, with dropout masks m whose entries are 1 with probability 1 − rate and else 0::

        x_t ⊙ m_x / (1 − inputs)            in place of x_t; one mask per sequence
        h_{t−1} ⊙ m_h / (1 − hidden)        in place of h_{t−1} in the recurrent product; one mask per sequence
        h_t ⊙ m_t + h_{t−1} ⊙ (1 − m_t)     in place of h_t; rate zoneout, one mask per step
        c_t ⊙ n_t + c_{t−1} ⊙ (1 − n_t)     in place of c_t; rate zoneout_c, one mask n_t per step, drawn separately

    h_t of an LSTM is computed from c_t before zoneout_c is applied.

    These dropout masks are not the argument `mask` of `unroll`, which skips steps. They are drawn only if `unroll` gets
    a `key`, as in training. A mask per sequence is the same in all blocks of `tbptt`; in `batched` each sequence has
    its own. Without a key `inputs` and `hidden` have no effect, and zoneout uses expected values:
    zoneout · h_{t−1} + (1 − zoneout) · h_t, and for c the same with zoneout_c. `sample_noise` also takes other rates
    for one draw, which may be traced.
    Sources: Gal & Ghahramani 2016 (inputs, hidden), Krueger et al. 2017 (zoneout).

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jax_lstm as jl
    >>> cell = jl.Dropout(jl.LSTM(input_size=3, hidden_size=4), hidden=0.5)
    >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((6, 3), jnp.float32)
    >>> _, train = jl.unroll(cell, params, xs, key=jax.random.key(1))
    >>> _, test = jl.unroll(cell, params, xs)
    >>> train.shape, bool((train == test).all())
    ((6, 4), False)

    Args:
        cell: one of the single cells LSTM, GRU, RNN, JANET, MinLSTM, MinGRU and SLSTM, or a `SplitCell` of your own
            with a field h in its state. Not `GRU(reset_after=False)`, and not a layer: in a `Stack`, wrap the cells
            inside.
        inputs: dropout rate on x; the same features are dropped at every step. All rates are in [0, 1).
        hidden: dropout rate on h before the recurrent product; the same units are dropped at every step. The cell must
            have recurrent weights.
        zoneout: the probability that an entry of h keeps its value from the step before. Not for an LSTM with
            `projection`.
        zoneout_c: the same for c, for a cell whose state has the fields h and c only.

    Raises:
        ValueError: a rate is out of range, or the cell lacks what a rate acts on; the message names it.
        TypeError: cell is not a cell, or is a layer such as `Stack` (it lacks the methods of a `SplitCell`).
    """

    inputs: float = 0.0
    hidden: float = 0.0
    zoneout: float = 0.0
    zoneout_c: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.cell, SplitCell) and not self.cell.splits:
            raise TypeError(
                f"Dropout: cell must split its step (project, recur, update), but {type(self.cell).__name__} does not "
                "with these options; use others, such as reset_after=True for a GRU"
            )
        if not is_split(self.cell):
            raise TypeError(
                f"Dropout: cell must split its step (project, recur, update), but {type(self.cell).__name__} does not; "
                "in a layer, put Dropout around the cells inside it"
            )
        for name in RATES:
            object.__setattr__(self, name, rate("Dropout", name, getattr(self, name)))
        self._check_cell("Dropout", {name for name in RATES if getattr(self, name)})

    def _check_cell(self, caller: str, rates: Collection[str]) -> None:
        """Check that the cell has what the rates of these names act on."""
        fields = checks.field_names(checks.state_shapes(self.cell, jnp.dtype(jnp.float32)))
        # Zoneout cannot keep c alone if c depends on other fields: the sLSTM's c is scaled by its m, and divided by n.
        if "h" not in fields or ("zoneout_c" in rates and set(fields) != {"h", "c"}):
            raise ValueError(
                f"{caller}: the state of cell {type(self.cell).__name__} must have "
                f"{'h and c only, for zoneout_c' if 'zoneout_c' in rates else 'h'}, but has "
                f"{', '.join(fields) or 'no names'}"
            )
        if "hidden" in rates and is_linear(self.cell):
            raise ValueError(
                f"{caller}: hidden acts on h before the recurrent product, but cell {type(self.cell).__name__} has no "
                "recurrent weights; use inputs or zoneout"
            )
        if "zoneout" in rates and output_size(self.cell) != self.cell.hidden_size:
            raise ValueError(
                f"{caller}: zoneout needs a cell whose h has one feature per unit ({self.cell.hidden_size}), but this "
                f"has a projection to {output_size(self.cell)}; use zoneout_c"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32, **choices: Any) -> Any:
        """Draw the params of the cell; see its `init`.

        choices: keyword arguments of that `init`, such as `forget_bias`. A cell that does not take one raises a
        TypeError.
        """
        return init_cell("Dropout.init", self.cell, key, dtype, choices)

    def initial_state(self, params: Any) -> Any:
        """The initial state of the cell; see its `initial_state`."""
        return self.cell.initial_state(params)

    @property
    def has_noise(self) -> bool:
        """True: a key is always accepted, even if all rates are 0."""
        return True

    @property
    def linear_in_state(self) -> bool:
        """Whether the cell inside is linear in its state; zoneout keeps it linear."""
        return is_linear(self.cell)

    def sample_noise(self, params: Any, key: Array, T: Any, rates: dict[str, Any] | None = None) -> Noise:
        """Draw the masks of one sequence of T steps, and the noise of the cell inside.

        The masks contain their factor 1 / (1 − rate). A rate equal to the field draws what the field draws. A rate for
        a field that is 0 draws masks too; a run without noise still uses the field.

        Args:
            params: what `init` returns; only shapes and dtype are read.
            key: one random key. Do not reuse it.
            T: the number of steps.
            rates: rates for this draw by field, in place of the fields: "inputs", "hidden", "zoneout" and "zoneout_c".
                Each is a number in [0, 1), or an array that broadcasts to (I,), to the shape of h, or for zoneout to
                (T, H). Arrays may be traced; then their values are not checked. "cell" holds the rates of the cell
                inside, such as {"noise": 0.1}.

        Returns:
            Noise(DropoutStepNoise, DropoutSequenceNoise).

        Raises:
            ValueError: a rate is out of range or has a wrong shape, the cell lacks what it acts on, or a name in
                `rates` is unknown.
            TypeError: `rates` is not a dict of numbers and arrays.
        """
        caller = "Dropout.sample_noise"
        key, given = checks.check_key(caller, key), checks.check_rates(caller, rates, (*RATES, "cell"))
        inside = given.pop("cell", None)
        self._check_cell(caller, given)
        dtype, size = jax.tree.leaves(params)[0].dtype, (T, self.hidden_size)
        h = self.cell.initial_state(params).h
        shapes = {"inputs": (self.input_size,), "hidden": h.shape, "zoneout": size, "zoneout_c": size}
        p = {name: getattr(self, name) for name in RATES if getattr(self, name)} | given
        p = {name: rate_or_array(caller, name, value, shapes[name]) for name, value in p.items()}
        zones, draws_inside = [name for name in ZONEOUT if name in p], has_noise(self.cell) or inside is not None
        keys = jax.random.split(key, 2 + len(zones) + draws_inside)
        x_mask, h_mask = (
            scaled_mask(keys[k], p[name], shapes[name], dtype) if name in p else None
            for k, name in enumerate(("inputs", "hidden"))
        )
        stays = {
            ZONEOUT[name]: 1 - keep_mask(k, p[name], size, dtype)
            for k, name in zip(keys[2:], zones, strict=False)
        }  # fmt: skip
        noise = noise_of(caller, self.cell, params, keys[-1], T, inside) if draws_inside else Noise()
        return Noise(DropoutStepNoise(stays, noise.steps), DropoutSequenceNoise(x_mask, h_mask, noise.sequence))

    def project(self, params: Any, x: Array, **given: Any) -> Any:
        """The cell's `project` of x ⊙ m_x / (1 − inputs)."""
        masks, given = _masks(given)
        return call_given(self.cell.project, params, _times(x, masks.inputs), given=given)

    def recur(self, params: Any, state: Any, **given: Any) -> Any:
        """The cell's `recur` of h ⊙ m_h / (1 − hidden)."""
        masks, given = _masks(given)
        return call_given(self.cell.recur, params, _masked(state, masks.hidden), given=given)

    def update(self, params: Any, state: Any, z: Any, **given: Any) -> Any:
        """The cell's `update`, then zoneout: with masks if they were drawn, else with expected values."""
        stays = self._stays(params, given)
        state_t = call_given(self.cell.update, params, state, z, given=_masks(given)[1])
        return _zoned(stays, state, state_t)

    def mix(self, params: Any, state: Any) -> Any:
        """The cell's `mix`."""
        return self.cell.mix(params, state)

    def affine(self, params: Any, x: Array, **given: Any) -> tuple[Any, Any]:
        """The cell's coefficients, with zoneout."""
        stays = self._stays(params, given)
        masks, given = _masks(given)
        a, b = call_given(self.cell.affine, params, _times(x, masks.inputs), given=given)
        one, zero = jax.tree.map(jnp.ones_like, a), jax.tree.map(jnp.zeros_like, b)
        return _zoned(stays, one, a), _zoned(stays, zero, b)

    @property
    def _zones(self) -> dict[str, float]:
        """The fields of the state with zoneout, and their rates."""
        return {name: p for name, p in (("h", self.zoneout), ("c", self.zoneout_c)) if p}

    def _stays(self, params: Any, given: dict[str, Any]) -> dict[str, Any]:
        """For each field with zoneout, the weight (H,) of the old value: masks if they were drawn, else the rates."""
        if "noise" in given:
            return given["noise"].steps.zoneout
        dtype = jax.tree.leaves(params)[0].dtype
        return {name: jnp.full(self.hidden_size, p, dtype) for name, p in self._zones.items()}


class DropoutStepNoise(NamedTuple):
    """The noise of a `Dropout` for every step: the field `steps` of its `Noise`.

    zoneout: zoneout masks by the field of the state, "h" or "c", each (T, H): 1 where a unit keeps its old value, else
        0. A field without zoneout is absent.
    cell: the `steps` of the noise of the cell inside, or None.
    """

    zoneout: dict[str, Array]
    cell: Any = None


class DropoutSequenceNoise(NamedTuple):
    """The noise of a `Dropout` for a whole sequence: the field `sequence` of its `Noise`.

    inputs: (I,), the factor of x: 1 / (1 − inputs) or 0. None: 1.
    hidden: the factor of h before the recurrent product, with the shape of h: 1 / (1 − hidden) or 0. None: 1.
    cell: the `sequence` of the noise of the cell inside, or None.
    """

    inputs: Array | None = None
    hidden: Array | None = None
    cell: Any = None


def _inside(noise: Noise) -> Noise:
    """The noise of the cell inside."""
    return Noise(noise.steps and noise.steps.cell, noise.sequence and noise.sequence.cell)


def _masks(given: dict[str, Any]) -> tuple[DropoutSequenceNoise, dict[str, Any]]:
    """The masks of x and h, and what the cell inside is given."""
    if "noise" not in given:
        return DropoutSequenceNoise(), given
    noise, rest = given["noise"], {name: value for name, value in given.items() if name != "noise"}
    inside = _inside(noise)
    masks = DropoutSequenceNoise() if noise.sequence is None else noise.sequence
    if inside.steps is None and inside.sequence is None:
        return masks, rest
    return masks, rest | {"noise": inside}


def _times(x: Array, mask: Array | None) -> Array:
    return x if mask is None else x.astype(mask.dtype) * mask


def _masked(state: Any, mask: Array | None) -> Any:
    return state if mask is None else state._replace(h=state.h * mask)


def _zoned(stays: dict[str, Any], state: Any, state_t: Any) -> Any:
    """stays ⊙ s_{t−1} + (1 − stays) ⊙ s_t for each field in `stays`."""
    before = {name: getattr(state, name) for name in stays}
    return state_t._replace(**{name: k * before[name] + (1 - k) * getattr(state_t, name) for name, k in stays.items()})
