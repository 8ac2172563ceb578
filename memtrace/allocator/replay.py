"""Replays a recording through the model and compares every address and every segment event with the record.

In: a rank and a device. Out: `Replay`: the fidelity, and the levels of memory after each event.

What the model is given: sizes, streams and order of requests and frees, when a free completed, and where a new segment
lies. What it predicts: which block every alloc gets, when a segment is taken or given back and how large it is. A
recorded address of an alloc is read only after the model has handed out a block. After a mismatch the model adopts what
is recorded, so that one divergence does not spoil the rest.

A used block of the initial state may be larger than its request by a remainder that nobody can know (see `initial`).
Where a prediction fails and such a remainder explains it, it is inferred, the alloc that told it never counts as
matched, and the replay starts again with it.

A history that does not follow from its start (events are missing, files were joined) contradicts the model again and
again: its proof is given up once looking for explanations has cost as much as `Effort` allows.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass

import numpy as np

from memtrace.allocator.blocks import Block, Pool
from memtrace.allocator.history import (
    ALLOC,
    FREE_COMPLETED,
    FREE_REQUESTED,
    SEGMENT_ALLOC,
    SEGMENT_MAP,
    SEGMENT_UNMAP,
    History,
    end_of_releases,
    flushed_retries,
    freed_at_once,
    read_history,
    reserved_deltas,
)
from memtrace.allocator.initial import InconsistentHistoryError, Initial, build, check_possible, find_initial
from memtrace.allocator.recorded import (
    Effort,
    GivenUpError,
    RecordedDevice,
    adopt,
    apply_segment_event,
    num_free_blocks,
)
from memtrace.allocator.recorded_releases import may_be_flush, predicted_releases
from memtrace.allocator.repeats import find_repeat, repeat_values, state_key
from memtrace.allocator.results import AllocatorState, Divergence, Fidelity, IntArray, Replay
from memtrace.allocator.settings import Settings, settings_of_snapshot
from memtrace.allocator.sizes import SMALL_SIZE, rounded_sizes, rounding
from memtrace.allocator.slack import Told, infer_age, infer_slack, open_blocks
from memtrace.allocator.state import state_of
from memtrace.allocator.unsure import unsure_levels
from memtrace.schema.names import DEFAULT_POOL
from memtrace.store.trace import RankTrace

_UNKNOWN_SETTING = "a setting that the recording does not hold, as a memory limit"
_UNKNOWN_BLOCK = "the size of a block that was in use before the history, or a setting that the recording does not hold"
_MAX_PASSES = 12
"""Replays with ever more inferred blocks; what is still wrong then is a mismatch."""
_MAX_IN_VAIN = 2
"""Of them, those in a row that leave as much unexplained as the best before."""
_MAX_SETTLING = 4
"""Periods after which the model has to be where it was one before, if repeated events are not to be replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A history that can be replayed."""

    history: History
    """The events of one device."""
    initial: Initial
    """What was there before the first of them."""
    settings: Settings
    """How the allocator was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A history that cannot be replayed, and why: one sentence."""

    history: History
    """The events of one device."""
    reason: str
    """Why they cannot be replayed, in a sentence."""


def replay_device(rank: RankTrace, device: str, *, infer_share: float = 1.0) -> Replay:
    """Return the replay of one device's history.

    With an `infer_share` below 1 sizes of initial blocks are inferred only from that first share of the events, and
    only the events after it are scored.
    """
    return replay_prepared(prepare(rank, device), infer_share=infer_share)


def prepare(rank: RankTrace, device: str) -> Prepared | Refused:
    """Return a device's history and the state before it."""
    history = read_history(rank, device)
    settings = settings_of_snapshot(rank.header.get("allocator_settings") or {}, rank.header.get("environment"))
    if history.problem is not None:
        return Refused(history=history, reason=history.problem)
    if settings.backend != "native":
        return Refused(history=history, reason="The cudaMallocAsync backend leaves no record that can be replayed.")
    try:
        initial = find_initial(history, settings)
        check_possible(history, initial)
    except InconsistentHistoryError as error:
        return Refused(history=history, reason=f"{error} The file was edited, or events are missing.")
    return Prepared(history=history, initial=initial, settings=settings)


def replay_prepared(prepared: Prepared | Refused, *, infer_share: float = 1.0) -> Replay:
    """Return the replay of a prepared history; see `replay_device`. Affects: what is inferred of the initial state."""
    if isinstance(prepared, Refused):
        return _not_replayable(prepared.history, prepared.reason)
    num_events = len(prepared.history.rows)
    first_scored = round(num_events * infer_share) if infer_share < 1 else 0
    replayer = _with_inference(prepared, infer_until=first_scored or num_events)
    if replayer.given_up_at is not None:
        return _not_replayable(prepared.history, _contradiction(replayer))
    return _result(prepared, replayer, first_scored)


