"""Each number of an out-of-memory stands beside its own label, on the page and in the explanation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.analysis.sentences.oom import _cause, largest_block
from memtrace.analysis.sentences.verdict import _because
from memtrace.report.page.data.cards import oom_view
from memtrace.units import format_bytes
from tests.fake_report import GIB, MIB, out_of_memory

KIB = 1024

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


@pytest.mark.parametrize(
    ("request_bytes", "largest", "said"),
    [
        # Smaller than what was asked for: that is why.
        (512 * KIB, 511 * KIB, "the largest free block was 511 KiB"),
        # Large enough and not taken: blocks of up to 1 MiB come from segments of their own.
        (
            512 * KIB,
            12 * MIB,
            "the largest free block, of 12.0 MiB, was of another pool or stream, and a new segment would take 2.00 MiB",
        ),
        (
            5 * MIB,
            5 * MIB,
            "the largest free block, of 5.00 MiB, was of another pool or stream, or of no size to be split, "
            "and a new segment would take 20.0 MiB",
        ),
    ],
)
def test_a_block_that_would_have_done_is_not_blamed_for_its_size(request_bytes: int, largest: int, said: str) -> None:
    oom = replace(
        OOM, request_bytes=request_bytes, largest_free_block_bytes=largest, free_bytes=MIB, cause="fragmentation"
    )

    assert largest_block(oom) == said
    assert said in next(_cause(oom))
    assert said in _because(oom)
