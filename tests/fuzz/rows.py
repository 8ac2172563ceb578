"""Breaking what a document says and not its form, so that readers take it: rows dropped, doubled, in another order,
values that stand in other rows.

Rows are the entries of a list of dictionaries, or what stands at one place in each column of a table.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Rows = list[Any]
STOP = 0.5
"""How likely it is that rows are broken where they are found, and not something in one of them."""
FACTORS = (-1, 0, 2, 3, 1000, 10**6)
SHIFTS = (-(10**9), -(10**6), -512, -1, 1, 512, 4096, 10**6, 10**9)


def break_rows(random_: random.Random, document: Any) -> Any:
    """Return a document with rows broken in a few places. Affects: the document."""
    for _ in range(random_.choice((1, 1, 2, 4, 12))):
        found = _find(random_, document)
        if isinstance(found, dict):
            _break_table(random_, found)
        elif found:
            _break_list(random_, found)
    return document


def _find(random_: random.Random, node: Any) -> Any:
    """Return a list of dictionaries or a table that lies somewhere in a document; `None` where none was come by."""
    while True:
        if (_is_table(node) or _is_rows(node)) and random_.random() < STOP:
            return node
        inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        inner = [one for one in inner[:500] if isinstance(one, (dict, list)) and one]
        if not inner:
            return node if _is_table(node) or _is_rows(node) else None
        node = random_.choice(inner)


def _is_rows(node: Any) -> bool:
    return isinstance(node, list) and bool(node) and all(isinstance(one, dict) for one in node)


def _is_table(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and bool(node)
        and all(isinstance(column, list) for column in node.values())
        and len({len(column) for column in node.values()}) == 1
    )


def _break_table(random_: random.Random, table: dict[str, list[Any]]) -> None:
    length = len(next(iter(table.values())))
    if random_.random() < 0.5 or not length:
        places = _other_places(random_, length)
        for name, column in table.items():
            table[name] = [column[at] for at in places]
        return
    name = random_.choice(list(table))
    table[name] = _other_values(random_, table[name])


def _break_list(random_: random.Random, rows: Rows) -> None:
    names = [name for name in rows[0] if isinstance(rows[0][name], (int, str, float, type(None)))]
    if random_.random() < 0.5 or not names:
        rows[:] = [dict(rows[at]) for at in _other_places(random_, len(rows))]
        return
    name = random_.choice(names)
    having = [row for row in rows if name in row]
    for row, value in zip(having, _other_values(random_, [row[name] for row in having]), strict=True):
        row[name] = value


def _other_places(random_: random.Random, length: int) -> list[int]:
    """Return the rows that there are to be, by their number before."""
    every = list(range(length))
    first = random_.randrange(length + 1)
    last = random_.randrange(first, length + 1)
    ways: tuple[Callable[[], list[int]], ...] = (
        lambda: every[:first] + every[last:],
        lambda: every[first:last],
        lambda: every[:last] + every[first:],
        lambda: every[::-1],
        lambda: every[:first] + every[first:last][::-1] + every[last:],
        lambda: random_.sample(every, length),
        lambda: [at for at in every if random_.random() < 0.8],
        lambda: sorted(random_.choices(every, k=length)) if every else [],
        lambda: every[:1],
        lambda: [],
    )
    return random_.choice(ways)()


def _other_values(random_: random.Random, values: list[Any]) -> list[Any]:
    """Return the values of a column, of which some are those of other rows, or other numbers."""
    one = random_.choice(values)
    factor, shift, share = random_.choice(FACTORS), random_.choice(SHIFTS), random_.choice((0.02, 0.2, 1.0))
    ways: tuple[Callable[[Any], Any], ...] = (
        lambda _: one,
        lambda _: random_.choice(values),
        lambda value: value * factor if type(value) is int and abs(value) < 2**40 else value,
        lambda value: value + shift if type(value) is int else value,
        lambda value: None if any(other is None for other in values) else value,
    )
    change = random_.choice(ways)
    if random_.random() < 0.2:
        return sorted(values) if all(type(value) is int for value in values) else values[::-1]
    return [change(value) if random_.random() < share else value for value in values]
