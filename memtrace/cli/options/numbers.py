"""Numbers of the command line: each has a range, and a value beyond it is wrong usage (exit code 2).

The upper ends lie beyond every machine and model that there is, and low enough that products of several still fit.
"""

from __future__ import annotations

import math
from typing import Any

import click

from memtrace.cli.shell.errors import BadValue
from memtrace.errors import MemtraceError
from memtrace.schema.gpu_cards import memory_named

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
    """Memory of a device: a size with a unit, as in 24GiB, or the name of a GPU, as in h100-80gb."""

    name = "memory"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what stands for a value in help."""
        return "SIZE|GPU"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes, at least one; wrong usage where the text is neither."""
        try:
            return value if isinstance(value, int) else memory_named(str(value))
        except MemtraceError as error:
            raise BadValue(error.message, error.hint, ctx=ctx, param=param) from error


class GpuName(click.ParamType):  # type: ignore[type-arg]
    """A GPU: its name, or a size with a unit for one of that much memory. It stays text."""

    name = "gpu"

    def __init__(self, *, several: bool = False) -> None:
        self._several = several

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what stands for a value in help."""
        return "LIST" if self._several else "GPU|SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; wrong usage where one of it is no GPU."""
        text = str(value)
        names = [part for part in text.split(",") if part.strip()] if self._several else [text]
        try:
            for name in names:
                if not (self._several and name.strip() == "all"):
                    memory_named(name)
        except MemtraceError as error:
            raise BadValue(error.message, error.hint, ctx=ctx, param=param) from error
        return text


class CountText(click.ParamType):  # type: ignore[type-arg]
    """A count with K, M, B or T, as in 7B; it stays text, since what a K is depends on what is counted."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; wrong usage where it is no count."""
        from memtrace.forecast.model.from_parameter_count import parse_count

        try:
            parse_count(str(value), unit=1024)
        except MemtraceError as error:
            raise BadValue(error.message, error.hint, ctx=ctx, param=param) from error
        return str(value)
