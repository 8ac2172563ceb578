"""Every key of the JSON document holds the field of its name: nothing else, and null where nothing was recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from memtrace.analysis.results.report import PredictedPeak, Report
from memtrace.report.json.report import peak_document, report_document
from tests.report.distinct_values import distinct, without_optional

OWN_KEYS = {"format", "version", "num_buckets"}
"""Keys of the contract that no result has a field for."""


def pairs(result: Any, shown: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield each value of a document with its path and the value that the results hold under this name."""
    if isinstance(shown, dict) and not isinstance(result, Mapping):
        for key in shown.keys() - OWN_KEYS:
            yield from pairs(getattr(result, key), shown[key], f"{path}.{key}")
    elif isinstance(shown, list) and len(shown) == len(result):
        for at, (one, text) in enumerate(zip(result, shown, strict=True)):
            yield from pairs(one, text, f"{path}[{at}]")
    else:
        yield path, shown, result


@pytest.mark.parametrize("complete", [True, False])
def test_every_key_holds_the_field_of_its_name(complete: bool) -> None:
    report = distinct(Report) if complete else without_optional(distinct(Report))
    compared = list(pairs(report, report_document(report), "report"))

    different = [(path, shown, held) for path, shown, held in compared if shown != held]
    assert different == []
    assert len(compared) > 100


def test_a_predicted_peak_shows_its_range_too() -> None:
    peak = distinct(PredictedPeak)
    document = peak_document(peak)

    assert [(path, shown, held) for path, shown, held in pairs(peak, document, "peak") if shown != held] == []
    assert document.keys() >= {"low_bytes", "high_bytes", "needed_bytes", "capacity_bytes", "fits", "assumptions"}


def numbers_in(value: Any) -> list[int]:
    """Return all numbers in the fields of results, however deep."""
    if isinstance(value, Mapping):
        return numbers_in([*value, *value.values()])
    if isinstance(value, list | tuple):
        return [number for one in value for number in numbers_in(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def test_no_two_numbers_are_alike() -> None:
    numbers = numbers_in(dataclasses.asdict(distinct(Report)))

    assert len(numbers) > 100
    assert len(numbers) == len(set(numbers)), "a number in the place of another would not be seen"
