"""Every number that a report shows is pinned: text, JSON and page of recordings, whole."""

from __future__ import annotations

import pytest

from tests.gold.commands import COMMANDS, answered
from tests.gold.difference import difference
from tests.gold.made_runs import MADE_RUNS
from tests.gold.rendered import ACTUAL, ANSWERS, CASES, FOLDER, TRACES, names_of, rendered
from tests.gold.tables import TABLES, worked_out
from tests.gold.views import MORE, VIEWS, made_run, viewed

SHOWN = 60
"""Lines of a difference in the message of a test."""


@pytest.mark.parametrize("case", CASES)
def test_a_report_says_what_its_gold_files_say(case: str) -> None:
    compare(rendered(case))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_what_its_gold_files_say(command: str) -> None:
    compare(answered(command))


@pytest.mark.parametrize("table", TABLES)
def test_arithmetic_and_rules_come_to_what_their_gold_files_say(table: str) -> None:
    compare(worked_out(table))


@pytest.mark.parametrize("view", VIEWS)
def test_a_recording_seen_in_another_way_is_reported_as_its_gold_files_say(view: str) -> None:
    compare(viewed(view))


@pytest.mark.parametrize("number", MADE_RUNS)
def test_a_run_that_is_made_up_is_reported_as_its_gold_file_says(number: int) -> None:
    compare(made_run(number))


def compare(contents: dict[str, str]) -> None:
    """Fail where the content of a gold file is another, and leave what came out instead."""
    shown = []
    for name, actual in contents.items():
        gold = (FOLDER / name).read_text(encoding="utf-8") if (FOLDER / name).exists() else ""
        if gold != actual:
            (ACTUAL / name).parent.mkdir(parents=True, exist_ok=True)
            (ACTUAL / name).write_text(actual, encoding="utf-8")
            shown.append(difference(name, gold, actual, most=SHOWN))
    assert not shown, "\n".join([*shown, f"What came out is in {ACTUAL}. If it is meant: make gold"])


def test_every_gold_file_and_every_recording_is_read() -> None:
    known = {name for case in CASES for name in names_of(case)}
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".txt", ".json"}} == known
    assert {path.name.split(".")[0] for path in (FOLDER / ANSWERS).iterdir()} == {
        *COMMANDS,
        *TABLES,
        *VIEWS,
        *(f"made-run-{number:02}" for number in MADE_RUNS),
    }
    traces = {*(case.trace for case in CASES.values()), *(f"{name}.json.gz" for name in MORE)}
    assert {path.name for path in TRACES.iterdir()} == traces
