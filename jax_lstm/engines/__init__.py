"""Engines run a cell over time. `unroll(..., engine=...)` takes the name of an engine, or an instance.

    Auto         "auto"         the default: Hoisted where it can run the cell, else Plain
    Hoisted      "hoisted"      a split cell: all weight gradients in one product after the backward loop
    Plain        "plain"        any causal cell: a `lax.scan` of its step
    Associative  "associative"  a cell that is linear in its state: a parallel prefix over time

All engines give the same numbers up to rounding. `explain` returns which engine and layout would run, and why. For an
engine of your own, implement the protocol `Engine` as a frozen dataclass.
"""

from jax_lstm.engines.associative import Associative
from jax_lstm.engines.auto import Auto
from jax_lstm.engines.engine import Engine, Inputs, Options
from jax_lstm.engines.explain import explain
from jax_lstm.engines.hoisted import Hoisted
from jax_lstm.engines.plain import Plain

__all__ = ["Associative", "Auto", "Engine", "Hoisted", "Inputs", "Options", "Plain", "explain"]
