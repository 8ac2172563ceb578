"""The card: how a run died, in every way that there is; which changes are shown, and when one is said to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memtrace.analysis.advice.find import behind_faults, in_order
from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.card import Death
from memtrace.analysis.results.diagnosis import Resident, StepNeeds
from memtrace.analysis.results.report import Leak, Note, RankReport, Report, Unrecorded
from memtrace.analysis.sentences.death import death_of
from memtrace.analysis.sentences.verdict import verdict
from memtrace.schema.findings import SLUGS
from tests.fake_report import GIB, MIB, finding, gpt_rank, gpt_report, out_of_memory

OWN = {"file": "/home/ada/tiny-gpt/train.py", "line": 31, "function": "main"}
TORCH = {"file": "/env/lib/python3.11/site-packages/torch/nn/functional.py", "line": 9, "function": "linear"}


def exception(kind: str = "ValueError", message: str | None = "no", **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "stack": [TORCH, OWN], "thread": None, **more}


def ended(rank: RankReport | None = None, *, complete: bool = True, **facts: Any) -> RankReport:
    return replace(rank or gpt_rank(), complete=complete, facts=facts)


def death(*ranks: RankReport, notes: tuple[Note, ...] = ()) -> Death:
    found = death_of(ranks, notes)
    assert found is not None
    return found


def report(rank: RankReport, *findings: Any) -> Report:
    return replace(gpt_report(), ranks=(rank,), findings=findings)


def test_an_exception_is_named_with_the_programs_own_line_and_what_it_says() -> None:
    found = death(ended(exit_status=1, exception=exception()))
    assert (found.kind, found.exception, found.where, found.step) == ("exception", "ValueError", OWN, 500)
    assert found.sentence == "The run died of ValueError at tiny-gpt/train.py:31 after step 500: no."


def test_an_exception_of_several_lines_is_told_by_its_first() -> None:
    found = death(ended(exit_status=1, exception=exception(message="CUDA out of memory. \nSee more")))
    assert found.sentence.endswith("after step 500: CUDA out of memory.")
    assert found.message == "CUDA out of memory. \nSee more"


def test_an_exception_whose_message_and_stack_were_left_out_is_still_named() -> None:
    found = death(ended(exit_status=1, exception={"type": "ValueError", "message": None, "stack": []}))
    assert found.sentence == "The run died of ValueError after step 500."


def test_an_interruption_is_no_death_of_the_programs_own() -> None:
    found = death(ended(exit_status=-2, exception=exception("KeyboardInterrupt", "")))
    assert found.kind == "interrupt"
    assert found.sentence.startswith("The run was interrupted (KeyboardInterrupt) at tiny-gpt/train.py:31")


def test_a_thread_that_dies_does_not_end_the_run() -> None:
    rank = ended(exit_status=0, exception=exception(thread="Thread-1"))
    assert death(rank).sentence.startswith("The run went on when its thread Thread-1 died of ValueError at")
    assert card_of(report(rank)).outcome == "ended"


@pytest.mark.parametrize(
    ("status", "complete", "kind", "sentence"),
    [
        (-9, False, "signal", "The run was killed by the signal SIGKILL after step 500."),
        (137, False, "signal", "The run was killed by SIGKILL (exit status 137) after step 500."),
        (137, True, "exit", "The run ended with exit status 137 after step 500."),
        (-15, False, "interrupt", "The run was stopped by the signal SIGTERM after step 500."),
        (-11, False, "signal", "The run was killed by the signal SIGSEGV after step 500."),
        (3, True, "exit", "The run ended with exit status 3 after step 500."),
        (None, False, "unfinished", "The run stopped without ending in order after step 500."),
        (0, False, "unfinished", "The run stopped without ending in order after step 500."),
    ],
)
def test_every_way_to_end_without_an_exception(status: int | None, complete: bool, kind: str, sentence: str) -> None:
    found = death(ended(complete=complete, exit_status=status))
    assert found.kind == kind
    assert found.sentence.startswith(sentence)
    assert card_of(report(ended(complete=complete, exit_status=status))).outcome == "died"


def test_a_kill_by_the_host_is_said_where_the_launcher_saw_it() -> None:
    note = Note(slug="host-kill-possible", message="The host killed a process.")
    assert death(ended(complete=False, exit_status=-9), notes=(note,)).sentence.endswith(". The host killed a process.")
    assert "Nothing says who sent it" in death(ended(complete=False, exit_status=-9)).sentence


@pytest.mark.parametrize("facts", [{}, {"exit_status": 0}])
def test_a_run_that_ended_in_order_did_not_die(facts: dict[str, Any]) -> None:
    assert death_of([ended(**facts)]) is None
    assert verdict([ended(**facts)]).startswith("Memory peaks at")


def test_a_snapshot_or_a_profile_says_nothing_of_its_end() -> None:
    assert death_of([replace(gpt_rank(), source="snapshot", complete=False, facts={})]) is None


def test_a_step_that_did_not_end_is_the_one_in_which_it_died() -> None:
    rank = gpt_rank()
    open_step = replace(rank.steps[-1], step=501, end_ns=None)
    found = death(ended(replace(rank, steps=(*rank.steps, open_step)), exit_status=1, exception=exception()))
    assert (found.step, found.in_step) == (501, True)
    assert " in step 501: " in found.sentence


def test_of_several_ranks_the_first_that_failed_is_named() -> None:
    early = replace(gpt_rank(1), steps=gpt_rank(1).steps[:2])
    ranks = [
        ended(gpt_rank(0), complete=False, exit_status=1),
        ended(early, exit_status=1, exception=exception("RuntimeError")),
        ended(gpt_rank(2), exit_status=1, exception=exception()),
    ]
    found = death(*ranks)
    assert found.rank == 1
    assert found.sentence.startswith("Rank 1 died of RuntimeError at tiny-gpt/train.py:31 after step 2")


def test_the_verdict_begins_with_the_death() -> None:
    rank = ended(exit_status=1, exception=exception())
    assert verdict([rank]).startswith(death(rank).sentence)
    with_oom = ended(replace(gpt_rank(), oom=out_of_memory()), exit_status=1, exception=exception())
    assert verdict([with_oom]).startswith(f"{death(with_oom).sentence} Out of memory in step 500")


def test_an_out_of_memory_that_the_program_caught_is_no_death() -> None:
    rank = ended(replace(gpt_rank(), oom=out_of_memory()), exit_status=0)
    assert death_of([rank]) is None
    card = card_of(report(rank))
    assert card.outcome == "ended"
    assert card.headline == "The run ran out of memory in step 500 (backward) in head, caught that, and went on."


def test_a_capacity_that_the_run_would_have_died_on_is_told_as_such() -> None:
    oom = replace(out_of_memory(), predicted=True, capacity_bytes=GIB)
    card = card_of(report(ended(replace(gpt_rank(), oom=oom, capacity_bytes=GIB), exit_status=0)))
    assert card.outcome == "would-die"
    assert card.headline.startswith("On a device of 1.00 GiB this run would have died in step 500 (backward)")


def test_parts_add_up_to_the_requested_bytes_of_the_peak() -> None:
    card = card_of(gpt_report())
    assert sum(part.num_bytes for part in card.parts) == card.requested_bytes == gpt_rank().peak.requested_bytes
    assert [part.num_bytes for part in card.parts] == sorted((part.num_bytes for part in card.parts), reverse=True)


def test_three_changes_are_shown_and_the_rest_counted_but_what_happened_is_no_change() -> None:
    found = [replace(finding(), slug="oom"), *[finding()] * 4]
    card = card_of(report(gpt_rank(), *found))
    assert ([one.slug for one in card.changes], card.num_more_changes) == ([finding().slug] * 3, 1)
    assert card.changes[0].saves_bytes == finding().saves_bytes


def test_findings_of_other_ranks_are_not_shown() -> None:
    assert card_of(report(gpt_rank(0), replace(finding(), rank=1))).changes == ()


def fits(
    rank: RankReport, *, new_peak_bytes: int, slug: str = "large-logits", capacity: int | None = None
) -> bool | None:
    one = replace(finding(), slug=slug, new_peak_bytes=new_peak_bytes, saves_bytes=100 * MIB)
    return card_of(report(rank, one), capacity_bytes=capacity).changes[0].fits


def test_a_change_fits_where_the_new_peak_and_all_beside_it_are_below_the_capacity() -> None:
    rank = gpt_rank()
    assert rank.max_reserved_bytes is not None
    assert rank.peak.allocated_bytes is not None
    outside = rank.peak.non_torch_bytes or 0
    idle = rank.max_reserved_bytes - rank.peak.allocated_bytes
    new_peak = 6 * GIB
    assert fits(rank, new_peak_bytes=new_peak, capacity=new_peak + outside + idle) is True
    assert fits(rank, new_peak_bytes=new_peak, capacity=new_peak + outside + idle - 1) is None
    assert fits(rank, new_peak_bytes=new_peak, capacity=new_peak + outside - 1) is False


def test_reserved_bytes_have_no_idle_ones_beside_them_and_their_basis_is_named() -> None:
    rank, new_peak = gpt_rank(), 6 * GIB
    one = replace(finding(), slug="expandable-segments", new_peak_bytes=new_peak)
    card = card_of(report(rank, one), capacity_bytes=new_peak + (rank.peak.non_torch_bytes or 0))
    assert (card.changes[0].fits, card.changes[0].basis) == (True, "reserved")


def test_without_a_capacity_nothing_is_said_to_fit() -> None:
    assert fits(replace(gpt_rank(), capacity_bytes=None), new_peak_bytes=GIB) is None


def test_of_a_run_that_died_a_change_fits_only_if_the_step_before_tells_what_the_failed_one_needs() -> None:
    left = Resident(what="outputs", num_bytes=GIB, where=None)
    needs = StepNeeds(
        step=499, peak_bytes=8 * GIB, phase="forward", resident=(left,), next_bytes=9 * GIB, limited_by="forward"
    )
    oom = replace(out_of_memory(), request_bytes=GIB // 2, non_torch_bytes=GIB)
    blind, told = (replace(gpt_rank(), oom=one) for one in (oom, replace(oom, needs=needs)))
    assert fits(blind, new_peak_bytes=2 * GIB, capacity=64 * GIB) is None
    idle = (told.max_reserved_bytes or 0) - (told.peak.allocated_bytes or 0)
    # The next step would need 9 GiB, less the 100 MiB that the change saves; others hold 1 GiB.
    needed = 9 * GIB - 100 * MIB + GIB + idle
    assert fits(told, new_peak_bytes=2 * GIB, capacity=needed) is True
    assert fits(told, new_peak_bytes=2 * GIB, capacity=needed - 1) is None


def test_what_limits_is_the_leak_the_fragmentation_or_else_the_largest_category() -> None:
    assert card_of(gpt_report()).limits.startswith("Activations, ")
    broken = card_of(report(replace(gpt_rank(), oom=out_of_memory())))
    assert broken.limits.startswith("Fragmentation: 1.76 GiB of what is reserved lie idle in pieces")


@pytest.mark.parametrize(("held", "severity"), [(2 * GIB, "warning"), (GIB, "error")])
def test_what_a_fault_holds_limits_before_less_that_lies_idle_in_pieces(held: int, severity: str) -> None:
    """Near a full device some memory always lies idle: the request that failed would have found room there."""
    pieces = replace(finding(), slug="fragmentation", severity="error", saves_bytes=int(1.5 * GIB), rank=None)
    fault = replace(finding(), slug="evaluation-graph", severity="warning", title="A graph is kept", saves_bytes=held)
    advice = replace(finding(), slug="smaller-micro-batch", severity="info", saves_bytes=9 * GIB)
    found = in_order(behind_faults([pieces, replace(fault, rank=None), replace(advice, rank=None)]))
    assert next(one for one in found if one.slug == "fragmentation").severity == severity
    first = "evaluation-graph" if severity == "warning" else "fragmentation"
    assert found[0].slug == first
    card = card_of(report(replace(gpt_rank(), rank=None, oom=out_of_memory()), *found))
    assert card.limits.startswith("A graph is kept." if severity == "warning" else "Fragmentation: ")
    assert card.changes[0].slug == first


def test_a_leak_limits_a_run_that_pieces_too_small_to_be_told_of_ended() -> None:
    leak = replace(finding(), slug="leak", severity="error", saves_bytes=2 * GIB)
    grows = Leak(**(dict.fromkeys(Leak.__dataclass_fields__) | {"bytes_per_step": MIB}))
    rank = replace(gpt_rank(), oom=out_of_memory(), leaks=(grows,))
    assert card_of(report(rank, replace(leak, rank=rank.rank))).limits.startswith("A leak: ")
    less = replace(leak, rank=rank.rank, saves_bytes=GIB)
    assert card_of(report(rank, less)).limits.startswith("Fragmentation: 1.76 GiB")


def test_what_was_not_seen_is_one_line_with_the_rest_counted() -> None:
    notes = tuple(Note(slug=slug, message="…") for slug in ("gaps", "no-stack", "events-lost", "a-new-one"))
    line = card_of(report(replace(gpt_rank(), warnings=notes))).not_seen
    assert line is not None
    assert line.startswith("1 event, ")
    assert " more" in line
    elsewhere = (*notes, Note(slug="steps-on-other-thread", message="…"))
    line = card_of(report(replace(gpt_rank(), warnings=elsewhere))).not_seen
    assert line is not None
    assert line.startswith("training on another thread, ")


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if slug not in ("oom", "rank-died")])
def test_every_finding_has_a_name_short_enough_for_a_line(slug: str) -> None:
    one = replace(finding(), slug=slug)
    (change,) = card_of(report(gpt_rank(), one)).changes
    assert change.name != one.title
    assert len(change.name) <= 34
    assert len(change.price) <= 20


@pytest.mark.parametrize(
    ("higher", "marked", "said"),
    [
        ((9, 70 * GIB), 4, ", of the recorded steps. Step 9, which was not recorded, reached 70.0 GiB"),
        ((None, None), 4, "."),
        ((None, None), 3, ", of the recorded steps."),
    ],
)
def test_the_headline_is_that_of_the_run_or_says_that_it_is_not(
    higher: tuple[int | None, int | None], marked: int, said: str
) -> None:
    unrecorded = Unrecorded(
        num_steps=4, num_marked=marked, higher_step=higher[0], higher_bytes=higher[1], host_step=None
    )
    rank = replace(gpt_rank(), unrecorded=unrecorded)
    headline, whole = card_of(report(rank)).headline, verdict((rank,))
    bare = card_of(report(replace(rank, unrecorded=None))).headline.removesuffix(".")
    assert headline.startswith(bare + said)
    assert ", of the recorded steps" in whole if ", of the recorded steps" in said else "recorded" not in whole
