"""The page of a report as a file: complete in itself, nothing twice, nothing from a trace unescaped.

What it does in a browser is in tests/browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memtrace.analysis.results.report import RankReport, Report
from memtrace.report.drawing.markup import visible
from memtrace.report.drawing.palette import CATEGORIES, category_ink, stack_order
from memtrace.report.page.assets import joined_modules, viewers_folder
from memtrace.report.page.data.packed_map import PackedMap
from memtrace.report.page.data.payload import report_payload
from memtrace.report.page.report import render_html, script_json
from memtrace.schema.frames import frame_class, own_frames
from memtrace.schema.names import Category, Phase
from memtrace.units import format_bytes
from tests.fake_report import HOSTILE, finding, gpt_report, hostile_report, ranks_report
from tests.report.test_map_payload import unpacked


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(gpt_report())


@pytest.fixture(scope="module")
def payload() -> dict[str, Any]:
    return report_payload(gpt_report(), version="0")


def data_of(page: str) -> Any:
    """Return the payload of a page as a browser would read it: up to the first end of a script."""
    start = page.index('id="data">') + len('id="data">')
    return json.loads(page[start : page.index("</script", start)])


def test_a_page_is_small(page: str) -> None:
    # Styles and modules are a quarter of a megabyte, a timeline of a thousand points some kilobytes.
    assert len(page) < 350_000


def test_a_page_names_no_address(page: str) -> None:
    assert not re.search(r"https?://|//cdn|@import|url\(", page)


def test_a_page_has_no_place_left_to_fill(page: str) -> None:
    assert "{{" not in page


def test_the_policy_allows_the_scripts_of_the_page_and_no_other(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-eval" not in policy[1]
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']*)'", policy[1]) == digests
    assert len(digests) == 1


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_html(ranks_report()) == render_html(ranks_report())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_data(text: str) -> None:
    page = render_html(hostile_report())
    assert text not in page
    assert data_of(page)["title"] == visible(HOSTILE[0])
    assert page.count("<script") == 3
    assert "<img" not in page


def test_script_json_holds_nothing_that_html_or_javascript_would_read() -> None:
    value = {"<!--</script>": "&lt; > \u2028\u2029"}
    text = script_json(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def test_controls_and_direction_marks_become_visible() -> None:
    assert visible("\x1b[31m\x00\x9b\u202e\ud800 é\tok\n") == "\\x1b[31m\\x00\\x9b\\u202e\\ud800 é\tok\n"


def test_a_report_of_nothing_is_still_a_page() -> None:
    page = render_html(Report(verdict="Nothing could be read.", ranks=(), findings=(), warnings=(), title="x"))
    assert data_of(page)["ranks"] == []


def test_every_category_has_a_colour_of_its_own() -> None:
    assert set(CATEGORIES) == {category.value for category in Category}
    colors = [ink.color for ink in CATEGORIES.values()]
    assert len(set(colors)) == len(colors)
    assert category_ink("unknown").hatched


def test_a_category_of_a_newer_version_is_drawn_as_unattributed() -> None:
    assert category_ink("kv_cache").label == "kv cache"
    assert category_ink("kv_cache").hatched
    assert stack_order(["unknown", "kv_cache", "parameter"]) == ["parameter", "kv_cache", "unknown"]


# The modules of the viewers


def test_modules_join_into_one_script_without_imports() -> None:
    script = joined_modules("main")
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    for path in sorted((viewers_folder() / "js").glob("*.js")):
        # whatif.js and plan.js are scripts of pages of their own; the worker is joined apart.
        elsewhere = {"plan.js", "whatif.js", "worker.js"}
        assert script.count(f"// {path.name}\n") == (path.name not in elsewhere)


def test_the_worker_is_a_script_of_its_own() -> None:
    script = joined_modules("worker")
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert [f"// {name}.js\n" in script for name in ("unpack", "mapdata", "worker")] == [True] * 3
    assert "document" not in script


def test_no_two_modules_use_one_top_level_name() -> None:
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", joined_modules("main"), re.MULTILINE)
    assert len(names) > 100
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_no_module_parses_text_as_html() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", joined_modules("main"))


# What the page is given


def rank_view(payload: dict[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = payload["ranks"][0]
    return view


def columns_of(view: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the packed columns of a timeline."""
    return unpacked(PackedMap(view=view, data=view["packed"]))


