"""Leaks in words: what grows, the line that makes it, the usual cause, and what to change.

In: a `Case` and its leaks. Out: `Finding`s. The new peak is that with everything freed at the end of the step that made
it, and without what piled up where nothing was recorded: so many steps, at the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.replayed import checked
from memtrace.analysis.diagnosis.freed_at_step_end import extrapolated, freed_at_step_ends, not_seen
from memtrace.analysis.diagnosis.grown_bytes import ended_steps
from memtrace.analysis.diagnosis.leaks import Pile, find_piles
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


def leak_findings(case: Case, piles: Iterable[Pile]) -> tuple[Finding, ...]:
    """Return a finding a leak, in the order of the leaks."""
    return checked(case, (_finding(case, one) for one in piles), keeps_small=True)


def remedy_of_leak(case: Case) -> Finding | None:
    """Return the finding of the leak that grows fastest, before anything is replayed: what its remedy is."""
    piles = find_piles(case.history)
    return _finding(case, piles[0]) if piles else None


def _finding(case: Case, pile: Pile) -> Finding:
    leak = pile.leak
    unseen = not_seen(case, pile)
    new_peak = _new_peak(case, pile, unseen)
    return Finding(
        slug="leak",
        severity="error" if leak.bytes_per_step * _SOON_STEPS >= case.peak_bytes else "warning",
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
            **({} if new_peak is None else extrapolated(case, unseen)),
        },
        change=_CHANGES[leak.cause] if leak.keeper is None else change_of(leak.keeper),
        cost="None: nothing reads what is kept, or it fits in a number.",
        saves_bytes=None if new_peak is None else case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=leak.where,
    )


def _new_peak(case: Case, pile: Pile, unseen: Cut) -> int | None:
    """Return the peak without the leak; `None` where the peak is in no step that was recorded to its end."""
    if not any(span.first <= case.peak_moment <= span.last for span in ended_steps(case.history)):
        return None
    seen = freed_at_step_ends(case, pile.growing.growth, pile.places, pile.leak.bytes_per_step)
    return case.peak_with(*seen, *([unseen] if len(unseen.size_bytes) else []))


def _cause(leak: Leak) -> str:
    return _CAUSES[leak.cause] if leak.keeper is None else f"kept by {leak.keeper.text}"
