"""Every fault that may be put into a package, and a random sample of them."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.mutants import operators
from tests.mutants.known_names import KnownNames
from tests.mutants.source import Place, Source, expressions, nodes_of, places


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One change of one place of one file."""

    source: Source
    place: Place
    start: int
    end: int
    new: str

    @property
    def text(self) -> bytes:
        """The whole file with the fault in it."""
        whole = self.source.text
        return whole[: self.start] + self.new.encode() + whole[self.end :]

    @property
    def line(self) -> int:
        """The line that it changes, the first one if there are more."""
        return self.source.line_of(self.start)

    @property
    def old_line(self) -> str:
        """That line as it is."""
        return self.source.lines[self.line - 1].decode().strip()

    @property
    def new_line(self) -> str:
        """That line with the fault in it."""
        return self.text.splitlines()[self.line - 1].decode().strip()


def faults_of(source: Source, known: KnownNames) -> Iterator[Fault]:
    """Yield every fault of a file, those that do not compile among them."""
    for place in places(source.tree):
        for start, end, new in _changes(source, place, known):
            yield Fault(source=source, place=place, start=start, end=end, new=new)


def _changes(source: Source, place: Place, known: KnownNames) -> Iterator[operators.Change]:
    yield from operators.statements(source, place)
    for expression in expressions(place.node):
        kept = _kept(expression)
        for node in nodes_of(source, expression):
            if id(node) in kept:
                continue
            yield from operators.comparisons(source, node)
            # `A | B` at the top of a module is a type.
            if place.function is not None or not isinstance(getattr(node, "op", None), ast.BitOr):
                yield from operators.arithmetic(source, node)
            yield from operators.booleans(source, node)
            yield from operators.constants(source, node)
            yield from operators.opposites(source, node)
            yield from operators.dropped_keywords(source, node, known)
            yield from operators.sibling_fields(source, node, place, known)


def _kept(expression: ast.expr) -> set[int]:
    """Return the nodes that stay as they are: values of keywords that no test holds, and columns that are measured.

    All columns of a table are equally long, so that the length of another is the same.
    """
    found = set()
    for node in ast.walk(expression):
        if isinstance(node, ast.keyword) and node.arg in operators.NOT_TESTED and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len":
            found |= {id(one) for one in node.args if isinstance(one, ast.Attribute)}
    return found


def sample_of(faults: Iterable[Fault], size: int, seed: int) -> Sequence[Fault]:
    """Return a random sample of the faults that compile, the same for the same seed and sources."""
    shuffled = list(faults)
    random.Random(seed).shuffle(shuffled)
    chosen: list[Fault] = []
    for fault in shuffled:
        if len(chosen) == size:
            break
        if _compiles(fault):
            chosen.append(fault)
    return chosen


def _compiles(fault: Fault) -> bool:
    try:
        compile(fault.text, fault.source.path, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
