"""Answers made from results: the same figures as `--json` prints, with as many rows as there is room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtrace.integrations.mcp import answers
from memtrace.integrations.mcp.shorten import MAX_ROWS, MAX_TEXT, Room, frames, plain, text, texts

if TYPE_CHECKING:
    from memtrace.allocator.results import WhatIf
    from memtrace.analysis.asked.at_moment import AtMoment
    from memtrace.analysis.results import report as results
    from memtrace.analysis.results.check import Check
    from memtrace.analysis.results.diff import Diff, NamedDiff
    from memtrace.forecast.fixing.results import Fixed
    from memtrace.store.trace import LoadWarning

_NUM_LINES = 8
_NUM_FRAMES = 5


def summary(report: results.Report, room: Room) -> answers.Summary:
    """Return the answer on a whole run."""
    main = report.main_rank
    order = sorted(range(len(report.ranks)), key=lambda at: (at != main, at))
    ranks = room.rows("ranks", [report.ranks[at] for at in order])
    notes = {(note.slug, note.message): note for one in ranks for note in one.warnings}
    return answers.Summary(
        title=text(report.title),
        verdict=text(report.verdict, 2 * MAX_TEXT),
        ranks=[_rank(one) for one in ranks],
        findings=[
            answers.FindingLine(
                slug=one.slug, severity=one.severity, title=text(one.title), saves_bytes=one.saves_bytes
            )
            for one in room.first("findings", report.findings, _NUM_LINES, where="the tool `findings` has all")
        ],
        not_seen=_notes([*report.warnings, *notes.values()], room),
        next_commands=texts(report.next_commands),
        left_out=room.left_out,
    )


def _rank(rank: results.RankReport) -> answers.RankSummary:
    first, steady = rank.first_step_peak, rank.steady_state_peak
    return answers.RankSummary(
        rank=rank.rank,
        device=text(rank.device),
        source=rank.source,
        complete=rank.complete,
        capacity_bytes=rank.capacity_bytes,
        num_events=rank.num_events,
        num_steps=len(rank.steps),
        peak=_memory(rank.peak),
        first_step_peak=None if first is None else _memory(first),
        steady_state_peak=None if steady is None else _memory(steady),
        end=_memory(rank.end),
        max_reserved_bytes=rank.max_reserved_bytes,
        oom=None if rank.oom is None else _oom(rank.oom),
    )


def _memory(state: results.State) -> answers.Memory:
    # A peak knows when it was, another state does not.
    marks = {name: getattr(state, name, None) for name in ("step", "phase", "module")}
    return answers.Memory(
        allocated_bytes=state.allocated_bytes,
        requested_bytes=state.requested_bytes,
        reserved_bytes=state.reserved_bytes,
        by_category=dict(state.by_category),
        exact_by_category=dict(state.exact_by_category),
        **_short(marks),
        predicted=getattr(state, "predicted", False),
    )


def _oom(oom: results.OomResult) -> answers.OutOfMemory:
    return answers.OutOfMemory(
        step=oom.step,
        phase=oom.phase,
        module=None if oom.module is None else text(oom.module),
        request_bytes=oom.request_bytes,
        free_bytes=oom.free_bytes,
        cause=oom.cause,
        predicted=oom.predicted,
        explanation=texts(oom.explanation),
    )


def _notes(found: Sequence[results.Note], room: Room) -> list[answers.Note]:
    shown = room.first("not_seen", found, _NUM_LINES, where="memtrace with --json has all")
    return [answers.Note(slug=text(one.slug), message=text(one.message), count=one.count) for one in shown]


def _some(name: str, found: Sequence[str], room: Room) -> list[str]:
    return texts(room.first(name, found, _NUM_LINES, where="memtrace with --json has all"))


def findings(found: Sequence[results.Finding], room: Room, *, missing: Sequence[results.Note] = ()) -> answers.Findings:
    """Return the answer on what to change; `missing` tells of ranks that could not be read."""
    room.say_missing(missing)
    return answers.Findings(
        num_findings=len(found),
        findings=[_finding(one) for one in room.rows("findings", found)],
        left_out=room.left_out,
    )


def _finding(one: results.Finding) -> answers.Finding:
    return answers.Finding(
        slug=one.slug,
        severity=one.severity,
        title=text(one.title),
        change=text(one.change, 2 * MAX_TEXT),
        cost=text(one.cost),
        saves_bytes=one.saves_bytes,
        saves_ns=one.saves_ns,
        new_peak_bytes=one.new_peak_bytes,
        rank=one.rank,
        where=None if one.where is None else _where(one.where),
        evidence=plain(one.evidence),
    )


def _where(where: Mapping[str, Any]) -> answers.Where:
    return answers.Where(**_short({name: where.get(name) for name in answers.Where.model_fields}))


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: text(value) if isinstance(value, str) else value for name, value in values.items()}


def peak(found: AtMoment, room: Room, *, moment: str, rank: int | None, device: str) -> answers.Peak:
    """Return the answer on one moment."""
    from memtrace.schema.frames import own_frames

    remark = None
    if not found.stacks:
        predicted = getattr(found.state, "predicted", False)
        remark = "the moment was predicted" if predicted else "no history of allocations was recorded"
    elif not found.modules:
        remark = "no modules were recorded"
    return answers.Peak(
        moment=moment,
        rank=rank,
        device=text(device),
        memory=_memory(found.state),
        modules=[
            answers.Module(
                module=None if row.module is None else text(row.module),
                num_bytes=row.num_bytes,
                num_allocations=row.num_allocations,
                by_category=dict(row.by_category),
            )
            for row in room.rows("modules", found.modules)
        ],
        stacks=[
            answers.Stack(
                frames=frames(own_frames(row.frames)[:_NUM_FRAMES]),
                num_bytes=row.num_bytes,
                num_allocations=row.num_allocations,
                category=row.category,
                by_category=dict(row.by_category),
            )
            for row in room.rows("stacks", found.stacks)
        ],
        remark=remark,
        left_out=room.left_out,
    )


def diff(found: Diff, room: Room, *, at: int, missing: Sequence[results.Note] = ()) -> answers.Diff:
    """Return the answer on two runs, for the rank at this position of the comparison."""
    room.say_missing(missing)
    from memtrace.schema.frames import own_frames

    rank = found.ranks[at]
    steps = [
        answers.Change(name=str(one.step), a_bytes=one.a_bytes, b_bytes=one.b_bytes, delta_bytes=one.delta_bytes)
        for one in rank.steps
    ]
    if len(found.ranks) > 1:
        room.left_out.append(f"ranks: 1 of {len(found.ranks)}; name another with `rank`")
    return answers.Diff(
        verdict=text(found.verdict),
        rank=rank.rank,
        device_a=text(rank.device_a),
        device_b=text(rank.device_b),
        compares=rank.compares,
        peak=_change("peak", rank.peak_a_bytes, rank.peak_b_bytes),
        categories=_changes(rank.categories),
        modules=_changes(room.rows("modules", rank.modules)),
        stacks=[
            answers.StackChange(
                frames=frames(own_frames(row.frames)[:_NUM_FRAMES]),
                a_bytes=row.a_bytes,
                b_bytes=row.b_bytes,
                delta_bytes=row.delta_bytes,
            )
            for row in room.rows("stacks", rank.stacks)
        ],
        steps=room.rows("steps", steps),
        only_in_a=_some("only_in_a", found.only_in_a, room),
        only_in_b=_some("only_in_b", found.only_in_b, room),
        left_out=room.left_out,
    )


def _changes(rows: Iterable[NamedDiff]) -> list[answers.Change]:
    return [_change(None if row.name is None else text(row.name), row.a_bytes, row.b_bytes) for row in rows]


def _change(name: str | None, a_bytes: int | None, b_bytes: int | None) -> answers.Change:
    delta = None if a_bytes is None or b_bytes is None else b_bytes - a_bytes
    return answers.Change(name=name, a_bytes=a_bytes, b_bytes=b_bytes, delta_bytes=delta)


def what_if(
    found: Sequence[WhatIf], room: Room, *, as_cuda: bool, missing: Sequence[results.Note | LoadWarning] = ()
) -> answers.WhatIf:
    """Return the answer on other settings; `missing` tells of ranks that could not be read."""
    room.say_missing(missing)
    from memtrace.report.answers.whatif import failure_text, proof_text

    return answers.WhatIf(
        as_cuda=as_cuda,
        devices=[
            answers.WhatIfOfDevice(
                rank=one.rank,
                device=text(one.device),
                reproduced=text(proof_text(one.fidelity)),
                rows=[
                    answers.WhatIfRow(
                        name=text(row.name),
                        peak_allocated_bytes=row.peak_allocated_bytes,
                        max_reserved_bytes=row.max_reserved_bytes,
                        wasted_bytes=row.wasted_bytes,
                        num_device_mallocs=row.num_device_mallocs,
                        num_alloc_retries=row.num_alloc_retries,
                        fits=row.fits,
                        capacity_bytes=row.capacity_bytes,
                        oom=None if row.oom is None else text(failure_text(row.oom)),
                        is_model=row.is_model,
                    )
                    for row in room.first("rows", one.rows, MAX_ROWS, where="try fewer at a time")
                ],
                advice=None if one.advice is None else text(one.advice),
            )
            for one in room.rows("devices", found)
        ],
        left_out=room.left_out,
    )


def check(found: Check, room: Room) -> answers.Check:
    """Return the answer on budgets and a baseline."""
    from memtrace.report.answers.check import verdict

    changes = (
        [] if found.baseline is None else sorted(found.baseline.changes, key=lambda one: (one.passed, not one.gates))
    )
    several = len({(one.rank, one.device) for one in changes}) > 1
    named = [(f"{one.name} (rank {one.rank}, {one.device})" if several else one.name, one) for one in changes]
    return answers.Check(
        passed=found.passed,
        verdict=verdict(found),
        budgets=[
            answers.Budget(
                expression=one.budget.expression,
                passed=one.passed,
                value_bytes=one.value_bytes,
                limit_bytes=one.budget.limit_bytes,
                exact_bytes=one.exact_bytes,
                rank=one.rank,
                device=text(one.device),
                num_over=one.num_over,
                predicted=one.predicted,
            )
            for one in room.rows("budgets", found.budgets)
        ],
        baseline=[
            _change(text(name), one.baseline_bytes, one.value_bytes) for name, one in room.rows("baseline", named)
        ],
        grew_too_much=_some("grew_too_much", [name for name, one in named if one.gates and not one.passed], room),
        problems=_some("problems", found.problems, room),
        not_seen=_notes(found.notes, room),
        left_out=room.left_out,
    )


def fix(found: Fixed, room: Room) -> answers.Fix:
    """Return the answer on how a run could fit."""
    from memtrace.report.answers.fix_code import code_of
    from memtrace.report.answers.fixing import answer_lines

    best = found.best
    refused = room.rows("left_as_they_are", list(found.refused.items()))
    return answers.Fix(
        verdict=text(" ".join(answer_lines(found)), 2 * MAX_TEXT),
        budget_bytes=found.budget_bytes,
        fits=best is not None,
        rungs=[
            answers.FixRung(
                title=text(one.title),
                recompute=[text(name) for name in room.rows("recompute", one.changes.recompute)],
                peak_bytes=one.needs.peak_bytes,
                reserved_bytes=one.needs.reserved_bytes,
                slowdown=one.slowdown,
                fits=one.needs.fits,
            )
            for one in found.rungs
        ],
        code=None if best is None or best.changes.is_nothing else text(code_of(best.changes), 4 * MAX_TEXT),
        left_as_they_are={text(name): text(why) for name, why in refused},
        notes=texts(found.notes),
        left_out=room.left_out,
    )
