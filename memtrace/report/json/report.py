"""The report as the JSON document that `memtrace report --json` prints.

In: `Report`. Out: a dictionary with exactly the keys of the contract (`memtrace-report`, version 1). Every value is a
field of a result; what was not recorded is null.
"""

from __future__ import annotations

from typing import Any

import orjson

from memtrace.analysis.results.report import EvaluationResult, FragmentationResult, Peak, PoolState, RankReport, Report
from memtrace.report.json.communication import communication_document
from memtrace.report.json.plain import plain, plain_fields
from memtrace.report.json.ranks import ranks_document
from memtrace.report.json.step_times import step_times_document
from memtrace.report.json.time import time_document

FORMAT = "memtrace-report"
VERSION = 1

Document = dict[str, Any]


def report_json(report: Report) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    before, key, after = _indented(_document(report, ranks=[])).partition(b'\n  "ranks": [')
    pieces = [before, key]
    # Each rank becomes text on its own: all of them as one document would take more memory than the report itself.
    for at, rank in enumerate(report.ranks):
        pieces += (b",\n    " if at else b"\n    ", _indented(_rank(rank)).replace(b"\n", b"\n    "))
    return b"".join((*pieces, b"\n  " if report.ranks else b"", after, b"\n"))


def _indented(value: Any) -> bytes:
    return orjson.dumps(plain(value), option=orjson.OPT_INDENT_2)


def report_document(report: Report) -> Document:
    """Return the document."""
    return plain_fields(_document(report, ranks=[_rank(rank) for rank in report.ranks]))


def _document(report: Report, *, ranks: list[Document]) -> Document:
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": report.verdict,
        "card": report.card,
        "ranks": ranks,
        "findings": report.findings,
        "next_commands": report.next_commands,
        "warnings": report.warnings,
        "ranks_overview": None if report.ranks_overview is None else ranks_document(report.ranks_overview),
    }


def _rank(rank: RankReport) -> Document:
    """Return a rank; results stand in it as they are where the contract has the names of their fields."""
    return {
        "rank": rank.rank,
        "device": rank.device,
        "source": rank.source,
        "complete": rank.complete,
        "num_events": rank.num_events,
        "num_allocations": rank.num_allocations,
        "capacity_bytes": rank.capacity_bytes,
        "peak": peak_document(rank.peak),
        "first_step_peak": None if rank.first_step_peak is None else peak_document(rank.first_step_peak),
        "steady_state_peak": None if rank.steady_state_peak is None else peak_document(rank.steady_state_peak),
        "steady_minus_first": rank.steady_minus_first,
        "first_step_effects": rank.first_step_effects,
        "end": rank.end,
        "max_reserved_bytes": rank.max_reserved_bytes,
        "steps": rank.steps,
        "unrecorded": rank.unrecorded,
        "evaluation": None if rank.evaluation is None else _evaluation(rank.evaluation),
        "oom": rank.oom,
        "activations": rank.activations,
        "saved_for_backward": rank.saved_for_backward,
        "leaks": rank.leaks,
        "fragmentation": None if rank.fragmentation is None else _fragmentation(rank.fragmentation),
        "time": None if rank.time is None else time_document(rank.time),
        "step_times": None if rank.step_times is None else step_times_document(rank.step_times),
        "communication": None if rank.communication is None else communication_document(rank.communication),
        "warnings": rank.warnings,
    }


def peak_document(peak: Peak) -> Document:
    """Return a PEAK of the contract; one that was predicted says what was assumed, and whether it fits."""
    return plain_fields(peak, without=("event",))


def _evaluation(found: EvaluationResult) -> Document:
    return {
        **plain_fields(found, without=("peak", "training_peak")),
        "peak": peak_document(found.peak),
        "training_peak": None if found.training_peak is None else peak_document(found.training_peak),
    }


def _fragmentation(found: FragmentationResult) -> Document:
    return {
        **plain_fields(found, without=("moments",)),
        "moments": [
            {**plain_fields(one, without=("pools",)), "pools": [_pool(pool) for pool in one.pools]}
            for one in found.moments
        ],
    }


def _pool(pool: PoolState) -> Document:
    return {
        **plain_fields(pool),
        "internal_bytes": pool.internal_bytes,
        "external_bytes": pool.external_bytes,
    }
