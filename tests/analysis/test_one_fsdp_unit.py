"""One group of FSDP2 that gathers nearly everything is told where there are layers to shard by themselves."""

from __future__ import annotations

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.faults.one_fsdp_unit import one_fsdp_unit
from memtrace.analysis.results.report import Finding
from tests.analysis.small_trace import event_rows, owner, rank_trace, step, window

LAYER = 1000


def found_with(groups: dict[str, int], *, layers: int) -> Finding | None:
    """Return what is found of a run that holds these gathered groups at once, beside the shards of some layers."""
    names = [f"layers.{number}.weight" for number in range(layers)]
    sizes = [*[LAYER // 4] * layers, *groups.values()]
    events = [("alloc", address, size) for address, size in enumerate(sizes, start=1)]
    time = 10 * len(events) + 1
    rows = [{**owner(time, at, LAYER // 4, "parameter"), "name": name} for at, name in enumerate(names, start=1)]
    rows += [
        {**owner(time, layers + at, size, "communication"), "name": f"all-gather of {name}"}
        for at, (name, size) in enumerate(groups.items(), start=1)
    ]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 1), step(1, 1, time + 1)],
        owners=rows,
    )
    return one_fsdp_unit(Case(build_history(rank, "cpu", owns_marks=False)))


def test_one_unit_of_all_layers_could_be_two_layers_at_a_time() -> None:
    found = found_with({"the root": 8 * LAYER}, layers=8)
    assert found is not None
    assert found.new_peak_bytes == 8 * LAYER // 4 + 2 * LAYER
    assert found.evidence["num_layers"] == 8
    assert "fully_shard on each layer" in found.change


@pytest.mark.parametrize(
    ("groups", "layers"),
    [
        ({f"layers.{number}": LAYER for number in range(8)}, 8),
        ({"the root": LAYER, "layers.0": LAYER}, 8),
        ({"the root": 2 * LAYER}, 2),
        ({}, 8),
    ],
    ids=["a unit a layer", "no unit that is nearly all", "two layers", "nothing gathered"],
)
def test_units_that_are_small_and_models_without_layers_are_not_told(groups: dict[str, int], layers: int) -> None:
    assert found_with(groups, layers=layers) is None
