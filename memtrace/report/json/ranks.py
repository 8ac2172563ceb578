"""The ranks of a run beside each other as a JSON document: the key `ranks_overview` of a report."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.ranks import RankSaving, RanksResult
from memtrace.report.json.plain import plain, plain_fields

Document = dict[str, Any]
_OF_OUTLIER = ("excess_bytes",)
"""What an outlier has beyond its keys in the contract: the page alone shows it."""


def ranks_document(ranks: RanksResult) -> Document:
    """Return the document."""
    return {
        "world_size": ranks.world_size,
        "num_missing": ranks.num_missing,
        "missing": list(ranks.missing),
        "failed": list(ranks.failed),
        "behind": list(ranks.behind),
        "ranks": [plain_fields(row, without=("position",)) for row in ranks.ranks],
        "spreads": plain(ranks.spreads),
        "highest": None if ranks.highest is None else plain_fields(ranks.highest, without=_OF_OUTLIER),
        "outliers": [plain_fields(one, without=_OF_OUTLIER) for one in ranks.outliers],
        "schemes": plain(ranks.schemes),
        "copies": ranks.copies,
        "savings": [_saving(one) for one in ranks.savings],
        "savings_inferred": ranks.savings_inferred,
    }


def _saving(saving: RankSaving) -> Document:
    return {
        **plain_fields(saving),
        "zero_1_bytes": saving.zero_1_bytes,
        "zero_2_bytes": saving.zero_2_bytes,
        "zero_3_bytes": saving.zero_3_bytes,
    }
