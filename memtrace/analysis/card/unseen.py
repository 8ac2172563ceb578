"""What was not seen, in one line: the notes of a report in a few words each, what counts most first."""

from __future__ import annotations

from memtrace.analysis.results.report import Note, RankReport, Report
from memtrace.schema.names import Category, Decision
from memtrace.units import format_bytes

_MAX_PARTS = 3
_WORDS = {
    "steps-on-other-thread": "training on another thread",
    "incomplete": "what the process wrote last",
    "rank-missing": "ranks that left no trace",
    "events-lost": "{count} event{s}",
    "gaps": "{count} stretch{es} between recorded steps",
    "unseen-bytes": "allocations of other threads",
    "unpaired-events": "ends or starts of {count} block{s}",
    "no-history": "the history of allocations",
    "no-owners": "what memory is for",
    "no-stack": "the stack of {count} allocation{s}",
    "not-replayed": "allocated bytes inside the history",
    "storages-not-allocated": "{count} tensor{s} in memory of other allocators",
    "unseen-blocks": "blocks from before the recording",
    "steps-compiled": "when compiled optimizer steps ran",
    "outside-torch": "memory outside torch's allocator",
}
"""What each note says is missing, the most important first; notes about the run itself stand in full elsewhere."""

_TOLD_ELSEWHERE = frozenset({"inferred", "unattributed", "maps-left-out", "host-kill-possible", "settings-untried"})
"""Notes whose figures are here already, and those that are not about what was seen."""


def not_seen(rank: RankReport, report: Report) -> str | None:
    """Return what was not seen, in a line; `None` where nothing is missing."""
    notes = {note.slug: note for note in (*report.warnings, *rank.warnings)}
    parts = [_known(notes[slug]) for slug in _WORDS if slug in notes]
    parts[1:1] = _inferred(rank)
    others = [slug for slug in notes if slug not in _WORDS and slug not in _TOLD_ELSEWHERE]
    parts += [_words_of(notes[slug]) for slug in others]
    more = f" and {len(parts) - _MAX_PARTS} more" if len(parts) > _MAX_PARTS else ""
    return ", ".join(parts[:_MAX_PARTS]) + more if parts else None


def _inferred(rank: RankReport) -> list[str]:
    """Return how much of the peak has no certain category."""
    peak, total = rank.peak, rank.peak.requested_bytes or 0
    unknown = peak.by_category.get(Category.UNKNOWN.value, 0)
    inferred = total - unknown - sum(peak.by_decision.get(one.value, 0) for one in (Decision.OWNER, Decision.HOOK))
    parts = []
    if unknown and total:
        parts.append(f"what {format_bytes(unknown)} are for")
    if inferred > 0 and total:
        parts.append(f"what {format_bytes(inferred)} are for (inferred)")
    return parts


def _known(note: Note) -> str:
    is_one = note.count == 1
    return _WORDS[note.slug].format(count=f"{note.count:,}", s="" if is_one else "s", es="" if is_one else "es")


def _words_of(note: Note) -> str:
    return note.slug.replace("-", " ")
