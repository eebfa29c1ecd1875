"""Sample symbols from a model that predicts the next symbol, with temperature and nucleus (top-p) sampling.

    p = softmax((y_t − max y_t) / temperature), restricted to the most likely symbols with total probability top_p
    k_{t+1} ~ p        y_{t+1} = model(k_{t+1})

Nucleus sampling: Holtzman et al. 2020.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jax_lstm import checks
from jax_lstm.abilities import check_causal
from jax_lstm.gates import at_least_float32
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
    """Sample symbols from a model after a prompt, with temperature and nucleus (top-p) sampling.

    The symbols come from one compiled scan. To sample many sequences, use `jax.vmap` over keys or prompts.

    As if by::

        for k in prompt:
            state, y = model(params, state, k)
        for t in range(steps):
            symbols[t] = draw(key_t, y)
            state, y = model(params, state, symbols[t])

    Here `model` is one step of the model, and `draw` samples from softmax(y / temperature), restricted by `top_p`.

    Args:
        model: a `Model` with vocabulary = output_size and a causal cell.
        params: the params of the model.
        key: one random key. Do not reuse it.
        prompt: (P,) integers, P ≥ 1: the symbols to start from.
        state: the state of the cell before the prompt; its initial state if None.
        steps: the number of symbols to sample; a Python integer, 0 or more.
        temperature: divides the logits: above 1 flattens the distribution, below 1 sharpens it, 0 takes the most likely
            symbol. 0 or more; a number or an array of shape ().
        top_p: sample only from the smallest set of most likely symbols with total probability of at least top_p. Above
            0, at most 1; a number or an array of shape (). 1: all symbols.

    Returns:
        (state, symbols): the state after the last symbol, and the symbols (steps,), int32. A symbol is −1 if a logit is
        NaN, for example after a symbol out of range, or if temperature or top_p is an array and out of range. All later
        symbols are then −1 too: values on the device cannot raise an error.

    Raises:
        ValueError: the model has no vocabulary or another number of outputs, the prompt is empty, an option is out of
            range, or params or state have wrong shapes.
        TypeError: an argument has a wrong type.
    """
    if not isinstance(model, Model):
        raise TypeError(f"sample: model must be a Model, but is a {type(model).__name__}")
    if model.vocabulary is None or model.vocabulary != model.output_size:
        raise ValueError(
            f"sample: model must have output_size equal to vocabulary, but has vocabulary={model.vocabulary} and "
            f"output_size={model.output_size}"
        )
    check_causal("sample", model.cell)
    key, steps = (
        checks.check_key("sample", key),
        checks.positive_int("sample", "steps", steps, 0),
    )
    prompt = checks.as_array("sample", "prompt", prompt)
    if prompt.ndim != 1 or prompt.shape[0] == 0:
        raise ValueError(f"sample: prompt must have shape (P,) with one symbol or more, but has {prompt.shape}")
    temperature, top_p = (_number(*of) for of in (("temperature", temperature), ("top_p", top_p)))
    if not isinstance(temperature, jax.Array) and temperature < 0:
        raise ValueError(f"sample: temperature must be 0 or more, but is {temperature}")
    if not isinstance(top_p, jax.Array) and not 0 < top_p <= 1:
        raise ValueError(f"sample: top_p must be above 0 and at most 1, but is {top_p}")
    return _sampled(model, params, key, prompt, state, jnp.asarray(temperature), jnp.asarray(top_p), steps=steps)


def _number(name: str, value: Any) -> float | Array:
    """Check a finite Python number, or an array of shape ()."""
    if not isinstance(value, jax.Array):
        return checks.finite_number("sample", name, value)
    if value.ndim or not jnp.issubdtype(value.dtype, jnp.number):
        raise ValueError(
            f"sample: {name} must be one number, but is {value.dtype}{list(value.shape)}; "
            f"for several values use jax.vmap"
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
    state, ys = model.apply(params, prompt, state)

    def body(at: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
        state, y = at
        symbol = draw(key, y, temperature, top_p)
        state, h = model.cell.step(params.cell, state, model.embedded(params, symbol))
        return (state, model.readout.apply(params.readout, h)), symbol

    (state, _), symbols = jax.lax.scan(body, (state, ys[-1]), jax.random.split(key, steps))
    return state, symbols


def draw(key: Array, y: Float[Array, " V"], temperature: Array, top_p: Array) -> Int[Array, ""]:
    """Sample one symbol from the logits y; −1 if a logit is NaN or an option is out of range."""
    y = y.astype(at_least_float32(y.dtype))  # a narrow dtype cannot sum the probabilities of many symbols
    temperature, top_p = temperature.astype(y.dtype), top_p.astype(y.dtype)
    can = (temperature >= 0) & (top_p > 0) & (top_p <= 1) & ~jnp.isnan(y).any()
    # Subtract the largest logit first: a tiny temperature then gives 0 and −∞, not NaN.
    cooled = (y - jnp.max(y)) / jnp.maximum(temperature, jnp.finfo(y.dtype).tiny)
    p = jax.nn.softmax(cooled)
    order = jnp.argsort(-p)
    before = jnp.cumsum(p[order]) - p[order]  # the total probability of the more likely symbols
    kept = jnp.zeros_like(p, bool).at[order].set(before < top_p)
    drawn = jax.random.categorical(key, jnp.where(kept, cooled, -jnp.inf))
    return jnp.where(can, jnp.where(temperature > 0, drawn, jnp.argmax(y)), -1).astype(jnp.int32)
