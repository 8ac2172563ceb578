"""Column tables: equally long numpy columns by name, with nulls. No statistics here, only holding and converting."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from memtrace.errors import TraceReadError
from memtrace.schema.tables import Column, Table

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

NULL = int(np.iinfo(np.int64).min)
"""How a null looks inside an integer column; never shown, never computed with: see `ColumnTable.is_null`."""
MAX_SUM_BYTES = 2**61
"""Below what the sizes of a column are together: columns are added, and their sums stay within 64 bits."""
MAX_TIME_NS = 2**62
"""Below what a time is, the year 2116: what lies between two, or one and a duration, stays within 64 bits."""
MIN_TIME_NS = -(2**61)
MAX_DEVICES = 256
"""Devices that one process can have: torch numbers them by a signed byte, and each costs an analysis."""


@dataclass(frozen=True, slots=True, eq=False)
class ColumnTable:
    """Columns of one table, all of one length: integers and strings (their ids) are int64, flags are bool."""

    table: Table
    """The columns that it has, from the schema."""
    columns: Mapping[str, Array]
    """By name; all of the same length."""

    @classmethod
    def empty(cls, table: Table) -> ColumnTable:
        """Return the table with no rows."""
        return cls(table, {column.name: np.empty(0, dtype_of(column)) for column in table.columns})

    def __len__(self) -> int:
        return len(self.columns[self.table.columns[0].name])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def is_null(self, name: str) -> BoolArray:
        """Return, for each row, whether the column holds null."""
        return np.asarray(self.columns[name] == NULL)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row as Python values, null as `None`; strings stay ids."""
        values = {name: column[index].item() for name, column in self.columns.items()}
        return {name: None if value == NULL else value for name, value in values.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row as `row` does. For small tables; hot loops use the arrays."""
        return (self.row(index) for index in range(len(self)))

    def frame(self, strings: tuple[str, ...]) -> pd.DataFrame:
        """Return the table as a pandas frame: nulls as `pd.NA`, strings as categoricals."""
        data: dict[str, Any] = {}
        categories: Any = pd.Index(list(strings), dtype=object)
        for column in self.table.columns:
            values = self.columns[column.name]
            if column.kind == "string":
                codes = np.where(values == NULL, -1, values)
                data[column.name] = pd.Categorical.from_codes(codes.tolist(), categories=categories)
            elif column.kind == "int" and column.nullable:
                data[column.name] = pd.arrays.IntegerArray(values, values == NULL)
            else:
                data[column.name] = values
        frame: pd.DataFrame = pd.DataFrame(data)
        return frame


def dtype_of(column: Column) -> type[np.generic]:
    """Return the numpy type that holds a column."""
    return np.bool_ if column.kind == "bool" else np.int64


def check_sizes(sizes: IntArray, *, where: str) -> IntArray:
    """Return a column of sizes as it is.

    Raises:
        TraceReadError: one is negative, or together they are so large that sums of them would not fit 64 bits.
    """
    if len(sizes) and sizes.min() < 0:
        raise TraceReadError(f"{where}: a negative size", slug="file-damaged")
    if len(sizes) and float(sizes.sum(dtype=np.float64)) >= MAX_SUM_BYTES:
        raise TraceReadError(f"{where}: sizes that no machine has", slug="file-damaged")
    return sizes


def check_times(times: IntArray, *, where: str) -> IntArray:
    """Return a column of times or durations as it is; nulls may be among them.

    Raises:
        TraceReadError: one is out of range.
    """
    known = times[times != NULL]
    if len(known) and not (known.min() >= MIN_TIME_NS and known.max() < MAX_TIME_NS):
        raise TraceReadError(
            f"{where}: a time that no clock shows", hint="copy or record it again", slug="file-damaged"
        )
    return times


def check_num_devices(num_devices: int, *, where: str) -> None:
    """Check that one process can have so many devices.

    Raises:
        TraceReadError: it cannot.
    """
    if num_devices > MAX_DEVICES:
        message = f"{where}: {num_devices} devices, where a process has at most {MAX_DEVICES}"
        raise TraceReadError(message, hint="copy or record it again", slug="file-damaged")


def int_column(values: Sequence[Any], *, where: str, nullable: bool = False) -> IntArray:
    """Return Python integers as a column, `None` as null where that is allowed.

    Raises:
        TraceReadError: a value is not an integer (a float, a text), or does not fit 64 bits. `where` names the column.
    """
    try:
        # array refuses floats and texts, which numpy would convert in silence, and is as fast.
        return np.asarray(array("q", values), dtype=np.int64)
    except OverflowError:
        raise TraceReadError(f"{where}: a number does not fit 64 bits", slug="file-damaged") from None
    except TypeError:
        if nullable:
            if list(values).count(None) == len(values):
                return np.full(len(values), NULL, np.int64)
            return int_column([NULL if value is None else value for value in values], where=where)
        wrong = next((value for value in values if not isinstance(value, int)), None)
        name = "null" if wrong is None else type(wrong).__name__
        raise TraceReadError(
            f"{where}: an integer was expected where the file holds {name}", slug="file-damaged"
        ) from None
