"""The embedded Reber grammar (Smith & Zipser 1989; Hochreiter & Schmidhuber 1997, experiment 1).

    B T [a Reber string] T E        B P [a Reber string] P E        one-hot in the order B, T, P, S, X, V, E

The target, after the inner string, is the symbol before the last, which is the same as the second. The inner string is
a random walk

    B → 1     1 –T→ 2, –P→ 3     2 –S→ 2, –X→ 4     3 –T→ 3, –V→ 5     4 –X→ 3, –S→ 6     5 –P→ 4, –V→ 6     6 –E

in which both arrows of a state are equally likely. It has 5 to 16 symbols; longer strings are drawn again.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

B, T, P, S, X, V, E = range(7)
END = 7
# The two arrows of each state 0 to 6: their symbols, and the states they lead to.
SYMBOLS = ((B, B), (T, P), (S, X), (T, V), (X, S), (P, V), (E, E))
LEADS_TO = ((1, 1), (2, 3), (2, 4), (3, 5), (3, 6), (4, 6), (END, END))
LONGEST = 16
DRAWS = 6  # 2.8 % of walks are longer than 16: the probability that all 6 are is below 10⁻⁹


@dataclass(frozen=True)
class Reber(GeneratedTask):
    """Embedded Reber strings, up to the target symbol."""

    input_size = 7
    output_size = 7
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True

    @property
    def length(self) -> int:
        """18: B, then T or P, then at most 16 symbols of the inner string."""
        return 2 + LONGEST

    def baselines(self, split: Split) -> dict[str, float]:
        """The accuracy of always predicting T; T and P are equally likely."""
        return {"chance": 0.5}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences: xs (size, 18, 7), targets (size,), mask (size, 18)."""
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
    """17 symbols of a walk, and the number of symbols up to its E; 17 if it has not ended."""
    symbols, leads_to = jnp.asarray((*SYMBOLS, (E, E))), jnp.asarray((*LEADS_TO, (END, END)))

    def body(state: Int[Array, ""], coin: Int[Array, ""]) -> tuple[Int[Array, ""], tuple]:
        return leads_to[state, coin], (symbols[state, coin], state != END)

    coins = jax.random.randint(key, (LONGEST + 1,), 0, 2)
    _, (walk, walking) = jax.lax.scan(body, jnp.asarray(0), coins)
    return walk, walking.sum()


register_task("reber", Reber)