def state_at(rank: RankTrace, device: str, row: int) -> AllocatorState | None:
    """Return segments and blocks after the event of a row (before the first one: at the start).

    `None` if the history cannot be replayed.
    """
    prepared = prepare(rank, device)
    if isinstance(prepared, Refused):
        return None
    if _with_inference(prepared, infer_until=len(prepared.history.rows)).given_up_at is not None:
        return None
    replayer = Replayer(prepared)
    replayer.run(stop=int(np.searchsorted(prepared.history.rows, row, side="right")))
    return state_of(replayer.allocator)


def _with_inference(prepared: Prepared, *, infer_until: int) -> Replayer:
    """Return the replay with everything inferred that can be. Affects: `initial.extra`."""
    told_by: dict[int, int] = {}
    effort, fewest, num_in_vain = Effort(len(prepared.history.rows)), len(prepared.history.rows) + 1, 0
    for _ in range(_MAX_PASSES):
        replayer = Replayer(prepared, infer_until=infer_until, effort=effort)
        replayer.run()
        if replayer.given_up_at is not None or not replayer.told_by:
            break
        told_by |= replayer.told_by
        # What is inferred is to explain what was not. One pass may tell of a thing that only the next can use: where
        # as much is left after that, one more will not do it.
        unexplained = len(replayer.wrong)
        num_in_vain = num_in_vain + 1 if unexplained >= fewest else 0
        if num_in_vain > _MAX_IN_VAIN:
            break
        fewest = min(fewest, max(unexplained, 1))
    replayer.told_by = told_by
    return replayer


def _contradiction(replayer: Replayer) -> str:
    """Return why the proof of a history was given up, as one sentence."""
    return (
        f"The history does not follow from its start: {len(replayer.wrong):,} of its first {replayer.given_up_at:,} "
        f"events contradict the allocator's rules, so that the proof was given up; events are missing, or files were "
        "joined."
    )


