"""What the whole package says of its names: the fields of each class, what a call needs, where a name is used."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

from tests.mutants.source import FUNCTIONS, Place, Source, expressions, places


class KnownNames:
    """An index over all files of a package."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.fields: dict[str, dict[str, str]] = {}
        """The fields of each dataclass, with the text of their types."""
        self.classes_with: dict[str, set[str]] = defaultdict(set)
        """Which dataclasses have a field of a name."""
        self.required: dict[str, set[str]] = defaultdict(set)
        """Which arguments a function or dataclass of a name cannot do without."""
        self.uses: dict[str, list[tuple[str, Place]]] = defaultdict(list)
        """The statements that use a name, with their files."""
        for source in sources:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.ClassDef) and _is_dataclass(node):
                    self._add_class(node)
                elif isinstance(node, FUNCTIONS):
                    self.required[node.name] |= _required(node.args)
            for place in places(source.tree):
                for name in _names_in(place):
                    self.uses[name].append((source.path, place))

    def _add_class(self, node: ast.ClassDef) -> None:
        fields = [stmt for stmt in node.body if isinstance(stmt, ast.AnnAssign) and isinstance(stmt.target, ast.Name)]
        named = {field.target.id: field for field in fields if isinstance(field.target, ast.Name)}
        # Classes of one name in several files count as one with the fields of all.
        types = self.fields.setdefault(node.name, {})
        types.update({name: ast.unparse(field.annotation) for name, field in named.items()})
        self.required[node.name] |= {name for name, field in named.items() if field.value is None}
        for name in named:
            self.classes_with[name].add(node.name)

    def sibling(self, class_name: str | None, field: str) -> str | None:
        """Return the next field of the same type; without a class, of the only class that has such a field."""
        if class_name is None or field not in self.fields.get(class_name, {}):
            owners = self.classes_with.get(field, set())
            if len(owners) != 1:
                return None
            (class_name,) = owners
        types = self.fields[class_name]
        alike = [name for name, type_text in types.items() if type_text == types[field]]
        return alike[(alike.index(field) + 1) % len(alike)] if len(alike) > 1 else None


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list) or any(
        ast.unparse(base).endswith("NamedTuple") for base in node.bases
    )


def _required(arguments: ast.arguments) -> set[str]:
    ordered = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
    without = ordered[: len(ordered) - len(arguments.defaults)]
    by_keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {*without, *(argument.arg for argument, default in by_keyword if default is None)}


def _names_in(place: Place) -> set[str]:
    names = set()
    for expression in expressions(place.node):
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    return names
