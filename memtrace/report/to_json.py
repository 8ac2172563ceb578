"""The report as the JSON document that `memtrace report --json` prints.

In: `Report`. Out: a dictionary with exactly the keys of the contract (`memtrace-report`, version 1). Every value is a
field of a result; what was not recorded is null.
"""

from __future__ import annotations

from typing import Any

import orjson

from memtrace.analysis.results import (
    Finding,
    Leak,
    Note,
    OomResult,
    Peak,
    PhaseResult,
    RankReport,
    Report,
    State,
    StepResult,
)

FORMAT = "memtrace-report"
VERSION = 1

Document = dict[str, Any]


def report_json(report: Report) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    return orjson.dumps(_printable(report_document(report)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def report_document(report: Report) -> Document:
    """Return the document."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": report.verdict,
        "ranks": [_rank(rank) for rank in report.ranks],
        "findings": [_finding(finding) for finding in report.findings],
        "warnings": [_note(note) for note in report.warnings],
    }


def _rank(rank: RankReport) -> Document:
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
        "end": state_document(rank.end),
        "max_reserved_bytes": rank.max_reserved_bytes,
        "steps": [_step(step) for step in rank.steps],
        "oom": None if rank.oom is None else _oom(rank.oom),
        "leaks": [_leak(leak) for leak in rank.leaks],
        "warnings": [_note(note) for note in rank.warnings],
    }


def state_document(state: State) -> Document:
    """Return a STATE of the contract."""
    return {
        "allocated_bytes": state.allocated_bytes,
        "requested_bytes": state.requested_bytes,
        "pending_free_bytes": state.pending_free_bytes,
        "reserved_bytes": state.reserved_bytes,
        "device_used_bytes": state.device_used_bytes,
        "non_torch_bytes": state.non_torch_bytes,
        "by_category": dict(state.by_category),
        "by_decision": dict(state.by_decision),
    }


def peak_document(peak: Peak) -> Document:
    """Return a PEAK of the contract."""
    return {
        **state_document(peak),
        "time_ns": peak.time_ns,
        "step": peak.step,
        "phase": peak.phase,
        "module": peak.module,
        "predicted": peak.predicted,
    }


def _step(step: StepResult) -> Document:
    return {
        "step": step.step,
        "skipped": step.skipped,
        "recorded": step.recorded,
        "num_microbatches": step.num_microbatches,
        "start_ns": step.start_ns,
        "end_ns": step.end_ns,
        "peak_allocated_bytes": step.peak_allocated_bytes,
        "peak_requested_bytes": step.peak_requested_bytes,
        "max_reserved_bytes": step.max_reserved_bytes,
        "num_device_mallocs": step.num_device_mallocs,
        "host_rss_bytes": step.host_rss_bytes,
        "end": None if step.end is None else state_document(step.end),
        "phases": [_phase(phase) for phase in step.phases],
    }


def _phase(phase: PhaseResult) -> Document:
    return {
        "phase": phase.phase,
        "microbatch": phase.microbatch,
        "start_ns": phase.start_ns,
        "end_ns": phase.end_ns,
        "peak_allocated_bytes": phase.peak_allocated_bytes,
        "peak_requested_bytes": phase.peak_requested_bytes,
    }


def _oom(oom: OomResult) -> Document:
    return {
        "step": oom.step,
        "phase": oom.phase,
        "module": oom.module,
        "time_ns": oom.time_ns,
        "request_bytes": oom.request_bytes,
        "free_bytes": oom.free_bytes,
        "reserved_unallocated_bytes": oom.reserved_unallocated_bytes,
        "largest_free_block_bytes": oom.largest_free_block_bytes,
        "cause": oom.cause,
    }


def _leak(leak: Leak) -> Document:
    return {
        "bytes_per_step": leak.bytes_per_step,
        "allocations_per_step": leak.allocations_per_step,
        "steps": list(leak.steps),
        "phase": leak.phase,
        "category": leak.category,
        "num_modules": leak.num_modules,
        "cause": leak.cause,
        "live_bytes": leak.live_bytes,
        "steps_until_full": leak.steps_until_full,
        "where": None if leak.where is None else dict(leak.where),
    }


def _finding(finding: Finding) -> Document:
    return {
        "slug": finding.slug,
        "severity": finding.severity,
        "title": finding.title,
        "evidence": dict(finding.evidence),
        "change": finding.change,
        "cost": finding.cost,
        "saves_bytes": finding.saves_bytes,
        "saves_ns": finding.saves_ns,
        "new_peak_bytes": finding.new_peak_bytes,
        "rank": finding.rank,
        "where": None if finding.where is None else dict(finding.where),
    }


def _note(note: Note) -> Document:
    return {"slug": note.slug, "message": note.message, "count": note.count}


def _printable(value: Any) -> Any:
    """Return the value with lone surrogates replaced: names out of files may hold them, and JSON cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
