"""The page of a search for what fits: every rung, every reason and what to do, nothing of the program let loose."""

from __future__ import annotations

import re

from memtrace.report.answers.fix_patch import Patch
from memtrace.report.answers.fixing import answer_lines, peak_line
from memtrace.report.page.fixing import render_fixed
from memtrace.schema.changes import Changes
from memtrace.units import format_bytes
from tests.fake_fixed import fixed


def test_the_page_says_what_the_answer_says() -> None:
    found = fixed()
    html = render_fixed(found, Patch(text="--- a/train.py\n+x < y\n", left=Changes()), plan="plan.json")
    for line in answer_lines(found):
        assert line in html
    for rung in found.rungs:
        # Its bar, its row, and its mark.
        assert html.count(rung.title) >= 3
        assert f'data-bytes="{rung.needs.reserved_bytes}"' in html
        assert (
            f"<title>{rung.title}: {format_bytes(rung.needs.reserved_bytes)}, {rung.slowdown:+.1%} time</title>" in html
        )
    assert "memtrace fix --apply plan.json -- python train.py" in html
    assert "+x &lt; y" in html
    assert "&lt;i&gt;clips" in html
    assert "<i>" not in html
    assert "it is compiled" in html
    assert peak_line(found) in html
    assert all(size in peak_line(found) for size in map(format_bytes, found.plain.by_category.values()))
    # Bars, rows and marks have the same numbers.
    for number in range(1, len(found.rungs) + 1):
        assert len(re.findall(rf'class="rung"[^>]*>{number}<', html)) == 2
        assert f"<td>{number}</td>" in html
    # The marks of the best for their memory are those of the front.
    assert html.count("★") == len(found.front)


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    found = fixed()
    html = render_fixed(found)
    largest = max(one.needs.reserved_bytes for one in found.rungs)
    for at, rung in enumerate(found.rungs):
        (width,) = re.findall(rf"#rung-{at} \.allocated{{width:([\d.]+)%}}", html)
        assert float(width) == round(100 * rung.needs.peak_bytes / largest, 3)


def test_what_nothing_meets_has_no_code_and_names_the_smallest() -> None:
    found = fixed(fits=False)
    html = render_fixed(found)
    assert found.smallest_bytes is not None
    assert format_bytes(found.smallest_bytes) in html
    assert "What to do" not in html
    assert "the smallest first" in html
