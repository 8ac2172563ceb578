"""The ranks of a run beside each other as a JSON document: the key `ranks_overview` of a report."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.ranks import Difference, Outlier, RankRow, RankSaving, RanksResult, Scheme, Spread

Document = dict[str, Any]


def ranks_document(ranks: RanksResult) -> Document:
    """Return the document."""
    return {
        "world_size": ranks.world_size,
        "num_missing": ranks.num_missing,
        "missing": list(ranks.missing),
        "failed": list(ranks.failed),
        "behind": list(ranks.behind),
        "ranks": [_row(row) for row in ranks.ranks],
        "spreads": [_spread(one) for one in ranks.spreads],
        "highest": None if ranks.highest is None else _outlier(ranks.highest),
        "outliers": [_outlier(one) for one in ranks.outliers],
        "schemes": [_scheme(one) for one in ranks.schemes],
        "copies": ranks.copies,
        "savings": [_saving(one) for one in ranks.savings],
        "savings_inferred": ranks.savings_inferred,
    }


def _row(row: RankRow) -> Document:
    return {
        "rank": row.rank,
        "device": row.device,
        "host": row.host,
        "peak_bytes": row.peak_bytes,
        "by_category": dict(row.by_category),
        "steady_peak_bytes": row.steady_peak_bytes,
        "reserved_bytes": row.reserved_bytes,
        "capacity_bytes": row.capacity_bytes,
        "last_step": row.last_step,
        "failure": row.failure,
    }


def _spread(spread: Spread) -> Document:
    return {
        "name": spread.name,
        "min_bytes": spread.min_bytes,
        "min_rank": spread.min_rank,
        "median_bytes": spread.median_bytes,
        "max_bytes": spread.max_bytes,
        "max_rank": spread.max_rank,
    }


def _outlier(outlier: Outlier) -> Document:
    return {
        "rank": outlier.rank,
        "median_rank": outlier.median_rank,
        "peak_bytes": outlier.peak_bytes,
        "median_bytes": outlier.median_bytes,
        "excess_pct": outlier.excess_pct,
        "by_category": [_difference(one) for one in outlier.by_category],
        "by_module": [_difference(one) for one in outlier.by_module],
        "by_parameters": [_difference(one) for one in outlier.by_parameters],
        "facts": list(outlier.facts),
    }


def _difference(difference: Difference) -> Document:
    return {"name": difference.name, "num_bytes": difference.num_bytes, "median_bytes": difference.median_bytes}


def _scheme(scheme: Scheme) -> Document:
    return {
        "kind": scheme.kind,
        "name": scheme.name,
        "stage": scheme.stage,
        "factor": scheme.factor,
        "how": scheme.how,
        "inferred": scheme.inferred,
    }


def _saving(saving: RankSaving) -> Document:
    return {
        "rank": saving.rank,
        "parameter_bytes": saving.parameter_bytes,
        "gradient_bytes": saving.gradient_bytes,
        "state_bytes": saving.state_bytes,
        "zero_1_bytes": saving.zero_1_bytes,
        "zero_2_bytes": saving.zero_2_bytes,
        "zero_3_bytes": saving.zero_3_bytes,
    }
