"""Leaks: what grows in every step is found with its bytes and its line; what is replaced, queued or cached is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.kept import told_once
from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.diagnosis.leaks import find_piles
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Finding, Leak
from memtrace.errors import MemtraceError
from memtrace.report.drawing.facts import replayed_words
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, scope, step, trace, window
from tests.fake_report import finding

KIB = 1024


@dataclass(frozen=True)
class Kept:
    """Something that each step from `first` to `last` makes and that lives for so many step ends."""

    num_bytes: int
    lives: int | None
    """`None`: to the end of the run."""
    line: int = 1
    first: int = 1
    last: int = 10**9
    every: int = 1
    module: str | None = None
    phase: str = "forward"
    stack: int | None = None
    """Number of the thing whose stack this one shares; `None` for one of its own."""


def loop(things: Sequence[Kept], *, num_steps: int, recorded: Sequence[int] | None = None, **more: Any) -> RankTrace:
    """Return a run whose steps make these things in a forward, each at a line of train.py.

    Of steps that are not `recorded` there is only the time; what lived through such a gap is in the total alone.
    """
    recorded = range(1, num_steps + 1) if recorded is None else recorded
    events: list[dict[str, Any]] = []
    steps, phases, scopes, windows = [step(0, 0, 10)], [], [], []
    live: dict[int, tuple[int, int]] = {}
    now, address = 10, 1
    for number in range(1, num_steps + 1):
        begin, is_kept = now, number in recorded
        if is_kept and number - 1 not in recorded:
            start = {"start_ns": now, "first_event": len(events), "num_events": 0}
            windows.append({**window(0, 0, initial=sum(size for size, _ in live.values())), **start})
            # Their addresses are not known to the recorder, nor their stacks.
        rows = []
        for thing_at, thing in enumerate(things):
            if thing.first <= number <= thing.last and number % thing.every == 0:
                now += 10
                last = number + thing.lives if thing.lives is not None else 10**9
                live[address] = (thing.num_bytes, last)
                stack = thing_at if thing.stack is None else thing.stack
                rows.append(("alloc", address, thing.num_bytes, stack, now))
                if thing.module:
                    scopes.append(scope(thing.module, now - 4, now + 4))
                if is_kept:
                    phases.append(phase(thing.phase, number, now - 5, now + 5))
                address += 1
        for at in [one for one, (_, last) in live.items() if last == number]:
            now += 10
            size, _ = live.pop(at)
            rows.append(("free_completed", at, size, None, now))
        now += 10
        if is_kept:
            for action, at, size, stack, time in rows:
                row = event_rows([(action, at, size)])[0]
                events.append({**row, "time_ns": time, "stack": stack})
            windows[-1]["num_events"] += len(rows)
            windows[-1]["end_ns"] = now
        steps.append(step(number, begin, now, recorded=is_kept))
    frames = [{"file": "train.py", "line": thing.line, "function": "train"} for thing in things]
    stacks = [{"frame": at, "parent": None} for at in range(len(things))]
    tables = {"events": events, "windows": windows, "steps": steps, "phases": phases, "scopes": scopes}
    return rank_trace(**(tables | {"frames": frames, "stacks": stacks} | more))


def leaks_of(rank: RankTrace, **options: int) -> tuple[Leak, ...]:
    return tuple(one.leak for one in find_piles(build_history(rank, "cpu", owns_marks=False), **options))


def test_what_survives_every_step_is_a_leak_with_its_bytes_and_line() -> None:
    rank = loop([Kept(100 * KIB, None, line=7), Kept(900 * KIB, 0, line=3)], num_steps=5)
    (leak,) = leaks_of(rank)
    assert leak.bytes_per_step == 100 * KIB
    assert leak.allocations_per_step == 1
    assert leak.steps == (2, 3, 4, 5)
    assert (leak.phase, leak.cause, leak.live_bytes) == ("forward", "outputs", 400 * KIB)
    assert leak.where == {"file": "train.py", "line": 7, "function": "train", "module": None}


@pytest.mark.parametrize(
    "things",
    [
        [Kept(100 * KIB, 0)],
        [Kept(100 * KIB, 1)],
        [Kept(100 * KIB, 2)],
        [Kept(100 * KIB, None, first=1, last=1)],
        [Kept(100 * KIB, None, first=2, last=2)],
        [Kept(100 * KIB, None, first=1, last=4)],
        [Kept(4, None)],
        [],
    ],
    ids=["freed", "gradients", "double-buffer", "states", "lazy-states", "cache-that-fills", "numbers", "nothing"],
)
def test_healthy_runs_have_no_leak(things: list[Kept]) -> None:
    rank = loop([*things, Kept(800 * KIB, 0, line=2)], num_steps=9)
    assert leaks_of(rank) == ()
    assert leaks_of(loop([*things, Kept(800 * KIB, 0, line=2)], num_steps=20, recorded=[1, 2, 3, 19, 20])) == ()


def test_two_steps_are_not_enough_to_tell() -> None:
    assert leaks_of(loop([Kept(100 * KIB, None)], num_steps=3)) == ()
    assert leaks_of(loop([Kept(100 * KIB, None)], num_steps=4)) != ()


def test_over_a_gap_the_total_has_to_have_grown_accordingly() -> None:
    recorded = [1, 2, 3, 19, 20]
    (leak,) = leaks_of(loop([Kept(100 * KIB, None)], num_steps=20, recorded=recorded))
    assert leak.bytes_per_step == 100 * KIB
    assert leaks_of(loop([Kept(100 * KIB, None, last=3)], num_steps=20, recorded=recorded)) == ()
    # A queue that is not yet full when the recording pauses looks the same until then.
    assert leaks_of(loop([Kept(100 * KIB, 5)], num_steps=20, recorded=recorded)) == ()


def test_things_of_changing_size_that_are_replaced_are_no_leak() -> None:
    sizes = [300, 500, 100, 400, 200, 600, 350, 450]
    things = [Kept(size * KIB, 1, line=9, first=at, last=at) for at, size in enumerate(sizes, start=1)]
    assert leaks_of(loop(things, num_steps=len(sizes))) == ()


def test_a_leak_in_every_third_step_is_found() -> None:
    (leak,) = leaks_of(loop([Kept(300 * KIB, None, every=3)], num_steps=12))
    assert leak.bytes_per_step == 4 * 300 * KIB // 11


def test_what_stays_of_many_modules_is_a_graph_and_of_one_an_output() -> None:
    many = [Kept(50 * KIB, None, line=4, module=f"layers.{at}") for at in range(4)]
    (leak,) = leaks_of(loop(many, num_steps=5))
    assert (leak.cause, leak.num_modules, leak.allocations_per_step) == ("graph", 4, 4)
    assert leak.bytes_per_step == 4 * 50 * KIB
    (leak,) = leaks_of(loop(many[:1], num_steps=5))
    assert leak.cause == "outputs"


def test_kept_gradients_and_growing_containers_are_told_apart() -> None:
    (leak,) = leaks_of(loop([Kept(50 * KIB, None, phase="backward")], num_steps=5))
    assert leak.cause == "gradients"
    (leak,) = leaks_of(loop([Kept(50 * KIB, None, phase="data")], num_steps=5))
    assert leak.cause == "container"


def test_without_stacks_a_leak_has_no_line_but_is_found() -> None:
    bare = loop([Kept(100 * KIB, None)], num_steps=5, frames=[], stacks=[])
    bare.table("events")["stack"][:] = NULL
    (leak,) = leaks_of(bare)
    assert (leak.bytes_per_step, leak.where) == (100 * KIB, None)


def test_steps_until_full_count_from_the_last_peak() -> None:
    rank = loop([Kept(100 * KIB, None), Kept(50 * KIB, 0, line=2)], num_steps=5)
    (leak,) = leaks_of(rank, capacity_bytes=(5 * 100 + 50 + 1250) * KIB)
    assert leak.steps_until_full == 12
    (leak,) = leaks_of(rank, capacity_bytes=1)
    assert leak.steps_until_full == 0
    (leak,) = leaks_of(rank)
    assert leak.steps_until_full is None


def test_no_steps_and_no_times_are_no_leak() -> None:
    assert leaks_of(rank_trace()) == ()
    assert leaks_of(rank_trace(events=event_rows([("alloc", 1, 5)]), windows=[window(0, 1)])) == ()


def test_the_finding_says_what_grows_where_and_what_it_costs_at_the_peak() -> None:
    rank = loop([Kept(100 * KIB, None, line=7, module=f"m{at}") for at in range(3)], num_steps=6)
    report = analyze(trace(rank))
    assert report.findings[0].slug == "leak"
    finding = report.findings[0]
    assert finding.where == {"file": "train.py", "line": 7, "function": "train", "module": None}
    assert finding.severity == "error"
    assert finding.evidence["growth_per_step_bytes"] == 300 * KIB
    assert finding.saves_bytes == 5 * 300 * KIB
    assert finding.new_peak_bytes == 300 * KIB
    assert "graph" in finding.title
    assert report.ranks[0].leaks[0].bytes_per_step == 300 * KIB


def test_an_owner_that_stays_is_no_leak() -> None:
    rank = loop([Kept(100 * KIB, None, last=1)], num_steps=8, owners=[owner(200, 1, 100 * KIB, "parameter")])
    assert leaks_of(rank) == ()


@given(
    leaking=st.lists(st.integers(8, 64), max_size=3),
    healthy=st.lists(st.tuples(st.integers(1, 64), st.integers(0, 2)), max_size=4),
    num_steps=st.integers(7, 12),
)
def test_exactly_what_leaks_is_counted(leaking: list[int], healthy: list[tuple[int, int]], num_steps: int) -> None:
    things = [Kept(size * KIB, None, line=10 + at) for at, size in enumerate(leaking)]
    things += [Kept(size * KIB, lives, line=30 + at) for at, (size, lives) in enumerate(healthy)]
    found = leaks_of(loop(things, num_steps=num_steps))
    assert sum(leak.bytes_per_step for leak in found) == sum(leaking) * KIB
    assert len(found) == (1 if leaking else 0)


def test_a_batch_that_a_graph_keeps_is_part_of_its_leak() -> None:
    kept, batch = Kept(50 * KIB, None, module="layers.0"), Kept(20 * KIB, None, line=2, phase="data")
    # Every second address is that of a batch, and all of them live at the end.
    batches = [owner(10**6, 2 * number, 20 * KIB, "input") for number in range(1, 6)]
    (leak,) = leaks_of(loop([kept, batch], num_steps=5, owners=batches))
    assert (leak.phase, leak.bytes_per_step, leak.allocations_per_step) == ("forward", 70 * KIB, 2)
    # Of what else is made outside the forward nothing says that a graph keeps it.
    found = leaks_of(loop([kept, batch], num_steps=5, owners=[{**one, "category": "workspace"} for one in batches]))
    assert [one.bytes_per_step for one in found] == [50 * KIB, 20 * KIB]


def test_layers_that_begin_to_learn_are_no_leak() -> None:
    # In each step one layer more has a gradient, made anew in each, and states that stay.
    states = [Kept(40 * KIB, None, line=8, first=at, last=at, phase="optimizer", stack=0) for at in range(1, 10)]
    rank = loop(states, num_steps=9)
    assert len(leaks_of(rank)) == 1
    births = {row["address"]: row["time_ns"] for row in rank.table("events").rows()}
    owned = [owner(time + 1, address, 40 * KIB, "optimizer_state") for address, time in births.items()]
    assert leaks_of(loop(states, num_steps=9, owners=owned)) == ()
    ends = dict(zip(rank.table("steps")["step"].tolist(), rank.table("steps")["end_ns"].tolist(), strict=True))
    gradients = [
        {**owner(ends[step], address, 40 * KIB, "gradient"), "step": step}
        for address in births
        for step in range(address, 10)
    ]
    assert leaks_of(loop(states, num_steps=9, owners=gradients)) == ()
    # A gradient that something else keeps, when the parameter has let go of it, is one.
    own_step = [one for one in gradients if one["step"] == one["address"]]
    (leak,) = leaks_of(loop(states, num_steps=9, owners=own_step))
    assert leak.bytes_per_step == 40 * KIB


def replaced(sizes: Sequence[int], inputs: Sequence[int]) -> RankTrace:
    """Return a run that holds one thing from each step to the next, and takes a batch of so many bytes in each."""
    things = [Kept(size * KIB, 1, line=9, first=at, last=at, stack=0) for at, size in enumerate(sizes, start=1)]
    batches = [{**owner(at, 0, size, "input"), "step": at} for at, size in enumerate(inputs, start=1)]
    return loop(things, num_steps=len(sizes), owners=batches)


def test_what_a_larger_batch_makes_larger_is_no_leak_and_what_grows_with_the_same_batch_is() -> None:
    sizes = [100, 200, 300, 400, 500, 600]
    assert leaks_of(replaced(sizes, sizes)) == ()
    (leak,) = leaks_of(replaced(sizes, [300] * 6))
    assert leak.bytes_per_step == 100 * KIB


def test_what_is_dropped_on_the_way_is_not_multiplied_over_it() -> None:
    # Three places keep what they make to the end of an epoch of six steps; the second epoch ends the run.
    things = [
        Kept(100 * KIB, 6 - at if at <= 6 else None, first=at, last=at, stack=line)
        for at in range(1, 13)
        for line in (0, 1, 2)
    ]
    rank = loop(things, num_steps=12, recorded=[1, 2, 3, 11, 12])
    assert leaks_of(rank) == ()


@given(
    kept=st.integers(8, 64),
    healthy=st.integers(1, 2000),
    num_steps=st.integers(8, 14),
    dropped=st.booleans(),
)
def test_a_leak_is_never_said_to_have_taken_more_than_there_is(
    kept: int, healthy: int, num_steps: int, dropped: bool
) -> None:
    recorded = [1, 2, 3, num_steps - 1, num_steps]
    last = 3 if dropped else 10**9
    things = [Kept(kept * KIB, None, last=last), Kept(healthy * KIB, 0, line=2)]
    report = analyze(trace(loop(things, num_steps=num_steps, recorded=recorded)))
    found = [one for one in report.findings if one.slug == "leak"]
    assert bool(found) is not dropped
    for one in found:
        assert one.saves_bytes == kept * KIB * (num_steps - 1)
        assert one.new_peak_bytes == (kept + healthy) * KIB


@pytest.mark.parametrize("recorded", [None, [1, 2, 3, 11, 12]], ids=["all", "with a gap"])
def test_the_new_peak_is_that_of_the_run_which_lets_go_at_the_end_of_each_step(recorded: list[int] | None) -> None:
    """What was kept in recorded steps is taken off as it was, and only the rest by a rate."""
    kept = [900, 100, 300, *([200] * 7), 500, 700]
    others = [*([0] * 10), 1500, 0]
    own = [Kept(other * KIB, 0, line=2, first=at, last=at, stack=12) for at, other in enumerate(others, 1) if other]

    def things(lives: int | None) -> list[Kept]:
        return [
            *(Kept(size * KIB, lives, first=at, last=at, stack=0) for at, size in enumerate(kept, 1)),
            *own,
        ]

    report = analyze(trace(loop(things(None), num_steps=12, recorded=recorded)))
    (found,) = (one for one in report.findings if one.slug == "leak")
    twin = Case(build_history(loop(things(0), num_steps=12), "cpu", owns_marks=False))
    assert found.new_peak_bytes == twin.peak_bytes
    assert found.saves_bytes == report.ranks[0].peak.requested_bytes - twin.peak_bytes
    # What was there when the recording went on cannot be more than what memory grew by.
    before_it_went_on = sum(kept[:10]) * KIB
    assert found.evidence.get("extrapolated_at_peak_bytes") == (None if recorded is None else before_it_went_on)
    assert replayed_words(found) == ("" if recorded is None else " (extrapolated)")


@pytest.mark.parametrize("recorded", [None, [1, 2, 3, 11, 12]], ids=["all", "with a gap"])
def test_what_a_line_makes_once_stays_when_the_leak_is_gone(recorded: list[int] | None) -> None:
    """The first call at a line also makes a buffer, as it makes workspaces of libraries."""
    things = [Kept(900 * KIB, None, last=1, stack=0), Kept(100 * KIB, None, stack=0), Kept(50 * KIB, 0, line=2)]
    # The first allocation of all, in the first step.
    once = owner(25, 1, 900 * KIB, "buffer")
    report = analyze(trace(loop(things, num_steps=12, recorded=recorded, owners=[once])))
    (found,) = (one for one in report.findings if one.slug == "leak")
    assert found.new_peak_bytes == (900 + 100 + 50) * KIB
    assert report.ranks[0].leaks[0].first_bytes == 100 * KIB


def test_a_what_if_of_a_recorded_leak_gives_the_same_number_and_of_one_with_a_gap_none() -> None:
    for leak in (
        [Kept(at * KIB, None, first=at, last=at, stack=0) for at in range(1, 9)],
        # Put together anew, with more in each step.
        [Kept(100 * at * KIB, 1, first=at, last=at, stack=0) for at in range(1, 9)],
        # Let go of every few steps.
        [Kept(100 * KIB, 4 - at % 4, first=at, last=at, stack=0) for at in range(1, 9)],
    ):
        made = trace(loop([*leak, Kept(50 * KIB, 0, line=2, stack=8)], num_steps=8))
        (found,) = (one for one in analyze(made).findings if one.slug in ("leak", "kept-for-steps"))
        (result,), _ = try_what_ifs(made, Asked(remedies=(found.slug,), as_cuda=True))
        assert result.rows[-1].peak_requested_bytes == found.new_peak_bytes
    gap = trace(loop([Kept(100 * KIB, None)], num_steps=12, recorded=[1, 2, 3, 11, 12]))
    with pytest.raises(MemtraceError, match="was not requested"):
        try_what_ifs(gap, Asked(remedies=("leak",), as_cuda=True))


def test_what_a_step_without_lines_frees_is_freed() -> None:
    """A batch of indices for four steps: only the steps that draw one tell lines, and those that free one do not."""
    rank = loop([Kept(100 * KIB, 3, every=4, phase="data"), Kept(8, 1, line=2, phase="data")], num_steps=24)
    events = rank.table("events")
    events["stack"][events["size_bytes"] == 8] = NULL
    assert leaks_of(rank) == ()


def test_a_tensor_that_is_put_together_anew_and_larger_is_kept_by_its_variable() -> None:
    """`found = torch.cat([found, new])`: what a step makes is gone a step later, and the variable has more."""
    anew = [Kept(100 * at * KIB, 1, first=at, last=at, stack=0) for at in range(1, 13)]
    same = {
        "device": "cpu",
        "address": 1,
        "is_written": None,
        "kind": "variable",
        "file": "train.py",
        "function": "main",
    }
    rows = [
        {"step": at, "time_ns": 10 + at, "keeper": "'found'", "line": 31, "num_bytes": 100 * at * KIB}
        | {"size_bytes": 100 * at * KIB, "num_storages": 1}
        for at in range(1, 13)
    ]
    other = [row | {"keeper": "'batch'", "num_bytes": 8 * KIB, "line": 7} for row in rows]
    (leak,) = leaks_of(loop(anew, num_steps=12, keepers=[row | same for row in [*rows, *other]]))
    assert leak.bytes_per_step == 100 * KIB
    assert leak.keeper is not None
    assert leak.keeper.text == "'found'"
    assert leak.where is not None
    assert leak.where["line"] == 31


def test_sets_that_a_leak_keeps_are_told_by_the_leak() -> None:
    (leak,) = leaks_of(loop([Kept(100 * KIB, None)], num_steps=12))
    sets = replace(finding(), slug="second-copy", evidence={"parameter_bytes": 101 * KIB})
    fewer = replace(sets, evidence={"parameter_bytes": 300 * KIB})
    assert told_once([sets, fewer], [leak]) == (fewer,)


@pytest.mark.parametrize(("sizes", "is_leak"), [((50, 80, 90, 94), False), ((50, 60, 70, 80), True)])
def test_batches_that_vary_do_not_grow_because_two_in_a_row_did(sizes: tuple[int, ...], is_leak: bool) -> None:
    anew = [Kept(size * KIB, 1, first=at, last=at, stack=0) for at, size in enumerate(sizes, 1)]
    assert bool(leaks_of(loop(anew, num_steps=len(sizes)))) is is_leak


def kept_finding(grows: bool, saves_bytes: int) -> Finding:
    evidence = {"kept_at_peak_bytes": saves_bytes, "grows": grows, "keeper_kind": "container", "is_replaced": False}
    return replace(
        finding(), slug="kept", saves_bytes=saves_bytes, evidence={**evidence, "kept_by": "dict 'outputs'"}, where=None
    )


def test_what_several_steps_keep_is_told_and_not_the_outputs_of_the_last_of_them() -> None:
    outputs = replace(finding(), slug="outputs-of-step-before", saves_bytes=100, evidence={})
    kept = kept_finding(True, 500)
    assert told_once([kept, outputs], []) == (kept,)
    # As large as all that is kept: it is about the same bytes, and says more of them.
    (one,) = told_once([kept_finding(True, 150), outputs], [])
    assert (one.slug, one.evidence["kept_by"]) == ("outputs-of-step-before", "dict 'outputs'")
    # What is kept by design stays the evidence of the other.
    (one,) = told_once([kept_finding(False, 500), outputs], [])
    assert one.slug == "outputs-of-step-before"
