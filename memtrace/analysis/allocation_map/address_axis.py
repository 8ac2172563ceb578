"""Where addresses lie on an axis from which empty address space is taken out, and which memory was reserved when.

In: the segment events and final segments of a device, and its allocations. Out: `SegmentSpans`, `Axis`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.events.moments import SEGMENT_SIGNS
from memtrace.analysis.results.report import AddressRange, SegmentSpans
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, IntArray

_KEPT_GAP = 1 << 16
"""Bytes of empty address space that stay on the axis of host memory: the heap is full of small holes."""

_UNKNOWN, _CLOSED = -2, -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The address axis of one device."""

    ranges: tuple[AddressRange, ...]
    starts: IntArray
    offsets: IntArray
    """By range: what to add to an address to get its place."""

    def places(self, address: IntArray) -> IntArray:
        """Return the place of each address, which must lie in a range."""
        if not len(self.starts):
            return address
        at = np.searchsorted(self.starts, address, side="right") - 1
        return np.asarray(address + self.offsets[np.maximum(at, 0)])

    def placed(self, spans: SegmentSpans) -> SegmentSpans:
        """Return the spans with their places on this axis."""
        return replace(spans, place_bytes=self.places(spans.address))


def build_axis(address: IntArray, size_bytes: IntArray, segments: SegmentSpans, *, is_cpu: bool) -> Axis:
    """Return the axis that holds all allocations and segments, by address; each segment begins a range of its own."""
    starts = np.unique(np.concatenate([address, segments.address]))
    sizes = np.zeros(len(starts), np.int64)
    np.maximum.at(sizes, np.searchsorted(starts, address), size_bytes)
    np.maximum.at(sizes, np.searchsorted(starts, segments.address), segments.size_bytes)
    # An address is used again and again, by smaller ones too: what counts is how far anything before it reaches.
    ends = np.maximum.accumulate(starts + sizes)
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = starts[1:] > ends[:-1] + (_KEPT_GAP if is_cpu else 0)
    begins |= np.isin(starts, segments.address) & np.concatenate([[True], starts[1:] >= ends[:-1]])
    # Each range follows the one before without the gap between them: 0-100 and 5000-5050 are put at 0 and 100.
    first = np.flatnonzero(begins)
    last_end = ends[np.append(first[1:], len(starts)) - 1]
    lengths = last_end - starts[first]
    places = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    ranges = tuple(
        AddressRange(address=int(start), size_bytes=int(length), place_bytes=int(place))
        for start, length, place in zip(starts[first], lengths, places, strict=True)
    )
    return Axis(ranges=ranges, starts=starts[first], offsets=places - starts[first])


def segment_spans(history: DeviceHistory) -> SegmentSpans:
    """Return what was reserved when, from segment events backwards and forwards and the final segments."""
    moment, sign, address, size_bytes = _segment_events(history)
    table = history.rank.table("segments")
    final = np.flatnonzero(table["device"] == history.rank.string_id(history.device))
    if history.is_cpu or (not len(moment) and not len(final)):
        return _spans([], table["address"][:0], table["total_bytes"][:0])
    final_start, final_end = table["address"][final], table["address"][final] + table["total_bytes"][final]
    edges = np.unique(np.concatenate([address, address + size_bytes, final_start, final_end]))
    hard = np.isin(edges, np.concatenate([final_start, address[_is_segment_alloc(history)]]))
    found = _lived(edges, moment, sign, address, size_bytes, final_start, final_end, len(history.moments))
    return _spans(_merged(edges, hard, found), table["address"][final], table["total_bytes"][final], final)


def _segment_events(history: DeviceHistory) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return moment, sign, address and bytes of the segment events, in order."""
    moments, events = history.moments, history.rank.table("events")
    sign = np.zeros(len(moments.rows), np.int64)
    for action, one in SEGMENT_SIGNS.items():
        sign[moments.is_action(history.rank, action)] = one
    chosen = np.flatnonzero((sign != 0) & (events["address"][moments.rows] != NULL))
    rows = moments.rows[chosen]
    return moments.of_event[chosen], sign[chosen], events["address"][rows], events["size_bytes"][rows]


def _is_segment_alloc(history: DeviceHistory) -> npt.NDArray[np.bool_]:
    """Return which segment events begin a segment of their own; mapping into an expandable one does not."""
    moments, events = history.moments, history.rank.table("events")
    is_segment = moments.is_action(history.rank, *SEGMENT_SIGNS) & (events["address"][moments.rows] != NULL)
    return np.asarray(moments.is_action(history.rank, Action.SEGMENT_ALLOC)[is_segment])


def _lived(
    edges: IntArray,
    moment: IntArray,
    sign: IntArray,
    address: IntArray,
    size_bytes: IntArray,
    final_start: IntArray,
    final_end: IntArray,
    num_moments: int,
) -> list[tuple[int, int, int]]:
    """Return (piece, start, end) for each time that the stretch between two edges was reserved.

    A loop over segment events, of which there are few. A stretch that is given back, or that is there at the end,
    without ever having been taken was there from the start.
    """
    since = [_UNKNOWN] * max(len(edges) - 1, 0)
    found: list[tuple[int, int, int]] = []
    firsts, lasts = np.searchsorted(edges, address), np.searchsorted(edges, address + size_bytes)
    for when, one, first, last in zip(moment.tolist(), sign.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        for piece in range(first, last):
            if one > 0 and since[piece] < 0:
                since[piece] = when
            elif one < 0 and since[piece] != _CLOSED:
                found.append((piece, max(since[piece], 0), when))
                since[piece] = _CLOSED
    for first, last in zip(np.searchsorted(edges, final_start), np.searchsorted(edges, final_end), strict=True):
        for piece in range(int(first), int(last)):
            if since[piece] != _CLOSED:
                found.append((piece, max(since[piece], 0), num_moments))
                since[piece] = _CLOSED
    # Taken, and in no final snapshot: there is none, or it was cut off.
    found += [(piece, start, num_moments) for piece, start in enumerate(since) if start >= 0]
    return found


def _merged(
    edges: IntArray, hard: npt.NDArray[np.bool_], pieces: list[tuple[int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Return (start, end, address, bytes), neighbours of the same lifetime joined unless a segment begins between."""
    merged: list[tuple[int, int, int, int]] = []
    last_piece = None
    for piece, start, end in sorted(pieces, key=lambda one: (one[1], one[2], one[0])):
        address, size = int(edges[piece]), int(edges[piece + 1] - edges[piece])
        if merged and last_piece == piece - 1 and merged[-1][:2] == (start, end) and not hard[piece]:
            merged[-1] = (start, end, merged[-1][2], merged[-1][3] + size)
        else:
            merged.append((start, end, address, size))
        last_piece = piece
    return sorted(merged, key=lambda one: (one[2], one[0]))


def _spans(
    rows: list[tuple[int, int, int, int]], final_start: IntArray, final_bytes: IntArray, final: IntArray | None = None
) -> SegmentSpans:
    columns = np.array(rows, np.int64).reshape(-1, 4)
    start, end, address, size_bytes = columns.T
    segment = np.full(len(columns), -1, np.int64)
    if final is not None and len(final):
        order = np.argsort(final_start, kind="stable")
        at = np.maximum(np.searchsorted(final_start[order], address, side="right") - 1, 0)
        inside = (address >= final_start[order][at]) & (address < (final_start + final_bytes)[order][at])
        segment = np.where(inside, final[order][at], -1)
    return SegmentSpans(
        start=start,
        end=end,
        address=address,
        size_bytes=size_bytes,
        place_bytes=np.zeros(len(columns), np.int64),
        segment=segment,
    )
