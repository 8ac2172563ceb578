"""The tools of the server, one method each: they read and answer, and write nothing.

The docstring of a method is what an agent reads to choose it, so it says what comes back and what to ask next.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from memtrace.errors import MemtraceError
from memtrace.integrations.mcp import answers, build
from memtrace.integrations.mcp.shorten import DEFAULT_ROWS, MAX_ROWS, Room, fitting
from memtrace.integrations.mcp.traces import Loaded, Traces
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Note, RankReport, Report
    from memtrace.store.trace import LoadWarning, RankTrace

Files = Annotated[
    str | list[str],
    Field(
        description="Path of a trace.json that `memtrace record` wrote, a run folder, a torch memory snapshot "
        "(.pickle) or a Kineto profile; several paths are read as one run."
    ),
]
Limit = Annotated[int, Field(ge=1, le=MAX_ROWS, description="Most rows of each list.")]
Offset = Annotated[int, Field(ge=0, description="Rows of each list to skip.")]
Rank = Annotated[int | None, Field(description="Rank to look at; by default the one that the verdict is about.")]
Device = Annotated[str | None, Field(description='Device of the rank, as "cuda:0" or "cpu".')]
Capacity = Annotated[
    str | None, Field(description='Memory of the device, as "24GiB": would the run fit there? By default its own.')
]
Texts = Annotated[tuple[str, ...], Field(max_length=20)]


class Tools:
    """The questions that an agent may ask."""

    def __init__(self, root: Path | None = None, redaction: Redaction = Redaction.NOTHING) -> None:
        """Answer about files below a folder only, if one is given, and without what is not to be seen."""
        self._traces = Traces(root, redaction)

    def summary(
        self, trace: Files, capacity: Capacity = None, limit: Limit = DEFAULT_ROWS, offset: Offset = 0
    ) -> answers.Summary:
        """Summarise a run: the verdict in one sentence, and of each rank the peaks by category and any out-of-memory.

        Ask this first. `findings` then says what to change, `peak` which modules and lines hold the memory.
        """
        with self._traces.lock:
            report = self._report(self._traces.load(trace), capacity)
        return fitting(lambda room: build.summary(report, room), limit, offset)

    def findings(
        self,
        trace: Files,
        capacity: Capacity = None,
        severity: Annotated[
            Literal["error", "warning", "info"] | None, Field(description="Only findings this bad.")
        ] = None,
        limit: Limit = DEFAULT_ROWS,
        offset: Offset = 0,
    ) -> answers.Findings:
        """List what to change to need less memory or time, the most important first, each with its evidence and cost.

        `new_peak_bytes` is the peak with that change alone.
        """
        with self._traces.lock:
            report = self._report(self._traces.load(trace), capacity)
        found = [one for one in report.findings if severity in (None, one.severity)]
        return fitting(lambda room: build.findings(found, room, missing=report.warnings), limit, offset)

    def peak(
        self,
        trace: Files,
        moment: Annotated[
            Literal["peak", "first_step_peak", "steady_peak", "step_peak", "step_end", "end"],
            Field(description="Which moment: the fullest of all, of step 1, after step 1, of `step`; or an end."),
        ] = "peak",
        step: Annotated[int | None, Field(description="Step, for step_peak and step_end.")] = None,
        rank: Rank = None,
        device: Device = None,
        limit: Limit = DEFAULT_ROWS,
        offset: Offset = 0,
    ) -> answers.Peak:
        """Say what a device held at one moment: categories, and the modules and stacks that allocated the most."""
        from memtrace.analysis.asked.at_moment import AtMoment, at_moment

        with self._traces.lock:
            loaded = self._traces.load(trace)
            at = _device_report(loaded.report(), rank, device)
            found = (
                AtMoment(state=at.peak, modules=at.top_modules, stacks=at.top_stacks)
                if moment == "peak"
                else at_moment(_rank_trace(loaded, at), at.device, moment, step=step)
            )
        name = moment if step is None else f"{moment} {step}"
        return fitting(lambda room: build.peak(found, room, moment=name, rank=at.rank, device=at.device), limit, offset)

    def diff(
        self, a: Files, b: Files, rank: Rank = None, limit: Limit = DEFAULT_ROWS, offset: Offset = 0
    ) -> answers.Diff:
        """Compare two runs at their peaks, B less A: by category, module, stack and step."""
        from memtrace.analysis.asked.diff import compare

        with self._traces.lock:
            reports = self._traces.load(a).report(), self._traces.load(b).report()
        found, missing = compare(*reports), [note for one in reports for note in one.warnings]
        places = [at for at, one in enumerate(found.ranks) if rank is None or one.rank == rank]
        if not places:
            known = ", ".join(str(one.rank) for one in found.ranks)[:200]
            raise MemtraceError("the two runs have no such rank in common", hint=f"in both: {known or 'none'}")
        return fitting(lambda room: build.diff(found, room, at=places[0], missing=missing), limit, offset)

    def what_if(
        self,
        trace: Files,
        alloc_confs: Annotated[
            Texts, Field(description='Allocator settings to try, as ["expandable_segments:True"] (PYTORCH_ALLOC_CONF).')
        ] = (),
        capacities: Annotated[Texts, Field(description='Device memories to try, as ["24GiB", "80GiB"].')] = (),
        scale: Annotated[Texts, Field(description='Categories to make larger or smaller, as ["activation=0.5"].')] = (),
        drop: Annotated[Texts, Field(description='Categories to leave out, as ["optimizer_state"].')] = (),
        shard: Annotated[Texts, Field(description='Categories to divide over ranks, as ["optimizer_state=8"].')] = (),
        recompute: Annotated[
            Literal["selective", "full"] | None,
            Field(description="Checkpoint activations: those inside attention, or all of each layer."),
        ] = None,
        empty_cache_each_step: bool = False,
        advise: Annotated[bool, Field(description="Try the standard allocator settings and name the best.")] = False,
        limit: Limit = DEFAULT_ROWS,
        offset: Offset = 0,
    ) -> answers.WhatIf:
        """Replay the recorded requests through a model of torch's allocator, with something changed.

        Says for each configuration the peak, what is reserved, and whether it fits. A recording of the CPU is replayed
        as if it had run on a GPU.
        """
        from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
        from memtrace.schema.gpu_cards import memory_named

        with self._traces.lock:
            loaded = self._traces.load(trace)
            as_cuda = all(one.device == "cpu" for one in loaded.report().ranks)
            asked = Asked(
                alloc_confs=alloc_confs,
                capacities_bytes=tuple(map(memory_named, capacities)),
                scale=scale,
                drop=drop,
                shard=shard,
                recompute=recompute,
                empties_cache=empty_cache_each_step,
                as_cuda=as_cuda,
                advise=advise,
            )
            found, failed = try_what_ifs(loaded.trace, asked)
        missing: list[Note | LoadWarning] = [*loaded.report().warnings, *failed]
        return fitting(lambda room: build.what_if(found, room, as_cuda=as_cuda, missing=missing), limit, offset)

    def check(
        self,
        trace: Files,
        budgets: Annotated[
            Texts,
            Field(description='Upper limits, as ["steady_peak=70GiB", "activation<30GiB", "end.parameter=4GiB"].'),
        ] = (),
        baseline: Annotated[Files | None, Field(description="An earlier run to compare with.")] = None,
        tolerance_pct: Annotated[float, Field(ge=0, description="Growth allowed, in percent of the peak.")] = 1.0,
        limit: Limit = DEFAULT_ROWS,
        offset: Offset = 0,
    ) -> answers.Check:
        """Hold a run against budgets, or against an earlier run: passed or failed, and by how much."""
        from memtrace.analysis.asked.check import check, parse_budget

        if not budgets and baseline is None:
            raise MemtraceError("nothing to check", hint="give `budgets` or a `baseline`")
        limits = [parse_budget(one) for one in budgets]
        with self._traces.lock:
            before = None if baseline is None else self._traces.load(baseline).report()
            found = check(self._traces.load(trace).report(), limits, baseline=before, tolerance_pct=tolerance_pct)

        def answer(room: Room) -> answers.Check:
            return build.check(found, room)

        return fitting(answer, limit, offset)

    def fix(
        self,
        trace: Files,
        capacity: Annotated[str, Field(description='What the run must fit in, as "24GiB" or a GPU.')],
        limit: Limit = DEFAULT_ROWS,
        offset: Offset = 0,
    ) -> answers.Fix:
        """Say which modules, computed again in backward, would make a recorded run fit, and what that costs in time.

        Nothing is run: `memtrace fix --capacity … -- python train.py` in a shell also tries what needs no
        recomputation, and verifies all of it.
        """
        from memtrace.forecast.fixing.from_trace import fix_of_trace, question_of
        from memtrace.schema.gpu_cards import memory_named

        with self._traces.lock:
            found = fix_of_trace(self._traces.load(trace).trace, question_of(memory_named(capacity), capacity))
        return fitting(lambda room: build.fix(found, room), limit, offset)

    def _report(self, loaded: Loaded, capacity: str | None) -> Report:
        from memtrace.schema.gpu_cards import memory_named

        return loaded.report(None if capacity is None else memory_named(capacity))


def _device_report(report: Report, rank: int | None, device: str | None) -> RankReport:
    """Return the report of a rank and device; where none is named, of those that the verdict is about."""
    if rank is None and device is None and report.main_rank is not None:
        return report.ranks[report.main_rank]
    found = [one for one in report.ranks if (rank is None or one.rank == rank) and device in (None, one.device)]
    if not found:
        known = ", ".join(one.device if one.rank is None else f"rank {one.rank} {one.device}" for one in report.ranks)
        raise MemtraceError("the run has no such rank or device", hint=f"it has: {known[:400]}")
    return found[0]


def _rank_trace(loaded: Loaded, report: RankReport) -> RankTrace:
    """Return the trace that a report of a device was made from."""
    same = (report.rank, report.facts.get("pid"))
    return next(one for one in loaded.trace.ranks if (one.rank, one.header.get("pid")) == same)
