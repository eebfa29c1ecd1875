"""Dropout for recurrent cells. All that is random is drawn before the first step, from a key; without a key nothing is.

inputs    x_t ⊙ m_x / (1 − p)     one mask a sequence, the same at every step       Gal & Ghahramani 2016
hidden    h_{t−1} ⊙ m_h / (1 − p) where the recurrent weights read it, likewise     Gal & Ghahramani 2016
zoneout   h_t = h_{t−1} where a mask of step t says so, with probability p; c_t likewise, with one of its own;
          without a key the expectation, p h_{t−1} + (1 − p) h_t                    Krueger et al. 2017
weights   w_h ⊙ M / (1 − p)       one mask for a whole batch (DropConnect)          Merity, Keskar & Socher 2018
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
    """A probability below 1."""
    p = door.number(where, name, value)
    if not 0 <= p < 1:
        raise ValueError(f"{where}: {name} must be a rate from 0 up to, but below 1, but is {p}")
    return p


def kept(key: Array, p: float, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """1 with probability 1 − p, else 0."""
    return jax.random.bernoulli(key, 1 - p, shape).astype(dtype)


def drop_weights(key: Array, params: Any, p: float, names: Sequence[str] = ("w_h",)) -> Any:
    """The params with each entry of the weights of these names 0 with probability p, else over 1 − p.

    Draw once a training step, before `unroll`: one mask then holds for every step and for the whole batch.

    Args:
        key: a random key; consumed.
        params: of any cell, stacks included.
        p: the rate, from 0 up to, but below 1; a Python number.
        names: of leaves; `w_h` are the recurrent weights.

    Raises:
        ValueError: p out of range, or a name that no leaf has.
        TypeError: key is no key.
    """
    key, p = door.prng_key("drop_weights", key), rate("drop_weights", "p", p)
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    called = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in leaves]
    if unknown := sorted(set(names) - set(called)):
        raise ValueError(f"drop_weights: names must be of leaves that params have, but none is called {unknown[0]!r}")
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
    """A cell with dropout inside; its params, its state and its sizes are the cell's own.

    Args:
        cell: a cell that splits its step, as all of the library do; its state has an h.
        inputs: the rate at which features of x are dropped, the same ones at every step.
        hidden: that for what the recurrent weights read of h, the same ones at every step.
        zoneout: the rate at which entries of h keep their value of the step before.
        zoneout_c: that for c, of a cell whose state is h and c.

    Raises:
        ValueError: a rate out of range, or what the cell does not have; the message names it.
        TypeError: cell is none, or does not split its step.
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
                "of a layer, put Dropout around the cells inside it"
            )
        for name in ("inputs", "hidden", "zoneout", "zoneout_c"):
            object.__setattr__(self, name, rate("Dropout", name, getattr(self, name)))
        fields = getattr(state_shapes(self.cell, jnp.dtype(jnp.float32)), "_fields", ())
        # A memory that is spread over more than c cannot be kept in part: the sLSTM's c is in units of its n and m.
        if "h" not in fields or (self.zoneout_c and set(fields) != {"h", "c"}):
            raise ValueError(
                f"Dropout: the state of cell {type(self.cell).__name__} must have "
                f"{'h and c, and no more, for zoneout_c' if self.zoneout_c else 'h'}, but has "
                f"{', '.join(fields) or 'no names'}"
            )
        if self.hidden and hasattr(self.cell, "affine"):
            raise ValueError(
                f"Dropout: hidden is of what the recurrent weights read, but cell {type(self.cell).__name__} has "
                "no such weights: it would lose its memory itself; inputs and zoneout suit it"
            )
        if self.zoneout and base.output_size(self.cell) != self.cell.hidden_size:
            raise ValueError("Dropout: zoneout keeps units of h, so the cell cannot have a projection; zoneout_c can")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """The cell's params."""
        return self.cell.init(key, dtype)

    def initial_state(self, params: Any, like: Array | None = None) -> Any:
        """The cell's."""
        return self.cell.initial_state(params, like)

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Array]:
        """The cell's step, with zoneout in expectation."""
        state_t, y = self.cell.step(params, state, x)
        if not self._zones:
            return state_t, y
        state_t = _zoned(self._zones, state, state_t)
        return state_t, base.output(self.cell, state_t)

    def draw(self, params: Any, key: Array, steps: int) -> base.Drawn:
        """The masks of one sequence."""
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
        """The cell's own run; with zoneout, in expectation."""
        if not self._zones:
            return run(self.cell, params, s_0, s_restart, xs, flags, reverse=reverse)
        return run(_dropped(self), _Masked(params, None, None), s_0, s_restart, xs, flags, reverse=reverse)

    @property
    def _zones(self) -> dict[str, float]:
        """The parts of the state that are zoned out, with their rates."""
        return {name: p for name, p in (("h", self.zoneout), ("c", self.zoneout_c)) if p}


class _Masked(NamedTuple):
    """A cell's params, and what its inputs and its h are multiplied by."""

    cell: Any
    x: Array | None
    h: Array | None


@dataclass(frozen=True)
class _Dropped:
    """The cell inside a Dropout, split as that is. Zoneout's masks are features of x; if none, its rates."""

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
        """What the cell is to read, and how much of each zoned part of the state stays."""
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
    """That of a cell that is linear in its state: with zoneout it still is."""

    def affine(self, params: _Masked, x: Array) -> tuple[Any, Any]:
        x, keep = self._read(params, x)
        a, b = self.dropout.cell.affine(params.cell, x)
        one = jax.tree.map(jnp.ones_like, a)
        return _zoned(keep, one, a), _zoned(keep, jax.tree.map(jnp.zeros_like, b), b)


def _dropped(dropout: Dropout) -> _Dropped:
    return (_AffineDropped if hasattr(dropout.cell, "affine") else _Dropped)(dropout)


def _zoned(keep: dict[str, Any], state: Any, state_t: Any) -> Any:
    """Of each part as much of the state before as `keep` says."""
    before = {name: getattr(state, name) for name in keep}
    return state_t._replace(**{name: k * before[name] + (1 - k) * getattr(state_t, name) for name, k in keep.items()})
