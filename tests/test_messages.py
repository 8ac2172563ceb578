"""Every message that carries a slug has an entry in docs/messages.md, and every entry there is of a message."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/messages.md"
SLUG = re.compile(r"[a-z]+(-[a-z]+)*")
WARNING_FUNCTIONS = {"warn", "_warn", "note"}


def slugs_in(source: str) -> set[str]:
    """Return the slugs that a module gives to errors, warnings and notes."""
    tree = ast.parse(source)
    constants = dict(_named_constants(tree))
    found = set()
    for value in _slug_values(tree):
        text = constants.get(value.id) if isinstance(value, ast.Name) else getattr(value, "value", None)
        if isinstance(text, str) and SLUG.fullmatch(text):
            found.add(text)
    return found


def _named_constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value.value


def _slug_values(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what stands where a slug belongs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, ast.Dict):
            keys = [getattr(key, "value", None) for key in node.keys]
            yield from (value for key, value in zip(keys, node.values, strict=True) if key == "slug")
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield from _in_loop(node.target, node.iter, tree)


def _in_call(call: ast.Call) -> Iterator[ast.expr]:
    """Yield `slug=` of a call, the first argument of a warning function, and the default of `.get("slug", …)`."""
    for keyword in call.keywords:
        if keyword.arg == "slug":
            branches = keyword.value
            yield from [branches.body, branches.orelse] if isinstance(branches, ast.IfExp) else [branches]
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    if name in WARNING_FUNCTIONS and call.args:
        yield call.args[0]
    if name == "get" and len(call.args) == 2 and getattr(call.args[0], "value", None) == "slug":
        yield call.args[1]


def _in_loop(target: ast.expr, rows: ast.expr, tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the first values of rows that are unpacked into a name `slug`, whether written there or under a name."""
    if not (isinstance(target, ast.Tuple) and target.elts and getattr(target.elts[0], "id", None) == "slug"):
        return
    if isinstance(rows, ast.Name):
        assigned = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and any(getattr(one, "id", None) == rows.id for one in node.targets)
        ]
        rows = assigned[0] if assigned else rows
    for row in getattr(rows, "elts", []):
        if isinstance(row, ast.Tuple):
            yield row.elts[0]


def slugs_in_code() -> set[str]:
    return {slug for path in (ROOT / "memtrace").rglob("*.py") for slug in slugs_in(path.read_text(encoding="utf-8"))}


def entries(page: str) -> dict[str, str]:
    """Return the text of each entry of the page by its slug."""
    parts = re.split(r"^### (.+)$", page, flags=re.MULTILINE)
    return {slug: text.partition("\n## ")[0] for slug, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_slug_has_an_entry_and_every_entry_a_slug() -> None:
    used, described = slugs_in_code(), set(entries(PAGE.read_text(encoding="utf-8")))
    assert sorted(used - described) == [], "add an entry to docs/messages.md"
    assert sorted(described - used) == [], "no message has this slug"


@pytest.mark.parametrize("slug", sorted(entries(PAGE.read_text(encoding="utf-8"))))
def test_an_entry_says_the_cause_and_the_remedy(slug: str) -> None:
    text = entries(PAGE.read_text(encoding="utf-8"))[slug]
    cause, separator, remedy = text.partition("**Remedy.**")
    assert separator
    assert len(cause.split()) > 5
    assert len(remedy.split()) > 3


def test_entries_stand_in_alphabetical_order_within_their_section() -> None:
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        named = list(entries(section))
        assert named == sorted(named)


@pytest.mark.parametrize(
    ("source", "slugs"),
    [
        ("Error('x', slug='one-a')", {"one-a"}),
        ("Error('x', slug='one' if cut else 'two')", {"one", "two"}),
        ("NAME = 'named'\nwrite({'k': 1, 'slug': NAME})", {"named"}),
        ("self._writer.note('a-note', 'text')\nwarn(slug, message)\nwarnings.warn('A sentence.')", {"a-note"}),
        ("for slug, text in (('first', 'a'), ('second', 'b')):\n    pass", {"first", "second"}),
        ("rows = (('kept', 'a', 1),)\n[Warn(slug=slug) for slug, text, count in rows]", {"kept"}),
        ("record.get('slug', 'fallback')\nrecord.get('other', 'not-this')", {"fallback"}),
        ("Note(slug=other.slug)", set()),
    ],
)
def test_slugs_are_found_wherever_one_is_written(source: str, slugs: set[str]) -> None:
    assert slugs_in(source) == slugs
