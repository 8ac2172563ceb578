"""The verdict: in a sentence or two, what the report comes to.

In: the reports of all ranks, and the findings. Out: text. What killed the run comes first, else the peak: when it was
and what it is made of; then what is wrong, if a finding warns of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import Finding, Note, OomResult, Peak, PredictedPeak, RankReport
from memtrace.analysis.sentences.death import death_of
from memtrace.analysis.sentences.oom import largest_block, left_behind
from memtrace.analysis.sentences.peak_moment import when_of_peak
from memtrace.analysis.sentences.time import time_sentence
from memtrace.analysis.sentences.unrecorded_steps import higher_step, of_recorded
from memtrace.analysis.sentences.words import when_and_where
from memtrace.schema.names import Category, Decision, category_words
from memtrace.units import format_bytes


def main_rank(ranks: Sequence[RankReport]) -> int | None:
    """Return the position of the rank to speak of: the first out of memory, else the accelerator that peaks highest."""
    failed = [at for at, rank in enumerate(ranks) if rank.oom is not None]
    if failed:
        return failed[0]
    known = [at for at, rank in enumerate(ranks) if peak_bytes(rank.peak)]
    accelerators = [at for at in known if ranks[at].device != "cpu"]
    return max(accelerators or known, key=lambda at: peak_bytes(ranks[at].peak) or 0, default=None)


def verdict(ranks: Sequence[RankReport], findings: Sequence[Finding] = (), notes: Sequence[Note] = ()) -> str:
    """Return the verdict of a whole report; findings come in the order in which they are shown, `notes` are its own."""
    chosen = main_rank(ranks)
    death = death_of(ranks, notes)
    died = "" if death is None else f"{death.sentence} "
    if chosen is None:
        time = time_sentence(ranks)
        if time is not None:
            return f"{died}No memory was recorded. {time}{_warned(findings)}"
        return f"{died}No memory was recorded: there is nothing in this file to report on."
    rank = ranks[chosen]
    if rank.oom is not None:
        # Of a death by nothing but an out-of-memory, the sentence about that tells more.
        return ("" if death is not None and death.kind == "oom" else died) + _who(rank, ranks) + _oom_sentence(rank)
    # That a rank died is told already, where a sentence says of what.
    own = [one for one in findings if one.rank == rank.rank or (one.slug == "rank-died" and death is None)]
    return died + _who(rank, ranks) + _peak_sentence(rank) + _ahead(rank) + _warned(own)


def _warned(findings: Sequence[Finding]) -> str:
    """Return what the first finding warns of, and where; nothing where all that is found is advice."""
    # An out-of-memory that lies ahead is told already.
    if not findings or findings[0].severity == "info" or findings[0].slug == "oom":
        return ""
    title, where = findings[0].title, findings[0].where or {}
    file, line = where.get("file"), where.get("line")
    return f" {title}{f' ({file}:{line})' if file and line else ''}."


def peak_bytes(peak: Peak) -> int | None:
    """Return how high a peak is: allocated bytes, requested where that is not known."""
    return peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes


def _who(rank: RankReport, ranks: Sequence[RankReport]) -> str:
    """Return which rank or device is meant, where there are several."""
    if len({one.rank for one in ranks}) > 1 and rank.rank is not None:
        return f"Rank {rank.rank}: "
    return f"{rank.device}: " if len(ranks) > 1 else ""


def _peak_sentence(rank: RankReport) -> str:
    peak = rank.peak
    size = format_bytes(peak_bytes(peak))
    if peak.time_ns is None and peak.event is None:
        reserved = "" if peak.reserved_bytes is None else f" of {format_bytes(peak.reserved_bytes)} reserved"
        return f"{size} are allocated{reserved} at the moment of the snapshot; it holds no history."
    share = (
        "" if rank.capacity_bytes is None else f" ({percent(peak_bytes(peak) or 0, rank.capacity_bytes)} of the device)"
    )
    return f"Memory peaks at {size}{share}{when_of_peak(rank)}{of_recorded(rank)}{_made_of(peak)}.{higher_step(rank)}"


def _ahead(rank: RankReport) -> str:
    """Return what the steps to come will need, where the recording ends before any of them did."""
    peak = rank.steady_state_peak
    if not isinstance(peak, PredictedPeak):
        return ""
    if peak.capacity_bytes is None:
        return f" From step 2 on, about {format_bytes(peak.requested_bytes)} are to be expected."
    needed, capacity = format_bytes(peak.needed_bytes), format_bytes(peak.capacity_bytes)
    if peak.fits is None:
        return f" From step 2 on, about {needed} will be needed of {capacity}: too close to tell whether that fits."
    answer = "that fits" if peak.fits else "that does not fit"
    return f" From step 2 on, about {needed} will be needed of {capacity}: {answer}."


def _made_of(peak: Peak) -> str:
    """Return the two largest categories with their shares."""
    total = peak.requested_bytes
    if not total:
        return ""
    largest = sorted(peak.by_category.items(), key=lambda item: -item[1])[:2]
    if largest[0][0] == Category.UNKNOWN.value and largest[0][1] == total:
        return "; what it is for was not recorded"
    parts = [f"{percent(num_bytes, total)} {category_words(name)}" for name, num_bytes in largest if num_bytes]
    exact = sum(peak.by_decision.get(one.value, 0) for one in (Decision.OWNER, Decision.HOOK))
    known = total - peak.by_category.get(Category.UNKNOWN.value, 0)
    # A guess is never told as a fact.
    doubt = ", as stacks and lifetimes suggest" if 2 * exact < known else ""
    return "; " + " and ".join(parts) + doubt


def _oom_sentence(rank: RankReport) -> str:
    oom = rank.oom
    assert oom is not None
    if oom.predicted:
        return _predicted_sentence(oom)
    sentence = f"Out of memory{when_and_where(oom.step, oom.phase, oom.module)}: "
    sentence += f"{format_bytes(oom.request_bytes)} were asked for"
    if oom.free_bytes is not None:
        sentence += f" with {format_bytes(oom.free_bytes)} free on the device"
    if oom.reserved_unallocated_bytes is not None:
        sentence += f" and {format_bytes(oom.reserved_unallocated_bytes)} reserved but unallocated"
    return sentence + _because(oom) + _since_the_step_before(oom) + "."


def _predicted_sentence(oom: OomResult) -> str:
    """Return what would have happened on a device of the given capacity, to a run that went on."""
    head = f"On a device of {format_bytes(oom.capacity_bytes)} this run would have died"
    head += when_and_where(oom.step, oom.phase, oom.module)
    if oom.high_water_bytes is not None:
        mark = format_bytes(oom.high_water_bytes)
        return f"{head}, which was not recorded: {mark} were in use at its highest."
    if oom.request_bytes is None:
        return f"{head}, or before: more was in use already when this stretch of the recording began."
    asked = f"{format_bytes(oom.request_bytes)} asked for and {format_bytes(oom.in_use_bytes)} in use"
    return f"{head}, with {asked}{_since_the_step_before(oom)}."


def _since_the_step_before(oom: OomResult) -> str:
    """Return what the step before left behind, if that is what makes the next one larger."""
    needs = oom.needs
    if needs is None or not needs.resident or not needs.is_cause or needs.next_bytes <= needs.peak_bytes:
        return ""
    return (
        f". Step {needs.step} needed {format_bytes(needs.peak_bytes)}; what it left behind, {left_behind(needs)}, "
        f"makes that {format_bytes(needs.next_bytes)}"
    )


def _because(oom: OomResult) -> str:
    if oom.cause == "capacity":
        return "; no arrangement of what is free would have been enough"
    if oom.cause == "fragmentation":
        return f"; enough in all, but {largest_block(oom)}"
    return ""


def percent(part: int, whole: int) -> str:
    """Return a share in whole percent.

    >>> percent(1, 3), percent(1, 1000)
    ('33 %', 'under 1 %')
    """
    share = 100 * part / whole if whole else 0.0
    return "under 1 %" if 0 < share < 0.5 else f"{share:.0f} %"
