"""What keeps memory is shared without the paths in its names, its files and its lines."""

from __future__ import annotations

import pytest

from memtrace.schema.redaction import Redaction
from memtrace.store.columns import NULL
from memtrace.store.redaction.redact import shareable
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import rank_trace, trace

FILE = "/home/amelie/secret/train.py"


def kept(keeper: str, line: int | None) -> dict[str, object]:
    """Return a row of the keepers table."""
    row: dict[str, object] = {"time_ns": 5, "step": 1, "device": "cpu", "address": 1, "size_bytes": 8}
    row |= {"is_written": None, "keeper": keeper, "kind": "container", "file": FILE, "line": line, "function": "main"}
    return row | {"num_storages": 1, "num_bytes": 8}


@pytest.fixture
def recorded() -> RankTrace:
    """A rank in which a key is a path, and a file has lines and none."""
    rows = [kept("cache['/home/amelie/data.bin']", 700), kept("list 'losses'", 31), kept("'out'", None)]
    return rank_trace(keepers=rows)


@pytest.mark.parametrize("redaction", [Redaction.PERSONAL, Redaction.SOURCE])
def test_no_text_tells_where_somebody_works(recorded: RankTrace, redaction: Redaction) -> None:
    (shared,) = shareable(trace(recorded), redaction).ranks
    texts = " ".join(shared.strings)
    assert "amelie" not in texts
    assert "secret" not in texts
    assert "list 'losses'" in texts


def test_lines_of_a_hidden_file_are_counted(recorded: RankTrace) -> None:
    (shared,) = shareable(trace(recorded), Redaction.SOURCE).ranks
    table = shared.table("keepers")
    assert table["line"].tolist() == [2, 1, NULL]
    assert "train.py" not in " ".join(shared.strings)
