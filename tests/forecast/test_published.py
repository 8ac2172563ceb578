"""Plans against runs that others published: throughput, memory and order stay as near as docs/plan.md says.

The rows are not ours to ship: tests are left out where they are not there. benchmarks/plan_published.py says more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan_published import is_small, memory_as_measured
from benchmarks.published.rows import PublishedRun, bloom, dgxc, foundry, playbook, small_tables
from memtrace.forecast.evaluation.evaluate import evaluate_table
from memtrace.forecast.results import EvaluatedLayout


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A published run that did run, and what is predicted of it."""

    run: PublishedRun
    row: EvaluatedLayout


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Callable[[str], list[Answer]]:
    """A function that returns the runs of a source and what is predicted of them."""
    folder = shared_data / "published"
    known: dict[str, list[Answer]] = {}

    def ask(name: str) -> list[Answer]:
        if name not in known:
            runs = [run for run in SOURCES[name](folder) if run.tokens_per_second_per_gpu]
            rows = evaluate_table(json.dumps([run.cells for run in runs]), {})
            known[name] = [Answer(run=run, row=row) for run, row in zip(runs, rows, strict=True)]
        return known[name]

    return ask


def _small_playbook(folder: Path) -> Iterator[PublishedRun]:
    return (run for run in playbook(folder) if is_small(run))


SOURCES: dict[str, Callable[[Path], Iterator[PublishedRun]]] = {
    "foundry": foundry,
    "bloom": bloom,
    "dgxc": dgxc,
    "small tables": small_tables,
    "playbook": _small_playbook,
}


@pytest.mark.parametrize(
    ("name", "most"), [("foundry", 0.06), ("bloom", 0.05), ("dgxc", 0.05), ("small tables", 0.05), ("playbook", 0.12)]
)
def test_throughput_is_as_published(published: Callable[[str], list[Answer]], name: str, most: float) -> None:
    answers = published(name)
    ratios = [one.row.tokens_per_second_per_gpu / (one.run.tokens_per_second_per_gpu or 0) for one in answers]
    assert float(np.median(np.abs(np.array(ratios) - 1))) < most


@pytest.mark.parametrize(("name", "most"), [("bloom", 0.05), ("playbook", 0.05)])
def test_memory_is_as_published(published: Callable[[str], list[Answer]], name: str, most: float) -> None:
    known = [one for one in published(name) if one.run.memory_bytes]
    ratios = [memory_as_measured(one.run, one.row) / (one.run.memory_bytes or 0) for one in known]
    assert float(np.median(np.abs(np.array(ratios) - 1))) < most


@pytest.mark.parametrize("name", SOURCES)
def test_what_ran_is_never_said_not_to_fit(published: Callable[[str], list[Answer]], name: str) -> None:
    refused = [one.run.cells for one in published(name) if one.row.fits == "no"]
    assert refused == []


@pytest.mark.parametrize(("name", "least"), [("bloom", 0.5), ("playbook", 0.6)])
def test_layouts_of_a_model_are_ordered_as_published(
    published: Callable[[str], list[Answer]], name: str, least: float
) -> None:
    groups: dict[str, list[Answer]] = {}
    for one in published(name):
        groups.setdefault(one.run.group, []).append(one)
    orders = []
    for group in groups.values():
        if len(group) >= 4:
            columns = [
                np.argsort(np.argsort([one.row.tokens_per_second_per_gpu for one in group])),
                np.argsort(np.argsort([one.run.tokens_per_second_per_gpu or 0 for one in group])),
            ]
            orders.append(np.corrcoef(*columns)[0, 1])
    assert float(np.median(orders)) > least
