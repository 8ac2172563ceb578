"""An answer of `memtrace fix`, made up: what a search over a program of four blocks could find."""

from __future__ import annotations

from memtrace.forecast.fixing.results import Fixed, Measured, Missed, Rung
from memtrace.forecast.fixing.search import title_of
from memtrace.schema.changes import Changes

MIB = 1 << 20


def needs(peak_mib: int, step_s: float | None, *, budget_mib: int) -> Measured:
    """Return what a run needs that reserves two MiB beyond its peak."""
    return Measured(
        fits=peak_mib + 2 <= budget_mib,
        peak_bytes=peak_mib * MIB,
        reserved_bytes=(peak_mib + 2) * MIB,
        step_s=step_s,
        by_category={"activation": (peak_mib - 10) * MIB, "parameter": 10 * MIB},
    )


def fixed(*, fits: bool = True) -> Fixed:
    """Return an answer with three sets of changes, one that did not hold, and a module that is left as it is."""
    budget = 50 if fits else 20
    tried = [
        (Changes(recompute=("blocks.0", "blocks.1")), 40, 1.2, True),
        (Changes(chunk_loss=True), 60, 1.05, None),
        (Changes(), 80, 1.0, True),
    ]
    rungs = tuple(
        Rung(
            changes=changes,
            title=title_of(changes),
            needs=needs(peak, seconds, budget_mib=budget),
            slowdown=seconds - 1,
            losses_equal=equal,
            expected_bytes=None,
        )
        for changes, peak, seconds, equal in tried
    )
    return Fixed(
        command=("python", "train.py", "--name", "<b>"),
        budget_bytes=budget * MIB,
        target_bytes=budget * MIB,
        device=f"{budget} MiB",
        is_predicted=False,
        is_verified=True,
        plain=rungs[-1].needs,
        rungs=rungs,
        missed=(Missed(title="optimizer steps in backward", why="the program <i>clips</i>"),),
        refused={"blocks.3": "it is compiled"},
        smallest_bytes=None if fits else 42 * MIB,
        notes=("a note",),
        classes={"blocks.0": "Block", "blocks.1": "Block"},
    )
