"""`benchmarks/accuracy_gpu.py`: a configuration predicted and run for real, and what the page says of given figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.predictions.cases import Case, all_cases
from benchmarks.predictions.outcomes import MEASURES, Outcome, error_pct, on_cpu, summary, verdicts
from benchmarks.predictions.runs import Figures, Level, Probe, predict, record, said, with_totals
from benchmarks.predictions.tables import cpu_document, gpu_document
from memtrace.schema.options import PredictOptions

MIB = 1024**2
GPU = PredictOptions(gpu_name="h100-80gb", gpu_bytes=80 * 1024**3, capability=(9, 0), num_steps=4)


def test_there_are_enough_configurations_and_each_choice_varies() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases) >= 25
    for name in ("model", "optimizer", "precision", "attention", "checkpointing", "batch", "accumulation", "clip"):
        assert len({getattr(case, name) for case in cases}) > 1, name
    assert any(case.probes for case in cases)


def test_a_configuration_is_predicted_and_compared_with_a_real_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = Case(model="gpt", batch=2, attention="explicit", optimizer="adamw-loop", clip=True, size="reduced")
    assert not case.has_kernels_of_cuda
    predicted, _ = predict(case, GPU, tmp_path)
    real = record(case, tmp_path, "cpu")
    assert real.owned["parameter"] == real.owned["gradient"] > 0
    assert predicted.owned == real.owned
    assert predicted.saved == real.saved
    assert sum(real.saved.values()) > 0
    page = cpu_document(["# Head"], [Outcome(case=case, full=predicted, predicted=predicted, real=real)])
    assert "predicted in full: 1 of 1" in page
    assert "where the CPU runs the same kernels: 1 of 1" in page
    wrong = replace(predicted, saved={**predicted.saved, "MmBackward0": 1})
    worse = cpu_document(["# Head"], [Outcome(case=case, predicted=wrong, real=real)])
    assert "predicted in full: 0 of 1" in worse
    assert "where the CPU runs the same kernels: 0 of 1" in worse
    assert "| Mm -" in worse
    # On the GPU that is not there the program prints lines of the same form as on one.
    lines = said((tmp_path / "predict.log").read_text())
    assert [line["step"] for line in lines] == [1, 2, 3], "it is ended with the fourth step"
    assert all(line["beside_bytes"] >= 0 for line in lines)
    told = with_totals(predicted, lines)
    assert told.first.allocated_bytes == lines[0]["peak_allocated_bytes"]
    assert told.steady.reserved_bytes == max(line["max_reserved_bytes"] for line in lines[1:])
    assert told.steady.by_category == predicted.steady.by_category
    with pytest.raises(RuntimeError, match="told of 1 steps"):
        with_totals(predicted, lines[:1])


def test_a_run_that_fails_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("exit status 1:\n  no such device")

    monkeypatch.setattr("benchmarks.predictions.outcomes.predict", fail)
    found = on_cpu(Case(model="gpt", batch=1), GPU)
    assert found.failure == "RuntimeError: exit status 1: no such device"
    assert "Not compared" in cpu_document([], [found])


def figures(allocated: int, reserved: int) -> Figures:
    level = Level(allocated_bytes=allocated, reserved_bytes=reserved, by_category={"activation": allocated})
    return Figures(first=level, steady=level, owned={}, saved={})


def test_page_of_a_gpu_says_the_errors_and_the_missed_verdicts() -> None:
    good, low, failed = (Case(model="gpt", batch=batch, probes=True) for batch in (1, 2, 3))
    missed = Probe(capacity_bytes=1, predicted_fits=True, fits=False)
    outcomes = [
        Outcome(case=good, predicted=figures(101 * MIB, 210 * MIB), real=figures(100 * MIB, 200 * MIB)),
        Outcome(case=low, predicted=figures(90 * MIB, 200 * MIB), real=figures(100 * MIB, 200 * MIB), probes=(missed,)),
        Outcome(case=failed, failure="exit status 1: a | b"),
    ]
    measure = MEASURES["allocated, steady"]
    assert [error_pct(one, measure) for one in outcomes] == [pytest.approx(1.0), pytest.approx(-10.0), None]
    found = summary(outcomes, measure)
    assert found is not None
    assert (found.num_compared, found.median_pct, found.worst_pct) == (2, pytest.approx(5.5), pytest.approx(-10.0))
    assert (found.worst, found.num_under) == (low.name, 1)
    assert verdicts(outcomes) == (1, [low.name], [])
    page = gpu_document(["# Head"], outcomes, 500 * MIB, 1024 * MIB)
    for text in ("5.50 %", "-10.00 %", "unforeseen: 1", "500 MiB", f"- {failed.name}: exit status 1: a \\| b"):
        assert text in page, text
    assert f"| activation | 5.50 MiB | {-10 * MIB:+,} bytes | {low.name} |" in page
    assert summary([outcomes[2]], measure) is None
    assert "not measured" in gpu_document([], outcomes[2:], None, 1)
