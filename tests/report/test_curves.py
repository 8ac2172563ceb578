"""Curves and bars of pages that put runs side by side: every one is drawn, and as long as its bytes say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from memtrace.analysis.asked.diff import compare
from memtrace.analysis.results.diff import StepCurve
from memtrace.parallel.run import report_of
from memtrace.report.page.curves import Side, overlay
from memtrace.report.page.diff import render_diff
from tests.conftest import ROOT

TRACES = ROOT / "tests/gold/traces"


def curve(*steps: float) -> StepCurve:
    return StepCurve(steps=steps, num_bytes=np.arange(1, len(steps) + 1, dtype=np.int64))


def paths(markup: str) -> list[str]:
    return re.findall(r' d="([^"]*)"', markup)


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0, 1.2, 1.99, 2.0, 7.5])
def test_a_curve_begins_where_its_first_level_is(first: float) -> None:
    (path,) = paths(overlay([Side(name="A", curve=curve(first, first + 0.001, first + 0.002))]))
    assert re.match(r"M[\d.]+ [\d.]+H", path)
    assert path.count("M") == 1


def test_a_curve_is_broken_where_steps_were_not_recorded_and_nowhere_else() -> None:
    (path,) = paths(overlay([Side(name="A", curve=curve(1.5, 2.1, 3.0, 7.2, 8.0))]))
    assert path.count("M") == 2


def test_bars_of_a_comparison_are_as_long_as_their_bytes() -> None:
    result = compare(*(report_of([TRACES / name]) for name in ("gpt.json.gz", "kept-gradients.json.gz")))
    page = render_diff(result)
    rank = result.ranks[0]
    largest = max(max(one.a_bytes, one.b_bytes) for one in rank.categories)
    for number, one in enumerate(rank.categories):
        row = re.search(rf'id="bar-0-{number}".*?</li>', page, re.DOTALL)
        assert row is not None
        for side, num_bytes in enumerate((one.a_bytes, one.b_bytes)):
            assert f'class="side-{side}"' in row[0]
            rule = re.search(rf"#bar-0-{number} \.side-{side}\{{width:([\d.]+)%(;min-width:0)?\}}", page)
            assert rule is not None
            # No bytes, no bar.
            assert (rule[2] is not None) == (num_bytes == 0)
            assert float(rule[1]) == pytest.approx(100 * num_bytes / largest, abs=0.001)
    assert all(path.startswith("M") for path in paths(page))
    assert len(paths(page)) == 2
