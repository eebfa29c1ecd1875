"""The embedded Reber grammar (Smith & Zipser 1989; Hochreiter & Schmidhuber 1997, experiment 1).

    B T [a Reber string] T E        B P [a Reber string] P E        one-hot in the order B, T, P, S, X, V, E

The symbol before the last is asked for, after the inner string: it is the second one. The inner string is a walk

    B → 1     1 –T→ 2, –P→ 3     2 –S→ 2, –X→ 4     3 –T→ 3, –V→ 5     4 –X→ 3, –S→ 6     5 –P→ 4, –V→ 6     6 –E

with either arrow as likely, of 5 to 16 symbols; longer ones are drawn again.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh

B, T, P, S, X, V, E = range(7)
END = 7
# For each of the states 0 to 6 its two arrows: the symbol, and the state that it leads to.
SYMBOLS = ((B, B), (T, P), (S, X), (T, V), (X, S), (P, V), (E, E))
LEADS_TO = ((1, 1), (2, 3), (2, 4), (3, 5), (3, 6), (4, 6), (END, END))
LONGEST = 16
DRAWS = 6  # 2.8 % of walks are longer than 16: that all of them are has a chance below 10⁻⁹


@dataclass(frozen=True)
class Reber(Fresh):
    """Embedded Reber strings, up to the symbol that is asked for."""

    input_size = 7
    output_size = 7
    loss = "cross_entropy"
    metric = "accuracy"
    maximise = True
    baseline = 0.5

    @property
    def length(self) -> int:
        """18: B, T or P, and the longest inner string."""
        return 2 + LONGEST

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` fresh sequences: xs (size, 18, 7), targets (size,), and the mask of their lengths."""
        return Batch(*jax.vmap(_one)(jax.random.split(key, size)))


def _one(key: Key[Array, ""]) -> tuple[Float[Array, "T 7"], Int[Array, ""], Bool[Array, " T"]]:
    key_outer, key_inner = jax.random.split(key)
    outer = jnp.where(jax.random.bernoulli(key_outer), T, P)
    walks, lengths = jax.vmap(_walk)(jax.random.split(key_inner, DRAWS))
    chosen = jnp.argmax(lengths <= LONGEST)  # the first that is short enough
    symbols = jnp.concatenate([jnp.stack([jnp.asarray(B), outer]), walks[chosen, :LONGEST]])
    live = jnp.arange(2 + LONGEST) < 2 + lengths[chosen]
    xs = jnp.where(live[:, None], jax.nn.one_hot(symbols, 7, dtype=jnp.float32), 0)
    return xs, outer.astype(jnp.int32), live


def _walk(key: Key[Array, ""]) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """17 symbols of a walk, and how many there are until its E; 17 if it has not ended by then."""
    symbols, leads_to = jnp.asarray((*SYMBOLS, (E, E))), jnp.asarray((*LEADS_TO, (END, END)))

    def body(state: Int[Array, ""], coin: Int[Array, ""]) -> tuple[Int[Array, ""], tuple]:
        return leads_to[state, coin], (symbols[state, coin], state != END)

    coins = jax.random.randint(key, (LONGEST + 1,), 0, 2)
    _, (walk, walking) = jax.lax.scan(body, jnp.asarray(0), coins)
    return walk, walking.sum()
