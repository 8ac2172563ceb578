"""The events of a long history as columns, without a Python object for each.

In: the bytes of a snapshot's pickle. Out: the same plain value that the unpickler gives, but for the long histories in
it: each of these is a `PackedEvents`. Nine tenths of such a pickle are lists of references to the same few hundred
frames; making these lists, and comparing them, takes most of the time of a report.

Nothing is guessed. Events that have a *shape* (see `event_shapes`) and follow each other without a gap are cut out of
the pickle, and one *stand-in* takes the place of each such run; what is left goes through the unpickler, which runs
nothing (see `restricted_pickle`). That the first cut was at an opcode, and that it was an event of a history, is
known once the unpickler has returned every stand-in, in order, where only an event can be: each holds a number that
nobody could have written into the file. A stand-in is remembered as often as what was cut, so that all later references
of the pickle stay right, and asks for its own first and last place in the memo, so that references into what was cut
can be told (see `event_runs`). Where anything does not fit, nothing is packed, and the file is read event by event.
"""

from __future__ import annotations

import io
import os
import struct
from typing import IO, Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Action
from memtrace.store.columns import IntArray
from memtrace.store.snapshots.event_runs import find_runs, first_uses, get_opcode
from memtrace.store.snapshots.event_scan import ABSENT, Scan, UnlikeError, scan_events
from memtrace.store.snapshots.restricted_pickle import load_plain_pickle

LEAST_BYTES = 4_000_000
"""A smaller pickle is loaded in less than a tenth of a second."""
_FRAME = 0x95
_KNOWN_ACTIONS = frozenset(action.value for action in Action)
_INTS = ("size", "addr", "stream", "time_us")
"""Fields of an event that become columns."""
_PADDING = 512
"""Zeros behind the opcodes, so that no look at an event leaves the data."""


class PackedEvents:
    """A history: some events as dicts, the others as columns. A place is a position in the history."""

    __slots__ = ("action", "actions", "dict_at", "dicts", "ints", "keys", "num_events", "packed_at", "stack", "stacks")

    def __init__(self, actions: list[str], stacks: list[Any]) -> None:
        self.num_events = 0
        self.dicts: list[Any] = []
        self.dict_at: list[int] = []
        """Place of each dict."""
        self.packed_at: IntArray = np.zeros(0, np.int64)
        """Place of each packed event."""
        self.ints: dict[str, IntArray] = {}
        """Of the packed events, by the name of the field."""
        self.keys: frozenset[Any] = frozenset()
        """What the packed events hold."""
        self.action: IntArray = self.packed_at
        """Of the packed events, in `actions`."""
        self.actions = actions
        self.stack: IntArray = self.packed_at
        """Of the packed events, in `stacks`."""
        self.stacks = stacks
        """Lists of frames."""

    def __len__(self) -> int:
        return self.num_events

    @property
    def first_keys(self) -> frozenset[Any]:
        """What the first event holds."""
        return frozenset(self.dicts[0]) if self.dict_at[:1] == [0] else self.keys

    def merged(self, of_dicts: IntArray, of_packed: IntArray) -> IntArray:
        """Return one column of all events."""
        column = np.empty(self.num_events, np.int64)
        column[self.dict_at] = of_dicts
        column[self.packed_at] = of_packed
        return column


def load_snapshot(file: IO[bytes], *, size_bytes: int, where: str) -> Any:
    """Return the plain value in the open pickle of a snapshot, a long history as `PackedEvents`.

    Raises:
        TraceReadError: as `load_plain_pickle`.
    """
    if size_bytes >= LEAST_BYTES:
        start = file.tell()
        packed = packed_snapshot(file.read(), where=where)
        if packed is not None:
            return packed
        file.seek(start)
    return load_plain_pickle(file, size_bytes=size_bytes, where=where)


def packed_snapshot(content: bytes, *, where: str) -> Any | None:
    """Return what the pickle of a snapshot holds, its histories packed; `None` where it cannot be told so."""
    try:
        return _packed(_unframed(content), where)
    except (UnlikeError, TraceReadError, MemoryError, struct.error, LookupError, TypeError, AttributeError):
        return None


def _unframed(content: bytes) -> bytes:
    """Return the opcodes of a pickle without the frames that they are written in, and zeros behind them."""
    if len(content) < 11 or content[0] != 0x80 or content[1] < 4 or content[2] != _FRAME:
        raise UnlikeError
    view, at = memoryview(content), 2
    pieces = [view[:2]]
    while at < len(content):
        if content[at] != _FRAME:
            raise UnlikeError
        (length,) = struct.unpack_from("<Q", content, at + 1)
        at += 9
        if at + length > len(content):
            raise UnlikeError
        pieces.append(view[at : at + length])
        at += length
    return b"".join([*pieces, bytes(_PADDING)])


def _packed(data: bytes, where: str) -> Any:
    scan = scan_events(data)
    packing = _Packing(data, scan)
    value = load_plain_pickle(io.BytesIO(packing.rewritten()), size_bytes=len(data), where=where)
    packing.take(value)
    return value


