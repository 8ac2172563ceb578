"""What a program does with a value that only data can tell, read from its source at the instruction that runs."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from typing import Any

import pytest

from memtrace.hooks.fake.events.guards import LOOPS, RAISES, Guards, Wanted

MOST_ROUNDS = 1000


class Value:
    """A value that answers as its reader needs it, and notes why."""

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.seen: list[Wanted | None] = []

    def _wanted(self) -> Wanted | None:
        self.seen.append(self.guards.wanted(sys._getframe(2)))
        assert len(self.seen) < MOST_ROUNDS, "the loop does not end"
        return self.seen[-1]

    def __bool__(self) -> bool:
        wanted = self._wanted()
        return wanted.truth if wanted else False

    def all(self) -> Value:
        return self

    def item(self) -> float:
        wanted = self._wanted()
        return wanted.number(1.0) if wanted else 1.0


def run(folder: Path, source: str) -> tuple[dict[str, Any], list[Wanted | None]]:
    path = folder / "program.py"
    path.write_text(source)
    linecache.checkcache(str(path))
    value = Value(Guards())
    names: dict[str, Any] = {"x": value, "n": 0}
    exec(compile(source, str(path), "exec"), names)
    return names, value.seen


SINCE_3_11 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 tells the line that runs, and not where in it"
)
PASSED = {
    "if": "if x: raise ValueError",
    "if not": "if not x.all(): raise ValueError",
    "else": "if x.all():\n    n = 1\nelse:\n    raise ValueError",
    "assert": "assert x.all()",
    "assert not": "assert not x, 'a message'",
    "two": "if x or not x.all(): raise ValueError",
    "exit": "import sys\nif not x: sys.exit(1)",
    "name": "bad = bool(x)\nif bad: raise ValueError",
    "negated name": "good = not x\nn = 3\nif not good:\n    raise ValueError",
    "returned": "def valid(x):\n    return bool(x.all())\nif not valid(x): raise ValueError",
    "check": "def _check(found, text):\n    if not found: raise ValueError(text)\n_check(bool(x), 'no')",
    "more": "if x.item() > 100: raise ValueError",
    "less": "if x.item() < 100: raise ValueError",
    "at the right": "if 100 > x.item(): raise ValueError",
    "equal": "assert x.item() == 7",
    "unequal": "if x.item() != 7: raise ValueError",
    "not more": "assert not x.item() > 0.5",
}


@SINCE_3_11
@pytest.mark.parametrize("name", PASSED)
def test_a_check_passes(tmp_path: Path, name: str) -> None:
    _, seen = run(tmp_path, PASSED[name])
    assert {one.why for one in seen if one} == {RAISES}


ENDED = {
    "while": ("while x: n += 1", 2),
    "while not": ("while not x.all(): n += 1", 2),
    "with a bound": ("while n < 50 and not x.all(): n += 1", 2),
    "a number": ("while x.item() > 1e-6: n += 1", 2),
    "a number to reach": ("while x.item() < 100: n += 1", 2),
    "break": ("while True:\n    n += 1\n    if x.all(): break", 101),
    "in each call": ("def call():\n    global n\n    while x: n += 1\nfor _ in range(3): call()", 6),
}


@SINCE_3_11
@pytest.mark.parametrize("name", ENDED)
def test_a_loop_ends(tmp_path: Path, name: str) -> None:
    source, rounds = ENDED[name]
    names, seen = run(tmp_path, source)
    assert names["n"] == rounds
    assert {one.why for one in seen if one} == {LOOPS}


@pytest.mark.parametrize(
    "source",
    [
        "if x: n = 1",
        "for _ in range(3):\n    if x: break",
        "n = 1 if x else 2",
        "n = x.item() + 1",
        "def report(text): pass\nreport(bool(x))",
    ],
)
def test_nothing_is_wanted_of_what_decides_no_error_and_no_loop(tmp_path: Path, source: str) -> None:
    _, seen = run(tmp_path, source)
    assert seen
    assert set(seen) == {None}
