"""What the requests of a what-if are for, so that those of a category can be scaled, dropped or sharded.

In: a recording and edits by category. Out: the bytes of each request; categories are those of `attribution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.allocator.requests import Requests
from memtrace.analysis.attribution.attribute import CATEGORIES, attribute
from memtrace.analysis.events.lifetimes import build_lifetimes
from memtrace.analysis.events.moments import build_moments
from memtrace.errors import MemtraceError
from memtrace.schema.names import Category, category_named
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

MAX_FACTOR = 10**6
"""The largest change that is asked for; sums of sizes times this still fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A category whose requests become `factor` times as large; 0 leaves them out."""

    category: str
    factor: float

    @classmethod
    def parse(cls, text: str, *, divide: bool = False) -> Edit:
        """Return the edit that `activation=0.5` means; with `divide`, `optimizer_state=8` is an eighth.

        Raises:
            MemtraceError: the category or the number is none.
        """
        category, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not (1 if divide else 0) <= value <= MAX_FACTOR:
            raise MemtraceError(f"not a category and a number: {text!r}", hint="as in activation=0.5")
        return cls(category=checked_category(category), factor=1 / value if divide else value)


def checked_category(name: str) -> str:
    """Return the name of the category that a user names, as it is stored or as reports call it.

    Raises:
        MemtraceError: there is none of that name.
    """
    category = category_named(name)
    if category is None:
        raise MemtraceError(f"no such category: {name!r}", hint=f"one of {', '.join(one.value for one in Category)}")
    return category.value


def edited_sizes(rank: RankTrace, device: str, requests: Requests, edits: Sequence[Edit]) -> IntArray:
    """Return the bytes of each request after the edits.

    Raises:
        MemtraceError: the recording does not know which allocations are of a category.
    """
    categories = request_categories(rank, device, requests)
    sizes = requests.size.astype(np.float64)
    for edit in edits:
        chosen = categories == CATEGORIES.index(Category(edit.category))
        if not chosen.any():
            raise MemtraceError(
                f"{device}: no allocation is known to be {edit.category}",
                hint="record the run with `memtrace record`: a snapshot alone does not say what its blocks are for",
                slug="no-category",
            )
        sizes[chosen] *= edit.factor
    # What is left of a request is at least a byte, unless the request goes altogether.
    return np.where((sizes > 0) & (sizes < 1), 1, np.ceil(sizes)).astype(np.int64)


def request_categories(rank: RankTrace, device: str, requests: Requests) -> IntArray:
    """Return the code of the category of each request, an index into `CATEGORIES`."""
    moments = build_moments(rank, device)
    lifetimes = build_lifetimes(rank, device, moments)
    category = attribute(rank, device, moments, lifetimes).category
    moment_of_row = dict(zip(moments.rows.tolist(), moments.of_event.tolist(), strict=True))
    start = moments.epochs[-1].start
    by_key = {
        key: int(code)
        for key, code in zip(
            zip(lifetimes.address.tolist(), lifetimes.start.tolist(), strict=True), category, strict=True
        )
    }
    unknown = CATEGORIES.index(Category.UNKNOWN)
    keys = zip(requests.address.tolist(), requests.row.tolist(), strict=True)
    return np.array(
        [by_key.get((address, start if row < 0 else moment_of_row[row]), unknown) for address, row in keys], np.int64
    )
