"""What autograd keeps each allocation for: the operators, the type and the shape under which it was saved.

In: a `Case` with saved tensors. Out: columns over the allocations, from the rows of the saved table that name them.

Several operators keep one storage: a row for each, all found in the same walk of the graph at the same address.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case
from memtrace.schema.names import Category
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL, IntArray

_CAPTURED = re.compile(r"Backward\d*$")


def operator(name: str) -> str:
    """Return an operator without what its node of the graph adds.

    >>> operator("NllLoss2DBackward0"), operator("AddmmBackward0")
    ('NllLoss2D', 'Addmm')
    """
    return _CAPTURED.sub("", name)


def kept_by(case: Case, is_such: Callable[[str], bool]) -> BoolArray:
    """Return for each allocation whether an operator that is such keeps it for backward."""
    rank, saved = case.history.rank, case.history.rank.table("saved")
    names, code = np.unique(saved["op"], return_inverse=True)
    such = np.array([is_such(operator(rank.text(int(name)) or "")) for name in names.tolist()], np.bool_)
    groups = _groups(case)
    in_group = np.zeros(int(groups.max(initial=-1)) + 1, np.bool_)
    in_group[groups[such[code]]] = True
    return _of_allocations(case, in_group[groups], default=False)


def kept_as(case: Case, dtype: str) -> BoolArray:
    """Return for each allocation whether it was saved as a tensor of this type."""
    saved = case.history.rank.table("saved")
    return _of_allocations(case, saved["dtype"] == case.history.rank.string_id(dtype), default=False)


def shapes(case: Case, rows: IntArray) -> list[tuple[int, ...] | None]:
    """Return the shape under which each of some allocations was saved; `None` where it was not recorded."""
    rank, saved_row = case.history.rank, case.history.attribution.saved_row[rows]
    column = rank.table("saved")["shape"]
    return [None if row == NULL else parse_shape(rank.text(int(column[row]))) for row in saved_row.tolist()]


def parameter_shapes(case: Case) -> set[tuple[int, ...]]:
    """Return the shapes of the parameters that have two dimensions at least."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    of_parameters = owners["category"] == rank.string_id(Category.PARAMETER.value)
    known = (parse_shape(rank.text(int(one))) for one in np.unique(owners["shape"][of_parameters]))
    return {shape for shape in known if shape is not None and len(shape) >= 2}


def _groups(case: Case) -> IntArray:
    """Return for each saved row a number that rows of the same storage in the same walk share."""
    saved = case.history.rank.table("saved")
    if not len(saved):
        return np.zeros(0, np.int64)
    order = np.lexsort((saved["address"], saved["device"], saved["time_ns"]))
    is_new = np.zeros(len(order), np.bool_)
    for name in ("address", "device", "time_ns"):
        column = saved[name][order]
        is_new[1:] |= column[1:] != column[:-1]
    groups = np.empty(len(order), np.int64)
    groups[order] = np.cumsum(is_new)
    return groups


def _of_allocations(case: Case, of_saved: BoolArray, *, default: bool) -> BoolArray:
    """Return what holds for the saved row of each allocation."""
    return np.append(of_saved, default)[np.where(_saved_row(case) == NULL, len(of_saved), _saved_row(case))]


def _saved_row(case: Case) -> IntArray:
    return case.history.attribution.saved_row
