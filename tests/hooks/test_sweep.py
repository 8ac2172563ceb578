"""A sweep that remembers the sweep before finds what one that remembers nothing finds, whatever changed in between."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.ownership import sweep as sweeping  # noqa: E402
from memtrace.hooks.ownership.owners import OwnerRows  # noqa: E402
from memtrace.hooks.ownership.sweep import OwnerSweep  # noqa: E402
from memtrace.schema.tables import OWNERS  # noqa: E402
from tests.hooks.followed import chunk_rows  # noqa: E402
from tests.hooks.swept import CHANGES, Program  # noqa: E402


@pytest.fixture
def program() -> Program:
    """A program that has trained a step and was swept."""
    return Program.trained()


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_a_sweep_sees_every_change(program: Program, change: Callable[[Program], None]) -> None:
    before = list(program.sweep())
    change(program)
    after = list(program.sweep())
    assert after == list(program.sweep(OwnerSweep(torch, OwnerRows(torch))))
    assert after != before


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_what_is_written_is_what_was_found(program: Program, change: Callable[[Program], None]) -> None:
    change(program)
    sweep = program.sweep()
    assert written(sweep) == list(sweep)


def test_rows_are_made_once_for_what_stays(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    num_made = 0
    make = sweeping.lasting_row

    def counted(*args: Any) -> Any:
        nonlocal num_made
        num_made += 1
        return make(*args)

    monkeypatch.setattr(sweeping, "lasting_row", counted)
    for _ in range(5):
        # Gradients are made anew in each step, and are what they were wherever they are.
        program.train()
        program.sweep()
    assert num_made == 0
    program.model[0].weight.data = program.model[0].weight.data.view(8, 2)
    after = program.sweep()
    assert num_made == len(after) > 0


def test_no_tensor_is_kept(program: Program) -> None:
    gone = [weakref.ref(program.model[0].weight.grad), weakref.ref(program.model[0].weight)]
    program.sweep()
    program.model[0].weight.grad = None
    program.optimizer.state.pop(program.model[0].weight)
    program.optimizer.param_groups.clear()
    program.model[0].weight = None
    assert [reference() for reference in gone] == [None, None]


def written(sweep: Any) -> list[tuple[Any, ...]]:
    """Return the rows in the lines of a sweep, as a reader takes them."""
    found = chunk_rows([json.loads(line) for line in sweep.lines().splitlines()], OWNERS.name)
    return [tuple(row[name] for name in OWNERS.column_names()) for row in found]
