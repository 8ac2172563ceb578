"""Numbers of the command line: each has a range, and a value beyond it is wrong usage (exit code 2).

The upper ends lie beyond every machine and model that there is, and low enough that products of several still fit.
"""

from __future__ import annotations

import math
from typing import Any

import click

from memtrace.errors import MemtraceError
from memtrace.units import parse_bytes

COUNT = click.IntRange(1, 10**9)
"""How many of something: steps, records, sizes of a model."""
FEW = click.IntRange(1, 10**6)
"""How many of something of which there are few: ranks, heads, layers, micro-batches."""
RANK = click.IntRange(0, 2**31 - 1)
"""Number of a rank."""


class Number(click.FloatRange):
    """A number within a range; "nan" lies in none, though comparing it does not say so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; wrong usage where it is none of the range."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only for type checkers of the newest click
    """A number of bytes with a unit, as in 24GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes, at least one; wrong usage where the text is no size."""
        try:
            num_bytes = value if isinstance(value, int) else parse_bytes(str(value))
        except MemtraceError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)
        if num_bytes < 1:
            self.fail("a size of 0 holds nothing", param, ctx)
        return num_bytes


class CountText(click.ParamType):  # type: ignore[type-arg]
    """A count with K, M, B or T, as in 7B; it stays text, since what a K is depends on what is counted."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; wrong usage where it is no count."""
        from memtrace.forecast.model.from_parameter_count import parse_count

        try:
            parse_count(str(value), unit=1024)
        except MemtraceError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)
        return str(value)