def test_cards_say_what_the_result_says(payload: dict[str, Any]) -> None:
    rank = gpt_report().ranks[0]
    values = {card["key"]: card["value"] for card in rank_view(payload)["cards"]}
    assert rank.first_step_peak is not None
    assert rank.steady_state_peak is not None
    assert values == {
        "peak": format_bytes(rank.peak.allocated_bytes),
        "first-step-peak": format_bytes(rank.first_step_peak.allocated_bytes),
        "steady-state-peak": format_bytes(rank.steady_state_peak.allocated_bytes),
        "reserved": format_bytes(rank.max_reserved_bytes),
        "completeness": "complete",
    }


def test_what_is_not_recorded_is_said_and_never_zero() -> None:
    report = gpt_report()
    peak = replace(report.ranks[0].peak, allocated_bytes=None, reserved_bytes=None)
    rank = replace(report.ranks[0], peak=peak, steady_state_peak=None, max_reserved_bytes=None)
    view = report_payload(replace(report, ranks=(rank,)), version="0")["ranks"][0]
    cards = {card["key"]: card for card in view["cards"]}
    assert cards["peak"]["label"] == "Peak requested"
    assert cards["steady-state-peak"]["value"] == "not recorded"
    assert cards["reserved"]["value"] == "not recorded"


def test_shares_of_the_peak_add_up(payload: dict[str, Any]) -> None:
    breakdown = rank_view(payload)["breakdown"]
    assert sum(row["share"] for row in breakdown["rows"]) == pytest.approx(1, abs=1e-4)
    assert breakdown["rows"][-1]["category"] == "unknown"
    assert sum(part["share"] for part in breakdown["decisions"]) == pytest.approx(1, abs=1e-4)


def test_packed_levels_are_the_timeline_to_the_byte(payload: dict[str, Any]) -> None:
    timeline, view = gpt_report().ranks[0].timeline, rank_view(payload)["timeline"]
    assert timeline is not None
    columns = columns_of(view)
    for place, one in enumerate(view["categories"]):
        assert np.array_equal(columns[f"level{place}"], timeline.by_category[one["name"]])
    assert timeline.reserved_bytes is not None
    assert np.array_equal(columns["reserved"], timeline.reserved_bytes)
    assert np.array_equal(columns["time"].astype(np.int64), timeline.time_ns - timeline.time_ns[0])
    assert np.array_equal(columns["event"].astype(np.int64) - 1, timeline.event)


def test_a_gap_breaks_the_curves_and_is_named(payload: dict[str, Any]) -> None:
    timeline, view = gpt_report().ranks[0].timeline, rank_view(payload)
    assert timeline is not None
    start, end = timeline.gaps[0]
    (first,) = view["timeline"]["breaks"]
    assert timeline.time_ns[first - 1] <= start < timeline.time_ns[first]
    ((gap_start, gap_end, text),) = view["chart"]["gaps"]
    assert (gap_start, gap_end) == (start - timeline.time_ns[0], end - timeline.time_ns[0])
    assert text == "300 ms not recorded"
    assert all(one_end <= gap_start or one_start >= gap_end for one_start, one_end, *_ in view["chart"]["lanes"])


def test_unrecorded_steps_are_one_row(payload: dict[str, Any]) -> None:
    rows = rank_view(payload)["steps"]["rows"]
    assert [row["label"] for row in rows] == ["1", "2", "3", "4 – 499", "500"]
    assert [row["recorded"] for row in rows] == [True, True, True, False, True]


