"""What is wrong with a run on one device: everything that is diagnosed, and the findings that say it.

In: `DeviceHistory` and what the device has. Out: `Diagnosis`, findings in the order in which they should be read.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.analysis.history import DeviceHistory
from memtrace.analysis.leak_findings import leak_findings
from memtrace.analysis.leaks import find_leaks
from memtrace.analysis.results import Finding, Leak


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was diagnosed on one device."""

    leaks: tuple[Leak, ...]
    findings: tuple[Finding, ...]


def diagnose(history: DeviceHistory, *, capacity_bytes: int | None) -> Diagnosis:
    """Return what is wrong on one device, judged against its capacity where that is known."""
    leaks = find_leaks(history, capacity_bytes=capacity_bytes)
    return Diagnosis(leaks=leaks, findings=leak_findings(history, leaks))
