"""Columns of integers that are written as bytes are read as what they were, in every width, nulls included."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.errors import TraceReadError
from memtrace.hooks.parts.packed_columns import packed_line
from memtrace.store.columns import NULL
from memtrace.store.parts.chunk import _unpacked


def read_back(values: Any) -> Any:
    record = json.loads(packed_line("events", {"address": values}))
    assert record["k"] == "events"
    return _unpacked(record["columns"]["address"], "address")


@pytest.mark.parametrize(("code", "num_bytes"), [("b", 1), ("i", 4), ("q", 8)])
@given(data=st.data())
def test_an_array_of_any_width_is_read_as_it_was(code: str, num_bytes: int, data: st.DataObject) -> None:
    least = -(2 ** (8 * num_bytes - 1))
    values = data.draw(st.lists(st.integers(least, -least - 1) | st.just(least)))
    found = read_back(array(code, values)).tolist()
    assert found == [NULL if value == least else value for value in values]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1)))
def test_a_list_of_integers_is_read_as_it_was(values: list[int]) -> None:
    assert read_back(values).tolist() == values


@pytest.mark.parametrize("values", [7, None, [1, None], [2**64], "text"])
def test_all_else_is_said_as_json_has_it(values: Any) -> None:
    assert read_back(values) == values


@pytest.mark.parametrize(
    "damaged", [{}, {"int64": "AAA"}, {"int64": 5}, {"int32": "AAAA"}, {"int16": "AAA="}, {"int8": "", "int64": ""}]
)
def test_a_damaged_column_is_refused(damaged: Any) -> None:
    with pytest.raises(TraceReadError, match="no column of integers"):
        _unpacked(damaged, "address")
