"""The report as the JSON document that `memtrace report --json` prints.

In: `Report`. Out: a dictionary with exactly the keys of the contract (`memtrace-report`, version 1). Every value is a
field of a result; what was not recorded is null.
"""

from __future__ import annotations

from typing import Any

import orjson

from memtrace.analysis.results.report import (
    ActivationPart,
    ActivationSplit,
    Finding,
    FirstStepEffect,
    FragmentationResult,
    Leak,
    Note,
    OomResult,
    OwnedBytes,
    Peak,
    PhaseResult,
    PoolState,
    PredictedPeak,
    RankReport,
    Report,
    SavedForBackward,
    State,
    StepNeeds,
    StepResult,
)
from memtrace.printable import encodable
from memtrace.report.json.communication import communication_document
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
    return orjson.dumps(_encodable(value), option=orjson.OPT_INDENT_2)


def report_document(report: Report) -> Document:
    """Return the document."""
    return _document(report, ranks=[_rank(rank) for rank in report.ranks])


def _document(report: Report, *, ranks: list[Document]) -> Document:
    return {
        "format": FORMAT,
        "version": VERSION,
        "verdict": report.verdict,
        "ranks": ranks,
        "findings": [_finding(finding) for finding in report.findings],
        "next_commands": list(report.next_commands),
        "warnings": [_note(note) for note in report.warnings],
        "ranks_overview": None if report.ranks_overview is None else ranks_document(report.ranks_overview),
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
        "steady_minus_first": None if rank.steady_minus_first is None else dict(rank.steady_minus_first),
        "first_step_effects": [_effect(effect) for effect in rank.first_step_effects],
        "end": state_document(rank.end),
        "max_reserved_bytes": rank.max_reserved_bytes,
        "steps": [_step(step) for step in rank.steps],
        "oom": None if rank.oom is None else _oom(rank.oom),
        "activations": None if rank.activations is None else _activations(rank.activations),
        "saved_for_backward": [_saved(one) for one in rank.saved_for_backward],
        "leaks": [_leak(leak) for leak in rank.leaks],
        "fragmentation": None if rank.fragmentation is None else _fragmentation(rank.fragmentation),
        "time": None if rank.time is None else time_document(rank.time),
        "step_times": None if rank.step_times is None else step_times_document(rank.step_times),
        "communication": None if rank.communication is None else communication_document(rank.communication),
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
        "exact_by_category": dict(state.exact_by_category),
    }


def peak_document(peak: Peak) -> Document:
    """Return a PEAK of the contract; one that was predicted says what was assumed, and whether it fits."""
    document = _peak(peak)
    if isinstance(peak, PredictedPeak):
        document |= {
            "low_bytes": peak.low_bytes,
            "high_bytes": peak.high_bytes,
            "assumptions": list(peak.assumptions),
            "needed_bytes": peak.needed_bytes,
            "capacity_bytes": peak.capacity_bytes,
            "fits": peak.fits,
        }
    return document


def _peak(peak: Peak) -> Document:
    return {
        **state_document(peak),
        "time_ns": peak.time_ns,
        "step": peak.step,
        "phase": peak.phase,
        "module": peak.module,
        "predicted": peak.predicted,
    }


def _effect(effect: FirstStepEffect) -> Document:
    return {
        "slug": effect.slug,
        "title": effect.title,
        "num_bytes": effect.num_bytes,
        "stays": effect.stays,
        "evidence": dict(effect.evidence),
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
        "owned": [_owned(one) for one in step.owned],
    }


def _owned(owned: OwnedBytes) -> Document:
    return {"category": owned.category, "storage_bytes": owned.storage_bytes, "tensor_bytes": owned.tensor_bytes}


def _phase(phase: PhaseResult) -> Document:
    return {
        "phase": phase.phase,
        "microbatch": phase.microbatch,
        "start_ns": phase.start_ns,
        "end_ns": phase.end_ns,
        "peak_allocated_bytes": phase.peak_allocated_bytes,
        "peak_requested_bytes": phase.peak_requested_bytes,
    }


def _activations(split: ActivationSplit) -> Document:
    return {
        "num_bytes": split.num_bytes,
        "by_role": [_part(part) for part in split.by_role],
        "by_module": [_part(part) for part in split.by_module],
        "by_op": [_part(part) for part in split.by_op],
        "by_microbatch": [_part(part) for part in split.by_microbatch],
    }


def _part(part: ActivationPart) -> Document:
    return {
        "name": part.name,
        "num_bytes": part.num_bytes,
        "exact_bytes": part.exact_bytes,
        "num_allocations": part.num_allocations,
    }


def _saved(saved: SavedForBackward) -> Document:
    return {
        "step": saved.step,
        "microbatch": saved.microbatch,
        "start_ns": saved.start_ns,
        "saved_bytes": saved.saved_bytes,
        "inferred_bytes": saved.inferred_bytes,
        "output_bytes": saved.output_bytes,
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
        "predicted": oom.predicted,
        "capacity_bytes": oom.capacity_bytes,
        "in_use_bytes": oom.in_use_bytes,
        "reserved_bytes": oom.reserved_bytes,
        "non_torch_bytes": oom.non_torch_bytes,
        "where": None if oom.where is None else dict(oom.where),
        "needs": None if oom.needs is None else _step_needs(oom.needs),
        "explanation": list(oom.explanation),
    }


def _step_needs(needs: StepNeeds) -> Document:
    return {
        "step": needs.step,
        "peak_bytes": needs.peak_bytes,
        "phase": needs.phase,
        "resident": [
            {"what": one.what, "num_bytes": one.num_bytes, "where": None if one.where is None else dict(one.where)}
            for one in needs.resident
        ],
        "next_bytes": needs.next_bytes,
        "limited_by": needs.limited_by,
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


def _fragmentation(found: FragmentationResult) -> Document:
    return {
        "is_model": found.is_model,
        "max_reserved_bytes": found.max_reserved_bytes,
        "num_growths": found.num_growths,
        "num_fragmented_growths": found.num_fragmented_growths,
        "fragmented_bytes": found.fragmented_bytes,
        "wasted_bytes": found.wasted_bytes,
        "where": None if found.where is None else dict(found.where),
        "requested_at": None if found.requested_at is None else dict(found.requested_at),
        "moments": [
            {"name": one.name, "step": one.step, "event": one.event, "pools": [_pool(pool) for pool in one.pools]}
            for one in found.moments
        ],
    }


def _pool(pool: PoolState) -> Document:
    return {
        "pool": pool.pool,
        "num_segments": pool.num_segments,
        "reserved_bytes": pool.reserved_bytes,
        "allocated_bytes": pool.allocated_bytes,
        "pending_bytes": pool.pending_bytes,
        "requested_bytes": pool.requested_bytes,
        "free_bytes": pool.free_bytes,
        "split_bytes": pool.split_bytes,
        "largest_free_block_bytes": pool.largest_free_block_bytes,
        "internal_bytes": pool.internal_bytes,
        "external_bytes": pool.external_bytes,
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


def _encodable(value: Any) -> Any:
    """Return the value with lone surrogates replaced: names out of files may hold them, and JSON cannot."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list) else value
