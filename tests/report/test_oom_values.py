"""Each number of an out-of-memory stands beside its own label, on the page and in the explanation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.analysis.sentences.oom import _cause
from memtrace.report.page.data.cards import oom_view
from memtrace.units import format_bytes
from tests.fake_report import GIB, MIB, out_of_memory

OOM = replace(
    out_of_memory(),
    request_bytes=5 * GIB,
    free_bytes=310 * MIB,
    reserved_unallocated_bytes=1800 * MIB,
    largest_free_block_bytes=900 * MIB,
    capacity_bytes=40 * GIB,
)


def test_the_page_shows_each_number_under_its_label() -> None:
    assert {row["label"]: row["value"] for row in oom_view(OOM)["rows"]} == {
        "requested": format_bytes(5 * GIB),
        "free on the device": format_bytes(310 * MIB),
        "reserved but not allocated": format_bytes(1800 * MIB),
        "largest free block": format_bytes(900 * MIB),
    }


@pytest.mark.parametrize("cause", ["capacity", "fragmentation"])
def test_the_explanation_names_what_was_unallocated(cause: str) -> None:
    (sentence,) = _cause(replace(OOM, cause=cause))

    assert f"{format_bytes(1800 * MIB)} of what was reserved was unallocated" in sentence
    assert (f"the largest free block was {format_bytes(900 * MIB)}" in sentence) == (cause == "fragmentation")
