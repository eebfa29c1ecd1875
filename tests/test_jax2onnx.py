"""An interpreter of jaxprs, the converter jax2onnx, takes a run on the engine "plain", at fixed and at symbolic shapes.

jax2onnx 0.17 needs an older Orbax than the extra `train`, so it is in none of the extras. To run these tests:
`pip install jax2onnx` in an environment of its own, with pytest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_lstm as jl

pytestmark = pytest.mark.slow
B, T, I, H = 4, 6, 3, 5
CELLS = {
    "LSTM": jl.LSTM(I, H),
    "GRU": jl.GRU(I, H),
    "MinLSTM": jl.MinLSTM(I, H),
    "Stack": jl.Stack((jl.LSTM(I, H), jl.GRU(H, H))),
}


@pytest.mark.parametrize("shape", [(B, T, I), ("B", T, I), ("B", "T", I)], ids=["fixed", "any batch", "any"])
@pytest.mark.parametrize("name", CELLS)
def test_jax2onnx_converts_a_run(name, shape):
    jax2onnx, onnxruntime = pytest.importorskip("jax2onnx"), pytest.importorskip("onnxruntime")
    cell, xs = CELLS[name], np.random.default_rng(0).normal(size=(B, T, I)).astype(np.float32)
    params = cell.init(jax.random.key(0), jnp.float32)

    def run(xs):
        return jl.batched(jl.unroll)(cell, params, xs, engine="plain")[1]

    expected = np.asarray(run(xs))
    jax.clear_caches()  # jax2onnx replaces functions of jax.numpy while it traces
    of = jax.ShapeDtypeStruct(shape, jnp.float32) if shape == (B, T, I) else shape
    model = jax2onnx.to_onnx(run, [of], model_name=name)
    jax.clear_caches()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (ys,) = session.run(None, {session.get_inputs()[0].name: xs})
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-5)
