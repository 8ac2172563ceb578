"""Leaks in words: what grows, the line that makes it, the usual cause, and what to change.

In: `DeviceHistory` and its leaks. Out: `Finding`s.
"""

from __future__ import annotations

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.diagnosis.grown_bytes import peak_without
from memtrace.analysis.results.report import Finding, Leak
from memtrace.analysis.sentences.keepers import change_of, kept_by
from memtrace.units import format_bytes

_CAUSES = {
    "graph": "what a forward computed stays alive with it: the graph of a tensor that is kept",
    "outputs": "an output of the model, or something computed from it, is kept",
    "gradients": "gradients, or what a backward pass made, are kept",
    "container": "something made in each step is kept, as in a list or a cache that only grows",
}
_CHANGES = {
    "graph": "Keep a number instead of the tensor: append loss.item() or loss.detach() to a list, add loss.item() to a "
    "total, and compute held-out losses under torch.no_grad().",
    "outputs": "Keep only what is needed of it: detach it and move it to the CPU, or fold it into a running figure; "
    "empty the list that holds it.",
    "gradients": "Look for retain_graph=True or create_graph=True, and for gradients that are stored in a list: "
    "store a number, or a copy on the CPU.",
    "container": "Look for the list, dictionary or cache that this line feeds: bound it, or empty it after each step.",
}

_SOON_STEPS = 10_000
"""A leak that doubles the peak within so many steps ends the run."""


def leak_findings(history: DeviceHistory, leaks: tuple[Leak, ...]) -> tuple[Finding, ...]:
    """Return a finding a leak, in the order of the leaks."""
    return tuple(_finding(history, leak) for leak in leaks)


def _finding(history: DeviceHistory, leak: Leak) -> Finding:
    height, without = peak_without(history, leak)
    return Finding(
        slug="leak",
        severity="error" if leak.bytes_per_step * _SOON_STEPS >= height else "warning",
        title=f"Memory grows by {format_bytes(leak.bytes_per_step)} in each step: {_cause(leak)}",
        evidence={
            "growth_per_step_bytes": leak.bytes_per_step,
            "allocations_per_step": leak.allocations_per_step,
            "first_step": leak.steps[0],
            "last_step": leak.steps[-1],
            "num_steps": len(leak.steps),
            "live_bytes": leak.live_bytes,
            **kept_by(leak.keeper),
            "phase": leak.phase,
            "category": leak.category,
            "num_modules": leak.num_modules,
            "cause": leak.cause,
            "steps_until_full": leak.steps_until_full,
        },
        change=_CHANGES[leak.cause] if leak.keeper is None else change_of(leak.keeper),
        cost="None: nothing reads what is kept, or it fits in a number.",
        saves_bytes=None if without is None else height - without,
        saves_ns=None,
        new_peak_bytes=without,
        rank=history.rank.rank,
        where=leak.where,
    )


def _cause(leak: Leak) -> str:
    return _CAUSES[leak.cause] if leak.keeper is None else f"kept by {leak.keeper.text}"
