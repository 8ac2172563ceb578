"""The sample that trains replicas, with two and with four ranks under torchrun: its buckets, and when they are reduced.

One run with two ranks reduces in every micro-batch, and is advised not to; one with four ranks does not, and is not.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.report.terminal.report import render_text
from memtrace.store.trace import RankTrace
from tests.process.conftest import Workplace
from tests.warm.start import warm_python

pytest.importorskip("torch")

SAMPLE = Path(__file__).parent.parent.parent / "samples" / "train_ddp.py"
STEPS, ACCUMULATE = 3, 2
MICRO_BATCH, SEQUENCE = 2, 16
OPTIONS = (
    f"--device cpu --layers 1 --hidden 32 --heads 2 --sequence {SEQUENCE} --micro-batch {MICRO_BATCH} --steps {STEPS}"
)


def recorded(work: Workplace, num_ranks: int, *options: str) -> tuple[RankTrace, ...]:
    """Record the sample and return its ranks."""
    launcher = (warm_python(), "-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks))
    ran = work.record(
        *launcher, SAMPLE, *OPTIONS.split(), "--accumulate", str(ACCUMULATE), *options, PYTHON_EXEC=warm_python()
    )
    assert ran.returncode == 0, ran.stderr.decode()
    trace = work.trace()
    ranks = [rank for rank in trace.ranks if rank.rank is not None]
    assert [rank.rank for rank in ranks] == list(range(num_ranks))
    assert "hook-failed" not in [warning.slug for rank in ranks for warning in rank.warnings]
    return tuple(ranks)


def gradient_bytes(rank: RankTrace) -> int:
    """Return the bytes of all gradients at the end of the last step."""
    owners = rank.table("owners")
    rows = [row for row in owners.rows() if rank.text(row["category"]) == "gradient" and row["step"] == STEPS]
    last = max(row["time_ns"] for row in rows)
    return sum(row["tensor_bytes"] for row in rows if row["time_ns"] == last)


@pytest.mark.parametrize(("num_ranks", "sync"), [(2, "--always-sync"), (4, "--no-sync")])
def test_buckets_hold_the_gradients_exactly_and_it_is_known_which_backward_reduces_them(
    work: Workplace, num_ranks: int, sync: str
) -> None:
    needless = sync == "--always-sync"
    ranks = recorded(work, num_ranks, sync, "--bucket-mb", "0.02")
    for rank in ranks:
        buckets = list(rank.table("buckets").rows())
        last = max(row["time_ns"] for row in buckets)
        final = [row for row in buckets if row["time_ns"] == last]
        assert len(final) > 1
        assert sum(row["size_bytes"] for row in final) == gradient_bytes(rank)
        assert all(row["rebuilt"] for row in final)
        forwards = rank.table("replica_forwards").rows()
        assert [(row["step"], row["microbatch"], row["synchronizes"]) for row in forwards] == [
            (step, microbatch, needless or microbatch == ACCUMULATE - 1)
            for step in range(1, STEPS + 1)
            for microbatch in range(ACCUMULATE)
        ]
        timings = list(rank.table("reducer_timings").rows())
        assert timings
        assert all(0 <= row["overlap_ns"] <= row["communication_ns"] for row in timings)
    report = analyze(work.trace())
    if needless:
        check_page(render_text(report))
    assert sorted(one.rank or 0 for one in report.findings if one.slug == "no-sync") == (
        list(range(num_ranks)) if needless else []
    )
    for one in report.findings:
        if one.slug == "no-sync":
            assert one.evidence["needless_bytes"] == (ACCUMULATE - 1) * gradient_bytes(ranks[one.rank or 0])
            assert one.saves_ns is not None
    for device in report.ranks:
        check_times(device, needless=needless)


def check_page(text: str) -> None:
    """Assert that the documentation shows what such a run prints, whatever its times are."""
    page = (SAMPLE.parent.parent / "docs/time.md").read_text(encoding="utf-8")
    assert all(part in page for part in OPTIONS.split("--") if part)
    example = page.partition("### Needless reductions")[2]
    _, shown, advice = re.findall(r"^```\w*\n(.*?)^```", example, flags=re.MULTILINE | re.DOTALL)
    assert timeless(shown) in timeless(text)
    assert timeless(advice) in timeless(text)


def timeless(text: str) -> str:
    """Return a text without its times, whose lengths change where lines break."""
    return " ".join(re.sub(r"[\d.]+\s(ns|µs|ms|s)\b", "some time", re.sub(r"\s+", " ", text)).split())


def check_times(device: RankReport, *, needless: bool) -> None:
    """Assert that communication and time of one rank are told."""
    assert device.communication is not None
    (replica,) = device.communication.replicas
    assert replica.num_needless == needless * STEPS * (ACCUMULATE - 1)
    assert replica.time is not None
    assert device.step_times is not None
    assert [one.step for one in device.step_times.steps] == list(range(1, STEPS + 1))
    for step in device.step_times.steps:
        assert step.phases_ns is not None
        assert sum(step.phases_ns.values()) == step.step_ns
        assert {"forward", "backward", "optimizer"} <= set(step.phases_ns)
        assert step.tokens == ACCUMULATE * MICRO_BATCH * SEQUENCE
