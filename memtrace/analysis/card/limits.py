"""What limits a run, in a sentence: what ran out, what grows, or what the peak consists of and who asked for it.

In: a rank and the findings of the report. Out: text. What ends the run stands before what is merely large.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.advice.find import main_fault
from memtrace.analysis.results.report import Finding, OomResult, RankReport
from memtrace.analysis.sentences.verdict import percent
from memtrace.analysis.sentences.words import line_of
from memtrace.schema.frames import own_frames, short_place
from memtrace.schema.names import Category, category_words
from memtrace.units import format_bytes


def limits_of(rank: RankReport, findings: Sequence[Finding]) -> str:
    """Return what sets the height of the peak, or what ran out."""
    fault, in_pieces = None, _idle_in_pieces(rank, findings)
    if rank.oom is not None and in_pieces is not None:
        fault = main_fault(findings, rank.rank, above=in_pieces)
        if fault is None:
            return _fragmentation(rank.oom)
    leak = next((one for one in findings if one.slug == "leak" and one.rank == rank.rank), None)
    if leak is not None and rank.leaks:
        grows = format_bytes(rank.leaks[0].bytes_per_step)
        return f"A leak: {grows} more stay in use with every step{_at(leak)}."
    return _largest(rank) if fault is None else f"{fault.title}."


def _idle_in_pieces(rank: RankReport, findings: Sequence[Finding]) -> int | None:
    """Return the bytes that fragmentation cost a run that it ended; `None` where it did not."""
    if rank.oom is None or rank.oom.cause != "fragmentation":
        return None
    own = next((one for one in findings if one.slug == "fragmentation" and one.rank == rank.rank), None)
    return (rank.oom.reserved_unallocated_bytes if own is None else own.saves_bytes) or 0


def _fragmentation(oom: OomResult) -> str:
    idle, largest = oom.reserved_unallocated_bytes, oom.largest_free_block_bytes
    pieces = "" if largest is None else f", the largest free block of it {format_bytes(largest)}"
    return f"Fragmentation: {format_bytes(idle)} of what is reserved lie idle in pieces{pieces}."


def _largest(rank: RankReport) -> str:
    """Return the largest category at the peak, and the line that asked for most of it."""
    peak, total = rank.peak, rank.peak.requested_bytes
    if not total:
        return "What the peak is made of was not recorded."
    name = max(peak.by_category, key=lambda one: peak.by_category[one])
    if name == Category.UNKNOWN.value:
        part = "Most" if 2 * peak.by_category[name] > total else "The largest part"
        return f"{part} of the peak is unattributed: nothing recorded says what it is for."
    num_bytes, words = peak.by_category[name], category_words(name)
    head = f"{words[:1].upper()}{words[1:]}, {percent(num_bytes, total)} of the peak"
    # Of a stack that made several kinds, the bytes of this one.
    rows = [one for one in rank.top_stacks if one.by_category.get(name) and own_frames(one.frames)]
    row = max(rows, key=lambda one: one.by_category[name], default=None)
    if row is None:
        return f"{head}."
    return f"{head}; {format_bytes(row.by_category[name])} at {short_place(own_frames(row.frames)[0])}."


def _at(finding: Finding) -> str:
    place = line_of(finding.where)
    return "" if place is None else f", made at {short_place(place)}"
