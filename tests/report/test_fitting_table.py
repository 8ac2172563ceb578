"""Tables of numbers in a terminal: at every width each number stands there whole, in as many tables as it takes."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from memtrace.report.terminal.cells import calm_table
from memtrace.report.terminal.console import as_text

HEADS = ("window", "compute", "communication", "hidden", "copies", "idle", "share", "for data", "for memory")
ROWS = tuple((str(step), *(f"{step}{at}1,234.5 ms" for at in range(len(HEADS)))) for step in (1, 2, 30))


def drawn(width: int, *, wide: str | None = None) -> str:
    table = calm_table("step", *HEADS, wide=wide)
    for row in ROWS:
        table.add_row(*row, *([] if wide is None else ["words that may be folded " * 4]))
    return as_text(table, width=width)


@pytest.mark.parametrize("width", [30, 40, 61, 80, 100, 140, 200])
@pytest.mark.parametrize("wide", [None, "what"])
def test_no_number_and_no_heading_is_cut_at_any_width(width: int, wide: str | None) -> None:
    text = drawn(width, wide=wide)
    assert "…" not in text
    for words in (*HEADS, *(cell for row in ROWS for cell in row)):
        assert words in text
    assert max(map(cell_len, text.splitlines())) <= width


def test_there_is_one_table_where_it_has_room_and_each_of_several_begins_with_the_first_column() -> None:
    assert drawn(200).count("step") == 1
    narrow = drawn(60)
    tables = narrow.strip("\n").split("\n\n")
    assert len(tables) > 1
    for table in tables:
        head, _, *rows = table.splitlines()
        assert head.startswith("step")
        assert [row.split()[0] for row in rows] == [row[0] for row in ROWS]


@pytest.mark.parametrize("width", [60, 100])
def test_columns_keep_their_order(width: int) -> None:
    heads = [line for line in drawn(width).splitlines() if line.startswith("step")]
    text = " ".join(heads)
    places = [text.index(name) for name in HEADS]
    assert places == sorted(places)
