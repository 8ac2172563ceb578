"""What was not seen, and what went wrong: the notes of a report, which say how complete it is.

In: `DeviceHistory` and results about it. Out: `Note`s; each slug has an entry in docs/messages.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from memtrace.analysis.advice.allocator import MAX_REPLAYED_EVENTS, left_untried
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.peak import moment_of
from memtrace.analysis.results.report import Note, Peak
from memtrace.schema.names import Action, Category, Decision, Source
from memtrace.store.columns import NULL
from memtrace.store.trace import LoadWarning, RankTrace
from memtrace.units import format_bytes


def notes_of_trace(warnings: Iterable[LoadWarning]) -> tuple[Note, ...]:
    """Return the reader's own warnings as notes."""
    return tuple(Note(slug=one.slug, message=one.message, count=one.count) for one in warnings)


def notes_of_rank(rank: RankTrace) -> list[Note]:
    """Return what the recording and the reader of one rank could not see."""
    notes = list(notes_of_trace(rank.warnings))
    for row in rank.table("warnings").rows():
        slug, message = rank.text(row["slug"]) or "warning", rank.text(row["message"]) or ""
        notes.append(Note(slug=slug, message=message, count=row["count"]))
    if rank.source == Source.RECORDED.value and not rank.complete:
        notes.append(
            Note(
                slug="incomplete",
                message="The recording did not end in order: what the process wrote last is missing.",
            )
        )
    return _distinct(notes)


def notes_of_device(history: DeviceHistory, peak: Peak) -> tuple[Note, ...]:
    """Return everything that was not seen of one device."""
    notes = notes_of_rank(history.rank)
    said = {note.slug for note in notes}
    # A reader that saw the same says it with more detail.
    return (*notes, *(note for note in _device_notes(history, peak) if note.slug not in said))


def _distinct(notes: Iterable[Note]) -> list[Note]:
    """Return the notes without those that say what one before them says."""
    return list({(note.slug, note.message): note for note in notes}.values())


def _device_notes(history: DeviceHistory, peak: Peak) -> Iterator[Note]:
    if not history.has_history:
        yield Note(
            slug="no-history",
            message="There is no history of allocations: the last state is shown, and no peak can be told.",
        )
    else:
        yield from _history_notes(history)
        yield from _replay_notes(history)
        yield from _attribution_notes(history, peak)
        yield from _advice_notes(history)
    if not history.is_cpu:
        yield Note(
            slug="outside-torch",
            message="Memory that torch's allocator does not hand out is not in these figures: "
            "the device context, NCCL buffers, other libraries and processes.",
        )


def _replay_notes(history: DeviceHistory) -> Iterator[Note]:
    """Say why allocated bytes are not known inside a history."""
    replayed = history.replayed
    if replayed is None or replayed.allocated is not None:
        return
    fidelity = replayed.fidelity
    cause = f"the model of the allocator does not reproduce it ({fidelity.first_divergence or fidelity.reason})"
    if fidelity.is_exact and replayed.unsure_bytes:
        cause = (
            f"a block from before it may be up to {replayed.unsure_bytes} bytes larger than was asked for, "
            "and no event shows by how much."
        )
    elif fidelity.is_exact:
        cause = "the recording has gaps."
    yield Note(slug="not-replayed", message=f"Allocated bytes inside the history are not known: {cause}")


def _advice_notes(history: DeviceHistory) -> Iterator[Note]:
    """Say which advice was not looked for."""
    if left_untried(history):
        yield Note(
            slug="settings-untried",
            message="Reserved memory lies idle, and whether expandable segments would help was not tried: "
            f"the history has more than {MAX_REPLAYED_EVENTS:,} events. `memtrace whatif TRACE --advise` tries it.",
        )