class Replayer:
    """One pass over a history."""

    def __init__(self, prepared: Prepared, *, infer_until: int = 0, effort: Effort | None = None) -> None:
        self.history = prepared.history
        self.initial = prepared.initial
        self.settings = prepared.settings
        self.device = RecordedDevice(self.history)
        self.allocator = build(self.initial, self.settings, self.device)
        self.infer_until = infer_until
        self.told_by: dict[int, int] = {}
        """By address of a block whose size was inferred in this pass, the last alloc that told it; by a number below 0
        for which of two segments is older."""
        self.wrong: set[int] = set()
        """Events that the model did not predict, and that nothing explains."""
        self.explained: set[int] = set()
        """Allocs that it did not predict in this pass, because it did not know a size that they told."""
        self.first_divergence: Divergence | None = None
        self.given_up_at: int | None = None
        """How many events had been replayed when the proof was given up; `None` if it was not."""
        self._effort = effort or Effort(len(self.history.rows))
        self._unsure = open_blocks(self.initial)
        self.block_bytes: IntArray = np.zeros(0, np.int64)
        """Bytes of the block of each event, once it has run."""
        self._bytes = [0] * len(self.history.rows)
        self._repeated: list[tuple[int, int, int]] = []
        """Stretches of events that were left out, and their period."""
        self._releases: list[tuple[str, int]] = []
        self._releases_end = -1
        self._retries: set[int] = set()
        """Allocs that take new memory without a search: they failed, flushed, and were tried again."""

    def run(self, *, stop: int | None = None) -> None:
        """Replay the events up to a position. Cyclic garbage collection is off meanwhile: blocks are linked both ways,
        and are freed without it."""
        was_on = gc.isenabled()
        gc.disable()
        try:
            self._run(len(self.history.rows) if stop is None else stop)
        except GivenUpError:
            self.given_up_at = max(self.wrong) + 1
        finally:
            if was_on:
                gc.enable()

    def _run(self, stop: int) -> None:
        self._at_once = freed_at_once(self.history)
        self._flushes = flushed_retries(self.history, self._at_once)
        self._replay(self._over_repeats(stop), stop)
        values = np.array(self._bytes, np.int64)
        for start, end, period in self._repeated:
            repeat_values(values, start, end, period)
        at_once = np.flatnonzero(self._at_once[: stop - 1])
        values[at_once] = values[at_once + 1]
        self.block_bytes = values

    def _over_repeats(self, stop: int) -> int:
        """Replay the first events, and leave out what only repeats them. Return the event to go on at."""
        can_repeat = not self.settings.garbage_collection_threshold and self.history.pool_ids is None
        repeat = find_repeat(self.history) if can_repeat else None
        if repeat is None or repeat.start >= stop:
            return 0
        at, last = repeat.start, min(repeat.stop, stop)
        self._replay(0, at)
        for _ in range(_MAX_SETTLING):
            if at + 2 * repeat.period > last:
                break
            before, num_wrong = state_key(self.allocator), len(self.wrong) + len(self.explained)
            self._replay(at, at + repeat.period)
            at += repeat.period
            is_as_predicted = num_wrong == len(self.wrong) + len(self.explained)
            if is_as_predicted and self._is_between_requests(at) and state_key(self.allocator) == before:
                end = at + (last - at) // repeat.period * repeat.period
                self._repeated.append((at, end, repeat.period))
                return end
        return at

    def _is_between_requests(self, at: int) -> bool:
        """Return whether nothing that began before an event ends after it."""
        return not self.device.waiting and at >= self._releases_end and all(one < at for one in self._retries)

    def _replay(self, start: int, stop: int) -> None:
        """The hot loop: about half a µs an event beside what the allocator itself costs."""
        history, allocator, waiting = self.history, self.allocator, self.device.waiting
        retries = self._flushes
        chosen = np.flatnonzero(~self._at_once[start:stop]) + start
        columns = (history.action, history.address, history.size, history.stream)
        sizes = rounded_sizes(history.size[chosen], self.settings)
        events = zip(chosen.tolist(), sizes, *(column[chosen].tolist() for column in columns), strict=True)
        pool_ids = history.pool_ids
        block_bytes = self._bytes
        small, large, live = allocator.small, allocator.large, allocator.live
        find, hand_out, complete = allocator.find, allocator.hand_out, allocator.complete_free
        for at, size, action, address, requested, stream in events:
            if action == ALLOC:
                pool = small if size <= SMALL_SIZE else large
                if pool_ids is not None:
                    pool = allocator.pools(pool_ids[at] or DEFAULT_POOL)[size > SMALL_SIZE]
                block = self._grown(at, pool, size, stream) if waiting else find(pool, size, stream)
                if block is not None:
                    block = hand_out(block, size, requested)
                    # Only here, when the model has chosen, is the recorded address looked at.
                    if block.address == address:
                        block_bytes[at] = block.size
                        continue
                block_bytes[at] = self._mismatch(at, block, size, address)
            elif action == FREE_COMPLETED:
                if at in retries:
                    self._note_retry(at, retries[at])
                if address in live:
                    block_bytes[at] = complete(address)
            elif action == FREE_REQUESTED:
                if address in live:
                    block_bytes[at] = allocator.request_free(address)
            elif action in (SEGMENT_ALLOC, SEGMENT_MAP):
                waiting.append(at)
            elif action <= SEGMENT_UNMAP:
                self._released(at)
        # The row of the request, which the loop left out, is about the same block as the row below it.

    def _grown(self, at: int, pool: Pool, size: int, stream: int) -> Block | None:
        """Return the block, in no pool, that the model takes for an alloc before which the record says that memory was
        taken from the device."""
        found, wrong = self.device.serve(self.allocator, pool, size, stream, searches=at not in self._retries)
        for event in wrong:
            self._diverge(
                event, "takes no memory of this size here", "has a segment event", "another allocator setting"
            )
        return found

    def _note_retry(self, first: int, at: int) -> None:
        """Search for an alloc before the frees that its flush completes; if nothing fits, it takes new memory."""
        allocator, size = self.allocator, int(self.history.size[at])
        if not may_be_flush(allocator, self.history, first):
            return
        size = rounding(self.settings)(size)
        pool = allocator.large if size > SMALL_SIZE else allocator.small
        block = allocator.find(pool, size, int(self.history.stream[at]))
        if block is None:
            self._retries.add(at)
        else:
            pool.insert(block)

    def _released(self, at: int) -> None:
        """Compare and apply one event that gives memory back."""
        if at >= self._releases_end:
            self._releases_end = end_of_releases(self.history, at)
            self._releases = predicted_releases(self.allocator, self.history, at, self._releases_end)
        action = "unmap" if self.history.action[at] == SEGMENT_UNMAP else "free"
        size = int(self.history.size[at])
        predicted = self._releases.pop(0) if self._releases else None
        applied = apply_segment_event(self.allocator, self.history, at)
        if predicted != (action, size) or not applied:
            expected = (
                "gives nothing back" if predicted is None else f"gives back {predicted[1]} bytes ({predicted[0]})"
            )
            self._diverge(at, expected, f"has {action} of {size} bytes", _UNKNOWN_SETTING)
        elif at + 1 == self._releases_end and self._releases:
            self._diverge(at, f"gives back {len(self._releases)} more", "has no more", _UNKNOWN_SETTING)

    def _mismatch(self, at: int, block: Block | None, size: int, recorded: int) -> int:
        """Infer what explains that the model chose another block, else adopt what is recorded. Return its bytes."""
        allocator, requested = self.allocator, int(self.history.size[at])
        predicted = None if block is None else block.address
        if block is not None:
            allocator.complete_free(block.address)
        stream = int(self.history.stream[at])
        told = None
        if at < self.infer_until:
            told = self._explained(at, block, size, address=recorded)
        if told is None:
            chosen = "finds no free block" if predicted is None else f"takes {predicted:#x}"
            self._diverge(at, chosen, f"has {recorded:#x} for {requested} bytes", _UNKNOWN_BLOCK)
        else:
            if told.about < 0 or told.about in self.told_by:
                self._effort.look_at(num_free_blocks(allocator))
            self.told_by[told.about] = told.by
            self.explained.add(at)
        return adopt(allocator, recorded, size, requested, stream)

    def _explained(self, at: int, predicted: Block | None, size: int, *, address: int) -> Told | None:
        """Return what of the initial state explains that an alloc is at this address, if that can be inferred."""
        until = self.infer_until
        state = (self.allocator, self.initial, self._unsure)
        found = infer_slack(*state, at=at, until=until, size=size, predicted=predicted, recorded=address)
        return found or infer_age(*state, at=at, size=size, predicted=predicted, recorded=address)

    def _diverge(self, at: int, expected: str, recorded: str, cause: str) -> None:
        self.wrong.add(at)
        self._effort.look_at(num_free_blocks(self.allocator))
        if self.first_divergence is None:
            row = int(self.history.rows[at])
            self.first_divergence = Divergence(event=row, expected=expected, recorded=recorded, cause=cause)


