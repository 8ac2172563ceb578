"""What-if with activation checkpointing: the requests of a recording as if activations had been computed twice.

In: a rank, its requests, and what to recompute. Out: the same requests with frees and allocs inserted.

A region is one forward of a layer (`full`) or of an attention (`selective`). Of the activations allocated in it, all
but its output are freed where the forward ends, and requested anew where the first of them was recorded to be freed:

    recorded    take a  take b  take out | …                     give b  give a
    full        take a  take b  take out   give a  give b | …    take a' take b'  give b' give a'

What a real checkpoint does beside that is not in the recording: it frees each activation as soon as the forward is done
with it, and the second forward makes the temporaries of the first. Neither is live when all activations are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.allocator.requests import COMPLETE, GIVE, TAKE, Requests
from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.what_if.request_sizes import request_categories
from memtrace.errors import MemtraceError
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

FULL, SELECTIVE = "full", "selective"

_LAYER = re.compile(r"\d+")
"""The last part of a layer's path: its index in a container."""
_ATTENTION = re.compile(r"\w*(attn|attention)\d*", re.IGNORECASE)
"""The last part of an attention's path. `post_attention_norm` is none."""
_PROJECTION = re.compile(r"\w*(Linear|Conv1D)\w*")
"""Classes whose outputs a selective checkpoint keeps: they are what attention is computed from."""
_MIN_OUTPUT = 64
"""An output is at least this part of a region's largest activation; the statistics of a norm are smaller."""


_RECORD = "record the run with `memtrace record`: it knows modules, and what they keep for backward"


@dataclass(frozen=True, slots=True)
class _Region:
    dropped: IntArray
    """Numbers of the requests that are not kept."""
    end: int
    """Entry of the requests at which its forward has ended."""
    again: int
    """Entry of the first recorded free of one of them; the number of entries if there is none."""


def recomputed(rank: RankTrace, device: str, requests: Requests, what: str) -> Requests:
    """Return the requests as if the activations of each layer, or those inside attention, had been recomputed.

    Raises:
        MemtraceError: the recording does not know the modules or their activations.
    """
    region_of = _region_of(rank, device, requests, what)
    given = _entries(requests, GIVE)
    regions = list(_regions(rank, requests, region_of, given))
    if not regions:
        return requests
    dropped = np.concatenate([region.dropped for region in regions])
    ends = np.concatenate([np.full(len(region.dropped), region.end) for region in regions])
    again = np.concatenate([np.full(len(region.dropped), region.again) for region in regions])
    return _inserted(requests, dropped, ends, again, given)


def _region_of(rank: RankTrace, device: str, requests: Requests, what: str) -> IntArray:
    """Return for each request the row of the scope in whose forward it was made as an activation; -1 for none."""
    if not len(rank.table("scopes")):
        raise _refusal(device, "the recording knows no modules", _RECORD)
    chosen = forwards(rank, what)
    if not len(chosen):
        kind = "a layer, as blocks.3" if what == FULL else "an attention, as blocks.3.attn"
        raise _refusal(device, f"no module is {kind}", "layers and attentions are told by the names of modules")
    times = np.full(len(requests.row), NULL, np.int64)
    recorded = requests.row >= 0
    times[recorded] = rank.table("events")["time_ns"][requests.row[recorded]]
    region = innermost(rank, chosen, times)
    region[request_categories(rank, device, requests) != CATEGORIES.index(Category.ACTIVATION)] = -1
    if what == SELECTIVE:
        region[is_projected(rank, times)] = -1
    if not np.any(region >= 0):
        raise _refusal(device, "no activation of these modules is known", _RECORD)
    return region


def _refusal(device: str, problem: str, hint: str) -> MemtraceError:
    return MemtraceError(f"{device}: {problem}, so none can be recomputed", hint=hint, slug="no-recompute")


def forwards(rank: RankTrace, what: str) -> IntArray:
    """Return the rows of scopes that are forwards of layers (`FULL`) or of attentions (`SELECTIVE`), the outermost."""
    scopes, name = rank.table("scopes"), _LAYER if what == FULL else _ATTENTION
    modules = [module for module in np.unique(scopes["module"]).tolist() if _is_outermost(rank.text(module), name)]
    # What an actual checkpoint ran again is not a forward to be checkpointed.
    return np.flatnonzero(np.isin(scopes["module"], modules) & (scopes["recompute"] == 0) & (scopes["end_ns"] != NULL))


