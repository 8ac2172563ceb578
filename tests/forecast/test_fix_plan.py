"""Plan files are read as what a stranger wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memtrace.schema.changes import Changes


def test_a_plan_is_read_as_it_was_written() -> None:
    changes = Changes(
        recompute=("blocks.0", "Block#2"),
        saved=("Block#2:aten.mm",),
        optimizer="fused",
        allocator="expandable_segments:True",
    )
    assert Changes.from_plan(json.loads(json.dumps(changes.plan()))) == changes
    assert changes.values().keys() == {"recompute", "saved", "optimizer", "allocator"}


@pytest.mark.parametrize(
    "changes",
    [
        None,
        [],
        {"unheard_of": True},
        {"recompute": "blocks.0"},
        {"recompute": ["blocks.0; import os"]},
        {"recompute": [1]},
        {"recompute": ["x"] * 20_001},
        {"recompute": ["x"], "saved": ["x"]},
        {"recompute": ["x"], "saved": ["x:aten.mm()"]},
        {"recompute": ["x"], "saved": ["y:aten.mm"]},
        {"set_to_none": 1},
        {"optimizer": "eval"},
        {"autocast": "load"},
        {"allocator": "a b\n"},
        {"allocator": "$(touch x)"},
        {"micro_batch": True},
        {"micro_batch": 0},
    ],
)
def test_what_is_no_change_is_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Changes.from_plan({"format": "memtrace-fix-plan", "version": 1, "changes": changes})


@pytest.mark.parametrize("document", [None, [], {}, {"format": "memtrace-fix-plan", "version": 2, "changes": {}}])
def test_what_is_no_plan_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Changes.from_plan(document)
