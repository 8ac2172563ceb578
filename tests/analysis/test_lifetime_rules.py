"""Rules for allocations that nothing names: each from a step written by hand, whose every allocation is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS, ROLES
from memtrace.analysis.device.device_history import build_history
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import Event, event_rows, owner, phase, rank_trace, saved, scope, step, window

LOOP = {
    "phases": [
        phase("forward", 1, 100, 200),
        phase("backward", 1, 200, 300),
        phase("recompute", 1, 240, 260),
        phase("optimizer", 1, 320, 400),
        phase("data", 2, 420, 440),
        phase("forward", 2, 500, 600),
        phase("backward", 2, 600, 700),
        phase("optimizer", 2, 720, 800),
        phase("forward", 3, 900, 950),
        phase("backward", 3, 950, 960),
        phase("optimizer", 3, 970, 980),
    ],
    "steps": [step(0, 0, 99), step(1, 99, 400), step(2, 400, 800), step(3, 800, 980)],
}
"""Three steps: what runs when. Between phases are gaps; before 100 is setup."""

Life = tuple[int, int | None]
"""Birth and death of one allocation, ns; `None` for one that is never freed."""


def trace_of(
    *lives: Life,
    size: int = 64,
    stack: int | None = None,
    device: str = "cpu",
    failure_ns: int | None = None,
    **tables: Sequence[Mapping[str, Any]],
) -> RankTrace:
    """Return a recording in which allocation number i lives at address i + 1, and perhaps memory runs out."""
    told: list[tuple[int, Event]] = []
    for number, (birth, death) in enumerate(lives):
        told.append((birth, ("alloc", number + 1, size)))
        if death is not None:
            told.append((death, ("free_completed", number + 1, size)))
    if failure_ns is not None:
        told.append((failure_ns, ("oom", None, size)))
    told.sort(key=lambda one: one[0])
    rows = [row | {"time_ns": time} for (time, _), row in zip(told, event_rows([e for _, e in told]), strict=True)]
    for row in rows:
        row["stack"], row["device"] = stack, device
    return rank_trace(
        **{**LOOP, "events": rows, "windows": [window(0, len(rows), initial=0)], "owners": [OTHER], **tables}
    )


OTHER = owner(5, 999, 4096, "parameter")
"""An owner of something else: it tells that hooks were there."""


def decided(rank: RankTrace, device: str = "cpu") -> list[tuple[str, str, str]]:
    """Return category, decision and role of each allocation by its address."""
    history = build_history(rank, device, owns_marks=True)
    found = history.attribution
    order = np.lexsort((history.lifetimes.start, history.lifetimes.address))
    return [
        (CATEGORIES[found.category[i]].value, DECISIONS[found.decision[i]].value, ROLES[found.role[i]].value)
        for i in order
    ]


RULES = {
    "freed in its forward": ((110, 150), "temporary", "none"),
    "forward to backward": ((110, 250), "activation", "saved"),
    "forward to the next forward": ((110, 510), "activation", "output"),
    "forward of a later step, never freed": ((910, None), "activation", "output"),
    "freed in its backward": ((210, 290), "temporary", "none"),
    "freed in its recomputation": ((242, 258), "temporary", "none"),
    "recomputation to backward": ((242, 290), "activation", "recomputed"),
    "freed in its optimizer": ((330, 390), "temporary", "none"),
    "freed in the loader": ((425, 435), "temporary", "none"),
    "loaded": ((425, 510), "input", "none"),
    "loaded ahead": ((425, None), "input", "none"),
    "drawn and read": ((450, 650), "input", "none"),
    "drawn and dropped": ((450, 460), "temporary", "none"),
    "between backward and optimizer": ((305, 395), "temporary", "none"),
    "made before training, read in it": ((50, None), "input", "none"),
    "made before training, freed in it": ((50, 120), "input", "none"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_decides_by_birth_and_death(name: str) -> None:
    life, category, role = RULES[name]
    assert decided(trace_of(life)) == [(category, "lifetime_rule", role)]


UNEXPLAINED: dict[str, Life] = {
    "a single one of forward that outlives the next step": (110, 850),
    "made in backward and alive past it": (210, 850),
    "made in an optimizer and alive past it": (330, 850),
    "made between backward and optimizer, alive past it": (305, 850),
    "freed before training": (50, 60),
    "drawn and kept for good": (450, None),
    "a sum that is kept until after the next forward": (410, 650),
}


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_what_no_rule_explains_stays_unknown(name: str) -> None:
    life = UNEXPLAINED[name]
    more = {"steps": [*LOOP["steps"], step(4, 980, 990), step(5, 990, 995)]}
    rank = trace_of(life, (996, None), **more)
    assert decided(rank)[0] == ("unknown", "unknown", "none")


def test_outputs_that_every_step_keeps_are_outputs() -> None:
    stacks = {
        "frames": [{"file": "train.py", "line": 3, "function": "train"}],
        "stacks": [{"frame": 0, "parent": None}],
    }
    later = {"steps": [*LOOP["steps"], step(4, 980, 990), step(5, 990, 995)]}
    kept = decided(trace_of((110, None), (510, None), (996, None), stack=0, **stacks, **later))
    assert kept[:2] == [("activation", "lifetime_rule", "output")] * 2
    assert decided(trace_of((110, None), (510, None), (996, None), **later)) == kept
    alone = decided(trace_of((110, None), (112, None), (996, None), stack=0, **stacks, **later))
    assert alone[:2] == [("unknown", "unknown", "none")] * 2


def test_a_copy_of_a_random_state_is_a_detail_of_autograd() -> None:
    stacks = {
        "frames": [
            {"file": "torch/random.py", "line": 46, "function": "get_rng_state"},
            {"file": "torch/utils/checkpoint.py", "line": 9, "function": "checkpoint"},
        ],
        "stacks": [{"frame": 1, "parent": None}, {"frame": 0, "parent": 0}],
    }
    assert decided(trace_of((110, 250), stack=1, **stacks)) == [("autograd_detail", "stack_rule", "none")]
    assert decided(trace_of((110, 250), stack=0, **stacks)) == [("activation", "lifetime_rule", "saved")]
    rank = trace_of((110, 250), (510, 650), stack=1, **stacks)
    assert decided(rank) == [("autograd_detail", "stack_rule", "none")] * 2
    rank.table("events")["stack"][2:] = NULL
    assert decided(rank)[1] == ("autograd_detail", "lifetime_rule", "none")


def test_a_gradient_that_was_gone_at_the_sweep_is_told_by_its_size() -> None:
    parameter = owner(5, 999, 64, "parameter")
    assert decided(trace_of((210, 310), owners=[parameter])) == [("gradient", "lifetime_rule", "none")]
    assert decided(trace_of((210, 290), owners=[parameter])) == [("temporary", "lifetime_rule", "none")]
    assert decided(trace_of((210, 310), size=65, owners=[parameter])) == [("unknown", "unknown", "none")]


@pytest.mark.parametrize("size", [64, 32, 128, 192, 96, 384])
def test_what_may_be_a_copy_of_the_weights_is_no_input(size: int) -> None:
    weights = [owner(5, 998, 64, "parameter"), owner(5, 999, 128, "parameter")]
    assert decided(trace_of((50, None), size=size, owners=weights)) == [("unknown", "unknown", "none")]


def test_weights_that_nothing_owns_are_neither_activations_nor_inputs() -> None:
    """Training by functions: autograd saves the weights, which were there before the first forward."""
    row = saved(201, 1, 64)
    for owners in ([owner(5, 999, 64, "parameter")], [owner(5, 999, 4096, "buffer")]):
        assert decided(trace_of((50, None), saved=[row], owners=owners)) == [("unknown", "unknown", "none")]
    assert decided(trace_of((50, None), saved=[row])) == [("input", "lifetime_rule", "none")]


def test_a_bucket_of_a_distributed_run_is_no_input() -> None:
    rank = trace_of((50, None))
    alone = RankTrace(header={**rank.header, "world_size": 1}, strings=rank.strings, tables=rank.tables)
    several = RankTrace(header={**rank.header, "world_size": 2}, strings=rank.strings, tables=rank.tables)
    assert [decided(one)[0][0] for one in (alone, several)] == ["input", "unknown"]


def test_what_a_reducer_makes_for_good_is_a_bucket() -> None:
    scopes = [{**scope("DistributedDataParallel.reducer", 40, 60), "class_name": "Reducer"}]
    found = decided(trace_of((30, None), (50, None), (50, 55), scopes=scopes))
    assert [one[:2] for one in found] == [
        ("input", "lifetime_rule"),
        ("communication", "hook"),
        ("temporary", "lifetime_rule"),
    ]


@pytest.mark.parametrize("file", ["torch/distributed/distributed_c10d.py", "torch\\distributed\\distributed_c10d.py"])
def test_what_a_collective_makes_is_communication(file: str) -> None:
    """Gloo frees it on a thread of its own, so that it seems to stay."""
    frames = [{"file": file, "line": 9, "function": "reduce_scatter"}, {"file": "a.py", "line": 1, "function": "train"}]
    stacks = {"frames": frames, "stacks": [{"frame": 1, "parent": None}, {"frame": 0, "parent": 0}]}
    assert decided(trace_of((210, None), stack=1, **stacks)) == [("communication", "stack_rule", "none")]
    assert decided(trace_of((210, None), stack=0, **stacks)) == [("unknown", "unknown", "none")]
    rank = trace_of((210, None), (610, None), (610, 650), stack=1, **stacks)
    rank.table("events")["stack"][1:] = NULL
    assert [one[:2] for one in decided(rank)] == [
        ("communication", "stack_rule"),
        ("communication", "lifetime_rule"),
        ("temporary", "lifetime_rule"),
    ]


@pytest.mark.parametrize("born", [110, 210])
def test_scratch_memory_is_told_by_its_size(born: int) -> None:
    scratch = 4096 * 1024 * 2 + 16 * 1024 * 8
    for size, life, device, expected in [
        (scratch, (born, None), "cuda:0", "workspace"),
        (32 * 2**20, (born, None), "cuda:0", "workspace"),
        (scratch + 512, (born, None), "cuda:0", "unknown"),
        (scratch, (born, 290), "cuda:0", "temporary" if born == 210 else "activation"),
        (scratch, (born, None), "cpu", "unknown"),
    ]:
        assert decided(trace_of(life, (990, None), size=size, device=device), device)[0][0] == expected


def test_in_one_step_a_round_size_is_not_enough() -> None:
    """Half a gibibyte of logits would be an output; what is as large as scratch memory may be either."""
    one_step: dict[str, Any] = {"phases": LOOP["phases"][:4], "steps": LOOP["steps"][:2]}
    sizes = {32 * 2**20: "unknown", 64 * 2**20: "activation"}
    found = {size: decided(trace_of((110, None), size=size, device="cuda:0", **one_step), "cuda:0") for size in sizes}
    assert {size: rows[0][0] for size, rows in found.items()} == sizes


def test_labels_that_autograd_saved_are_inputs_and_not_activations() -> None:
    row = saved(601, 1, 64)
    assert decided(trace_of((425, 900), saved=[row])) == [("input", "lifetime_rule", "none")]
    assert decided(trace_of((510, 900), saved=[row])) == [("activation", "hook", "saved")]


def test_an_evaluation_makes_outputs_and_temporaries() -> None:
    phases = [*LOOP["phases"], phase("evaluation", 2, 460, 480)]
    found = decided(trace_of((465, 470), (465, 650), phases=phases))
    assert found == [("temporary", "lifetime_rule", "none"), ("activation", "lifetime_rule", "output")]


def test_a_loss_computed_after_another_phase_is_of_the_forward() -> None:
    """A backward inside forward (forces, penalties) ends the phase; what follows leads to the next backward."""
    phases = [*LOOP["phases"], phase("backward", 1, 150, 160)]
    phases[0] = phase("forward", 1, 100, 150)
    assert decided(trace_of((170, 250), (170, 190), phases=phases)) == [
        ("activation", "lifetime_rule", "saved"),
        ("temporary", "lifetime_rule", "none"),
    ]


def test_a_forward_that_failed_had_activations_when_it_did() -> None:
    """The failure frees everything: what died before the last request was temporary, what after it was not."""
    phases = [phase("forward", 1, 100, None)]
    found = decided(trace_of((110, 170), (120, 130), (140, 180), (150, None), phases=phases, steps=[step(0, 0, 99)]))
    assert [one[0] for one in found] == ["activation", "temporary", "activation", "activation"]


def test_a_backward_that_failed_knows_no_gradient_from_a_temporary() -> None:
    phases = [phase("forward", 1, 100, 200), phase("backward", 1, 200, None), phase("recompute", 1, 240, 260)]
    lives: list[Life] = [(110, None), (210, 250), (210, None), (245, None)]
    found = decided(trace_of(*lives, phases=phases, steps=[step(0, 0, 99)]))
    assert [(one[0], one[2]) for one in found] == [
        ("activation", "none"),
        ("temporary", "none"),
        ("unknown", "none"),
        ("activation", "recomputed"),
    ]


def test_what_was_computed_again_when_memory_ran_out_was_so_for_backward() -> None:
    """On a device the exception frees it, after the call of backward has ended."""
    phases = [phase("forward", 1, 100, 200), phase("backward", 1, 200, 300), phase("recompute", 1, 240, 260)]
    # Freed with the exception; freed before; born after the failure, of a program that goes on.
    lives: list[Life] = [(245, 320), (246, 275), (310, 330)]
    for failure_ns, expected in ((270, "activation"), (None, "unknown")):
        found = decided(trace_of(*lives, phases=phases, steps=[step(0, 0, 99)], failure_ns=failure_ns))
        assert [one[0] for one in found] == [expected, "activation", "temporary"]


def test_nothing_is_told_without_phases() -> None:
    assert decided(trace_of((110, 150), phases=[])) == [("unknown", "unknown", "none")]


times = st.integers(1, 1000)
lives = st.lists(st.tuples(times, st.one_of(st.none(), times)).filter(lambda one: one[1] is None or one[0] < one[1]))


@given(lives=lives, named=st.lists(st.tuples(st.integers(1, 12), times, st.sampled_from(["gradient", "input"]))))
def test_what_an_owner_names_is_never_anything_else(lives: list[Life], named: list[tuple[int, int, str]]) -> None:
    owners = [OTHER, *(owner(time, address, 64, category) for address, time, category in named)]
    rank = trace_of(*lives, owners=owners)
    for number, (found, (birth, death)) in enumerate(zip(decided(rank), lives, strict=True), start=1):
        mine = {c for a, time, c in named if a == number and birth <= time < (death or time + 1)}
        if mine:
            assert found == ("gradient" if "gradient" in mine else "input", "owner", "none")
        else:
            assert found[1] in ("lifetime_rule", "unknown")
            assert (found[0] == "unknown") == (found[1] == "unknown")


def test_odd_recordings_are_no_trouble() -> None:
    assert decided(trace_of(steps=[], saved=[saved(5, 1, 64)])) == []
    assert decided(trace_of((110, 150), steps=[])) == [("temporary", "lifetime_rule", "none")]
    assert decided(trace_of((110, None), phases=[phase("odd", 1, 100, 200)]))[0][0] == "unknown"
    assert decided(trace_of((110, None), phases=[phase("backward", 1, 300, None), phase("backward", 1, 100, 200)]))[0][
        0
    ] in ("unknown", "gradient")


@pytest.mark.parametrize(("num_copies", "expected"), [(1, "input"), (2, "input"), (8, "unknown")])
def test_a_buffer_that_is_as_large_as_some_weight_is_no_copy_and_all_of_them_are(
    num_copies: int, expected: str
) -> None:
    """A rollout buffer has a round size, too; a copy of the weights repeats most of them."""
    sizes = [64, 64, 256, 256, 512, 512, 1024, 2048]
    weights = [owner(5, 900 + at, size, "parameter") for at, size in enumerate(sizes)]
    rank = trace_of(*[(50, None)] * num_copies, owners=weights)
    allocs = rank.table("events")["action"] == rank.string_id("alloc")
    rank.table("events")["size_bytes"][allocs] = sizes[::-1][:num_copies] if num_copies > 2 else [512, 256][:num_copies]
    assert [kind for kind, *_ in decided(rank)] == [expected] * num_copies