def _is_outermost(path: str | None, name: re.Pattern[str]) -> bool:
    *around, last = (path or "").split(".")
    return name.fullmatch(last) is not None and not any(name.fullmatch(part) for part in around)


def innermost(rank: RankTrace, rows: IntArray, times: IntArray) -> IntArray:
    """Return for each time the innermost of some scopes; -1 for none."""
    if not len(rows):
        return np.full(len(times), -1, np.int64)
    scopes = rank.table("scopes")
    found = Spans.build(scopes["start_ns"][rows], scopes["end_ns"][rows]).innermost(times)
    return np.where(found >= 0, rows[found], -1)


def is_projected(rank: RankTrace, times: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether the innermost module at each time is a projection."""
    classes = rank.table("scopes")["class_name"]
    projections = [one for one in np.unique(classes).tolist() if _PROJECTION.fullmatch(rank.text(one) or "")]
    scope = innermost(rank, np.arange(len(classes)), times)
    # Row -1, no scope, reads the entry at the end.
    return np.append(np.isin(classes, projections), False)[scope]


def _regions(rank: RankTrace, requests: Requests, region_of: IntArray, given: IntArray) -> Iterator[_Region]:
    """Return what each forward drops, and when; nothing of those that drop nothing."""
    # Clocks of several threads may disagree by a microsecond; the order of events is that of the table.
    times = np.maximum.accumulate(rank.table("events")["time_ns"][np.array(requests.event, np.int64)])
    order = np.argsort(region_of, kind="stable")
    order = order[region_of[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(region_of[order])) + 1):
        end_ns = rank.table("scopes")["end_ns"][region_of[members[0]]]
        end = int(np.searchsorted(times, end_ns))
        live = members[given[members] >= end]
        dropped = live[is_dropped(requests.size[live])]
        if len(dropped):
            yield _Region(dropped=dropped, end=end, again=int(given[dropped].min()))


def is_dropped(sizes: IntArray) -> npt.NDArray[np.bool_]:
    """Return which of the activations live at the end of a forward, in order, go: all but the last, its output.

    >>> is_dropped(np.array([4096, 1024, 2048, 8])).tolist()
    [True, True, False, True]
    """
    outputs = np.flatnonzero(sizes * _MIN_OUTPUT >= sizes.max(initial=0))
    dropped = np.ones(len(sizes), np.bool_)
    dropped[outputs[-1:]] = False
    return dropped


def _entries(requests: Requests, kind: int) -> IntArray:
    """Return for each request the entry of this kind; the number of entries if there is none."""
    kinds, numbers = np.array(requests.kind, np.int64), np.array(requests.number, np.int64)
    at = np.full(len(requests.size), len(kinds), np.int64)
    found = np.flatnonzero(kinds == kind)
    at[numbers[found]] = found
    return at


def _inserted(requests: Requests, dropped: IntArray, ends: IntArray, again: IntArray, given: IntArray) -> Requests:
    """Return the requests with the dropped ones freed at their ends, and made again as new ones."""
    kinds, numbers = np.array(requests.kind, np.int64), np.array(requests.number, np.int64)
    events = np.array(requests.event, np.int64)
    new = len(requests.size) + np.arange(len(dropped))
    # What was recorded to happen to them from then on happens to the new ones.
    for entries in (given, _entries(requests, COMPLETE)):
        known = entries[dropped] < len(kinds)
        numbers[entries[dropped[known]]] = new[known]
    # Without any recorded free there is no backward to make them again for.
    back = again < len(kinds)
    places = np.concatenate([np.repeat(ends, 2), again[back]])
    kind = np.concatenate([np.tile([GIVE, COMPLETE], len(dropped)), np.full(int(back.sum()), TAKE)])
    number = np.concatenate([np.repeat(dropped, 2), new[back]])
    return dataclasses.replace(
        requests,
        size=_repeated(requests.size, dropped),
        stream=_repeated(requests.stream, dropped),
        row=_repeated(requests.row, dropped),
        address=_repeated(requests.address, dropped),
        kind=np.insert(kinds, places, kind).tolist(),
        number=np.insert(numbers, places, number).tolist(),
        event=np.insert(events, places, events[np.minimum(places, len(events) - 1)]).tolist(),
    )


def _repeated(column: IntArray, numbers: IntArray) -> IntArray:
    """Return a column of requests with some of its rows once more at the end."""
    return np.concatenate([column, column[numbers]])
