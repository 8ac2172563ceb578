"""The page of a what-if as a file: verdict first, nothing from a trace unescaped, no bar longer than its scale."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from memtrace.report.drawing.markup import source_hash
from memtrace.report.page.whatif import render_whatif, verdict
from tests.fake_report import HOSTILE
from tests.report.fake_whatif import diverging, hostile, result, row


def test_a_page_is_small_and_names_no_address() -> None:
    page = render_whatif([result()], title="snapshot.pickle")
    assert len(page) < 60_000
    assert not re.search(r"https?://|//cdn|@import|url\(", page)
    assert "{{" not in page


def test_the_policy_allows_the_one_script_and_the_one_style_sheet() -> None:
    page = render_whatif([result()], title="snapshot.pickle")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    (script,), (styles,) = (re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style"))
    assert policy[1].startswith(
        f"default-src 'none'; script-src {source_hash(script)}; style-src {source_hash(styles)};"
    )
    assert "unsafe" not in policy[1]
    assert not re.search(r"<[^>]* (style|on\w+)=", page)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_trace_or_a_setting_says_is_text(text: str) -> None:
    page = render_whatif([hostile(text), hostile(text)], title=text)
    plain = render_whatif([hostile("plain"), hostile("plain")], title="plain")
    tags = re.compile(r"<[a-z/!][^>]*>", re.IGNORECASE)
    assert len(tags.findall(page)) == len(tags.findall(plain))
    assert "\x1b" not in page
    assert "\u202e" not in page
    page.encode("utf-8")


def test_the_verdict_is_the_advice_or_what_fits() -> None:
    assert verdict([result()]) == "Fits: 1.00 GiB · expandable_segments:True. Does not fit: 600 MiB."
    assert verdict([result(advice="Set it.")]) == "Set it. Does not fit: 600 MiB."
    base, _, _, setting = result().rows
    assert verdict([replace(result(), rows=(base,))]) == (
        "The recording itself: at most 663 MiB allocated, at most 750 MiB reserved."
    )
    assert verdict([replace(result(), rows=(base, setting))]) == (
        "With expandable_segments:True at most 710 MiB are reserved, instead of 750 MiB."
    )
    # Started anew, the recording itself may reserve as little: that is what a change is compared with.
    anew = row("baseline, blocks in use at the start requested anew", 663, 710)
    assert "nothing reserves less" in verdict([replace(result(), rows=(base, anew, setting))])
    assert verdict([result(0), replace(result(1), rows=(base, setting))]) == (
        "Not everything that was tried fits on each of the 2 devices."
    )


def test_the_proof_says_where_the_model_left_the_record() -> None:
    page = render_whatif([diverging()], title="snapshot.pickle")
    assert "The model reproduces 3850 of 3853 recorded addresses and 65 of 65 segment events" in page
    assert "the size of 3 earlier blocks was inferred" in page
    assert "First divergence: event 7: the model took one, the record took another: a graph" in page
    assert 'class="panel proof partial"' in page


def test_a_capacity_far_above_everything_is_written_but_not_drawn() -> None:
    base = result().rows[0]
    far = row("80.0 GiB", 663, 750, capacity=80 * 1024)
    page = render_whatif([replace(result(), rows=(base, far))], title="snapshot.pickle")
    assert "750 MiB of 80.0 GiB" in page
    assert "#bar-0-1 .limit{" not in page
    assert "#bar-0-1 .allocated{width:88.400%}" in page
    widths = [float(width) for width in re.findall(r"#bar-\S+ \.\w+\{\w+:([\d.]+)%\}", page)]
    assert len(widths) == 4
    assert max(widths) <= 100


def test_nothing_reserved_draws_empty_bars() -> None:
    page = render_whatif([replace(result(), rows=(row("baseline", 0, 0),))], title="empty")
    assert "#bar-0-0 .allocated{width:0.000%}" in page


def test_the_table_shows_under_each_heading_what_it_says() -> None:
    one = replace(row("as it is", 1, 1), peak_allocated_bytes=3001, max_reserved_bytes=7013, num_device_mallocs=17)
    one = replace(one, num_alloc_retries=5)
    page = render_whatif([replace(result(), rows=(one,))], title="snapshot.pickle")
    table = re.search(r'<table class="whatif">.*?</table>', page, re.DOTALL)
    assert table is not None
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table[0])
    (body,) = re.findall(r'<tr class="first"><th scope="row">as it is</th>(.*?)</tr>', table[0])
    cells = re.findall(r'<td class="number"(?: data-bytes="(\d+)")?[^>]*>(.*?)</td>', body)
    shown = dict(zip(heads[1:], [int(size or said) for size, said in cells], strict=False))
    # Wasted is what is reserved and never allocated.
    assert shown == {
        "peak allocated": 3001,
        "peak reserved": 7013,
        "wasted": 7013 - 3001,
        "segments made": 17,
        "retries": 5,
    }
