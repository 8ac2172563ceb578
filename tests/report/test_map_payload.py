"""A packed map holds what the map holds: its columns come back to the byte, and a page has room for some of them."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memtrace.analysis.results.report import AllocationMap, Report
from memtrace.report.page.data.packed_map import PackedMap, packed_map
from memtrace.report.page.report import packed_maps, render_html
from tests.browser.map_runs import device_report, host_report, map_of


def unpacked(packed: PackedMap) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns as the documented format says: planes of bytes, differences, little-endian."""
    data = zlib.decompress(base64.b64decode(packed.data))
    columns, offset = {}, 0
    for spec in packed.view["columns"]:
        dtype = np.dtype(f"<{spec['type']}")
        size = dtype.itemsize * spec["length"]
        planes = np.frombuffer(data[offset : offset + size], np.uint8).reshape(dtype.itemsize, spec["length"])
        values = planes.T.copy().view(dtype).reshape(-1)
        columns[spec["name"]] = np.cumsum(values.astype(np.int64)) if spec["ascending"] else values
        offset += size
    assert offset == len(data)
    return columns


@pytest.mark.parametrize("make", [device_report, host_report])
def test_columns_come_back(make: Any) -> None:
    found: AllocationMap = map_of(make())
    columns = unpacked(packed_map(found))
    assert np.array_equal(columns["start"], found.start)
    assert np.array_equal(columns["start"] + columns["inUse"], found.in_use_end)
    assert np.array_equal(columns["start"] + columns["inUse"] + columns["pending"], found.end)
    assert np.array_equal(columns["size"], found.size_bytes)
    assert np.array_equal(columns["place"], found.place_bytes)
    assert np.array_equal(columns["event"].astype(np.int64) - 1, found.event)
    for name, values in (("stack", found.stack), ("owner", found.owner), ("saved", found.saved), ("step", found.step)):
        assert np.array_equal(columns[name].astype(np.int64) - 1, values)
    assert found.time_ns is not None
    assert np.array_equal(columns["time"].astype(np.int64), found.time_ns - found.time_ns[0])


def test_sizes_beyond_four_bytes_are_kept() -> None:
    found = map_of(host_report())
    large = replace(found, size_bytes=found.size_bytes + (1 << 40))
    assert np.array_equal(unpacked(packed_map(large))["size"].astype(np.int64), large.size_bytes)


def test_the_same_map_packs_to_the_same_bytes() -> None:
    found = map_of(device_report())
    assert packed_map(found) == packed_map(found)


def ranks_with_maps(number: int) -> Report:
    """Return a report of so many equal ranks, the last of which the verdict is about."""
    report = host_report()
    return replace(report, ranks=report.ranks * number, main_rank=number - 1)


def test_many_ranks_do_not_make_a_page_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ranks_with_maps(4)
    assert list(packed_maps(report)) == [3, 0, 1, 2]
    one = len(packed_map(map_of(report)).data)
    monkeypatch.setattr("memtrace.report.page.report.MAX_MAP_CHARS", 2 * one)
    assert list(packed_maps(report)) == [3, 0]
    monkeypatch.setattr("memtrace.report.page.report.MAX_MAP_CHARS", 1)
    assert list(packed_maps(report)) == [3]
    assert 'id="map-3"' in render_html(report)
    assert 'id="map-0"' not in render_html(report)
