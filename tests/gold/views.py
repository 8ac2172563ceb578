"""What reports say of recordings seen in other ways, whole: without hooks, broken off early, many ranks, with times.

In: the recordings in `traces/`, and ranks that are made here. Out: text, JSON, the columns of every allocation, and
of ranks that are made also the page.
Without hooks all is inferred; `benchmarks/blind.py` says how far that is from the truth.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.blindfold.accelerator import DEVICE, as_on_accelerator
from benchmarks.blindfold.strip import as_recorded, late, without_stacks
from benchmarks.steady.cut import Cut, cut_rank, time_of
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import AllocationMap, RankReport, Report
from memtrace.report.json.report import report_json
from memtrace.report.page.data.payload import report_payload
from memtrace.report.page.report import packed_maps
from memtrace.report.terminal.report import render_text
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace, Trace
from tests.generated_ranks import generated_rank
from tests.gold.made_runs import ranks_of
from tests.gold.rendered import ANSWERS, TRACES, VERSION, inside, pretty, told, unpacked
from tests.timed_reports import time_alone_report, timed_report

MORE = ("resnet", "logits", "foreach", "kept-gradients", "adafactor", "fsdp", "tp")
"""Recordings that have no gold files of a page."""
NUM_RANKS = 4
NUM_EVENTS = 400


def _seen(trace: str, see: Callable[[RankTrace], RankTrace]) -> Callable[[], Report]:
    def report() -> Report:
        with inside(TRACES):
            read = read_trace([f"{trace}.json.gz"])
        return analyze(dataclasses.replace(read, ranks=tuple(map(see, read.ranks))), with_map=True)

    return report


def _cut(cut: Cut) -> Callable[[RankTrace], RankTrace]:
    return lambda rank: cut_rank(rank, time_of(rank, cut))


def _late_on_accelerator(rank: RankTrace) -> RankTrace:
    return late(as_on_accelerator(rank), DEVICE)


def _generated() -> Report:
    ranks = tuple(generated_rank(rank, NUM_RANKS, num_events=NUM_EVENTS) for rank in range(NUM_RANKS))
    return analyze(Trace(header={"command": ["torchrun", "train.py"]}, ranks=ranks, path="run"), with_map=True)


def _on_accelerator(rank: RankTrace) -> RankTrace:
    return as_recorded(as_on_accelerator(rank))


VIEWS: dict[str, Callable[[], Report]] = {
    **{f"more-{name}": _seen(name, lambda rank: rank) for name in MORE},
    **{f"blind-{name}": _seen(name, as_recorded) for name in MORE},
    "blind-accelerator-resnet": _seen("resnet", _on_accelerator),
    "blind-accelerator-kept-gradients": _seen("kept-gradients", _on_accelerator),
    "blind-late-resnet": _seen("resnet", lambda rank: late(rank, "cpu")),
    "cut-resnet": _seen("resnet", _cut(Cut.STEP)),
    "cut-foreach": _seen("foreach", _cut(Cut.NEXT_FORWARD)),
    "cut-kept-gradients": _seen("kept-gradients", _cut(Cut.STEP)),
    "cut-adafactor": _seen("adafactor", _cut(Cut.BACKWARD)),
    "cut-fsdp": _seen("fsdp", _cut(Cut.STEP)),
    "blind-gpt": _seen("gpt", as_recorded),
    "blind-checkpointing": _seen("accumulation-checkpointing", as_recorded),
    "blind-leak": _seen("leak", as_recorded),
    "blind-oom": _seen("oom", as_recorded),
    "blind-ddp": _seen("ddp", as_recorded),
    "blind-accelerator": _seen("gpt", _on_accelerator),
    "blind-accelerator-checkpointing": _seen("accumulation-checkpointing", _on_accelerator),
    "blind-accelerator-late": _seen("accumulation-checkpointing", _late_on_accelerator),
    "blind-late": _seen("gpt", lambda rank: late(rank, "cpu")),
    "blind-no-stacks": _seen("gpt", without_stacks),
    "cut-next-forward": _seen("gpt", _cut(Cut.NEXT_FORWARD)),
    "cut-step": _seen("accumulation-checkpointing", _cut(Cut.STEP)),
    "cut-backward": _seen("gpt", _cut(Cut.BACKWARD)),
    "cut-ddp": _seen("ddp", _cut(Cut.STEP)),
    "cut-oom": _seen("oom", _cut(Cut.BACKWARD)),
    "made-ranks": _generated,
    "made-times": timed_report,
    "made-times-alone": time_alone_report,
}
"""Each way of seeing a run by the name of its gold files."""


def made_run(number: int) -> dict[str, str]:
    """Return the content of the gold file of a made-up run: its plan, its report, and what identifies all the rest."""
    plan, ranks = ranks_of(number)
    report = analyze(Trace(header={}, ranks=ranks, path="run"), with_map=True)
    document = report_json(report).decode() + json.dumps([told_map(rank) for rank in report.ranks], sort_keys=True)
    facts = "\n".join(f"{name}: {value}" for name, value in dataclasses.asdict(plan).items())
    page = pretty(_page(report))
    hashes = f"JSON and maps: {_hash(document)}\nPage: {_hash(page)}\n"
    return {f"{ANSWERS}/made-run-{number:02}.txt": f"{facts}\n\n{render_text(report)}\n{hashes}"}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _page(report: Report) -> dict[str, Any]:
    packed = packed_maps(report)
    return unpacked(report_payload(report, version=VERSION, maps=packed), packed)


def told_map(rank: RankReport) -> dict[str, Any] | None:
    """Return the columns of a rank's map; `None` where it has none."""
    return None if rank.allocation_map is None else _columns(rank.allocation_map)


def viewed(name: str) -> dict[str, str]:
    """Return the content of each gold file of a view by its name."""
    report = VIEWS[name]()
    document: dict[str, Any] = json.loads(report_json(report))
    document["every allocation"] = [told_map(rank) for rank in report.ranks]
    contents = {f"{ANSWERS}/{name}.txt": render_text(report), f"{ANSWERS}/{name}.json": pretty(document)}
    if name.startswith("made"):
        contents[f"{ANSWERS}/{name}.page.json"] = pretty(_page(report))
    return contents


def _columns(found: AllocationMap) -> dict[str, Any]:
    """Return the columns of a map, and what they are of: a sum by category and by how it was decided."""
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    columns = {name: told(one) for name, one in values.items() if isinstance(one, np.ndarray)}
    sums: dict[str, int] = {}
    for size, category, decision in zip(found.size_bytes, found.category, found.decision, strict=True):
        name = f"{found.categories[category]}, {found.decisions[decision]}"
        sums[name] = sums.get(name, 0) + int(size)
    return {"columns": columns, "bytes": sums}
