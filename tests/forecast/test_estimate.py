"""Estimates: phases, ranges, what fits, what is refused, and a recording beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.allocator.whatif import read_recording, what_if
from memtrace.analysis.results.report import Peak, RankReport, State, StepResult
from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.against import compare
from memtrace.forecast.estimation.estimate import estimate
from memtrace.forecast.gpus import GPUS, gpu_named
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.phases import largest, moments
from memtrace.forecast.memory.reserve import simulated_reserve
from memtrace.forecast.model.from_parameter_count import spec_of_size
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import PRESETS, preset
from memtrace.store.reading.read import read_trace
from tests.conftest import ROOT
from tests.warm.start import warm_python

FP32_CPU = Run(precision=PRECISIONS["fp32"], backend="cpu", attention="sdpa")


def test_phases_are_those_of_both_steps_and_add_up() -> None:
    result = estimate(preset("llama-3-8b"), Run(), Layout())
    names = [(one.step, one.phase) for one in result.phases]
    assert names == [(step, phase) for step in ("first", "steady") for phase in ("forward", "backward", "optimizer")]
    assert all(sum(one.by_category.values()) == one.peak_bytes for one in result.phases)
    assert result.peak.peak_bytes == max(one.peak_bytes for one in result.phases)
    assert result.low_bytes < result.peak.peak_bytes < result.high_bytes


def test_states_exist_from_the_first_optimizer_step_on() -> None:
    phases = {(one.step, one.phase): one for one in estimate(preset("gpt2"), Run(), Layout()).phases}
    assert "optimizer_state" not in phases["first", "forward"].by_category
    assert "optimizer_state" not in phases["first", "backward"].by_category
    states = phases["first", "optimizer"].by_category["optimizer_state"]
    assert phases["steady", "forward"].by_category["optimizer_state"] == states == 12 * 124_439_808


IN_EVERY_SETTING = ("gpt2", "bert-base", "qwen2.5-0.5b", "gemma-3-1b")
"""Small presets; each of the others is estimated in one of the settings."""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_estimate(name: str) -> None:
    chosen = list(product(PRECISIONS.values(), (0, 1, 2)))
    if name not in IN_EVERY_SETTING:
        at = list(PRESETS).index(name)
        chosen = [chosen[at % len(chosen)]]
    for precision, recompute in chosen:
        run = Run(precision=precision, recompute=recompute, attention="explicit", sequence=512)
        result = estimate(preset(name), run, Layout(dp=4, zero=3))
        assert all(size > 0 for one in result.phases for size in one.by_category.values())


@settings(max_examples=30)
@given(
    batch=st.integers(1, 8),
    sequence=st.sampled_from([128, 1024, 4096]),
    recompute=st.integers(0, 2),
    zero=st.integers(0, 3),
    name=st.sampled_from(["gpt2", "llama-3-8b", "mixtral-8x7b", "bert-base", "gemma-2-2b"]),
    accumulation=st.integers(1, 3),
)
def test_more_of_anything_never_needs_less(
    batch: int, sequence: int, recompute: int, zero: int, name: str, accumulation: int
) -> None:
    spec, layout = preset(name), Layout(dp=4, zero=zero)
    run = Run(
        micro_batch=batch, sequence=sequence, recompute=recompute, accumulation=accumulation, attention="explicit"
    )

    def peak(run: Run) -> int:
        return max(int(one.num_bytes) for one in moments(spec, run, layout, is_last=False, steady=True))

    assert peak(replace(run, micro_batch=batch + 1)) >= peak(run)
    assert peak(replace(run, sequence=2 * sequence)) >= peak(run)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("steady", [False, True])
def test_many_layouts_at_once_are_those_of_each(is_last: bool, steady: bool) -> None:
    spec = preset("mixtral-8x7b")
    grids = np.meshgrid([1, 4], [1, 2, 8], [1, 4], [0, 1, 3], [0, 1, 2], [1, 2], [1, 6], indexing="ij")
    dp, tp, pp, zero, recompute, batch, accumulation = (grid.ravel() for grid in grids)
    run = Run(micro_batch=batch, accumulation=accumulation, recompute=recompute, sequence=2048, attention="explicit")
    layout = Layout(dp=dp, tp=tp, pp=pp, zero=zero)
    together = [one.num_bytes for one in moments(spec, run, layout, is_last=is_last, steady=steady)]
    for at in range(0, len(dp), 7):
        run = replace(
            run,
            micro_batch=int(batch[at]),
            accumulation=int(accumulation[at]),
            recompute=int(recompute[at]),
        )
        layout = Layout(dp=int(dp[at]), tp=int(tp[at]), pp=int(pp[at]), zero=int(zero[at]))
        alone = [int(one.num_bytes) for one in moments(spec, run, layout, is_last=is_last, steady=steady)]
        assert [int(np.broadcast_to(one, dp.shape)[at]) for one in together] == alone


def test_largest_of_numbers_and_arrays() -> None:
    assert largest([1, 3, 2]) == 3
    assert largest([np.array([1, 5]), 3, np.array([2, 2])]).tolist() == [3, 5]


def test_whether_it_fits_has_three_answers() -> None:
    spec, run = preset("gpt2"), Run(micro_batch=4)
    free = estimate(spec, run, Layout())
    answers = [
        estimate(spec, run, Layout(), capacity_bytes=capacity).fits
        for capacity in (free.high_bytes, free.peak.peak_bytes, free.low_bytes - 1)
    ]
    assert free.fits is None
    assert answers == [True, None, False]


def test_reserve_is_that_of_the_same_requests_recorded(tmp_path: Path) -> None:
    """The program that the estimate imagines, against requests of the real one, both through the allocator's model."""
    pytest.importorskip("torch")
    options = ["--layers", "4", "--hidden", "256", "--heads", "4", "--sequence", "128", "--micro-batch", "8"]
    trace = tmp_path / "trace.json"
    command = [sys.executable, "-m", "memtrace", "record", "-o", str(trace), "--", warm_python()]
    command += [str(ROOT / "samples/train_gpt.py"), *options, "--steps", "3", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True, timeout=250, env={**os.environ, "OMP_NUM_THREADS": "1"})
    recorded = what_if(read_recording(read_trace((trace,)).ranks[0], "cpu", as_cuda=True), []).rows[0]
    vocabulary = len(set((ROOT / "samples/corpus.txt").read_text(encoding="utf-8")))
    spec = replace(preset("gpt2"), architecture="plain", num_layers=4, hidden=256, num_heads=4, num_kv_heads=4)
    spec = replace(spec, head_dim=64, ffn=1024, vocabulary=vocabulary, learned_positions=128, activation="gelu")
    spec = replace(spec, embedding_dropout=0.0, attention_dropout=0.0, hidden_dropout=0.0)
    run = replace(FP32_CPU, micro_batch=8, sequence=128, is_fused=True)
    found = simulated_reserve(spec, run, Layout())
    assert found.peak_allocated_bytes == pytest.approx(recorded.peak_allocated_bytes, rel=0.05)
    assert found.peak_reserved_bytes == pytest.approx(recorded.max_reserved_bytes, rel=0.08)


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "mixtral-8x7b", "bert-base", "t5-base"])
@pytest.mark.parametrize("recompute", [0, 1, 2])
@pytest.mark.parametrize("zero", [0, 3])
def test_program_of_the_reserve_allocates_what_is_estimated(name: str, recompute: int, zero: int) -> None:
    spec, run = preset(name), Run(recompute=recompute, attention="explicit", sequence=512, micro_batch=2)
    layout = Layout(dp=8, zero=zero)
    phases = [one for one in estimate(spec, run, layout).phases if one.step == "steady"]
    fullest = max(phases, key=lambda one: one.peak_bytes)
    # The program gathers weights under ZeRO-3, and reduces no gradients: it holds a part of these buffers.
    buffers = fullest.by_category.get("communication", 0)
    tensors = fullest.peak_bytes - fullest.by_category["workspace"] - buffers
    found = simulated_reserve(spec, run, layout)
    assert 0.85 * tensors <= found.peak_allocated_bytes <= 1.15 * (tensors + buffers)
    assert found.peak_reserved_bytes >= found.peak_allocated_bytes


