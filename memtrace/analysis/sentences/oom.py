"""An out-of-memory in words and arithmetic: sentences that follow from one another, put together from its numbers.

In: `OomResult`. Out: text, and a `Finding` whose line is that of what stays from the step before, if anything does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memtrace.allocator.settings import Settings
from memtrace.allocator.sizes import SMALL_SIZE, segment_size
from memtrace.analysis.results.diagnosis import Resident, StepNeeds
from memtrace.analysis.results.report import Finding, Leak, OomResult
from memtrace.analysis.sentences.words import OUTPUTS, line_of, when_and_where
from memtrace.schema.names import Category, category_words
from memtrace.units import format_bytes

_CHANGES = {
    OUTPUTS: "let go of what the step computed before the next forward (del logits, loss)",
    Category.OPTIMIZER_STATE.value: "use an optimizer with less state (8-bit, sharded over ranks, or SGD)",
    Category.GRADIENT.value: "free the gradients before the next forward (optimizer.zero_grad(set_to_none=True))",
}


def explain(oom: OomResult, leaks: Sequence[Leak] = ()) -> tuple[str, ...]:
    """Return why, from what the step before needed to what failed."""
    return (*_needs(oom), *_leaks(oom, leaks), *_device(oom), *_request(oom), *_cause(oom))


def oom_finding(oom: OomResult, rank: int | None) -> Finding:
    """Return the out-of-memory as a finding."""
    needs = oom.needs if oom.needs is None or oom.needs.is_cause else None
    resident = needs.resident if needs is not None else ()
    cause = resident[0].where if resident and line_of(resident[0].where) else oom.where
    change = "; ".join(_CHANGES[one.what] for one in resident if one.what in _CHANGES)
    return Finding(
        slug="oom",
        severity="error",
        title=_title(oom),
        evidence={
            **({} if needs is None else _evidence(needs)),
            "capacity_bytes": oom.capacity_bytes,
            "request_bytes": oom.request_bytes,
            "requested_at": line_of(oom.where),
            "in_use_bytes": oom.in_use_bytes,
            "predicted": oom.predicted,
        },
        change=f"{change[:1].upper()}{change[1:]}; or make the peak smaller with what else stands here."
        if change
        else "Make the peak smaller: smaller micro-batches with accumulation, checkpointing, lower precision.",
        cost="Depends on the change: letting go of outputs and gradients costs nothing.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=rank,
        where=cause,
    )


def _evidence(needs: StepNeeds) -> dict[str, int]:
    """Return what the step before needed, what it left by what that is for, and what the failed one needs."""
    left = {f"left_{one.what}_bytes": one.num_bytes for one in needs.resident}
    return {"step_before_bytes": needs.peak_bytes, **left, "needed_bytes": needs.next_bytes}


def _title(oom: OomResult) -> str:
    needs = oom.needs
    when = when_and_where(oom.step, oom.phase, None)
    head = (
        f"On a device of {format_bytes(oom.capacity_bytes)} this run dies{when}"
        if oom.predicted
        else f"The run ran out of memory{when}"
    )
    if needs is None or not needs.resident or not needs.is_cause:
        return head
    return f"{head}: {left_behind(needs)} of step {needs.step} stays and was not there before"


def left_behind(needs: StepNeeds) -> str:
    """Return what a step left behind, as "18.1 MiB (optimizer state, outputs)"."""
    total = sum(one.num_bytes for one in needs.resident)
    return f"{format_bytes(total)} ({', '.join(_word(one) for one in needs.resident[:3])})"


def _word(resident: Resident) -> str:
    return OUTPUTS if resident.what == OUTPUTS else category_words(resident.what)


def _needs(oom: OomResult) -> Iterator[str]:
    needs = oom.needs
    if needs is None:
        return
    yield f"Step {needs.step} needed {format_bytes(needs.peak_bytes)} at its peak{_in_phase(needs.phase)}."
    if not needs.resident:
        yield "It left nothing behind that was not there before it."
        return
    if not needs.is_cause:
        yield (
            f"What it left behind is no reason for the failure: doing the same again, step {needs.step + 1} would need "
            f"{format_bytes(needs.next_bytes)}. It did something else, or met other data."
        )
        return
    total = format_bytes(sum(one.num_bytes for one in needs.resident))
    yield f"When it was over, {total} more stayed in use than before it: {_list(needs.resident)}."
    yield (
        f"Step {needs.step + 1} therefore needs {format_bytes(needs.next_bytes)}{_in_phase(needs.limited_by)}: "
        f"what step {needs.step} needed, and from its start on what stays."
    )


def _leaks(oom: OomResult, leaks: Sequence[Leak]) -> Iterator[str]:
    """Return what had piled up by the step that failed."""
    for leak in leaks:
        line = line_of(leak.where)
        at = f", made at {line}" if line else ""
        by_now = min(leak.bytes_per_step * ((oom.step or 1) - 1), leak.first_bytes + leak.live_bytes)
        piled = "" if oom.step is None else f": some {format_bytes(by_now)} by this step"
        yield f"From step to step {format_bytes(leak.bytes_per_step)} more stay in use{at}{piled}."


def _in_phase(phase: str | None) -> str:
    return f" ({phase})" if phase else ""


def _list(residents: Sequence[Resident]) -> str:
    parts = []
    for one in residents:
        line = line_of(one.where)
        parts.append(f"{format_bytes(one.num_bytes)} {_word(one)}" + (f" (made at {line})" if line else ""))
    return ", ".join(parts)


def _device(oom: OomResult) -> Iterator[str]:
    capacity = oom.capacity_bytes
    if capacity is None:
        return
    parts = []
    if oom.reserved_bytes is not None:
        parts.append(f"torch had reserved {format_bytes(oom.reserved_bytes)}")
    if oom.non_torch_bytes is not None:
        parts.append(f"others held {format_bytes(oom.non_torch_bytes)} (context, libraries, other processes)")
    if oom.free_bytes is not None and not oom.predicted:
        parts.append(f"{format_bytes(oom.free_bytes)} was free")
    short = None if oom.needs is None or not oom.needs.is_cause else oom.needs.next_bytes - capacity
    if short is not None and short > 0:
        parts.append(f"{format_bytes(short)} too little")
    yield f"The device has {format_bytes(capacity)}" + (f": {', '.join(parts)}." if parts else ".")


def _request(oom: OomResult) -> Iterator[str]:
    if oom.high_water_bytes is not None:
        yield f"Step {oom.step} was not recorded; its high-water mark was {format_bytes(oom.high_water_bytes)}."
        return
    if oom.request_bytes is None:
        yield f"{format_bytes(oom.in_use_bytes)} were in use already when the recording of this stretch began."
        return
    line = line_of(oom.where)
    at = f", at {line}" if line else ""
    use = "" if oom.in_use_bytes is None else f"; {format_bytes(oom.in_use_bytes)} were in use"
    verb = "would fail" if oom.predicted else "failed"
    yield (
        f"The request that {verb}: {format_bytes(oom.request_bytes)}"
        f"{when_and_where(oom.step, oom.phase, oom.module)}{at}{use}."
    )


def _cause(oom: OomResult) -> Iterator[str]:
    if oom.predicted:
        yield (
            "This counts what the program asked for. Rounding to blocks, idle reserved memory and the device's own "
            "context come on top."
        )
    elif is_limited(oom.request_bytes, oom.free_bytes):
        yield (
            f"The device had {format_bytes(oom.free_bytes)} free, which this process was not allowed to take: a limit "
            "is set, as with set_per_process_memory_fraction."
        )
    if oom.predicted or oom.cause is None:
        return
    idle = format_bytes(oom.reserved_unallocated_bytes)
    if oom.cause == "capacity":
        yield (
            f"It was capacity, not fragmentation: {idle} of what was reserved was unallocated, and even in one piece, "
            "with what was free, that would not have been enough."
        )
    else:
        yield (
            f"It was fragmentation: {idle} of what was reserved was unallocated, with what was free enough in all, but "
            f"{largest_block(oom)}."
        )


def largest_block(oom: OomResult) -> str:
    """Return why the largest free block did not serve a request that failed by fragmentation.

    A block that is large enough and was not taken is one that the allocator may not take: blocks of up to 1 MiB have
    segments of their own, as have streams and private pools, and `max_split_size_mb` keeps large ones whole.
    """
    largest, request = oom.largest_free_block_bytes, oom.request_bytes
    if largest is None or request is None or largest < request:
        return f"the largest free block was {format_bytes(largest)}"
    others = "another pool or stream" if request <= SMALL_SIZE else "another pool or stream, or of no size to be split"
    return (
        f"the largest free block, of {format_bytes(largest)}, was of {others}, and a new segment would take "
        f"{format_bytes(segment_size(request, Settings()))}"
    )


def is_limited(request_bytes: int | None, free_bytes: int | None) -> bool:
    """Return whether the device had room for the segment that a request needs: then a limit of the process failed it.

    >>> is_limited(2 * 2**20, 60 * 2**30), is_limited(2 * 2**20, 2 * 2**20)
    (True, False)
    """
    if request_bytes is None or free_bytes is None:
        return False
    return free_bytes >= segment_size(request_bytes, Settings())
