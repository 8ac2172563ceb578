"""Breaking a document where its structure can be broken: fields dropped, doubled, of another type, at their extremes.

A document is what JSON or a pickle holds: dictionaries and lists within each other, and values.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

Place = tuple[Any, Any]
"""A dictionary or list, and a key of it."""

_SMALL = (0, -1, 1, 2, 511, 10**6, 10**9, 2**30, 2**31 - 1, 2**31, 2**32)
_LARGE = (2**53, 2**56, 2**60, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400)
_FLOATS = (0.0, -0.0, 0.5, 1e18, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
NUMBERS: tuple[Any, ...] = (*_SMALL, *_LARGE, *_FLOATS)
_NASTY = ("", " ", "\0", "\x1b[31mred", "\ud800", "a\u202eb", "\u0301", "=1+1", "<script>", "</script>", "{}", "[red]")
_LONG = ("x" * 5000, "w" * 100_000, "[" * 3000, "\n" * 50, "a.b." * 300, "9x" * 99)
_TELLING = ("cuda:0", "cuda:99999999999", "cpu", "cuda", ":", "nan", "-1", "1e999", "2x-3", "../../x")
_KNOWN = ("alloc", "free_completed", "oom", "segment_alloc", "segment_free", "forward", "backward", "parameter")
TEXTS = (*_NASTY, *_LONG, *_TELLING, *_KNOWN)
STOP = 0.12
"""How likely it is that a list or dictionary itself is broken, and not something in it."""
MAX_FILL = 3000
"""Entries of a list that was filled."""


def break_values(random_: random.Random, document: Any) -> Any:
    """Return a document with one or a few things broken in it. Affects: the document."""
    root = [document]
    for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
        holder, key = _place(random_, root)
        random_.choice(_WAYS)(random_, holder, key)
        if not root:
            return None
    return root[0]


def _place(random_: random.Random, root: list[Any]) -> Place:
    """Return somewhere in a document: at each level any key is as likely as another."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], (list, dict)) and holder[key] and random_.random() > STOP:
        holder = holder[key]
        key = random_.randrange(len(holder)) if isinstance(holder, list) else random_.choice(list(holder))
    return holder, key


def _drop(_: random.Random, holder: Any, key: Any) -> None:
    del holder[key]


def _double(random_: random.Random, holder: Any, key: Any) -> None:
    again = copy.deepcopy(holder[key])
    if isinstance(holder, list):
        holder.insert(random_.randrange(len(holder) + 1), again)
    else:
        holder[random_.choice([*holder, f"{key}_", "k", "version"])] = again


def _retype(random_: random.Random, holder: Any, key: Any) -> None:
    old = holder[key]
    others = [None, True, False, str(old)[:50], [old], {"a": old}, {}, [], 7, 1.5, "text", [None], [[1]], {"": {}}]
    holder[key] = random_.choice(others)


def _number(random_: random.Random, holder: Any, key: Any) -> None:
    holder[key] = random_.choice(NUMBERS)


def _near(random_: random.Random, holder: Any, key: Any) -> None:
    old = holder[key]
    if type(old) is not int:
        holder[key] = random_.choice(TEXTS)
        return
    holder[key] = random_.choice(
        (old + 1, old - 1, -old, old * 2, old // 2, old + 2**40, old ^ (1 << random_.randrange(63)))
    )


def _text(random_: random.Random, holder: Any, key: Any) -> None:
    holder[key] = random_.choice(TEXTS)


def _swap(random_: random.Random, holder: Any, key: Any) -> None:
    other = random_.randrange(len(holder)) if isinstance(holder, list) else random_.choice(list(holder))
    holder[key], holder[other] = holder[other], holder[key]


def _nest(random_: random.Random, holder: Any, key: Any) -> None:
    for _ in range(random_.choice((1, 5, 90))):
        holder[key] = [holder[key]] if random_.random() < 0.5 else {"a": holder[key]}


def _list(random_: random.Random, holder: Any, key: Any) -> None:
    """Break a list as a whole, as columns are; anything else is doubled."""
    values = holder[key]
    if not isinstance(values, list) or not values:
        _double(random_, holder, key)
        return
    at = random_.randrange(len(values))
    one = random_.choice((values[at], *NUMBERS[:16], None))
    ways: tuple[Callable[[], Any], ...] = (
        lambda: values[:at],
        lambda: values[at:],
        lambda: values[::-1],
        lambda: random_.sample(values, len(values)),
        lambda: [one] * len(values),
        lambda: [one if random_.random() < 0.1 else value for value in values],
        lambda: values * min(3, 1 + MAX_FILL // len(values)),
        lambda: [value + one if type(value) is int and type(one) is int else value for value in values],
        lambda: [*values[:at], one, *values[at + 1 :]],
        lambda: values[at:] + values[:at],
        lambda: [],
    )
    holder[key] = random_.choice(ways)()


def _cell(random_: random.Random, holder: Any, key: Any) -> None:
    """Exchange something with what lies elsewhere in the document's same place."""
    values = holder[key]
    if isinstance(values, dict) and len(values) > 1:
        # Two columns of a table, or two fields of a record.
        first, second = random_.sample(list(values), 2)
        values[first], values[second] = values[second], values[first]
    else:
        _swap(random_, holder, key)


_WAYS: tuple[Callable[[random.Random, Any, Any], None], ...] = (
    *(_drop, _double, _retype, _number, _near, _near, _text, _swap, _nest, _list, _list, _cell),
)
