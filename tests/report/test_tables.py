"""Names and what they stand for begin with the first name, not with an empty line for a heading."""

from __future__ import annotations

from rich.console import Console

from memtrace.report.terminal.cells import pairs


def test_pairs_have_no_heading() -> None:
    console = Console(width=40)
    with console.capture() as captured:
        console.print(pairs([("peak", "3 GiB"), ("end", "1 GiB")]))

    assert [line.split() for line in captured.get().splitlines()] == [["peak", "3", "GiB"], ["end", "1", "GiB"]]
