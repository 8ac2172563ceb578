"""What communication kernels moved, where a profile says so.

In: the activities of a profile as parsed, and their table. Out: the table `collectives`. Torch notes each collective in
an event `record_param_comms`. Newer profiles copy its arguments to the kernel, in older ones both have one external id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.schema.tables import COLLECTIVES
from memtrace.store.build import table_of_rows
from memtrace.store.columns import NULL, ColumnTable
from memtrace.store.strings import StringTable

_NAME, _INPUT, _OUTPUT = "Collective name", "In msg nelems", "Out msg nelems"
_NOTED = "record_param_comms"
_KERNEL = re.compile(r"(?:nccl|rccl|msccl)", re.IGNORECASE)
_DTYPES = {
    **{"float": ("float32", 4), "double": ("float64", 8), "half": ("float16", 2), "bfloat16": ("bfloat16", 2)},
    **{"byte": ("uint8", 1), "char": ("int8", 1), "short": ("int16", 2), "int": ("int32", 4), "long": ("int64", 8)},
    **{"bool": ("bool", 1), "complexfloat": ("complex64", 8), "complexdouble": ("complex128", 16)},
    **{name: (name, 1) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")},
}
"""As torch's C++ names them, in lower case: the name in Python, and bytes of an element."""


def collectives_table(
    activities: Sequence[Mapping[str, Any]], kernels: ColumnTable, strings: StringTable
) -> ColumnTable:
    """Return what is known of the communication kernels among some activities, whose rows of `kernels` are given."""
    noted: dict[Any, Mapping[str, Any]] = {}
    found: list[tuple[int, Mapping[str, Any]]] = []
    for row, one in enumerate(activities):
        args = one.get("args")
        if not isinstance(args, dict):
            continue
        if one.get("name") == _NOTED and isinstance(args.get("External id"), int):
            noted[args["External id"]] = args
        elif one.get("cat") == "kernel" and _KERNEL.match(str(one.get("name"))):
            found.append((row, args))
    rows = []
    for row, own in found:
        args = own if _NAME in own else noted.get(own.get("External id"), own)
        if isinstance(args.get(_NAME), str):
            times = (int(kernels[name][row]) for name in ("start_ns", "duration_ns", "correlation"))
            rows.append((*times, *_described(args, strings)))
    return table_of_rows(COLLECTIVES, rows)


def _described(args: Mapping[str, Any], strings: StringTable) -> tuple[int, ...]:
    """Return name, group, size of the group, bytes in and out, and dtype."""
    group = next((args[key] for key in ("Process Group Description", "Process Group Name") if args.get(key)), None)
    dtype, item_bytes = _DTYPES.get(str(args.get("dtype")).lower(), (None, 0))
    return (
        strings.id(args[_NAME]),
        strings.id(group) if isinstance(group, str) else NULL,
        _count(args.get("Group size"), 1),
        _count(args.get(_INPUT), item_bytes),
        _count(args.get(_OUTPUT), item_bytes),
        NULL if dtype is None else strings.id(dtype),
    )


def _count(value: Any, unit: int) -> int:
    """Return a number of units in all, null where either is not known."""
    return value * unit if type(value) is int and unit and 0 <= value < 2**56 else NULL
