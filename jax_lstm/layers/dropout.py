"""Dropout for recurrent cells: on inputs, on h, on weights, and zoneout.

    inputs    x_t ⊙ m_x / (1 − p)       one mask per sequence, the same at every step        Gal & Ghahramani 2016
    hidden    h_{t−1} ⊙ m_h / (1 − p)   before the recurrent product; one mask per sequence  Gal & Ghahramani 2016
    zoneout   h_t = h_{t−1} with probability p, per unit and step; c_t = c_{t−1} with its own p and mask;
              without a key the expected value, p h_{t−1} + (1 − p) h_t                      Krueger et al. 2017
    weights   w_h ⊙ M / (1 − p)         one mask for a whole batch (DropConnect)             Merity et al. 2018

All random numbers are drawn from the key before the first step. Without a key nothing is dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_lstm.cells import base, door
from jax_lstm.cells.shapes import state_shapes
from jax_lstm.layers.around import Around


def rate(where: str, name: str, value: Any) -> float:
    """Check a probability in [0, 1); return it as a Python float."""
    p = door.number(where, name, value)
    if not 0 <= p < 1:
        raise ValueError(f"{where}: {name} must be a rate of at least 0 and below 1, but is {p}")
    return p


def kept(key: Array, p: float, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """A mask of this shape: each entry is 1 with probability 1 − p, else 0."""
    return jax.random.bernoulli(key, 1 - p, shape).astype(dtype)


def drop_weights(key: Array, params: Any, p: float, names: Sequence[str] = ("w_h",)) -> Any:
    """Apply dropout to weights (DropConnect): w ⊙ M / (1 − p), M 0 with probability p (Merity, Keskar & Socher 2018).

    Call it once per training step, before `unroll`. All time steps and the whole batch then share one mask.

    Args:
        key: one random key. Do not reuse it.
        params: the params of any cell or layer.
        p: the dropout rate, at least 0 and below 1; a Python number.
        names: the names of the leaves to drop; "w_h" are the recurrent weights. In a stack every leaf of that name is
            dropped.

    Returns:
        Params of the same structure, shapes and dtype.

    Raises:
        ValueError: p is out of range, or no leaf has one of the names.
        TypeError: key is not a random key, or p is not a number.
    """
    key, p = door.prng_key("drop_weights", key), rate("drop_weights", "p", p)
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    called = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in leaves]
    if unknown := sorted(set(names) - set(called)):
        raise ValueError(
            f"drop_weights: names must be names of leaves of params, but none is called {unknown[0]!r}; "
            f"params have {', '.join(dict.fromkeys(called))}"
        )
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(
        [
            w * kept(k, p, w.shape, w.dtype) / (1 - p) if name in names else w
            for (_, w), k, name in zip(leaves, keys, called, strict=True)
        ]
    )


@jax.tree_util.register_static
@dataclass(frozen=True)
class Dropout(Around):
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
    zoneout · h_{t−1} + (1 − zoneout) · h_t, and for c the same with zoneout_c.
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
            with a field h in its state. Not a layer: in a `Stack`, wrap the cells inside.
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
        if not base.is_split(self.cell):
            raise TypeError(
                f"Dropout: cell must split its step (project, recur, update), but {type(self.cell).__name__} does not; "
                "in a layer, put Dropout around the cells inside it"
            )
        for name in ("inputs", "hidden", "zoneout", "zoneout_c"):
            object.__setattr__(self, name, rate("Dropout", name, getattr(self, name)))
        fields = getattr(state_shapes(self.cell, jnp.dtype(jnp.float32)), "_fields", ())
        # Zoneout cannot keep c alone if c depends on other fields: the sLSTM's c is scaled by its m, and divided by n.
        if "h" not in fields or (self.zoneout_c and set(fields) != {"h", "c"}):
            raise ValueError(
                f"Dropout: the state of cell {type(self.cell).__name__} must have "
                f"{'h and c only, for zoneout_c' if self.zoneout_c else 'h'}, but has "
                f"{', '.join(fields) or 'no names'}"
            )
        if self.hidden and hasattr(self.cell, "affine"):
            raise ValueError(
                f"Dropout: hidden acts on h before the recurrent product, but cell {type(self.cell).__name__} has no "
                "recurrent weights; use inputs or zoneout"
            )
        if self.zoneout and base.output_size(self.cell) != self.cell.hidden_size:
            raise ValueError(
                f"Dropout: zoneout needs a cell whose h has one feature per unit ({self.cell.hidden_size}), but this "
                f"has a projection to {base.output_size(self.cell)}; use zoneout_c"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """Draw the params of the cell; see its `init`."""
        return self.cell.init(key, dtype)

    def initial_state(self, params: Any, like: Array | None = None) -> Any:
        """The initial state of the cell; see its `initial_state`."""
        return self.cell.initial_state(params, like)

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Array]:
        """One step of the cell, without dropout and with zoneout in expectation.

        Args:
            params: what `init` returns.
            state: what `initial_state` or the step before returns.
            x: (I,), floats no wider than the params' dtype.

        Returns:
            (state, y): the next state, and the output y (output_size,).
        """
        state_t, y = self.cell.step(params, state, x)
        if not self._zones:
            return state_t, y
        state_t = _zoned(self._zones, state, state_t)
        return state_t, base.output(self.cell, state_t)

    def draw(self, params: Any, key: Array, steps: int) -> base.Drawn:
        """Draw the masks of one sequence of `steps` steps."""
        dtype = jax.tree.leaves(params)[0].dtype
        keys = jax.random.split(key, 2 + len(self._zones))
        h = self.cell.initial_state(params).h
        drawn = _Masked(
            params,
            kept(keys[0], self.inputs, (self.input_size,), dtype) / (1 - self.inputs) if self.inputs else None,
            kept(keys[1], self.hidden, h.shape, dtype) / (1 - self.hidden) if self.hidden else None,
        )
        size = self.hidden_size
        kept_back = [1 - kept(k, p, (steps, size), dtype) for k, p in zip(keys[2:], self._zones.values(), strict=True)]
        return base.Drawn(_dropped(self), drawn, jnp.concatenate([jnp.zeros((steps, 0), dtype), *kept_back], axis=1))

    def over_time(
        self, run: Callable, params: Any, s_0: Any, s_restart: Any, xs: Array, flags: Any, *, reverse: bool
    ) -> tuple[Any, Any, Array]:
        """Run the cell over time without dropout, with zoneout in expectation.

        Used by `unroll`. xs is (T, *B, I), and every leaf of a state has the leading axes *B.
        """
        if not self._zones:
            return run(self.cell, params, s_0, s_restart, xs, flags, reverse=reverse)
        return run(_dropped(self), _Masked(params, None, None), s_0, s_restart, xs, flags, reverse=reverse)

    @property
    def _zones(self) -> dict[str, float]:
        """The fields of the state with zoneout, and their rates."""
        return {name: p for name, p in (("h", self.zoneout), ("c", self.zoneout_c)) if p}


class _Masked(NamedTuple):
    """A cell's params, and the masks of its inputs and of its h, over 1 − p; None: no mask."""

    cell: Any
    x: Array | None
    h: Array | None