def test_an_assumed_shape_is_said_and_widens_the_range() -> None:
    spec = spec_of_size(7 * 10**9)
    known, assumed = (estimate(spec, Run(), Layout(), is_assumed_shape=one) for one in (False, True))
    assert assumed.high_bytes - assumed.low_bytes > known.high_bytes - known.low_bytes
    assert "Only the number of parameters is known" in assumed.assumptions[0]


@pytest.mark.parametrize(
    ("layout", "run", "message"),
    [
        (Layout(tp=5), Run(), "heads cannot be divided"),
        (Layout(pp=100), Run(), "cannot fill 100 pipeline stages"),
        (Layout(ep=2, dp=2), Run(), "does not fit this model"),
        (Layout(dp=0), Run(), "dp must be at least 1"),
        (Layout(), Run(micro_batch=0), "micro-batch must be at least 1"),
        (Layout(), Run(sequence=2**40), "sequence must be at least 1"),
        (Layout(zero=4), Run(), "a ZeRO stage is"),
    ],
)
def test_impossible_layouts_are_refused(layout: Layout, run: Run, message: str) -> None:
    with pytest.raises(MemtraceError, match=message):
        estimate(preset("llama-3-8b"), run, layout)


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_has_about_the_memory_of_its_name(name: str) -> None:
    gib, named = gpu_named(name).memory_bytes / 1024**3, int(name.rpartition("-")[2].removesuffix("gb"))
    assert 0.85 * named < gib <= named


