"""The counting in benchmarks/compile_only.py, on a text written for it and on a program of this machine."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compile_only.py"

# A loop of 4 steps. Its body holds, a step: a copy that starts and ends, a fusion, what a call and a loop of 3 hold.
TEXT = """HloModule step, is_scheduled=true

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %tanh.1 = f32[2]{0} tanh(%p), backend_config={"estimated_cycles":"999"}
}

%called (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %all-reduce-start.1 = f32[2]{0} all-reduce-start(%p), backend_config={"estimated_cycles":"7"}
}

%inner_condition (s: (s32[], f32[2])) -> pred[] {
  %s = (s32[]{:T(128)}, f32[2]{0:T(8,128)S(1)}) parameter(0)
  %n = s32[]{:T(128)} constant(3)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%inner_body (s: (s32[], f32[2])) -> (s32[], f32[2]) {
  %s = (s32[], f32[2]{0}) parameter(0)
  ROOT %both.1 = (s32[], f32[2]{0}) fusion(%s), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
}

%condition (s: (s32[], f32[2])) -> pred[] {
  ROOT %s.1 = pred[] constant(true)
}

%body (s: (s32[], f32[2])) -> (s32[], f32[2]) {
  %s = (s32[], f32[2]{0}) parameter(0)
  %copy-start.1 = (f32[2]{0:T(8,128)S(1)}, f32[2]{0}, u32[]{:S(2)}) copy-start(%s)
  %copy-done.1 = f32[2]{0} copy-done(%copy-start.1)
  %fusion.1 = f32[2]{0} fusion(%copy-done.1), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  %call.1 = f32[2]{0} call(%fusion.1), to_apply=%called
  ROOT %while.1 = (s32[], f32[2]{0}) while(%s), condition=%inner_condition, body=%inner_body
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %broadcast.1 = f32[2]{0} broadcast(%p), backend_config={"estimated_cycles":"5"}
  %all-gather.1 = f32[2]{0} all-gather(%broadcast.1)
  ROOT %while.2 = (s32[], /*index=1*/f32[2]{0}) while(%p), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"4"}}
}
"""  # noqa: E501


@pytest.fixture
def compile_only(monkeypatch):
    spec = importlib.util.spec_from_file_location("compile_only", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "T", 4)
    return module


def test_a_loop_is_counted_as_often_as_it_runs_and_a_fusion_once(compile_only):
    program = compile_only.Program(TEXT)
    assert program.loops() == [("body", 4)]
    assert compile_only.kernels(program) == [1 + 1 + 1 + 3]
    assert compile_only.cycles(program) == {"all": 5 + 4 * (100 + 7 + 3 * 10), "step": [100 + 7 + 3 * 10]}
    assert compile_only.collectives(program) == {"loops": 1, "all": 2}


def test_a_loop_whose_length_cannot_be_read_is_refused(compile_only):
    program = compile_only.Program(TEXT.replace("direction=LT", "direction=NE"))
    with pytest.raises(ValueError, match="i < n"):
        compile_only.kernels(program)


def test_the_trip_count_of_a_scan_is_its_length(compile_only):
    def total(xs):
        return jax.lax.scan(lambda s, x: (jnp.tanh(s * x), s), jnp.zeros(3), xs)

    text = jax.jit(total).lower(jnp.zeros((11, 3))).compile().as_text()
    assert [trips for _, trips in compile_only.Program(text).loops()] == [11]
