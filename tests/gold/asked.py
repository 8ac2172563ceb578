"""What is answered to questions that are asked by name, whole: moments, own peaks, tables, tracks, a fit.

In: recordings in `traces/` and runs that are made up. Out: what stands in the gold file of each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from memtrace.allocator.results import WhatIf
from memtrace.analysis.asked.at_moment import AtMoment, at_moment
from memtrace.analysis.asked.dataframes import ALLOCATIONS, NAMES, allocations_frame, table_frame
from memtrace.analysis.asked.diff import compare
from memtrace.analysis.asked.peak_of_own_allocations import own_peak
from memtrace.analysis.asked.tracks import rank_tracks
from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
from memtrace.analysis.device.device_history import device_names
from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError
from memtrace.forecast.fitting.results import Fit, Measured
from memtrace.forecast.fitting.search import Question, find_fit
from memtrace.report.answers.diff import diff_json, diff_text
from memtrace.report.answers.fit import fit_json, fit_text
from memtrace.report.answers.limit import limit_text
from memtrace.report.answers.whatif import whatif_json, whatif_text
from memtrace.report.exchange.perfetto import perfetto_json
from memtrace.report.page.diff import render_diff
from memtrace.report.page.whatif import render_whatif
from memtrace.store.reading.inspection import inspect_document
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import Trace
from tests.gold.commands import own_part
from tests.gold.made_runs import plan_of, ranks_of
from tests.gold.rendered import TRACES, inside
from tests.timed_reports import profile

MIB = 1 << 20
RECORDINGS = ("gpt.json.gz", "ddp.json.gz", "snapshot.pickle", "oom-snapshot.pickle")
MADE = (0, 3, 12, 17, 29, 40)
MOMENTS = (
    *(("peak", None), ("end", None), ("first_step_peak", None), ("steady_state_peak", None)),
    *(("step_peak", 2), ("step_end", 1), ("step_end", None), ("step_peak", 99)),
)


def _traces() -> dict[str, Trace]:
    with inside(TRACES):
        found = {name.split(".")[0]: read_trace([name]) for name in RECORDINGS}
    return found | {f"run {number}": Trace(header={}, ranks=ranks_of(number)[1], path="run") for number in MADE}


def _moments() -> dict[str, Any]:
    """Return what each device held at each moment that can be asked for."""
    return {
        f"{name}, rank {rank.rank}, {device}, {moment}{'' if step is None else f' {step}'}": _or_error(
            lambda rank=rank, device=device, moment=moment, step=step: _moment(
                at_moment(rank, device, moment, step=step)
            )
        )
        for name, trace in _traces().items()
        for rank in trace.ranks
        for device in device_names(rank)
        for moment, step in MOMENTS
    }


def _moment(found: AtMoment) -> dict[str, Any]:
    """Return what was found, of modules and stacks the two largest and a hash of all."""
    plain: dict[str, Any] = _plain(found)
    for rows in ("modules", "stacks"):
        digest = hashlib.sha256(json.dumps(plain[rows]).encode()).hexdigest()
        plain[rows] = [*plain[rows][:2], len(plain[rows]), digest]
    return plain


def _own_peaks() -> dict[str, Any]:
    """Return the peak of what a recording allocated itself, whole and within one function."""
    found: dict[str, Any] = {}
    for name, trace in _traces().items():
        for rank in analyze(trace, with_map=True).ranks:
            if rank.allocation_map is not None:
                whole = own_peak(rank.allocation_map)
                within = own_peak(rank.allocation_map, is_outside=lambda frame: "train" in frame)
                key = f"{name}, rank {rank.rank}, {rank.device}"
                found[key] = _plain(whole)
                found[f"{key}, stacks inside train"] = _plain(within)["stacks"]
                found[f"{key}, as a failing test"] = limit_text("test_it", rank.device, whole, 1000).splitlines()
    return found


def _tables() -> dict[str, Any]:
    """Return the rows, the first of them and a hash of each table that pandas can have."""
    found: dict[str, Any] = {}
    for name, trace in _traces().items():
        for table in NAMES if not name.startswith("run") or name == "run 3" else ():
            is_allocations = table == ALLOCATIONS
            frame = allocations_frame(analyze(trace, with_map=True)) if is_allocations else table_frame(trace, table)
            rows = frame.astype(object)
            records = json.loads(rows.to_json(orient="split", index=False))
            digest = hashlib.sha256(json.dumps(records).encode()).hexdigest()
            found[f"{name}, {table}"] = {"rows": len(rows), "first": records["data"][:2], "sha256": digest}
            found[f"columns of {table}"] = records["columns"]
    return found


def _tracks() -> dict[str, Any]:
    """Return the counters and lanes of each rank: how many values, and a hash of them."""
    found: dict[str, Any] = {}
    timed = Trace(header={}, ranks=(profile().recorded(),), path="timed")
    for name, trace in (_traces() | {"timed": timed}).items():
        drawn = perfetto_json([rank_tracks(rank) for rank in trace.ranks])
        found[f"{name}, perfetto"] = _hash(drawn.decode())
        for rank in trace.ranks:
            for track in (*(tracks := rank_tracks(rank)).counters, *tracks.lanes):
                text = orjson.dumps(track, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2).decode()
                kind = f"{type(track).__name__} {track.name}"
                found[f"{name}, rank {rank.rank}, {kind}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _diffs() -> dict[str, Any]:
    """Return the comparisons of runs that are made up, each with the next."""
    reports = [analyze(Trace(header={}, ranks=ranks_of(number)[1], path=f"run {number}")) for number in range(25)]
    found: dict[str, Any] = {}
    for number, (before, after) in enumerate(itertools.pairwise(reports)):
        compared = compare(before, after)
        found[f"run {number} and the next"] = diff_text(compared).splitlines()
        found[f"run {number} and the next, JSON"] = _hash(diff_json(compared).decode())
        found[f"run {number} and the next, page"] = _hash(own_part(render_diff(compared)))
    return found


def _what_ifs() -> dict[str, Any]:
    """Return what runs that are made up come to with other settings, capacities and sizes."""
    asked = {
        "settings": Asked(alloc_confs=("expandable_segments:True", "roundup_power2_divisions:4"), as_cuda=True),
        "sizes": Asked(scale=("activation=0.5", "gradient=3"), shard=("optimizer_state=2",), as_cuda=True),
        "dropped": Asked(drop=("temporary",), recompute="full", as_cuda=True),
        "little room": Asked(capacities_bytes=(2 * MIB, 4 * MIB), recompute="selective", as_cuda=True),
        "emptied": Asked(empties_cache=True, advise=True, as_cuda=True),
    }
    found: dict[str, Any] = {}
    for number in range(24):
        trace = Trace(header={}, ranks=ranks_of(number)[1], path="run")
        of_run = {name: replace(one, as_cuda=plan_of(number).device == "cpu") for name, one in asked.items()}
        for name, question in of_run.items():
            found[f"run {number}, {name}"] = _or_error(
                lambda trace=trace, question=question: _what_if(try_what_ifs(trace, question)[0])
            )
    return found


def _what_if(results: list[WhatIf]) -> list[str]:
    page = _hash(own_part(render_whatif(results, title="run")))
    return [*whatif_text(results).splitlines(), _hash(whatif_json(results).decode()), page]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _records() -> dict[str, Any]:
    """Return what `memtrace inspect` says."""
    return {
        f"{name}, {table}": inspect_document(trace, table=table, head=2)
        for name, trace in _traces().items()
        for table in ("events", "owners")
        if name in {"gpt", "ddp", "run 3"}
    }


def _fits() -> dict[str, Any]:
    """Return searches for the largest micro-batch, for runs that need what is said and a device of 100 MiB."""
    needs: dict[str, Callable[[int], int]] = {
        "3 MiB a row": lambda size: (10 + 3 * size) * MIB,
        "more than a line": lambda size: 10 * MIB + size * size * MIB // 4,
        "steps of 8": lambda size: (10 + 20 * (-(-size // 8))) * MIB,
        "nothing a row": lambda _size: 10 * MIB,
        "too much at once": lambda size: (90 + 20 * size) * MIB,
        "a little": lambda size: 10 * MIB + size * 1000,
    }
    questions = {
        "": Question(capacity_bytes=100 * MIB),
        ", multiples of 4": Question(capacity_bytes=100 * MIB, multiple=4),
        ", from 3 to 17": Question(capacity_bytes=100 * MIB, smallest=3, largest=17),
        ", as the device has it": Question(),
    }
    return {
        f"{name}{asked}": _or_error(lambda need=need, question=question: _fit(question, need))
        for name, need in needs.items()
        for asked, question in questions.items()
    }


def _fit(question: Question, need: Callable[[int], int]) -> list[Any]:
    def run(size: int) -> Measured:
        peak = need(size)
        fails = peak > 100 * MIB and question.capacity_bytes is None
        return Measured(
            peak_bytes=None if fails else peak - MIB,
            needed_bytes=None if fails else peak,
            first_step_peak_bytes=9 * MIB,
            device_bytes=100 * MIB,
            out_of_memory=fails,
        )

    found: Fit = find_fit(question, run)
    return [fit_text(found).splitlines(), json.loads(fit_json(found))]


def _plain(result: Any) -> Any:
    return json.loads(orjson.dumps(dataclasses.asdict(result), option=orjson.OPT_SERIALIZE_NUMPY))


def _or_error(answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except MemtraceError as error:
        return f"refused: {error.message} ({error.hint})"


ASKED: dict[str, Callable[[], dict[str, Any]]] = {
    "asked-moments": _moments,
    "asked-own-peaks": _own_peaks,
    "asked-tables": _tables,
    "asked-tracks": _tracks,
    "asked-diffs": _diffs,
    "asked-what-ifs": _what_ifs,
    "asked-records": _records,
    "asked-fits": _fits,
}
"""Each kind of question by the name of its gold file."""