def test_an_unknown_gpu_is_refused_with_near_names() -> None:
    with pytest.raises(MemtraceError) as raised:
        gpu_named("h100")
    assert "h100-80gb" in (raised.value.hint or "")


def state(**by_category: int) -> dict[str, object]:
    size = sum(by_category.values())
    return {
        "allocated_bytes": size,
        "requested_bytes": size,
        "pending_free_bytes": 0,
        "reserved_bytes": None,
        "device_used_bytes": None,
        "non_torch_bytes": None,
        "by_category": by_category,
        "by_decision": {},
    }


def recording(steady: dict[str, int] | None, end: dict[str, int]) -> RankReport:
    peak = Peak(**state(**(steady or end)), time_ns=1, step=2, phase="backward", module=None, event=0)  # type: ignore[arg-type]
    step = StepResult(
        step=1,
        skipped=False,
        recorded=True,
        num_microbatches=1,
        start_ns=0,
        end_ns=1,
        peak_allocated_bytes=None,
        peak_requested_bytes=None,
        max_reserved_bytes=None,
        num_device_mallocs=None,
        host_rss_bytes=None,
        end=State(**state(**end)),  # type: ignore[arg-type]
        phases=(),
    )
    return RankReport(
        rank=0,
        device="cpu",
        source="recorded",
        complete=True,
        num_events=0,
        num_allocations=0,
        capacity_bytes=None,
        peak=peak,
        first_step_peak=None,
        steady_state_peak=peak if steady else None,
        end=State(**state(**end)),  # type: ignore[arg-type]
        max_reserved_bytes=None,
        steps=(step,),
        oom=None,
        timeline=None,
        top_modules=(),
        top_stacks=(),
        warnings=(),
    )


def test_a_recording_beside_the_estimate_gives_signed_errors() -> None:
    result = estimate(preset("gpt2"), FP32_CPU, Layout())
    weights = 4 * 124_439_808
    steady = {"parameter": weights, "activation": 2 * result.peak.by_category["activation"], "input": 1000}
    rows = {row.name: row for row in compare(result, recording(steady, {"gradient": weights})).rows}
    assert rows["parameter"].error_pct == 0
    assert rows["activation"].error_pct == pytest.approx(-50)
    assert rows["gradient"].error_pct == 0
    assert rows["optimizer_state"].recorded_bytes == 0 or rows["optimizer_state"].recorded_bytes is None
    assert rows["optimizer_state"].error_pct is None
    assert rows["total"].recorded_bytes == sum(steady.values()) - 1000


def test_what_libraries_have_torch_allocate_is_in_neither_total() -> None:
    result = estimate(preset("gpt2"), Run(), Layout())
    steady = {"parameter": 4 * 124_439_808, "workspace": 64 * 2**20}
    rows = {row.name: row for row in compare(result, recording(steady, {})).rows}
    assert rows["total"].recorded_bytes == steady["parameter"]
    assert rows["total"].estimated_bytes == result.peak.peak_bytes - result.peak.by_category["workspace"]


def test_notes_say_what_the_comparison_leaves_out() -> None:
    result = estimate(preset("gpt2"), Run(), Layout())
    notes = " ".join(compare(result, recording(None, {"unknown": 90, "input": 10})).notes)
    for words in ("No step after the first", "as input", "context, workspaces", "unattributed", "--backend cpu"):
        assert words in notes


@pytest.mark.parametrize(("name", "sign"), [("gpt2", 1), ("pythia-1.4b", -1)])
def test_a_cache_of_which_nothing_is_said_lies_within_the_range(name: str, sign: int) -> None:
    run = Run(micro_batch=16, sequence=1024, precision=PRECISIONS["fp32"])
    silent, off, on = (
        estimate(preset(name), replace(run, caches_kv=caches), Layout()) for caches in (None, False, True)
    )
    more = on.peak.peak_bytes - off.peak.peak_bytes
    assert more * sign > 0
    assert silent.peak == off.peak
    assert (silent.low_bytes, silent.high_bytes) == (off.low_bytes + min(more, 0), off.high_bytes + max(more, 0))
    assert [one for one in silent.assumptions if one not in off.assumptions] == [silent.assumptions[0]]
    assert "use_cache" in silent.assumptions[0]


def test_a_cache_of_gpt2_is_a_copy_of_keys_and_values() -> None:
    run = Run(micro_batch=8, sequence=256, precision=PRECISIONS["fp32"])
    off, on = (estimate(preset("gpt2"), replace(run, caches_kv=caches), Layout()) for caches in (False, True))
    assert on.peak.peak_bytes - off.peak.peak_bytes == 12 * 2 * 4 * 8 * 256 * 768


@pytest.mark.parametrize("run", [Run(recompute=2, caches_kv=True), Run(framework="megatron", caches_kv=True)])
def test_no_cache_where_none_is_filled(run: Run) -> None:
    expected = estimate(preset("gpt2"), replace(run, caches_kv=False), Layout())
    assert estimate(preset("gpt2"), run, Layout()) == expected
