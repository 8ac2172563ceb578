"""Which faults are put into a file, and which are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.accepted import ACCEPTED_FILE, key_of, load_accepted
from tests.mutants.faults import Fault, faults_of, sample_of
from tests.mutants.known_names import KnownNames
from tests.mutants.source import Source


def faults_in(text: str, before: str = "") -> list[Fault]:
    """Return the faults of one file; `before` is another file of the same package."""
    sources = [Source("package/before.py", before.encode()), Source("package/toy.py", text.encode())]
    return list(faults_of(sources[1], KnownNames(sources)))


def new_lines(text: str, before: str = "") -> set[str]:
    return {fault.new_line for fault in faults_in(text, before)}


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("x = a < b", {"x = a <= b"}),
        ("x = (a) not in (b)", {"x = (a) in (b)"}),
        ("x = a <= b < c", {"x = a < b < c", "x = a <= b <= c"}),
        ("x = a + b", {"x = a - b"}),
        ("x = a * b", {"x = a // b"}),
        # `// 1` makes the same number of a truth value.
        ("x = a * 1", {"x = a * 2"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = not a", {"x = a"}),
        ("x = 511", {"x = 512"}),
        ("x = min(a, b)", {"x = max(a, b)"}),
        ("x = f(a, k=b)", {"x = f(a)"}),
        ("x = 'ü' if a < b else c", {"x = 'ü' if a <= b else c"}),
        ("x = f'{a + b}'", {"x = f'{a - b}'"}),
        ("x.append(a)", {"pass"}),
        ("x += a", {"pass"}),
    ],
)
def test_each_kind_of_fault_changes_what_it_says(line: str, changed: set[str]) -> None:
    assert new_lines(f"def f():\n    {line}\n") == changed


@pytest.mark.parametrize(
    "text",
    [
        '"""A text of 3 < 4 words."""',
        "x: Literal[3]",
        "__all__ = [1]",
        "if TYPE_CHECKING:\n    x = 1",
        "import x",
        "def f(a: Literal[1] | None) -> Literal[2]: ...",
        "@dataclass(frozen=True)\nclass X: ...",
        "def f():\n    logger.info(1)",
        "def f():\n    raise ValueError(1)",
        "x = 'a' + b",
        "x = f'{a:>10}'",
        "X = A | B",
        'def f() -> str:\n    return ""',
        "def f():\n    x = zip(a, b, strict=True)",
        "def f():\n    x = sort(a, kind='stable')",
    ],
)
def test_words_types_and_messages_hold_no_faults(text: str) -> None:
    assert new_lines(text) == set()


def test_a_field_is_swapped_with_the_next_of_its_type_only() -> None:
    before = "@dataclass\nclass Row:\n    steps: int\n    name: str\n    tokens: int\n"

    assert new_lines("def f(row: Row):\n    print(row.tokens, row.name)\n", before) == {
        "print(row.steps, row.name)",
        "pass",
    }


def test_the_length_of_another_column_is_no_fault() -> None:
    before = "@dataclass\nclass Rows:\n    start: IntArray\n    end: IntArray\n"

    assert new_lines("def f(rows: Rows):\n    x = len(rows.start)\n    y = rows.end\n", before) == {"y = rows.start"}


def test_a_keyword_that_a_call_needs_stays() -> None:
    before = "def g(*, needed, optional=None): ...\n"

    assert new_lines("def f():\n    x = g(needed=a, optional=b)\n", before) == {"x = g(needed=a)"}


def test_a_fault_changes_its_place_and_nothing_else() -> None:
    text = "def f(a, b):\n    # Why.\n    return a < b\n"

    (fault,) = [fault for fault in faults_in(text) if fault.new == "<="]

    assert fault.text.decode() == text.replace("<", "<=")
    assert (fault.line, fault.old_line, fault.new_line) == (3, "return a < b", "return a <= b")


def test_a_seed_repeats_its_sample_and_leaves_out_what_does_not_compile() -> None:
    faults = faults_in("def f(a, b):\n    return g((x for x in a), key=b) + (a < b) - 1\n")
    by_seed = {seed: [fault.new_line for fault in sample_of(faults, 4, seed)] for seed in range(8)}

    assert by_seed[3] == [fault.new_line for fault in sample_of(faults, 4, 3)]
    assert len({tuple(lines) for lines in by_seed.values()}) > 1
    for fault in sample_of(faults, len(faults), 0):
        compile(fault.text, "toy.py", "exec")


def test_an_accepted_fault_is_found_again_on_another_line(tmp_path: Path) -> None:
    old, moved = (faults_in(f"{above}x = 511\n")[0] for above in ("", "\n\n"))
    path = tmp_path / "accepted.txt"
    path.write_text(f"# Why.\n{old.source.path}\n    {old.old_line}\n    {old.new_line}\n    It is the same.\n")

    assert old.line != moved.line
    assert load_accepted(path) == {key_of(moved): "It is the same."}


def test_every_accepted_fault_can_still_be_made() -> None:
    root = ACCEPTED_FILE.parents[2]
    sources = [
        Source(path.relative_to(root).as_posix(), path.read_bytes()) for path in (root / "memtrace").rglob("*.py")
    ]
    accepted = load_accepted(ACCEPTED_FILE)
    files = {file for file, _, _ in accepted}
    known = KnownNames(sources)

    possible = {key_of(fault) for source in sources if source.path in files for fault in faults_of(source, known)}

    assert set(accepted) <= possible
