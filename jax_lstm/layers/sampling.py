"""Symbols drawn one after another from a model that predicts the next one.

    p = softmax((y_t − max y_t) / temperature), cut to the most likely symbols that together have top_p
    k_{t+1} ~ p        y_{t+1} = model(k_{t+1})

The cut is nucleus sampling (Holtzman et al. 2020).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jax_lstm.cells import door
from jax_lstm.cells.weights import at_least_float32
from jax_lstm.layers.model import Model, ModelParams


def sample(
    model: Model,
    params: ModelParams,
    key: Array,
    prompt: ArrayLike,
    state: Any = None,
    *,
    steps: int,
    temperature: float | int | Array = 1.0,
    top_p: float | int | Array = 1.0,
) -> tuple[Any, Int[Array, " steps"]]:
    """Go on after a prompt, in one compiled scan; `jax.vmap` over keys or prompts draws many at once.

    As if by::

        for k in prompt:
            state, y = model(params, state, k)
        for t in range(steps):
            symbols[t] = draw(key_t, y)
            state, y = model(params, state, symbols[t])

    Args:
        model: with a vocabulary of as many symbols as it has outputs; its cell can go step by step.
        params: what `model.init` or training gave.
        key: a random key; consumed.
        prompt: (P,) integers, one or more.
        state: the cell's, before the prompt; the initial one if None.
        steps: how many symbols to draw; a Python integer.
        temperature: above 1 flatter, below 1 sharper; 0 takes the most likely symbol. A number, or an array.
        top_p: of the probability, how much the most likely symbols must have that may be drawn; above 0, at most 1.

    Returns:
        The state after the last symbol, and the symbols (steps,), as int32. −1, which is no symbol, and so for the
        rest, where a logit is NaN (after a symbol out of range, say) or an array given as temperature or top_p is out
        of range: what only the device knows raises nothing.

    Raises:
        ValueError: a model without a vocabulary or with another number of outputs, an empty prompt, a choice out of
            range, params or state of other shapes.
        TypeError: an argument of another type.
    """
    if not isinstance(model, Model):
        raise TypeError(f"sample: model must be a Model, but is a {type(model).__name__}")
    if model.vocabulary is None or model.vocabulary != model.output_size:
        raise ValueError(
            f"sample: model must read the symbols that it predicts, but has vocabulary={model.vocabulary} and "
            f"output_size={model.output_size}"
        )
    door.causal("sample", model.cell)
    key, steps = door.prng_key("sample", key), door.size("sample", "steps", door.knob("sample", "steps", steps), 0)
    prompt = door.array("sample", "prompt", prompt)
    if prompt.ndim != 1 or prompt.shape[0] == 0:
        raise ValueError(f"sample: prompt must have shape (P,) with one symbol or more, but has {prompt.shape}")
    temperature, top_p = (_number(*of) for of in (("temperature", temperature), ("top_p", top_p)))
    if not isinstance(temperature, jax.Array) and temperature < 0:
        raise ValueError(f"sample: temperature must be 0 or more, but is {temperature}")
    if not isinstance(top_p, jax.Array) and not 0 < top_p <= 1:
        raise ValueError(f"sample: top_p must be above 0 and at most 1, but is {top_p}")
    return _sampled(model, params, key, prompt, state, jnp.asarray(temperature), jnp.asarray(top_p), steps=steps)


def _number(name: str, value: Any) -> float | Array:
    """A finite Python number, or one number on the device."""
    if not isinstance(value, jax.Array):
        return door.number("sample", name, value)
    if value.ndim or not jnp.issubdtype(value.dtype, jnp.number):
        raise ValueError(
            f"sample: {name} must be one number, but is {value.dtype}{list(value.shape)}; "
            f"of several take one each with jax.vmap"
        )
    return value


@partial(jax.jit, static_argnames=("model", "steps"))
def _sampled(
    model: Model,
    params: ModelParams,
    key: Array,
    prompt: Array,
    state: Any,
    temperature: Array,
    top_p: Array,
    *,
    steps: int,
) -> tuple[Any, Array]:
    state, ys = model.outputs(params, prompt, state)

    def body(at: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
        state, y = at
        symbol = draw(key, y, temperature, top_p)
        state, h = model.cell.step(params.cell, state, model.embedded(params, symbol))
        return (state, model.readout.apply(params.readout, h)), symbol

    (state, _), symbols = jax.lax.scan(body, (state, ys[-1]), jax.random.split(key, steps))
    return state, symbols


def draw(key: Array, y: Float[Array, " V"], temperature: Array, top_p: Array) -> Int[Array, ""]:
    """One symbol from logits y; −1 where there is none to be drawn."""
    y = y.astype(at_least_float32(y.dtype))  # a narrow one cannot sum the probabilities of many symbols
    temperature, top_p = temperature.astype(y.dtype), top_p.astype(y.dtype)
    can = (temperature >= 0) & (top_p > 0) & (top_p <= 1) & ~jnp.isnan(y).any()
    # From the largest down: over a temperature however small that is 0 and −∞.
    cooled = (y - jnp.max(y)) / jnp.maximum(temperature, jnp.finfo(y.dtype).tiny)
    p = jax.nn.softmax(cooled)
    order = jnp.argsort(-p)
    before = jnp.cumsum(p[order]) - p[order]  # how much the more likely ones have
    kept = jnp.zeros_like(p, bool).at[order].set(before < top_p)
    drawn = jax.random.categorical(key, jnp.where(kept, cooled, -jnp.inf))
    return jnp.where(can, jnp.where(temperature > 0, drawn, jnp.argmax(y)), -1).astype(jnp.int32)
