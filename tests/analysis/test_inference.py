"""Inference from a built snapshot: steps, phases and categories that no hook told, and none where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.attribution.size_matching import count_sizes, match_sizes, sets_of_sizes
from memtrace.analysis.device.device_history import build_history, device_names
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from tests.builders import Frame, SnapshotBuilder, snapshot, trace_of

LOOP: Frame = ("train.py", 9, "<module>")
BUILD = (("model.py", 3, "__init__"), LOOP)
FORWARD = (("model.py", 8, "forward"), ("module.py", 1, "_call_impl"), LOOP)
ENGINE = (("??", 0, "torch::autograd::Engine::thread_main()"),)
UPDATE = (("optimizer.py", 5, "step"), LOOP)
WEIGHTS = ((0x1000, 1024), (0x2000, 2048))
PARAMETER = sum(size for _, size in WEIGHTS)
SAVED, SCRATCH = 5000, 700


def _report(built: SnapshotBuilder) -> RankReport:
    return analyze(trace_of(read_snapshot(built.build(), where="built"))).ranks[0]


def _train(built: SnapshotBuilder, *, step: int, engine: tuple[Frame, ...] = ENGINE) -> SnapshotBuilder:
    """Add a step: an activation, a scratch block, gradients, and states the first time."""
    built.alloc(0x10000, SAVED, frames=FORWARD)
    built.alloc(0x20000, SCRATCH, frames=FORWARD).free(0x20000)
    for address, size in WEIGHTS:
        built.alloc(address + 0x40000, size, frames=engine)
    built.free(0x10000)
    built.annotate("Optimizer.step#Adam.step", "START")
    built.alloc(0x30000, SCRATCH, frames=UPDATE).free(0x30000)
    for address, size in WEIGHTS if step == 1 else ():
        built.alloc(address + 0x80000, size, frames=UPDATE)
    built.annotate("Optimizer.step#Adam.step", "END")
    return built


def _zero_grad(built: SnapshotBuilder) -> SnapshotBuilder:
    for address, _ in WEIGHTS:
        built.free(address + 0x40000)
    return built


def _two_steps(engine: tuple[Frame, ...] = ENGINE) -> SnapshotBuilder:
    built = snapshot()
    for address, size in WEIGHTS:
        built.alloc(address, size, frames=BUILD)
    _zero_grad(_train(built, step=1, engine=engine))
    return _train(built, step=2, engine=engine)


@pytest.mark.parametrize("engine", [ENGINE, ()], ids=["engine frames", "no frames"])
def test_steps_and_phases_come_from_annotations_and_threads(engine: tuple[Frame, ...]) -> None:
    report = _report(_two_steps(engine))
    assert [one.step for one in report.steps] == [1, 2]
    assert [[phase.phase for phase in one.phases] for one in report.steps] == [["forward", "backward", "optimizer"]] * 2
    assert [one.num_microbatches for one in report.steps] == [1, 1]


@pytest.mark.parametrize("engine", [ENGINE, ()], ids=["engine frames", "no frames"])
def test_categories_at_the_end_are_inferred_and_never_exact(engine: tuple[Frame, ...]) -> None:
    end = _report(_two_steps(engine)).end
    expected = dict.fromkeys(("parameter", "gradient", "optimizer_state"), PARAMETER)
    assert {name: size for name, size in end.by_category.items() if size} == expected
    assert not {"owner", "hook"} & set(end.by_decision)
    assert end.by_decision["annotation"] == PARAMETER


def test_activation_outlives_forward_and_a_temporary_no_phase() -> None:
    built = snapshot().alloc(0x1000, 1024, frames=BUILD).alloc(0x10000, SAVED, frames=FORWARD)
    built.alloc(0x20000, SCRATCH, frames=FORWARD).free(0x20000)
    built.alloc(0x41000, 1024, frames=ENGINE).alloc(0x42000, 9, frames=ENGINE).free(0x42000)
    peak = _report(built).peak.by_category
    assert peak == {"parameter": 1024, "gradient": 1024, "activation": SAVED, "temporary": 9, "unknown": 0}


def test_what_outlives_backward_and_matches_no_parameter_stays_unknown() -> None:
    built = snapshot().alloc(0x1000, 1024, frames=BUILD).alloc(0x10000, SAVED, frames=FORWARD)
    built.alloc(0x41000, 1024, frames=ENGINE).alloc(0x42000, 77, frames=ENGINE)
    assert _report(built).end.by_category["unknown"] == 77


def test_parameter_replaced_in_a_step_stays_a_parameter() -> None:
    built = _two_steps()
    built.annotate("Optimizer.step#Adam.step", "START")
    built.alloc(0x90000, 1024, frames=UPDATE).free(0x1000)
    built.annotate("Optimizer.step#Adam.step", "END")
    assert _report(built).end.by_category["parameter"] == PARAMETER


def test_parameter_replaced_twice_in_a_step_stays_a_parameter_and_moments_are_states() -> None:
    built = _two_steps()
    built.annotate("Optimizer.step#AdamW.step", "START")
    # New moments, then a new parameter, which another one replaces at once.
    built.alloc(0x90000, 1024, frames=UPDATE).alloc(0x91000, 1024, frames=UPDATE)
    built.alloc(0x92000, 1024, frames=UPDATE).free(0x1000)
    built.alloc(0x93000, 1024, frames=UPDATE).free(0x92000)
    built.annotate("Optimizer.step#AdamW.step", "END")
    rank = with_inferred_marks(trace_of(read_snapshot(built.build(), where="built")).ranks[0])
    history = build_history(rank, device_names(rank)[0], owns_marks=True)
    category = dict(zip(history.lifetimes.address.tolist(), history.attribution.category.tolist(), strict=True))
    names = {address: CATEGORIES[category[address]].value for address in (0x90000, 0x91000, 0x93000)}
    assert names == {0x90000: "optimizer_state", 0x91000: "optimizer_state", 0x93000: "parameter"}


def test_a_history_that_ends_with_its_first_step_takes_no_moment_for_a_parameter() -> None:
    built = snapshot()
    for address, size in WEIGHTS:
        built.live_before(address, size)
    built.alloc(0x10000, SAVED, frames=FORWARD)
    for address, size in WEIGHTS:
        built.alloc(address + 0x40000, size, frames=ENGINE)
    built.free(0x10000).annotate("Optimizer.step#AdamW.step", "START")
    for address, size in WEIGHTS:
        built.alloc(address + 0x80000, size, frames=UPDATE).alloc(address + 0xC0000, size, frames=UPDATE)
        built.alloc(0x200000, size, frames=UPDATE).free(0x200000)
    built.annotate("Optimizer.step#AdamW.step", "END")
    report = _report(built)
    assert {name: size for name, size in report.end.by_category.items() if size} == {
        "parameter": PARAMETER,
        "gradient": PARAMETER,
        "optimizer_state": 2 * PARAMETER,
    }
    # The states tell that it is the first; with them the forward needs more than it did.
    assert report.first_step_peak is not None
    assert report.steady_state_peak is not None
    assert report.steady_state_peak.by_category["optimizer_state"] == 2 * PARAMETER


def test_late_history_has_no_first_step_peak() -> None:
    built = snapshot()
    for address, size in WEIGHTS:
        built.live_before(address, size)
    report = _report(_train(built, step=2))
    assert len(report.steps) == 1
    assert report.first_step_peak is None


def test_annotations_alone_tell_steps_gradients_and_states() -> None:
    built = snapshot()
    for address, size in WEIGHTS:
        built.alloc(address, size)
    for step in (1, 2):
        built.alloc(0x10000, SAVED)
        for address, size in WEIGHTS:
            built.alloc(address + 0x40000, size)
        built.free(0x10000).annotate("Optimizer.step#Adam.step", "START")
        for address, size in WEIGHTS if step == 1 else ():
            built.alloc(address + 0x80000, size).alloc(address + 0xC0000, size)
        built.annotate("Optimizer.step#Adam.step", "END")
        if step == 1:
            built.annotate("Optimizer.zero_grad#Adam.zero_grad", "START")
            _zero_grad(built).annotate("Optimizer.zero_grad#Adam.zero_grad", "END")
    report = _report(built)
    assert [one.step for one in report.steps] == [1, 2]
    first = report.steps[0].end
    assert first is not None
    assert first.by_category["parameter"] == first.by_category["gradient"] == PARAMETER
    assert first.by_category["optimizer_state"] == 2 * PARAMETER
    # No frame tells what was forward: what lives within a step stays unknown, and so do gradients that nothing zeroed.
    assert report.end.by_category["unknown"] == PARAMETER
    assert "activation" not in report.peak.by_category


@pytest.mark.parametrize("frames", [FORWARD, ()], ids=["frames", "annotations alone"])
@pytest.mark.parametrize("is_let_go", [True, False])
def test_what_steps_make_anew_is_what_it_was_to_the_last_step_and_beyond(
    frames: tuple[Frame, ...], is_let_go: bool
) -> None:
    """Each step makes its moments and parameters anew, and after the last the program lets go of everything."""
    built = snapshot()
    # By kind: 1 is the parameter, 2 and 3 are moments, which the first step makes.
    live = {(1, size): 0x10000 + address for address, size in WEIGHTS}
    for (_, size), address in live.items():
        built.alloc(address, size, frames=BUILD if frames else ())
    made: dict[int, list[int]] = {}
    for step in range(1, 4):
        built.alloc(0x500000, SAVED, frames=frames)
        for address, size in WEIGHTS:
            built.alloc(0x600000 + address, size, frames=ENGINE if frames else ())
        built.free(0x500000).annotate("Optimizer.step#AdamW.step", "START")
        for address, size in WEIGHTS:
            for kind in (2, 3, 1):
                new = step * 0x1000000 + kind * 0x10000 + address
                built.alloc(0x400000, size, frames=UPDATE if frames else ()).free(0x400000)
                built.alloc(new, size, frames=UPDATE if frames else ())
                if (kind, size) in live:
                    built.free(live[kind, size])
                live[kind, size] = new
                made.setdefault(kind, []).append(new)
        built.annotate("Optimizer.step#AdamW.step", "END")
        built.annotate("Optimizer.zero_grad#AdamW.zero_grad", "START")
        for address, _ in WEIGHTS:
            built.free(0x600000 + address)
        built.annotate("Optimizer.zero_grad#AdamW.zero_grad", "END")
    for address in live.values() if is_let_go else ():
        built.free(address)
    rank = with_inferred_marks(trace_of(read_snapshot(built.build(), where="built")).ranks[0])
    history = build_history(rank, device_names(rank)[0], owns_marks=True)
    of_address = dict(zip(history.lifetimes.address.tolist(), history.attribution.category.tolist(), strict=True))
    found = {kind: {CATEGORIES[of_address[one]].value for one in addresses} for kind, addresses in made.items()}
    assert found == {1: {"parameter"}, 2: {"optimizer_state"}, 3: {"optimizer_state"}}


def test_forwards_alone_are_no_step() -> None:
    report = _report(snapshot().alloc(0x1000, 10, frames=FORWARD).free(0x1000))
    assert report.steps == ()
    assert report.peak.by_category == {"unknown": 10}


def test_a_rank_that_hooks_marked_is_left_as_it_is() -> None:
    rank = with_inferred_marks(read_snapshot(_two_steps().build(), where="built"))
    assert with_inferred_marks(rank) is rank


def test_sizes_match_one_to_one_in_each_phase() -> None:
    sizes, phase = np.array([8, 8, 8, 8]), np.array([0, 0, 1, 1])
    assert match_sizes(np.arange(4), sizes, count_sizes(np.array([8])), per_phase=phase).tolist() == [0, 2]


def test_sizes_that_fall_into_no_equal_sets_prove_nothing() -> None:
    assert sets_of_sizes(np.arange(3), np.array([1, 2, 3])) == []
