"""Which modules allocated the bytes that are live at a moment.

In: `DeviceHistory`, a moment. Out: `ModuleRow`s, largest first; they add up to the requested bytes of the moment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.results.report import ModuleRow
from memtrace.schema.names import Category


def modules_at(history: DeviceHistory, moment: int) -> tuple[ModuleRow, ...]:
    """Return the modules with bytes at a moment; empty where no module was ever marked."""
    if not len(history.rank.table("scopes")):
        return ()
    live = history.lifetimes.live_at(moment)
    modules = modules_of(history, live)
    names, code = np.unique(modules, return_inverse=True)
    table = sum_by_group(code, len(names), history.attribution.category[live], history.lifetimes.size_bytes[live])
    counts = np.bincount(code, minlength=len(names))
    rows = {
        history.rank.text(int(name)): (
            {CATEGORIES[i].value: int(table[row, i]) for i in np.flatnonzero(table[row])},
            int(counts[row]),
        )
        for row, name in enumerate(names)
    }
    base = int(history.levels.base[moment])
    if base:
        # Bytes that no known block makes up are in no known module either.
        categories, count = rows.get(None, ({}, 0))
        unknown = Category.UNKNOWN.value
        rows[None] = ({**categories, unknown: categories.get(unknown, 0) + base}, count)
    found = [
        ModuleRow(module=module, num_bytes=sum(categories.values()), num_allocations=count, by_category=categories)
        for module, (categories, count) in rows.items()
    ]
    return tuple(sorted(found, key=lambda row: (-row.num_bytes, row.module or "")))


def sum_by_group(
    group: npt.NDArray[np.intp], num_groups: int, category: npt.NDArray[np.int8], size_bytes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return a table of bytes: a row a group, a column a category."""
    table = np.zeros((num_groups, len(CATEGORIES)), np.int64)
    np.add.at(table, (group, category.astype(np.intp)), size_bytes)
    return table
