"""Weights of published models, out of wheels in the folder JAX_LSTM_WHEELS; see tests/README.md."""

import io
import os
import zipfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl
from jax_lstm.interop import torch as weights

pytestmark = pytest.mark.slow
VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
CONSONANTS = [*"BDFGKLMNPRSTVWYZ", "CH", "DH", "HH", "JH", "NG", "SH", "TH", "ZH"]
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([*(v + k for v in VOWELS for k in "012"), "UW", *CONSONANTS])]


def member(wheel, name):
    """A file of a wheel."""
    found = sorted(Path(os.environ.get("JAX_LSTM_WHEELS", "/nowhere")).glob(wheel))
    if not found:
        pytest.skip(f"JAX_LSTM_WHEELS is no folder with {wheel}")
    with zipfile.ZipFile(found[0]) as opened:
        return io.BytesIO(opened.read(name))


@pytest.mark.parametrize(
    ("word", "sounds"),
    [("activation", "AE2 K T IH0 V EY1 SH AH0 N"), ("network", "N EH1 T W ER2 K"), ("memory", "M EH1 M ER0 IY0")],
)
def test_two_grus_of_g2p_spell_a_word_out(word, sounds):
    stored = np.load(member("g2p_en-2.1.0-*.whl", "g2p_en/checkpoint20.npz"))
    names = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    (cell, encoder), (other, decoder) = (
        weights.load({name: stored[f"{part}_{key}"] for name, key in names.items()}) for part in ("enc", "dec")
    )
    assert cell == other == jl.GRU(256, 256)
    letters = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    state, _ = jl.unroll(cell, encoder, stored["enc_emb"][[letters.index(k) for k in [*word, "</s>"]]])
    step, symbol, said = jax.jit(partial(jl.step, cell)), PHONEMES.index("<s>"), []
    while len(said) < 20:
        state, h = step(decoder, state, stored["dec_emb"][symbol])
        symbol = int(jnp.argmax(h @ stored["fc_w"].T + stored["fc_b"]))
        if PHONEMES[symbol] == "</s>":
            break
        said.append(PHONEMES[symbol])
    assert " ".join(said) == sounds


def test_three_layers_of_resemblyzer_equal_torch():
    torch = pytest.importorskip("torch")
    file = member("Resemblyzer-0.1.4-*.whl", "resemblyzer/pretrained.pt")
    stored = torch.load(file, weights_only=True, map_location="cpu")["model_state"]
    cell, params = weights.load(stored, prefix="lstm.")
    assert cell == jl.Stack((jl.LSTM(40, 256), jl.LSTM(256, 256), jl.LSTM(256, 256)))
    layer = torch.nn.LSTM(40, 256, num_layers=3, batch_first=True)
    layer.load_state_dict({name.removeprefix("lstm."): a for name, a in stored.items() if name.startswith("lstm.")})
    xs = np.abs(np.random.default_rng(0).normal(size=(2, 160, 40))).astype(np.float32)  # 1.6 s of mel bands
    state, hs = jl.batched(jl.unroll)(cell, params, xs)
    with torch.no_grad():
        theirs, (h, _) = layer(torch.from_numpy(xs))
    np.testing.assert_allclose(hs, theirs.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(state[-1].h, h[-1].numpy(), rtol=0, atol=1e-5)