class _Packing:
    """The runs of one pickle: what stands in for them, and what they come back as."""

    def __init__(self, data: bytes, scan: Scan) -> None:
        self.data = data
        self.scan = scan
        self.runs = find_runs(scan)
        self._number = os.urandom(16)
        self._asked: list[list[tuple[str, int]]] = [[] for _ in range(len(self.runs.first))]
        """What each stand-in holds: a key, an action or a stack with its number, or another reference."""

    def rewritten(self) -> bytes:
        """Return the pickle with stand-ins for the runs."""
        runs, data = self.runs, self.data
        if not len(runs.first):
            raise UnlikeError
        self._asked[0] += [("key", at) for at in range(len(self.scan.keys))]
        for name, column, opcodes in (
            ("action", runs.action, runs.action_opcodes),
            ("stack", runs.stack, runs.stack_opcodes),
        ):
            in_run = np.searchsorted(runs.offset, first_uses(column, len(opcodes)), side="right") - 1
            for code, run in enumerate(in_run.tolist()):
                self._asked[run].append((name, code))
        for run, others in enumerate(runs.others):
            self._asked[run] += [("other", number) for number in others]
        pieces, at = [], 0
        for run, (start, stop) in enumerate(zip(runs.start.tolist(), runs.stop.tolist(), strict=True)):
            pieces += [data[at:start], self._stand_in(run)]
            at = stop
        return b"".join([*pieces, data[at:-_PADDING]])

    def _token(self, run: int) -> bytes:
        return self._number + run.to_bytes(8, "little")

    def _stand_in(self, run: int) -> bytes:
        """Return a list of the token and what is asked for, remembered often enough; then its places in the memo."""
        asked = b"".join(self._opcodes(name, code) for name, code in self._asked[run])
        token, times = self._token(run), int(self.runs.num_remembered[run])
        text = b"](C" + bytes([len(token)]) + token + asked + b"e" + b"\x94" * times
        base = int(self.runs.memo_base[run])
        if base == ABSENT:
            return text
        return text + b"](j" + struct.pack("<I", base) + b"j" + struct.pack("<I", base + times - 1) + b"e"

    def _opcodes(self, name: str, code: int) -> bytes:
        """Return what makes the unpickler give what is asked for."""
        if name == "key":
            return self.scan.keys[code]
        if name == "action":
            return self.runs.action_opcodes[code]
        return self.runs.stack_opcodes[code] if name == "stack" else get_opcode(code)

    def take(self, value: Any) -> None:
        """Put the packed events in the place of the stand-ins. Affects: the histories of the value.

        Raises:
            UnlikeError: a stand-in is not where it should be.
        """
        told: dict[tuple[str, int], Any] = {}
        next_run, places = 0, list[tuple[int, PackedEvents, int, int]]()
        actions: list[str] = []
        stacks: list[Any] = []
        for index, trace in enumerate(value["device_traces"]):
            packed = PackedEvents(actions, stacks)
            first_run, next_run = next_run, self._split(trace, packed, next_run, told)
            if next_run > first_run:
                places.append((index, packed, first_run, next_run))
        if next_run != len(self.runs.first):
            raise UnlikeError
        names = self._names(told)
        actions += [told["action", code] for code in range(len(self.runs.action_opcodes))]
        stacks += [told["stack", code] for code in range(len(self.runs.stack_opcodes))]
        if not set(actions) <= _KNOWN_ACTIONS:
            raise UnlikeError
        for index, packed, first_run, stop_run in places:
            self._fill(packed, names, slice(int(self.runs.offset[first_run]), int(self.runs.offset[stop_run])))
            value["device_traces"][index] = packed
        dicts = [packed.dicts for _, packed, _, _ in places]
        if _reaches_stand_in([value, dicts, stacks], self._number):
            raise UnlikeError

    def _split(self, trace: list[Any], packed: PackedEvents, run: int, told: dict[tuple[str, int], Any]) -> int:
        """Tell the stand-ins of a history from its dicts. Return the number of the next run."""
        at, spans, events = 0, [], iter(trace)
        for event in events:
            if type(event) is dict:
                packed.dicts.append(event)
                packed.dict_at.append(at)
                at += 1
                continue
            if event[0] != self._token(run) or len(event) != 1 + len(self._asked[run]):
                raise UnlikeError
            if self.runs.memo_base[run] != ABSENT:
                first, last = next(events, (None, None))
                if first is not event or last is not event:
                    raise UnlikeError
            told.update(zip(self._asked[run], event[1:], strict=True))
            length = int(self.runs.length[run])
            spans.append(np.arange(at, at + length))
            at, run = at + length, run + 1
        packed.num_events = at
        if spans:
            packed.packed_at = np.concatenate(spans)
        return run

    def _names(self, told: dict[tuple[str, int], Any]) -> list[str]:
        """Return the names of the keys.

        Raises:
            UnlikeError: they are not those of an event.
        """
        names = [told["key", at] for at in range(len(self.scan.keys))]
        needed = all(name in names and names.index(name) in self.scan.ints for name in _INTS)
        if not needed or names[0] != "action" or names[-1] != "frames" or len(set(names)) < len(names):
            raise UnlikeError
        if "device_free" in names:
            raise UnlikeError
        return names

    def _fill(self, packed: PackedEvents, names: list[str], events: slice) -> None:
        packed.ints = {name: self.runs.ints[names.index(name)][events] for name in _INTS}
        packed.keys = frozenset(names)
        packed.action = self.runs.action[events]
        packed.stack = self.runs.stack[events]


def _reaches_stand_in(value: list[Any], number: bytes) -> bool:
    """Return whether something in a plain value is a stand-in: a reference into a run led to it."""
    found: list[Any] = [value]
    seen: set[int] = set()
    for container in found:
        if type(container) is list and container and type(container[0]) is bytes and container[0].startswith(number):
            return True
        for one in container.values() if type(container) is dict else container:
            if type(one) in (list, dict, tuple) and id(one) not in seen:
                seen.add(id(one))
                found.append(one)
    return False
