"""The ways of calling jax_lstm that the benchmarks compare give the same results, and become tables."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_except

import jax_lstm as jl

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import peers
import tables
import timing
import ways

I, H = 2, 4
TINY = {"cells": (2, 3, I, H), "ensembles": (3, 2, 3, I, H), "models": (2, 3, I, H)}
CELLS = ["GRU", "Dropout(LSTM), zoneout"]


@pytest.mark.parametrize("make", [peers.jax_lstm_batched, peers.jax_lstm_vmap])
def test_batch_major_data_give_the_same_outputs(make):
    rng = np.random.default_rng(0)
    params = jl.LSTMParams(*(jnp.asarray(rng.normal(size=s)) for s in ((I, 4 * H), (H, 4 * H), 4 * H)))
    xs = jnp.asarray(rng.normal(size=(5, 3, I)))
    one = make(params)
    hs = one.forward(one.params, one.layout(xs))
    assert hs.shape == (3, 5, H)
    np.testing.assert_allclose(one.layout(hs), peers.jax_lstm(params).forward(params, xs), rtol=1e-12, atol=1e-12)


def test_a_way_with_another_result_is_refused():
    ways.check({"one": (jnp.ones(2), jnp.zeros(1)), "other": (jnp.ones(2) + 1e-5, jnp.zeros(1))})
    with pytest.raises(ValueError, match="other: differs by 1"):
        ways.check({"one": jnp.ones(2), "other": jnp.array([1.0, 2.0])})
    with pytest.raises(ValueError, match="other: differs by nan"):
        ways.check({"one": jnp.ones(2), "other": jnp.array([1.0, jnp.nan])})


def test_before_a_run_the_tables_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert {tables.TABLES[name]() for name in ways.COMPARISONS} == {"Not run yet."}


@pytest.mark.parametrize("names", slow_except([CELLS], [CELLS, list(ways.cells(I, H))]), ids=len)
def test_what_is_measured_becomes_tables(tmp_path, monkeypatch, names):
    every = ways.cells
    monkeypatch.setattr(ways, "cells", lambda I, H: {name: every(I, H)[name] for name in names})
    rows = {
        name: [{"shape": TINY[name], "figures": timing.merged([measure(TINY[name], seconds=0.0)])}]
        for name, (measure, _) in ways.COMPARISONS.items()
    }
    timing.write("ways", rows, tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    made = {name: tables.TABLES[name]().splitlines() for name in ways.COMPARISONS}
    heading = 2
    assert len(made["cells"]) == heading + len(names) + len(("mean", "worst"))
    assert made["cells"][0] == "| cell | time at 2, 3, 2, 4 | bytes at 2, 3, 2, 4 |"
    assert [line.split(" | ")[0] for line in made["ensembles"][2:4]] == [
        "| 3, 2, 3, 2, 4, forward",
        "| 3, 2, 3, 2, 4, gradient",
    ]
    assert [line.split(" | ")[1] for line in made["models"][2:]] == ["forward", "gradient"]
