"""Each entry of the catalogue of first-step effects, on a trace that shows it and on one that does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import FirstStepEffect
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import (
    Event,
    event_rows,
    initial_block,
    owner,
    phase,
    rank_trace,
    segment,
    step,
    trace,
    window,
)

PARAMETER, ACTIVATION, LOGITS, STATE, SPIKE = 1000, 500, 300, 2000, 700
FORWARD, BACKWARD, OPTIMIZER = 10, 20, 30


def one_step(start: int, events: Sequence[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """Return the events of a step that begins at a time, in order; each comes with its time in the step."""
    return sorted(((start + at, event) for at, event in events), key=lambda one: one[0])


PLAIN: list[tuple[int, Event]] = [
    (11, ("alloc", 2, ACTIVATION)),
    (12, ("alloc", 3, LOGITS)),
    (21, ("alloc", 4, PARAMETER)),
    (22, ("free_completed", 2, ACTIVATION)),
]
FREE_OUTPUT, FREE_GRADIENT = (35, ("free_completed", 3, LOGITS)), (41, ("free_completed", 4, PARAMETER))


def run(
    *steps: Sequence[tuple[int, Event]],
    before: Sequence[Event] = (),
    owners: Sequence[dict[str, Any]] = (),
    stacks: dict[int, int] | None = None,
    device: str = "cpu",
    **tables: Sequence[dict[str, Any]],
) -> RankTrace:
    """Return a run of steps of 50 ns each, from 100 on: forward, backward and optimizer, 10 ns after one another."""
    timed = [(10 + at, event) for at, event in enumerate([("alloc", 1, PARAMETER), *before])]
    phases, rows = [], [step(0, 0, 100)]
    for number, events in enumerate(steps, start=1):
        start = 50 * (number + 1)
        timed += one_step(start, events)
        for name, at in (("forward", FORWARD), ("backward", BACKWARD), ("optimizer", OPTIMIZER)):
            phases.append(phase(name, number, start + at, start + at + 10))
        rows.append(step(number, start, start + 40))
    events = [event for _, event in timed]
    built = event_rows(events, device=device)
    for row, (time_ns, (action, address, _)) in zip(built, timed, strict=True):
        row["time_ns"] = time_ns
        row["stack"] = (stacks or {}).get(address or 0) if action == "alloc" else None
    named = [owner(100, 1, PARAMETER, "parameter", device=device), *owners]
    frames = [{"file": f"train{number}.py", "line": number + 1, "function": "step"} for number in range(3)]
    known = {
        "windows": [window(0, len(events), initial=0) | {"start_ns": 5}],
        "steps": rows,
        "phases": phases,
        "owners": named,
        "frames": frames,
        "stacks": [{"frame": number, "parent": None} for number in range(3)],
    }
    return rank_trace(events=built, **(known | tables))


def gradient(number: int) -> dict[str, Any]:
    return owner(50 * (number + 1) + 40, 4, PARAMETER, "gradient")


def effects(rank: RankTrace) -> dict[str, list[FirstStepEffect]]:
    found: dict[str, list[FirstStepEffect]] = {}
    for effect in analyze(trace(rank)).ranks[0].first_step_effects:
        found.setdefault(effect.slug, []).append(effect)
    return found


def test_states_of_the_first_optimizer_step_are_named() -> None:
    made = [*PLAIN, (31, ("alloc", 5, STATE)), FREE_OUTPUT, FREE_GRADIENT]
    rank = run(made, [*PLAIN, FREE_OUTPUT], owners=[gradient(1), owner(140, 5, STATE, "optimizer_state")])
    (effect,) = effects(rank)["states-created"]
    assert (effect.num_bytes, effect.stays) == (STATE, True)
    assert effect.evidence["made"] == "in the optimizer's first step"


def test_states_made_before_training_are_told_apart() -> None:
    owners = [gradient(1), owner(100, 5, STATE, "optimizer_state")]
    rank = run([*PLAIN, FREE_OUTPUT, FREE_GRADIENT], before=[("alloc", 5, STATE)], owners=owners)
    (effect,) = effects(rank)["states-created"]
    assert (effect.num_bytes, effect.evidence["made"]) == (STATE, "before the first forward")


@pytest.mark.parametrize(
    ("after", "second", "stays"),
    [
        ([FREE_GRADIENT], [(11, ("alloc", 2, ACTIVATION))], False),
        ([], [(11, ("alloc", 2, ACTIVATION))], True),
        ([], None, None),
    ],
    ids=["freed", "live through the next forward", "the recording ends before"],
)
def test_gradients_stay_or_go(after: list[Any], second: list[Any] | None, stays: bool | None) -> None:
    steps = [[*PLAIN, FREE_OUTPUT, *after]] + ([] if second is None else [second])
    (effect,) = effects(run(*steps, owners=[gradient(1)]))["gradients-created"]
    assert (effect.num_bytes, effect.stays) == (PARAMETER, stays)


def test_outputs_that_the_next_forward_runs_beside_are_named() -> None:
    rank = run([*PLAIN, FREE_GRADIENT], [(11, ("alloc", 2, ACTIVATION))], owners=[gradient(1)], stacks={3: 1})
    (effect,) = effects(rank)["outputs-kept"]
    assert (effect.num_bytes, effect.stays) == (LOGITS, True)
    assert effect.evidence["where"]["file"] == "train1.py"


def test_a_run_that_lets_go_of_its_outputs_keeps_none() -> None:
    rank = run([*PLAIN, FREE_OUTPUT, FREE_GRADIENT], [(11, ("alloc", 2, ACTIVATION))], owners=[gradient(1)])
    assert "outputs-kept" not in effects(rank)


def adamw(**options: Any) -> list[dict[str, Any]]:
    row = {"class_name": "AdamW", "group": 0, "num_parameters": PARAMETER // 4, "options": json.dumps(options)}
    return [row]


@pytest.mark.parametrize(
    ("size", "options", "is_named"),
    [
        (PARAMETER, {"foreach": True}, True),
        (PARAMETER, {"foreach": False}, False),
        (PARAMETER, {"fused": True}, False),
        (PARAMETER // 4, {"foreach": True}, False),
    ],
)
def test_temporaries_of_all_parameters_at_a_time_are_named(size: int, options: dict[str, Any], is_named: bool) -> None:
    step_events: list[tuple[int, Event]] = [(31, ("alloc", 6, size)), (32, ("free_completed", 6, size))]
    rank = run([*PLAIN, *step_events, FREE_OUTPUT, FREE_GRADIENT], owners=[gradient(1)], optimizers=adamw(**options))
    found = effects(rank).get("foreach-temporaries", [])
    assert [effect.num_bytes for effect in found] == [size] * is_named


def test_buckets_that_are_replaced_in_step_two_are_named() -> None:
    owners = [owner(100, 7, PARAMETER, "communication"), owner(190, 8, PARAMETER, "communication"), gradient(1)]
    second: list[tuple[int, Event]] = [(11, ("free_completed", 7, PARAMETER)), (12, ("alloc", 8, PARAMETER))]
    rank = run(
        [*PLAIN, FREE_OUTPUT, FREE_GRADIENT],
        [*second, (21, ("alloc", 4, PARAMETER))],
        before=[("alloc", 7, PARAMETER)],
        owners=owners,
    )
    (effect,) = effects(rank)["buckets-rebuilt"]
    assert (effect.num_bytes, effect.evidence["new_bytes"], effect.stays) == (PARAMETER, PARAMETER, False)


# One-time allocations

SPIKED: list[tuple[int, Event]] = [(13, ("alloc", 9, SPIKE)), (14, ("free_completed", 9, SPIKE))]


def test_a_spike_of_the_first_step_alone_is_named() -> None:
    whole = [*PLAIN, FREE_OUTPUT, FREE_GRADIENT]
    rank = run([*PLAIN, *SPIKED, FREE_OUTPUT, FREE_GRADIENT], whole, stacks={2: 0, 3: 1, 9: 2}, owners=[gradient(1)])
    (effect,) = effects(rank)["one-time-allocations"]
    assert (effect.num_bytes, effect.stays) == (SPIKE, False)
    assert effect.evidence["where"]["file"] == "train2.py"
    assert effect.evidence["phase"] == "forward"


def test_a_workspace_that_stays_is_named_as_such() -> None:
    whole = [*PLAIN, FREE_OUTPUT, FREE_GRADIENT]
    first = [*PLAIN, SPIKED[0], FREE_OUTPUT, FREE_GRADIENT]
    (effect,) = effects(run(first, whole, stacks={2: 0, 3: 1, 9: 2}, owners=[gradient(1)]))["one-time-allocations"]
    assert (effect.num_bytes, effect.stays) == (SPIKE, True)


def test_what_each_step_repeats_is_not_one_time() -> None:
    whole = [*PLAIN, *SPIKED, FREE_OUTPUT, FREE_GRADIENT]
    assert "one-time-allocations" not in effects(run(whole, whole, stacks={2: 0, 3: 1, 9: 2}, owners=[gradient(1)]))


def test_a_batch_of_another_size_is_not_one_time() -> None:
    first: list[tuple[int, Event]] = [*PLAIN, FREE_OUTPUT, FREE_GRADIENT]
    second: list[tuple[int, Event]] = [
        (at, (action, address, size - 1 if address == 2 else size)) for at, (action, address, size) in first
    ]
    assert "one-time-allocations" not in effects(run(first, second, stacks={2: 0, 3: 1}, owners=[gradient(1)]))


# The device

GIB = 1 << 30


def on_device(*, more_segments: int = 0, **tables: Any) -> RankTrace:
    first: list[tuple[int, Event]] = [(10, ("segment_alloc", 0, 4 * GIB)), *PLAIN, FREE_OUTPUT, FREE_GRADIENT]
    second: list[tuple[int, Event]] = [
        *((10, ("segment_alloc", (number + 5) * GIB, GIB)) for number in range(more_segments)),
        *PLAIN,
        FREE_OUTPUT,
    ]
    owners = [owner(140, 4, PARAMETER, "gradient", device="cuda:0")]
    return run(first, second, device="cuda:0", owners=owners, **tables)


def test_segments_of_the_first_step_are_warm_up() -> None:
    (effect,) = effects(on_device(more_segments=1))["allocator-warm-up"]
    assert effect.num_bytes == 4 * GIB
    assert effect.evidence["num_device_mallocs_by_step"] == {"1": 1, "2": 1}
    assert effect.evidence["reserved_growth_bytes_by_step"] == {"1": 4 * GIB, "2": GIB}


@pytest.mark.parametrize(("later", "stays"), [(3 * GIB, True), (2 * GIB, False)])
def test_memory_that_is_not_torchs_grows_with_the_first_step(later: int, stays: bool) -> None:
    marks = [step(0, 0, 100), step(1, 100, 140), step(2, 150, 190)]
    for row, beside in zip(marks, (GIB, 3 * GIB, later), strict=True):
        row |= {"device_used_bytes": 4 * GIB + beside, "reserved_bytes": 4 * GIB}
    (effect,) = effects(on_device(steps=marks))["context-growth"]
    assert (effect.num_bytes, effect.stays) == (2 * GIB, stays)


def test_segments_of_private_pools_are_named() -> None:
    segments = [segment(0, 4 * GIB, 0), segment(8 * GIB, GIB, 0) | {"pool_id": "1,0"}]
    (effect,) = effects(on_device(segments=segments))["private-pools"]
    assert (effect.num_bytes, effect.evidence) == (GIB, {"num_segments": 1, "pools": ["1,0"]})


# Where nothing can be said


def test_without_a_backward_pass_there_is_nothing_to_compare() -> None:
    assert effects(run([*PLAIN, FREE_OUTPUT], phases=[phase("forward", 1, 110, 120)])) == {}


def test_a_snapshot_that_starts_late_does_not_hold_the_first_step() -> None:
    rank = run([*PLAIN, FREE_OUTPUT], initial_blocks=[initial_block(77, 10)])
    late = rank_trace(
        source="snapshot",
        events=event_rows([("alloc", 2, 5), ("free_completed", 2, 5)]),
        windows=[window(0, 2)],
        initial_blocks=[initial_block(77, 10)],
    )
    assert effects(late) == {}
    assert effects(rank) != {}


def test_the_two_peaks_differ_by_what_became_resident() -> None:
    made = [*PLAIN, (31, ("alloc", 5, STATE)), FREE_OUTPUT, FREE_GRADIENT]
    rank = run(made, [*PLAIN, FREE_OUTPUT], owners=[gradient(1), owner(140, 5, STATE, "optimizer_state")])
    report = analyze(trace(rank)).ranks[0]
    assert report.first_step_peak is not None
    assert report.steady_state_peak is not None
    assert report.steady_minus_first is not None
    difference = (report.steady_state_peak.requested_bytes or 0) - (report.first_step_peak.requested_bytes or 0)
    assert sum(report.steady_minus_first.values()) == difference
