"""The analysis of one rank: every question of this package asked of each of its devices.

In: `RankTrace`. Out: `RankAnalysis`, which holds results only and no trace, so that it is small enough to travel from
the process that read the file to the one that reports on all ranks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from memtrace.analysis.advice.find import find_advice
from memtrace.analysis.advice.kept import told_once
from memtrace.analysis.allocation_map.allocation_map import build_allocation_map
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.communication.communication import communication_of_rank
from memtrace.analysis.communication.findings import communication_findings
from memtrace.analysis.device.activations import activations_at, saved_for_backward
from memtrace.analysis.device.device_history import DeviceHistory, build_history, device_names
from memtrace.analysis.device.evaluation import evaluation_result
from memtrace.analysis.device.high_water import unrecorded_steps
from memtrace.analysis.device.modules import modules_at
from memtrace.analysis.device.peak import end_state, moment_of, peak_between, peak_without_history
from memtrace.analysis.device.stacks import program_lines, stacks_at
from memtrace.analysis.device.steps import step_results, step_spans
from memtrace.analysis.device.timeline import build_timeline
from memtrace.analysis.diagnosis.diagnose import Diagnosis, diagnose
from memtrace.analysis.diagnosis.notes import notes_of_device
from memtrace.analysis.diagnosis.oom_to_come import ahead_finding
from memtrace.analysis.events.optimizer_options import options_of
from memtrace.analysis.faults.find import find_faults
from memtrace.analysis.first_step.effects import first_step_effects
from memtrace.analysis.first_step.two_peaks import by_category_difference, first_step_peak, steady_state_peak
from memtrace.analysis.ranks.facts_of_rank import rank_facts
from memtrace.analysis.results.report import Finding, RankReport
from memtrace.analysis.results.time import TimeResult
from memtrace.analysis.time.findings import time_findings
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.analysis.time.step_times import step_times
from memtrace.analysis.time.tracks import time_tracks
from memtrace.store.trace import RankTrace

_Reports = list[tuple[RankReport, tuple[Finding, ...]]]
"""The report of each device of a rank, with the advice for it."""
_IDENTITY = ("host", "pid", "start_ns", "end_ns", "world_size", "original_path")
"""Header facts by which the processes of a run are told apart, counted, and told from those of another run."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankAnalysis:
    """What one process left behind, analysed."""

    rank: int | None
    """Global rank, or `None` outside a distributed run."""
    source: str
    """recorded, snapshot, kineto or predicted."""
    complete: bool
    """Whether the recording ended in order."""
    num_events: int
    """Events of all its devices."""
    header: Mapping[str, Any]
    """host, pid, start_ns, end_ns, world_size and original_path, those that were recorded."""
    devices: tuple[RankReport, ...]
    """One a device; one for a rank that recorded no memory at all."""
    findings: tuple[Finding, ...]
    """Advice for it, by device."""


_SHOWN_FACTS = (
    *("world_size", "local_rank", "host", "pid", "versions", "exception", "original_path", "autocast_dtypes"),
    *("uses_grad_scaler", "peak_host_rss_bytes", "sources", "environment"),
)


def analyze_rank(
    rank: RankTrace, run: Mapping[str, Any], *, capacity_bytes: int | None = None, with_map: bool = False
) -> RankAnalysis:
    """Return the analysis of a rank; `run` is the header of its trace.

    `capacity_bytes` stands in for the total memory of the devices; `with_map` adds every allocation, for viewers.
    """
    reports = _device_reports(rank, _facts(run, rank), capacity_bytes, with_map=with_map)
    return RankAnalysis(
        rank=rank.rank,
        source=rank.source,
        complete=rank.complete,
        num_events=rank.num_events,
        header={name: rank.header[name] for name in _IDENTITY if rank.header.get(name) is not None},
        devices=tuple(report for report, _ in reports),
        findings=tuple(finding for _, found in reports for finding in found),
    )


def _device_reports(
    rank: RankTrace, facts: Mapping[str, Any], capacity_bytes: int | None, *, with_map: bool
) -> _Reports:
    """Return one report a device of a rank, with the advice for it; one for a rank that recorded no memory at all."""
    # Steps of a profile are the profiler's own, not inferred ones.
    time = time_of_rank(rank)
    rank = with_inferred_marks(rank)
    names = device_names(rank) or [_main_device(rank)]
    accelerators = [name for name in names if name != "cpu"]
    histories = [build_history(rank, name, owns_marks=accelerators == [name]) for name in names]
    reports = []
    for history in histories:
        capacity = _capacity(rank, history.device) if capacity_bytes is None else capacity_bytes
        # Of a run on a GPU, what the CPU holds is not what its capacity is about.
        is_judged = not history.is_cpu or not accelerators
        diagnosis = diagnose(history, capacity_bytes=capacity, judged_by=capacity_bytes if is_judged else None)
        report = _device_report(history, diagnosis, facts, capacity, is_judged=is_judged, with_map=with_map)
        ahead = None if report.oom is not None else ahead_finding(report.steady_state_peak, rank.rank)
        advice = told_once((*find_faults(history), *find_advice(history)), report.leaks)
        found = (ahead, *diagnosis.findings, *advice)
        reports.append((report, tuple(one for one in found if one is not None)))
    return _with_time(reports, rank, time, with_tracks=with_map)