def test_a_chart_opens_on_its_steps_and_the_peak() -> None:
    report = gpt_report()
    rank = report.ranks[0]
    assert rank.timeline is not None
    origin, start = int(rank.timeline.time_ns[0]), rank.steps[0].start_ns
    assert start is not None
    end = max(step.end_ns for step in rank.steps if step.end_ns is not None)

    def opens(rank: RankReport, **changes: Any) -> Any:
        changed = replace(report, ranks=(replace(rank, **changes),))
        return report_payload(changed, version="0")["ranks"][0]["chart"]["opens"]

    assert opens(rank) is None
    # A long start: the steps are a small part of it.
    late = replace(rank.timeline, time_ns=np.concatenate([[origin - 10**11], rank.timeline.time_ns[1:]]))
    assert opens(rank, timeline=late) == [start - origin + 10**11, end - origin + 10**11]
    early = replace(rank.peak, time_ns=origin - 5 * 10**10)
    assert opens(rank, timeline=late, peak=early)[0] == 5 * 10**10


def test_phases_have_a_place_in_the_table() -> None:
    from memtrace.report.drawing.palette import PHASES

    assert set(PHASES) == {phase.value for phase in Phase}


@pytest.mark.parametrize(
    ("frames", "headline"),
    [
        (
            ["/env/lib/python3.11/site-packages/torch/nn/functional.py:2 linear", "/home/a/gpt.py:7 forward"],
            "/home/a/gpt.py:7 forward",
        ),
        (["?? torch::unwind::unwind()", "?? at::empty(long)"], "?? at::empty(long)"),
        (
            ["?? at::_ops::empty_strided::call(long)", "?? at::_ops::mm::call(at::Tensor)", "?? main"],
            "?? at::_ops::mm::call(at::Tensor)",
        ),
        (
            ["?? at::_ops::mm::call(at::Tensor)", "?? torch::autograd::generated::MmBackward0::apply(V&&)", "?? main"],
            "?? torch::autograd::generated::MmBackward0::apply(V&&)",
        ),
        (["?? torch::unwind::unwind()"], "?? torch::unwind::unwind()"),
        ([r"C:\env\Lib\site-packages\torch\a.py:1 f", r"C:\me\train.py:2 main"], r"C:\me\train.py:2 main"),
        ([], None),
    ],
)
def test_a_stack_is_named_by_the_line_of_the_program(frames: list[str], headline: str | None) -> None:
    assert next(iter(own_frames(frames)), None) == headline
    if headline is not None:
        # What the page shows of a map is the same: the innermost frame of the highest class.
        assert max(frames, key=frame_class) == headline


def test_the_timeline_marks_where_memory_ran_out() -> None:
    rank = next(rank for rank in ranks_report(4).ranks if rank.oom is not None)
    assert rank.timeline is not None
    assert rank.oom is not None
    oom = replace(rank.oom, time_ns=int(rank.timeline.time_ns[-1]))
    view = report_payload(replace(gpt_report(), ranks=(replace(rank, oom=oom),)), version="0")["ranks"][0]
    assert view["chart"]["oom"]["at"] == int(rank.timeline.time_ns[-1] - rank.timeline.time_ns[0])
    assert view["chart"]["oom"]["text"] == f"out of memory for {format_bytes(oom.request_bytes)}"


def test_evidence_is_written_for_people_and_leaves_out_what_is_not_known() -> None:
    evidence = {"logits_bytes": 1 << 20, "copies": 2, "unknown": None, "by_category_bytes": {"gradient": 2048}}
    report = replace(gpt_report(), findings=(replace(finding(), evidence=evidence),))
    (view,) = report_payload(report, version="0")["findings"]
    assert view["evidence"] == [["logits", "1.00 MiB"], ["copies", "2"], ["by category", "gradient 2.00 KiB"]]


def test_without_steps_the_chart_has_no_lanes() -> None:
    report = gpt_report()
    rank = replace(report.ranks[0], steps=())
    assert report_payload(replace(report, ranks=(rank,)), version="0")["ranks"][0]["chart"]["lanes"] == []


def test_a_capacity_far_above_the_curves_is_not_drawn() -> None:
    report = gpt_report()
    rank = report.ranks[0]

    def chart(capacity: int) -> Any:
        changed = replace(report, ranks=(replace(rank, capacity_bytes=capacity),))
        return report_payload(changed, version="0")["ranks"][0]["chart"]

    assert chart(12 << 30)["capacity"] == {"bytes": 12 << 30, "text": "capacity 12.0 GiB"}
    assert chart(12 << 30)["top"] == 12 << 30
    assert chart(80 << 30)["capacity"] is None
