"""Events of a pickle that follow each other without a gap, and the lists of frames that they share.

In: `Scan`. Out: `Runs`. A list that two events share is written once, and the second event holds its number in the
pickle's memo. Within a run each object's number follows from the first one's, which the references of the run tell; the
unpickler proves it (see `packed_events`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import IntArray
from memtrace.store.snapshots.event_scan import ABSENT, Scan, UnlikeError

_LEAST_RUN = 4
"""A shorter run is left to the unpickler."""


@dataclass(slots=True, kw_only=True, eq=False)
class Runs:
    """Runs in their order, and the events in them, one after the other."""

    first: IntArray
    """First event of each run, in the scan."""
    length: IntArray
    offset: IntArray
    """First event of each run, among those of all runs; one more than there are runs."""
    start: IntArray
    """Where the bytes of a run begin."""
    stop: IntArray
    num_remembered: IntArray
    """Objects that a run adds to the memo."""
    memo_base: IntArray
    """Number of the first of these; absent where nothing tells."""
    action: IntArray
    """Of each event, in `action_opcodes`."""
    action_opcodes: list[bytes]
    stack: IntArray
    """Of each event, in `stack_opcodes`."""
    stack_opcodes: list[bytes]
    ints: dict[int, IntArray]
    others: list[list[int]]
    """References of each run that lead out of it and that no column needs: they have to lead to something."""


def find_runs(scan: Scan) -> Runs:
    """Return the runs of a scan.

    Raises:
        UnlikeError: a reference leads to something that is not a list of frames.
    """
    is_event = scan.stop != ABSENT
    follows = np.zeros(len(is_event), np.bool_)
    follows[1:] = is_event[1:] & is_event[:-1] & (scan.stop[:-1] == scan.start[1:])
    first = np.flatnonzero(is_event & ~follows)
    length = np.add.reduceat(is_event.astype(np.int64), first) if len(first) else first
    # From the first event of a run to that of the next one there may be others that are none.
    kept = length >= _LEAST_RUN
    first, length = first[kept], length[kept]
    offset = np.concatenate([[0], np.cumsum(length)])
    # All events of all runs: those that begin at 10 and 50 and have 3 and 2 are 10 11 12 50 51.
    events = np.repeat(first - offset[:-1], length) + np.arange(offset[-1])
    remembered = np.concatenate([[0], np.cumsum(scan.num_remembered[events])])
    total = remembered[offset[1:]] - remembered[offset[:-1]]
    # Place of each event's list among what its run remembers: it is the event's last.
    list_at = remembered[1:] - 1 - np.repeat(remembered[offset[:-1]], length)
    stack, reference = scan.stack[events], scan.frames[events]
    base = _memo_bases(offset, reference, list_at)
    run_of = np.repeat(np.arange(len(first)), length)
    before = remembered[:-1] - remembered[offset[:-1]][run_of]
    others = _references_out([one[events] for one in scan.others.values()], run_of, before, base, total)
    opcodes = [b"](" + one + b"e" for one in scan.stacks]
    stack = _resolved(stack, reference, list_at + base[run_of], base[run_of], base, total, opcodes)
    stack, stack_opcodes = _only_used(stack, opcodes)
    referred = scan.action[events]
    actions = np.unique(referred)
    return Runs(
        first=first,
        length=length,
        offset=offset,
        start=scan.start[first],
        stop=scan.stop[first + length - 1],
        num_remembered=total,
        memo_base=base,
        action=np.searchsorted(actions, referred),
        action_opcodes=[get_opcode(number) for number in actions.tolist()],
        stack=stack,
        stack_opcodes=stack_opcodes,
        ints={place: values[events] for place, values in scan.ints.items()},
        others=others,
    )


def get_opcode(number: int) -> bytes:
    """Return the opcode that gets an object from the memo."""
    return b"j" + struct.pack("<I", number)


def _memo_bases(offset: IntArray, reference: IntArray, list_at: IntArray) -> IntArray:
    """Return the number of the first object that each run remembers, where its references tell.

    A free that completes at once shares the list of the event before it, which is where most references lead.
    """
    shares = np.flatnonzero((reference[1:] != ABSENT) & (reference[:-1] == ABSENT)) + 1
    run = np.searchsorted(offset, shares, side="right") - 1
    in_run = offset[run] < shares
    shares, run = shares[in_run], run[in_run]
    # An event that refers to number 107, below one whose list has number 7 in the run, tells the base 100. One that
    # refers to an older list tells another number: what at least half of them say is the base.
    told = reference[shares] - list_at[shares - 1]
    edges = np.searchsorted(run, np.arange(len(offset)))
    bases = np.full(len(offset) - 1, ABSENT, np.int64)
    for number in np.unique(run).tolist():
        here = np.sort(told[edges[number] : edges[number + 1]])
        middle = int(here[len(here) // 2])
        if 2 * np.count_nonzero(here == middle) >= len(here) and middle >= 0:
            bases[number] = middle
    return bases


def _references_out(
    columns: list[IntArray], run_of: IntArray, before: IntArray, base: IntArray, total: IntArray
) -> list[list[int]]:
    """Return the references of each run that lead out of it, each where it is used first.

    Raises:
        UnlikeError: one leads to what comes later.
    """
    found: list[list[int]] = [[] for _ in range(len(base))]
    for column in columns:
        events = np.flatnonzero(column != ABSENT)
        number, run = column[events], run_of[events]
        inside = (base[run] != ABSENT) & (number >= base[run]) & (number < base[run] + total[run])
        if np.any(number[inside] >= (base[run] + before[events])[inside]):
            raise UnlikeError
        outside, first = np.unique(number[~inside], return_index=True)
        for one, at in zip(outside.tolist(), run[~inside][first].tolist(), strict=True):
            found[at].append(one)
    return found


def _resolved(
    stack: IntArray,
    reference: IntArray,
    list_number: IntArray,
    base_of_event: IntArray,
    base: IntArray,
    total: IntArray,
    opcodes: list[bytes],
) -> IntArray:
    """Return the stack of each event, also where it is a reference. Affects: `opcodes`, with what lies outside runs."""
    known = np.flatnonzero(base != ABSENT)
    if np.any(np.diff(base[known]) <= 0):
        raise UnlikeError
    refers = np.flatnonzero(reference != ABSENT)
    number = reference[refers]
    # The run with the last base at or below a number is the one that remembers it, unless that run is over by then.
    at = np.searchsorted(base[known], number, side="right") - 1
    inside = at >= 0
    inside[inside] = number[inside] < (base + total)[known][at[inside]]
    stack = stack.copy()
    lists = np.flatnonzero((reference == ABSENT) & (base_of_event != ABSENT))
    found = np.searchsorted(list_number[lists], number[inside])
    if np.any(found == len(lists)) or np.any(list_number[lists][found] != number[inside]):
        raise UnlikeError
    if np.any(lists[found] >= refers[inside]):
        raise UnlikeError
    stack[refers[inside]] = stack[lists[found]]
    others, which = np.unique(number[~inside], return_inverse=True)
    stack[refers[~inside]] = len(opcodes) + which
    opcodes += [get_opcode(one) for one in others.tolist()]
    return stack


def _only_used(codes: IntArray, opcodes: list[bytes]) -> tuple[IntArray, list[bytes]]:
    """Return codes without gaps, and the opcodes that they stand for."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(opcodes)))
    renamed = np.zeros(len(opcodes), np.int64)
    renamed[used] = np.arange(len(used))
    return renamed[codes], [opcodes[code] for code in used.tolist()]


def first_uses(codes: IntArray, num_codes: int) -> IntArray:
    """Return where each code stands first; 0 of one that does not."""
    first = np.zeros(num_codes, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first