def _with_time(reports: _Reports, rank: RankTrace, time: TimeResult | None, *, with_tracks: bool) -> _Reports:
    """Return the reports of a rank with its time, and advice about it, at the first device that is not the CPU."""
    at = next((at for at, (report, _) in enumerate(reports) if report.device != "cpu"), 0)
    report, found = reports[at]
    steps, communication = step_times(rank), communication_of_rank(rank)
    if communication is not None:
        found = (*found, *communication_findings(rank, communication, steps, time))
    if time is not None:
        found = (*found, *time_findings(rank, time))
    timed = dataclasses.replace(
        report,
        time=time,
        time_tracks=time_tracks(rank) if with_tracks and time is not None else None,
        step_times=steps,
        communication=communication,
    )
    reports[at] = timed, found
    return reports


def _main_device(rank: RankTrace) -> str:
    """Return the device of a rank without memory: the first that its header names, else the CPU."""
    devices = rank.header.get("devices") or []
    return str(devices[0].get("name", "cpu")) if devices else "cpu"


def _device_report(
    history: DeviceHistory,
    diagnosis: Diagnosis,
    facts: Mapping[str, Any],
    capacity_bytes: int | None,
    *,
    is_judged: bool,
    with_map: bool,
) -> RankReport:
    rank, spans = history.rank, step_spans(history)
    end = end_state(history)
    peak = peak_between(history, 0, history.last_moment) if history.has_history else peak_without_history(end)
    at_peak = moment_of(history, peak)
    has_moments = history.has_history
    first = first_step_peak(history, spans)
    steady = steady_state_peak(
        history,
        spans,
        capacity_bytes=capacity_bytes if is_judged else None,
        others_bytes=None if diagnosis.oom is None else diagnosis.oom.non_torch_bytes,
    )
    peaks = {"peak": peak, "first_step_peak": first, "steady_state_peak": steady}
    peak_moments = {
        name: moment_of(history, one) for name, one in peaks.items() if one is not None and not one.predicted
    }
    reserved = history.levels.reserved
    steps = step_results(history, spans)
    return RankReport(
        rank=rank.rank,
        device=history.device,
        source=rank.source,
        complete=rank.complete,
        num_events=len(history.moments.rows),
        num_allocations=history.num_allocs,
        capacity_bytes=capacity_bytes,
        peak=peak,
        first_step_peak=first,
        steady_state_peak=steady,
        steady_minus_first=by_category_difference(first, steady),
        first_step_effects=first_step_effects(history, spans),
        end=end,
        max_reserved_bytes=end.reserved_bytes if reserved is None or not has_moments else int(reserved.max()),
        steps=steps,
        unrecorded=unrecorded_steps(steps),
        evaluation=evaluation_result(history),
        oom=diagnosis.oom,
        leaks=diagnosis.leaks,
        fragmentation=diagnosis.fragmentation,
        activations=activations_at(history, at_peak) if has_moments else None,
        saved_for_backward=saved_for_backward(history),
        timeline=build_timeline(history.moments, history.levels, peak_moments.values()) if has_moments else None,
        top_modules=modules_at(history, at_peak),
        top_stacks=stacks_at(history, at_peak) if has_moments else (),
        program_lines=program_lines(history.rank) if has_moments else (),
        warnings=notes_of_device(history, peak),
        facts=facts,
        rank_facts=rank_facts(history),
        allocation_map=build_allocation_map(history, peak_moments) if with_map else None,
    )


def _capacity(rank: RankTrace, device: str) -> int | None:
    """Return the total memory of a device, as its header says."""
    for one in rank.header.get("devices") or []:
        if one.get("name") == device and one.get("capacity_bytes") is not None:
            return int(one["capacity_bytes"])
    return None


def _facts(run: Mapping[str, Any], rank: RankTrace) -> dict[str, Any]:
    """Return the header facts worth showing; those that were not recorded are absent."""
    facts = {name: rank.header.get(name) for name in _SHOWN_FACTS}
    facts |= {name: run.get(name) for name in ("command", "exit_status")}
    facts["optimizers"] = [_optimizer(rank, at, row) for at, row in enumerate(rank.table("optimizers").rows())]
    return {name: value for name, value in facts.items() if value not in (None, [], {})}


def _optimizer(rank: RankTrace, at: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one parameter group: class, number of parameters, options."""
    return {
        "class_name": rank.text(row["class_name"]),
        "group": row["group"],
        "num_parameters": row["num_parameters"],
        "options": options_of(rank, at),
    }