@dataclass(frozen=True)
class _Dropped:
    """A split cell with the masks of a Dropout. Zoneout's masks are features of x; if absent, its rates are used."""

    dropout: Dropout

    @property
    def input_size(self) -> int:
        return self.dropout.input_size

    @property
    def hidden_size(self) -> int:
        return self.dropout.hidden_size

    def initial_state(self, params: _Masked) -> Any:
        return self.dropout.cell.initial_state(params.cell)

    def project(self, params: _Masked, x: Array) -> Any:
        x, keep = self._read(params, x)
        return self.dropout.cell.project(params.cell, x), keep

    def _read(self, params: _Masked, x: Array) -> tuple[Array, dict[str, Array]]:
        """The input of the cell, and for each field with zoneout the share that keeps its old value."""
        x, noise = x[: self.input_size], x[self.input_size :]
        x = x if params.x is None else x.astype(params.x.dtype) * params.x
        zones = self.dropout._zones
        if noise.shape[-1]:
            return x, dict(zip(zones, jnp.split(noise, len(zones)), strict=True))
        like = jax.tree.leaves(params.cell)[0]
        return x, {name: jnp.full(self.hidden_size, p, like.dtype) for name, p in zones.items()}

    def recur(self, params: _Masked, state: Any) -> Any:
        masked = state if params.h is None else state._replace(h=state.h * params.h)
        return self.dropout.cell.recur(params.cell, masked)

    def update(self, params: _Masked, state: Any, zx: Any, zh: Any) -> Any:
        zx, keep = zx
        return _zoned(keep, state, self.dropout.cell.update(params.cell, state, zx, zh))

    def mix(self, params: _Masked, state: Any) -> Any:
        return base.mix(self.dropout.cell, params.cell, state)

    def output(self, state: Any) -> Array:
        return base.output(self.dropout.cell, state)

    def step(self, params: _Masked, state: Any, x: Array) -> tuple[Any, Array]:
        zx, zh = self.project(params, x), self.recur(params, state)
        state = self.mix(params, self.update(params, state, zx, zh))
        return state, self.output(state)


@dataclass(frozen=True)
class _AffineDropped(_Dropped):
    """The same for a cell that is linear in its state; with zoneout it still is."""

    def affine(self, params: _Masked, x: Array) -> tuple[Any, Any]:
        x, keep = self._read(params, x)
        a, b = self.dropout.cell.affine(params.cell, x)
        one = jax.tree.map(jnp.ones_like, a)
        return _zoned(keep, one, a), _zoned(keep, jax.tree.map(jnp.zeros_like, b), b)


def _dropped(dropout: Dropout) -> _Dropped:
    return (_AffineDropped if base.has_part(dropout.cell, "affine") else _Dropped)(dropout)


def _zoned(keep: dict[str, Any], state: Any, state_t: Any) -> Any:
    """keep ⊙ s_{t−1} + (1 − keep) ⊙ s_t for each field in `keep`."""
    before = {name: getattr(state, name) for name in keep}
    return state_t._replace(**{name: k * before[name] + (1 - k) * getattr(state_t, name) for name, k in keep.items()})