def _history_notes(history: DeviceHistory) -> Iterator[Note]:
    """Return notes on events that are missing."""
    gaps = len(history.moments.epochs) - 1
    if gaps:
        yield Note(
            slug="gaps",
            message="Between some steps nothing was recorded; figures are of the recorded stretches only.",
            count=gaps,
        )
    windows = history.rank.table("windows")
    rows = np.array([row for epoch in history.moments.epochs for row in epoch.windows], np.int64)
    lost = windows["num_lost"][rows]
    if np.any(lost != 0):
        known = int(lost[lost != NULL].sum())
        yield Note(
            slug="events-lost",
            message="Events were lost while recording; allocations and frees among them are missing.",
            count=max(known, 1),
        )
    if history.lifetimes.num_unpaired:
        yield Note(
            slug="unpaired-events",
            message="Frees without an allocation, or allocations of a block in use: events between are missing.",
            count=history.lifetimes.num_unpaired,
        )
    if history.levels.overdrawn_bytes:
        yield Note(
            slug="initial-state-short",
            message=f"Blocks of {format_bytes(history.levels.overdrawn_bytes)} were freed "
            "beyond what the recording knew to be live when it began.",
        )
    unseen = _unseen_bytes(history)
    if unseen:
        yield Note(
            slug="unseen-bytes",
            message=f"The allocator's own total differs from the recorded events by up to {format_bytes(unseen)}: "
            "allocations of other threads were not seen.",
        )
    if history.rank.source == Source.KINETO.value and not history.is_cpu:
        yield Note(
            slug="block-sizes",
            message="A profiler's trace holds sizes of blocks: requested bytes here include the allocator's rounding.",
        )


def _why_without_owners(rank: RankTrace) -> str:
    if rank.source not in (Source.RECORDED.value, Source.PREDICTED.value):
        return " A recording made with `memtrace record` knows."
    return "" if len(rank.table("phases")) else " No module, optimizer or backward pass had run when it ended."


def _attribution_notes(history: DeviceHistory, peak: Peak) -> Iterator[Note]:
    """Return notes on bytes at the peak of which something is not known."""
    base = _base_at_peak(history, peak)
    if base:
        yield Note(
            slug="unseen-blocks",
            message=f"{format_bytes(base)} at the peak were live before the recording, or a stretch of it, began, "
            "in blocks it did not see.",
        )
    unknown, total = peak.by_category.get(Category.UNKNOWN.value, 0), peak.requested_bytes or 0
    if unknown and unknown < total:
        yield Note(
            slug="unattributed",
            message=f"{format_bytes(unknown)} of {format_bytes(total)} at the peak are unattributed: "
            "nothing recorded says what they are for.",
        )
    elif unknown:
        yield Note(
            slug="no-owners",
            message="Nothing in this file says what memory is for: every byte is unattributed."
            + _why_without_owners(history.rank),
        )
    inferred = total - unknown - sum(peak.by_decision.get(one.value, 0) for one in (Decision.OWNER, Decision.HOOK))
    if inferred:
        yield Note(
            slug="inferred",
            message=f"What {format_bytes(inferred)} at the peak are for is inferred from stacks, lifetimes and sizes, "
            "and so are steps and phases where nothing recorded them.",
        )
    if peak.by_decision.get(Decision.OWNER.value) and history.attribution.num_unmatched_storages:
        yield Note(
            slug="storages-not-allocated",
            message=f"{format_bytes(history.attribution.unmatched_bytes)} of tensors are in memory "
            "that the recorded allocator did not hand out (mapped files, numpy arrays, older blocks).",
            count=history.attribution.num_unmatched_storages,
        )
    allocs = history.moments.is_action(history.rank, Action.ALLOC)
    frameless = int(np.count_nonzero(history.rank.table("events")["stack"][history.moments.rows[allocs]] == NULL))
    if frameless:
        yield Note(slug="no-stack", message="Allocations were recorded without a stack.", count=frameless)


def _base_at_peak(history: DeviceHistory, peak: Peak) -> int:
    return int(history.levels.base[moment_of(history, peak)])


def _unseen_bytes(history: DeviceHistory) -> int:
    """Return by how much the allocator's own total drifts from the running sum of events within a window, at worst."""
    if history.rank.source != Source.RECORDED.value:
        return 0
    rank, moments = history.rank, history.moments
    totals = rank.table("events")["total_bytes"][moments.rows]
    drift = totals - history.levels.requested[moments.of_event]
    worst, windows = 0, rank.table("windows")
    for epoch in moments.epochs:
        for row in epoch.windows:
            first = int(windows["first_event"][row])
            edges = np.searchsorted(moments.rows, [first, first + int(windows["num_events"][row])])
            known = drift[edges[0] : edges[1]][totals[edges[0] : edges[1]] != NULL]
            if len(known) > 1:
                # Two threads can swap two events against their totals: what is back at the next event was not unseen.
                drifts = np.abs(known - known[0])
                worst = max(worst, int(np.minimum(drifts[:-1], drifts[1:]).max()))
    return worst