def _result(prepared: Prepared, replayer: Replayer, first_scored: int) -> Replay:
    history = prepared.history
    start = state_of(build(prepared.initial, prepared.settings, RecordedDevice(history)))
    unsure, unsure_start, num_unsure = unsure_levels(history, prepared.initial)
    action, moved = history.action, replayer.block_bytes
    scored = np.arange(len(action)) >= first_scored
    is_alloc = scored & (action == ALLOC)
    is_segment = scored & (action >= SEGMENT_ALLOC) & (action <= SEGMENT_UNMAP)
    wrong = np.zeros(len(action), np.bool_)
    wrong[[*replayer.wrong, *replayer.explained, *replayer.told_by.values()]] = True
    divergence = replayer.first_divergence
    if divergence is not None and divergence.event < history.rows[min(first_scored, len(history.rows) - 1)]:
        divergence = None
    return Replay(
        device=history.device,
        fidelity=Fidelity(
            allocations=int(is_alloc.sum()),
            allocations_matched=int((is_alloc & ~wrong).sum()),
            segment_events=int(is_segment.sum()),
            segment_events_matched=int((is_segment & ~wrong).sum()),
            num_inferred_blocks=len(prepared.initial.extra) + len(prepared.initial.older),
            first_divergence=divergence,
            replayable=True,
            reason=history.note,
        ),
        rows=history.rows,
        block_bytes=moved,
        allocated_bytes=start.allocated_bytes + np.cumsum(_allocated_deltas(history, moved)),
        active_bytes=start.active_bytes + np.cumsum(moved * ((action == ALLOC) * 1 - (action == FREE_COMPLETED) * 1)),
        reserved_bytes=start.reserved_bytes + np.cumsum(reserved_deltas(history)),
        unsure_bytes=unsure,
        unsure_start_bytes=unsure_start,
        num_unsure_blocks=num_unsure,
        start=start,
        end=state_of(replayer.allocator),
    )


def _allocated_deltas(history: History, moved: IntArray) -> IntArray:
    """Return by how much each event changes what is handed out: a free counts when it is requested, if that is said."""
    action = history.action
    deltas: IntArray = moved * ((action == ALLOC) * 1 - (action == FREE_REQUESTED) * 1)
    if not np.any(action == FREE_REQUESTED):
        deltas -= moved * (action == FREE_COMPLETED)
    return deltas


def _not_replayable(history: History, reason: str) -> Replay:
    action, nothing = history.action, np.zeros(0, np.int64)
    fidelity = Fidelity(
        allocations=int((action == ALLOC).sum()),
        allocations_matched=0,
        segment_events=int(((action >= SEGMENT_ALLOC) & (action <= SEGMENT_UNMAP)).sum()),
        segment_events_matched=0,
        num_inferred_blocks=0,
        first_divergence=None,
        replayable=False,
        reason=reason,
    )
    return Replay(
        device=history.device,
        fidelity=fidelity,
        rows=nothing,
        block_bytes=nothing,
        allocated_bytes=nothing,
        active_bytes=nothing,
        reserved_bytes=nothing,
        unsure_bytes=nothing,
        unsure_start_bytes=0,
        num_unsure_blocks=0,
        start=None,
        end=None,
    )
