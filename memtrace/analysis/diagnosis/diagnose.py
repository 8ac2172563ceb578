"""What is wrong with a run on one device: everything that is diagnosed, and the findings that say it.

In: `DeviceHistory` and what the device has. Out: `Diagnosis`, findings in the order in which they should be read.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.diagnosis.fragmentation import find_fragmentation
from memtrace.analysis.diagnosis.fragmentation_findings import fragmentation_findings
from memtrace.analysis.diagnosis.leak_findings import leak_findings
from memtrace.analysis.diagnosis.leaks import find_piles
from memtrace.analysis.diagnosis.oom import find_oom
from memtrace.analysis.results.report import Finding, FragmentationResult, Leak, OomResult
from memtrace.analysis.sentences.oom import oom_finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was diagnosed on one device."""

    oom: OomResult | None
    """Where memory ran out; `None` if it did not."""
    leaks: tuple[Leak, ...]
    """What grows step by step."""
    fragmentation: FragmentationResult | None
    """What is reserved and cannot be used; `None` without segments."""
    findings: tuple[Finding, ...]
    """What follows from these."""


def diagnose(history: DeviceHistory, *, capacity_bytes: int | None, judged_by: int | None) -> Diagnosis:
    """Return what is wrong on one device.

    `capacity_bytes` is its memory where that is known; a run that went on is judged by `judged_by`, if that is given.
    """
    piles = find_piles(history, capacity_bytes=capacity_bytes)
    leaks = tuple(one.leak for one in piles)
    oom = find_oom(history, capacity_bytes=capacity_bytes, judged_by=judged_by, leaks=leaks)
    fragmentation = find_fragmentation(history)
    of_leaks = leak_findings(Case(history), piles) if piles else ()
    findings = (*of_leaks, *fragmentation_findings(history, fragmentation, oom))
    if oom is not None:
        # A leak is why a run dies late: then it is the cause, and the failure its consequence.
        failure = oom_finding(oom, history.rank.rank)
        findings = (*findings, failure) if leaks and (oom.step or 0) > 2 else (failure, *findings)
    return Diagnosis(oom=oom, leaks=leaks, fragmentation=fragmentation, findings=findings)
